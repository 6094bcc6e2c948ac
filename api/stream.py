"""The feed as Server-Sent Events: one connection, pushed as events come (CONTRACT §4).

Whoever is behind reads pages; whoever has caught up takes events from the tail that all readers of a process share.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Final

from fastapi import APIRouter, Request
from starlette.responses import StreamingResponse

from api.events import cursor_of, selection_of
from api.gate import caller_of
from api.problems import DATABASE_AWAY
from api.services import Services
from ledger.cursor import Cursor
from ledger.events import BY_NUMBER
from ledger.feed import Event, Page, Selection, withheld
from ledger.tokens import token_hash

PAGE: Final = 500
COVERED_S: Final = 5.0
HEARTBEAT_S: Final = 15.0
RETRY_MS: Final = 1_000  # how soon a client comes back when the connection breaks
HEADERS: Final = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}


def routes(services: Services) -> APIRouter:
    """GET /v1/events/stream."""
    router = APIRouter()

    @router.get("/v1/events/stream", name="events.stream")
    async def stream_events(
        request: Request,
        after: str | None = None,
        directory: str | None = None,
        types: str | None = None,
        subject: str | None = None,
    ) -> StreamingResponse:
        token = caller_of(request).token
        async with services.pool.connection() as conn:
            selection = await selection_of(services, conn, token, directory, types, subject, None, None)
            cursor = await cursor_of(services, conn, token, selection, request.headers.get("last-event-id") or after)
        hashed = token_hash(request.headers["authorization"].split()[-1])
        filtered = bool(types or subject or directory or token.types != ("*",) or "*" not in token.directories)
        follower = _Follower(services, selection, cursor, hashed, filtered=filtered)
        return StreamingResponse(follower.lines(), media_type="text/event-stream", headers=HEADERS)

    return router


@dataclass(eq=False, slots=True)
class _Follower:
    """One reader of the stream. `position` is how far in the ledger it has seen everything, once it has caught up."""

    services: Services
    selection: Selection
    cursor: Cursor
    token: bytes
    filtered: bool
    position: int | None = None
    told: int = 0  # the number up to which `covered` was told

    async def lines(self) -> AsyncIterator[bytes]:
        """Blocks of the stream, until the token is revoked or the client goes away."""
        self.services.tail.follow(self)
        try:
            async for block in self._lines():
                yield block
        finally:
            self.services.tail.leave(self)

    async def _lines(self) -> AsyncIterator[bytes]:
        loop = asyncio.get_running_loop()
        interval = COVERED_S if self.filtered else HEARTBEAT_S
        self.told = self.cursor.number
        yield f"retry: {RETRY_MS}\n\n".encode()
        beat_at = loop.time() + interval
        while True:
            arrival = self.services.tail.arrivals.next()  # also told when the service stops
            try:
                async for block in self._news():
                    yield block
            except DATABASE_AWAY:
                self.position = None  # goes on where it was once the database is back
            if self.services.stopping:
                return
            if loop.time() >= beat_at:
                beat_at = loop.time() + interval
                if not await self._still_allowed():
                    return
                yield self._covered() if self.filtered else b": still here\n\n"
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(arrival.wait(), max(beat_at - loop.time(), 0.0))

    async def _news(self) -> AsyncIterator[bytes]:
        while self.position is None or (events := self.services.tail.since(self.position)) is None:
            page = await self._page()
            if page.events:
                yield b"".join([self._block(event) for event in page.events])
            self.cursor = page.after
            if not page.events and not page.has_more:
                return  # the tail is not here yet; it tells when it is
        mine = [event for event in events if self.selection.takes(event) and self._new(event)]
        if mine:
            yield b"".join([self._block(event) for event in mine])
        self._pass(events)

    def _pass(self, events: list[Event]) -> None:
        """Move past what was looked at, whether it was shown or filtered out."""
        if not events:
            return
        self.position = events[-1].position
        own = self.selection.directory
        if own is None:
            self.cursor = Cursor(events[-1].position, _mark(events[-1]))
            return
        last = next((event for event in reversed(events) if event.directory == own.id), None)
        if last is not None and last.seq > self.cursor.number:
            self.cursor = Cursor(last.seq, _mark(last), own.id)

    async def _page(self) -> Page:
        """The next page from the log; once it ends at the head, the tail goes on from where the head was before."""
        known = self.services.tail.read_to
        async with self.services.pool.connection() as conn:
            page = await self.services.feed.page(conn, self.selection, self.cursor, PAGE)
        if not page.has_more:
            self.position = page.covered_to if self.selection.directory is None else known
        return page

    def _new(self, event: Event) -> bool:
        """In the feed of one directory the tail may begin with what a page has shown."""
        return self.selection.directory is None or event.seq > self.cursor.number

    def _block(self, event: Event) -> bytes:
        number = event.position if self.selection.directory is None else event.seq
        directory = self.selection.directory.id if self.selection.directory else 0
        self.cursor = Cursor(number, _mark(event), directory)
        shown = event.json if self.selection.bodies else withheld(event)
        return b"".join(
            (
                b"id: ",
                self.cursor.encode().encode(),
                b"\nevent: ",
                BY_NUMBER[event.kind].topic.encode(),
                b"\ndata: ",
                shown,
                b"\n\n",
            )
        )

    def _covered(self) -> bytes:
        """What the reader has seen everything of that is its own: together these tile the log."""
        first, last = self.told + 1, self.cursor.number
        self.told = last
        data = f'{{"from_position":{first},"to_position":{last}}}'
        return f"id: {self.cursor.encode()}\nevent: covered\ndata: {data}\n\n".encode()

    async def _still_allowed(self) -> bool:
        with contextlib.suppress(*DATABASE_AWAY):
            return await self.services.tokens.get(self.token) is not None
        return True


def _mark(event: Event) -> bytes:
    """The mark of a cursor stands at the end of the event's id."""
    end = event.json.index(b'"', len(b'{"object":"event","id":"'))
    return bytes.fromhex(event.json[end - 8 : end].decode())
