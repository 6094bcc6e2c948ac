"""The feed as Server-Sent Events: one connection, pushed as events come (docs/events.md, "The stream").

A reader that is behind reads pages of the log. A reader that has caught up takes events from the tail, which all readers share.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from fastapi import APIRouter, Request
from starlette.responses import StreamingResponse

from api.gate import caller_of
from api.invalid_fields import StrictRoute
from api.problems import document, problem_of
from api.revocation import still_allowed, token_hash_of
from api.services import Services
from database.connections import LOST
from ledger.cursor import Anchor, Cursor
from ledger.events import BY_NUMBER, TOKEN_REVOKED, TOKEN_ROTATED
from ledger.feed import CursorAheadError, CursorForkedError, Page, Selection
from ledger.ids import Position
from ledger.rendering import Event
from ledger.tokens import ENDLESS
from operations import events
from operations.events import Question
from operations.expansion import Expansion, expanded, expanded_page
from scim.errors import Unauthorized

PAGE: Final = 500
PAGE_BYTES: Final = 2**20  # bytes of a page besides its first event; small, because many slow clients may hold a page each
PIECE_BYTES: Final = 256 * 2**10  # bytes that are sent at once, unless one event is larger
COVERED_S: Final = 5.0
HEARTBEAT_S: Final = 15.0
SURE_S: Final = 1.0  # how long the last check of a token stays good, if the events read since then end no token
ENDS_TOKENS: Final = frozenset({TOKEN_REVOKED.number, TOKEN_ROTATED.number})
RETRY_MS: Final = 1_000  # after which a client reconnects
HEADERS: Final = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}


class EventStream(StreamingResponse):
    """Server-Sent Events."""

    media_type = "text/event-stream"


def routes(services: Services) -> APIRouter:
    """GET /v1/events/stream."""
    router = APIRouter(route_class=StrictRoute)

    @router.get("/v1/events/stream", name="events.stream")
    async def stream_events(
        request: Request,
        after: str | None = None,
        directory: str | None = None,
        types: str | None = None,
        subject: str | None = None,
        expand: str | None = None,
    ) -> EventStream:
        """The feed as Server-Sent Events."""
        after = request.headers.get("last-event-id") or after
        question = Question(directory, types, subject, expand=expand)
        reading = await events.follow(services.ledger, caller_of(request), question, after=after)
        follower = _Follower(
            services, reading.selection, reading.cursor, token_hash_of(request), reading.filtered, reading.expansion
        )
        return EventStream(follower.lines(), headers=HEADERS)

    return router


@dataclass(eq=False, slots=True)
class _Follower:
    """One reader of the stream. `place`: the position up to which it has seen everything, None while it reads pages."""

    services: Services
    selection: Selection
    cursor: Cursor
    token: bytes | None
    filtered: bool
    expansion: Expansion | None = None
    place: Anchor | None = None
    told: int = 0  # the number up to which `covered` was sent
    sure_until: float = 0.0  # event loop time until which the token need not be checked again
    ends_at: datetime = ENDLESS

    async def lines(self) -> AsyncIterator[bytes]:
        """Blocks of the stream, until the token is revoked or the client goes away."""
        self.services.tail.follow(self)
        try:
            async for block in self._lines():
                yield block
        except Unauthorized:
            return
        except (CursorAheadError, CursorForkedError) as lost:  # the log was restored, or a lagging standby was promoted
            yield self._lost(lost)
        finally:
            self.services.tail.leave(self)

    async def _lines(self) -> AsyncIterator[bytes]:
        loop = asyncio.get_running_loop()
        interval = COVERED_S if self.filtered else HEARTBEAT_S
        self.told = self.cursor.number
        yield f"retry: {RETRY_MS}\n\n".encode()
        beat_at = loop.time() + interval
        while True:
            arrival = self.services.tail.arrivals.next()  # announced also when the service stops
            try:
                async for block in self._news():
                    yield block
            except LOST:
                self.place = None  # reads pages from its cursor once the database is back
            if self.services.stopping:
                return
            if loop.time() >= beat_at:
                beat_at = loop.time() + interval
                with contextlib.suppress(*LOST):  # while the database is away there are no new events
                    await self._make_sure()
                yield self._covered() if self.filtered else b": still here\n\n"
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(arrival.wait(), max(beat_at - loop.time(), 0.0))

    async def _news(self) -> AsyncIterator[bytes]:
        """New events, in pieces. What a slow client has not taken is read again later instead of being kept in memory."""
        while True:
            events = self.services.tail.since(self.place) if self.place is not None else None
            if events is None:
                page = await self._page()
                async for piece in self._pieces(page.events):
                    yield piece
                self.cursor = page.after
                if not page.events and not page.has_more:
                    return  # the tail has not read so far yet; it announces when it has
                continue
            if not events:
                return
            if self.expansion is not None:  # copies: the events of the tail are those of all readers
                events = await expanded(self.services.ledger, self.expansion, events, self.selection.takes)
            piece, seen = self._piece(events, 0)
            after = self._passed(events[:seen])
            ended = any(event.kind in ENDS_TOKENS for event in events[:seen])
            del events
            if ended or (piece and not self._sure()):
                await self._make_sure()
            if piece:
                yield piece
            self.place, self.cursor = after

    def _sure(self) -> bool:
        """Whether the token was valid when the current events were committed, without asking the database.

        The tail skips no event, so the event that revokes a token is seen before all events committed after it. Only expiry is checked
        by time.
        """
        now = datetime.fromtimestamp(self.services.ledger.clock() / 1_000_000, UTC)
        return asyncio.get_running_loop().time() < self.sure_until and now < self.ends_at

    async def _make_sure(self) -> None:
        """Check the token now. Raises as `still_allowed` does."""
        asked = asyncio.get_running_loop().time()
        self.ends_at = await still_allowed(self.services, self.token)
        self.sure_until = asked + SURE_S

    async def _pieces(self, events: list[Event]) -> AsyncIterator[bytes]:
        start = 0
        while start < len(events):
            piece, end = self._piece(events, start)
            await self._make_sure()
            yield piece
            self.cursor = self.services.ledger.feed.cursor_after(events[end - 1], self.selection)
            start = end

    def _piece(self, events: list[Event], start: int) -> tuple[bytes, int]:
        """The blocks of this reader's events from an index on, up to PIECE_BYTES, and the next index."""
        blocks, size = list[bytes](), 0
        for place in range(start, len(events)):
            event = events[place]
            if self.selection.takes(event) and self._new(event):
                block = self._block(event)
                if blocks and size + len(block) > PIECE_BYTES:
                    return b"".join(blocks), place
                blocks.append(block)
                size += len(block)
        return b"".join(blocks), len(events)

    def _passed(self, events: list[Event]) -> tuple[Anchor, Cursor]:
        """The place and cursor after these events, shown or filtered out."""
        place, own = Anchor(events[-1].position, events[-1].leaf_hash), self.selection.directory
        last = events[-1] if own is None else next((event for event in reversed(events) if event.directory == own.id), None)
        if last is None or (own is not None and last.seq <= self.cursor.number):
            return place, self.cursor
        return place, self.services.ledger.feed.cursor_after(last, self.selection)

    async def _page(self) -> Page:
        """The next page of the log. If it reaches the head, the tail continues from the place where it was before the read."""
        known, self.sure_until = self.services.tail.place, 0.0  # the page may skip the event that revokes the token
        feed, connection = self.services.ledger.feed, self.services.ledger.connection
        page = await feed.page(connection, self.selection, self.cursor, PAGE, budget=PAGE_BYTES)
        page = await expanded_page(self.services.ledger, self.expansion, self.selection, page)
        here = Anchor(Position(page.covered_to), page.leaf_hash) if self.selection.directory is None else known
        self.place = None if page.has_more else here  # a place before the page would show its events twice
        return page

    def _new(self, event: Event) -> bool:
        """Whether an event comes after the cursor. In the feed of one directory the tail may begin with events of the last page."""
        return self.selection.directory is None or event.seq > self.cursor.number

    def _block(self, event: Event) -> bytes:
        cursor = self.services.ledger.feed.cursor_after(event, self.selection).encode()
        named = f"id: {cursor}\nevent: {BY_NUMBER[event.kind].topic}\ndata: ".encode()
        return b"".join((named, event.json if self.selection.bodies else event.structure, b"\n\n"))

    def _lost(self, error: Exception) -> bytes:
        """The block for a lost end of the log. It has no id; a client that reconnects with its last id gets the same error as status."""
        return b"event: error\ndata: " + document(problem_of(error), str(self.services.new_request_id())) + b"\n\n"

    def _covered(self) -> bytes:
        """The block `covered`: the range that the reader has seen. Together these ranges cover the log without a gap."""
        first, last = self.told + 1, self.cursor.number
        self.told = last
        data = f'{{"from_position":{first},"to_position":{last}}}'
        return f"id: {self.cursor.encode()}\nevent: covered\ndata: {data}\n\n".encode()
