"""The feed over HTTP: GET /v1/events and /v1/events/{id} (CONTRACT §4)."""

import asyncio
import contextlib
from datetime import datetime
from typing import Annotated

import anyio.to_thread
from fastapi import APIRouter, Query, Request, Response

from api.gate import caller_of
from api.problems import ProblemError
from api.revocation import presented, still_allowed
from api.services import Services
from database.connections import Connection
from delivery import starts
from ledger.commands import parse_id
from ledger.cursor import BEGINNING, Cursor, EventId, InvalidCursorError, decode_cursor, parse_event_id
from ledger.directories import Directory
from ledger.feed import PAGE_MAX, CursorAheadError, Page, Selection, reached, type_mask
from ledger.tokens import Token
from operations import places
from operations.caller import Caller
from operations.places import sight_of

WAIT_MAX_S = 30
LOOK_AGAIN_S = 2.0
ENCODED_ON_LOOP_BYTES = 2 * 2**20  # copied in less than a millisecond


def routes(services: Services) -> APIRouter:
    """The routes of the feed."""
    router = APIRouter()

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
        wait: Annotated[int, Query(ge=0, le=WAIT_MAX_S)] = 0,
    ) -> Response:
        token = caller_of(request).token
        deadline = asyncio.get_running_loop().time() + wait
        async with services.pool.connection() as conn:
            selection = await selection_of(services, conn, token, directory, types, subject, range_start, range_end)
            if after is not None or start is None:
                cursor = await cursor_of(services, conn, token, selection, after)
            else:
                cursor = await _cursor_from(services, conn, caller_of(request), selection, start)
        while True:
            arrival = services.arrivals.next()
            page = await services.feed.page(services.pool.connection, selection, cursor, limit)
            await still_allowed(services, presented(request))
            left = deadline - asyncio.get_running_loop().time()
            if page.events or page.has_more or left <= 0 or services.stopping:
                return await page_response(page)
            cursor = page.after if page.covered_to > cursor.number else cursor
            await until_news(arrival, left)

    @router.get("/v1/events/{event_id}", name="events.show")
    async def get_event(request: Request, event_id: str) -> Response:
        token, parsed = caller_of(request).token, parse_event_id(event_id)
        missing = ProblemError(404, "not_found", "There is no event of this id, or the token does not reach it.")
        if parsed is None or not token.reaches_log(parsed.slug):
            raise missing
        async with services.pool.connection() as conn:
            found = await services.feed.event(conn, parsed, sight_of(caller_of(request)))
        await still_allowed(services, presented(request))
        if found is None:
            raise missing
        return Response(found, media_type="application/json")

    return router


async def until_news(arrival: asyncio.Event, seconds: float) -> None:
    """Wait for an announcement; it is a hint that may be lost, so the caller looks again soon in any case."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(min(seconds, LOOK_AGAIN_S)):
            await arrival.wait()


async def selection_of(
    services: Services,
    conn: Connection,
    token: Token,
    directory: str | None,
    types: str | None,
    subject: str | None,
    range_start: datetime | None,
    range_end: datetime | None,
) -> Selection:
    mask = type_mask(types.split(",")) if types else -1
    allowed = type_mask(token.types)
    if mask is None or allowed is None:
        raise ProblemError(
            400, "invalid_types", "`types` names an event type that does not exist. See docs/events.md for the list."
        )
    about = parse_id(subject) if subject else None
    if subject and about is None:
        raise ProblemError(400, "invalid_subject", "`subject` is the id of a user or group.")
    chosen = await _directory(services, conn, token, directory) if directory else None
    named = (directory,) if directory else token.directories
    some, without = reached(named, await services.directories.all(conn))
    return Selection(chosen, some, without, mask & allowed, about, _micros(range_start), _micros(range_end), token.bodies)


async def _directory(services: Services, conn: Connection, token: Token, slug: str) -> Directory:
    found = await services.directories.by_slug(conn, slug) if token.reaches_log(slug) else None
    if found is None:
        raise ProblemError(403, "forbidden", "This token does not reach a directory of that name.")
    return found


def _micros(moment: datetime | None) -> int | None:
    if moment is None:
        return None
    if moment.tzinfo is None:
        raise ProblemError(
            400, "invalid_parameters", "range_start and range_end take an instant with offset, such as 2026-10-01T00:00:00Z."
        )
    return int(moment.timestamp()) * 1_000_000 + moment.microsecond


async def cursor_of(services: Services, conn: Connection, token: Token, selection: Selection, after: str | None) -> Cursor:
    wanted = selection.directory.id if selection.directory else 0
    if after is None:
        return Cursor(0, BEGINNING, wanted)
    event_id = parse_event_id(after)
    if event_id is not None:
        return await _after_event(services, conn, token, wanted, event_id)
    cursor = decode_cursor(after)
    if cursor.directory != wanted:
        raise InvalidCursorError
    return await services.feed.check(conn, cursor)


async def _after_event(services: Services, conn: Connection, token: Token, wanted: int, event_id: EventId) -> Cursor:
    """The cursor after an event; one that the token may not see is answered as one that does not stand there."""
    named = await services.directories.by_slug(conn, event_id.slug) if token.reaches_log(event_id.slug) else None
    if named is None or (wanted and named.id != wanted):
        raise InvalidCursorError
    place = await services.feed.position_of(conn, event_id, Selection(mask=type_mask(token.types) or 0))
    if place is None:
        head = await services.feed.head(conn, Selection(directory=named))  # an event id counts in the seq of its directory
        raise CursorAheadError(event_id.seq, head)
    if wanted:
        return await services.feed.cursor_at(conn, Selection(directory=named), place[1])
    return await services.feed.cursor_at(conn, Selection(), place[2])


async def page_response(page: Page) -> Response:
    """The answer with a page; a large one is put together off the event loop."""
    large = sum(len(event.json) for event in page.events) > ENCODED_ON_LOOP_BYTES
    body = await anyio.to_thread.run_sync(encode_page, page) if large else encode_page(page)
    return Response(body, media_type="application/json")


async def _cursor_from(services: Services, conn: Connection, caller: Caller, selection: Selection, place: str) -> Cursor:
    """The cursor before a place that a person names, for whoever has none yet: `now`, an instant, a seq of the directory."""
    own = selection.directory
    number = await places.before(services.ledger, conn, caller, place, [own] if own else [])
    if own is not None:
        number = await starts.seq_at(conn, own, number)
    return await services.feed.cursor_at(conn, selection, number)


def encode_page(page: Page) -> bytes:
    """A page as JSON; the events' own bytes are copied."""
    more = b"true" if page.has_more else b"false"
    return b"".join((
        b'{"object":"list","data":[', b",".join([event.json for event in page.events]), b'],"list_metadata":{"after":"', page.after.encode().encode(),
        b'"},"covered":{"from_position":', str(page.covered_from).encode(), b',"to_position":', str(page.covered_to).encode(),
        b'},"head_position":', str(page.head).encode(), b',"has_more":', more, b"}",
    ))  # fmt: skip
