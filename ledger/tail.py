"""The newest events, read once for all who follow them: a thousand idle followers cost one query a second, not a thousand.

NOTIFY is a hint that makes it look at once; it also looks every second, so a lost notification delays but loses nothing.
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from itertools import islice
from typing import Final

import structlog

from database.connections import LOST, Connection
from ledger.feed import Feed, Selection
from ledger.rendering import BODIES_BYTES_MAX, Event

KEPT: Final = 2_000  # events in memory; whoever is further behind reads the log
KEPT_BYTES: Final = BODIES_BYTES_MAX  # of their JSON, besides the newest
PAGE: Final = 500
POLL_S: Final = 1.0
_EVERYTHING: Final = Selection()
_log = structlog.get_logger("ledger.tail")


class Arrivals:
    """Wakes those who wait for new events. A hint only: whoever wakes reads the log."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def announce(self) -> None:
        waiting, self._event = self._event, asyncio.Event()
        waiting.set()

    def next(self) -> asyncio.Event:
        """The event of the next announcement; take it before reading, so that none is missed."""
        return self._event


class Tail:
    """Reads the end of the log while run() runs and somebody follows. `read_to` is the position up to which it has read.

    Without followers it reads nothing: every event that is written would be unsealed for nobody.
    """

    def __init__(
        self,
        feed: Feed,
        connection: Callable[[], AbstractAsyncContextManager[Connection]],
        hints: Arrivals,
        selection: Selection = _EVERYTHING,
    ) -> None:
        self._feed = feed
        self._connection = connection
        self._hints = hints
        self._selection = selection
        self._events: deque[Event] = deque()
        self._bytes = 0
        self._followers: set[object] = set()
        self._wanted = asyncio.Event()
        self.read_to = -1  # before the first look
        self.arrivals = Arrivals()  # told after each look that found something

    def since(self, position: int) -> list[Event] | None:
        """All events after a position, or None where some of them are not in memory (any more, or not yet).

        They are shared by all who follow: nobody changes them, and nobody keeps more of them than it is just sending.
        """
        first = self.read_to - len(self._events) + 1
        if self.read_to < position or position + 1 < first:
            return None
        return list(islice(self._events, position + 1 - first, None))

    @property
    def followed(self) -> bool:
        return bool(self._followers)

    async def wanted(self) -> None:
        """Wait until somebody follows."""
        await self._wanted.wait()

    def follow(self, who: object) -> None:
        """Read on from now; soon `arrivals` are told, whether there is something new or not."""
        self._followers.add(who)
        self._wanted.set()

    def leave(self, who: object) -> None:
        """The last who leaves ends the reading."""
        self._followers.discard(who)
        if not self._followers:
            self._wanted.clear()
            self._forget()
            self.read_to = -1

    async def run(self) -> None:
        """Read until cancelled. While the database is away nothing new is told."""
        while True:
            await self._wanted.wait()
            hint = self._hints.next()
            try:
                await self._look()
            except LOST:
                _log.warning("tail_away")
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(POLL_S):
                    await hint.wait()

    async def _look(self) -> None:
        async with self._connection() as conn:
            head = await self._feed.head(conn, self._selection)
        if head < self.read_to or head - max(self.read_to, 0) > KEPT or self.read_to < 0:
            # First look, a log that was exchanged, or more at once than is kept: followers read it themselves.
            self._forget()
            self.read_to = head
            self.arrivals.announce()
        while self.read_to < head and self._followers:
            before = self.read_to
            events, covered_to, head = await self._feed.read(self._connection, self._selection, before, PAGE)
            if self.read_to != before:
                return  # the last follower left meanwhile
            self._keep(events)
            self.read_to = covered_to
            self.arrivals.announce()

    def _keep(self, events: Sequence[Event]) -> None:
        """Remember events, and forget the oldest beyond what is kept."""
        self._events.extend(events)
        self._bytes += sum(len(event.json) for event in events)
        while len(self._events) > KEPT or (len(self._events) > 1 and self._bytes - len(self._events[-1].json) > KEPT_BYTES):
            self._bytes -= len(self._events.popleft().json)

    def _forget(self) -> None:
        self._events.clear()
        self._bytes = 0
