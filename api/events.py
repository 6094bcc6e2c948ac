"""The feed over HTTP: GET /v1/events and /v1/events/{id} (docs/events.md, "Reading the feed")."""

import asyncio
import contextlib
from dataclasses import replace
from datetime import datetime
from typing import Annotated, Any, TypeAlias, TypedDict

import anyio.to_thread
from fastapi import APIRouter, Query, Request
from msgspec import Meta

from api.answers import Encoded, ListOf
from api.gate import caller_of
from api.invalid_fields import StrictRoute
from api.revocation import still_allowed, token_hash_of
from api.services import Services
from ledger.event_data import Count, FromOne
from ledger.feed import PAGE_MAX, Page
from operations import events
from operations.events import Question
from operations.expansion import expanded_page

# The JSON Schemas of events are published of their own (event_schemas.py).
EventDocument: TypeAlias = Annotated[dict[str, Any], Meta(extra_json_schema={"$ref": "#/components/schemas/Event"})]
WAIT_MAX_S = 30
LOOK_AGAIN_S = 2.0
ENCODED_ON_LOOP_BYTES = 2 * 2**20  # a larger page is encoded in a worker thread


class Covered(TypedDict):
    """The positions of the log that the page is the whole answer for."""

    from_position: FromOne
    to_position: Count


class EventPage(ListOf[EventDocument]):
    """A page of the feed. `head_position`: the last position of the log."""

    covered: Covered
    head_position: Count


def routes(services: Services) -> APIRouter:
    """The routes of the feed."""
    router, ledger = APIRouter(route_class=StrictRoute), services.ledger

    @router.get("/v1/events", name="events.list")
    async def list_events(
        request: Request,
        after: str | None = None,
        start: Annotated[str | None, Query(alias="from")] = None,
        limit: Annotated[int, Query(ge=1, le=PAGE_MAX)] = 100,
        directory: str | None = None,
        types: str | None = None,
        subject: str | None = None,
        range_start: datetime | None = None,
        range_end: datetime | None = None,
        expand: str | None = None,
        wait: Annotated[int, Query(ge=0, le=WAIT_MAX_S)] = 0,
    ) -> Encoded[EventPage]:
        """Read events in order, in pages that together cover the log."""
        deadline = asyncio.get_running_loop().time() + wait
        question = Question(directory, types, subject, range_start, range_end, expand)
        reading = await events.read(ledger, caller_of(request), question, after=after, start=start)
        cursor = reading.cursor
        while True:
            arrival = services.arrivals.next()
            page = await ledger.feed.page(ledger.connection, reading.selection, cursor, limit)
            page = await expanded_page(ledger, reading.expansion, reading.selection, page)
            await still_allowed(services, token_hash_of(request))
            left = deadline - asyncio.get_running_loop().time()
            if page.events or page.has_more or left <= 0 or services.stopping:
                # `covered` begins where the request began, because it also covers the earlier empty reads.
                return await page_response(replace(page, covered_from=reading.cursor.number + 1))
            cursor = page.after
            await until_news(arrival, left)

    @router.get("/v1/events/{event_id}", name="events.show")
    async def get_event(request: Request, event_id: str, expand: str | None = None) -> Encoded[EventDocument]:
        found = await events.show(ledger, caller_of(request), event_id, expand)
        await still_allowed(services, token_hash_of(request))
        return Encoded(found.json)

    return router


async def until_news(arrival: asyncio.Event, seconds: float) -> None:
    """Wait for an announcement. It may be lost, so the caller reads again after `seconds` in any case."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(min(seconds, LOOK_AGAIN_S)):
            await arrival.wait()


async def page_response(page: Page) -> Encoded[EventPage]:
    """The response with a page; a large one is encoded in a worker thread."""
    large = sum(event.size for event in page.events) > ENCODED_ON_LOOP_BYTES
    body = await anyio.to_thread.run_sync(encode_page, page) if large else encode_page(page)
    return Encoded(body)


def encode_page(page: Page) -> bytes:
    """A page as JSON; the events' own bytes are copied."""
    more = b"true" if page.has_more else b"false"
    return b"".join((
        b'{"object":"list","data":[', b",".join([event.json for event in page.events]), b'],"list_metadata":{"after":"', page.after.encode().encode(),
        b'"},"covered":{"from_position":', str(page.covered_from).encode(), b',"to_position":', str(page.covered_to).encode(),
        b'},"head_position":', str(page.head).encode(), b',"has_more":', more, b"}",
    ))  # fmt: skip
