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
from ledger.cursor import Anchor
from ledger.feed import CursorAheadError, CursorForkedError, Feed, Selection
from ledger.rendering import BODIES_BYTES_MAX, Event

KEPT: Final = 2_000  # events in memory; whoever is further behind reads the log
KEPT_BYTES: Final = BODIES_BYTES_MAX  # of their JSON, besides the newest
PAGE: Final = 500
POLL_S: Final = 1.0
_EVERYTHING: Final = Selection()
_NOWHERE: Final = Anchor(-1)  # before the first look
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
    """Reads the end of the log while run() runs and somebody follows. `place` is how far it has read.

    Without followers it reads nothing: every event that is written would be unsealed for nobody. Each look compares what stands at its
    place: where the log is another one by now, followers are sent to the log, and learn there that theirs is gone.
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
        self.place = _NOWHERE
        self._sure = False  # whether what is in memory was compared with the log since the database was last away
        self._before = b""  # the leaf hash at the position before the first of the events
        self.arrivals = Arrivals()  # told after each look that found something

    @property
    def read_to(self) -> int:
        """The position up to which it has read; -1 before the first look."""
        return self.place.position

    def since(self, place: Anchor) -> list[Event] | None:
        """All events after a place, or None where some of them are not in memory (any more, or not yet), or the log may be another one.

        They are shared by all who follow: nobody changes them, and nobody keeps more of them than it is just sending.
        """
        first = self.read_to - len(self._events) + 1
        if (
            not self._sure
            or self.read_to < place.position
            or place.position + 1 < first
            or self._leaf_at(place.position - first) != place.leaf_hash
        ):
            return None
        return list(islice(self._events, place.position + 1 - first, None))

    def _leaf_at(self, number: int) -> bytes:
        """What stands where one of the events in memory does, by its number among them, or before the first of them (-1)."""
        return self._events[number].leaf_hash if number >= 0 else self._before

    def doubt(self) -> None:
        """Give nothing out until the next look has compared it: the database was away, or the log was found to be another one."""
        self._sure = False

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
            self._begin_at(_NOWHERE)

    async def run(self) -> None:
        """Read until cancelled. While the database is away nothing new is told."""
        while True:
            await self._wanted.wait()
            hint = self._hints.next()
            try:
                await self._look()
            except LOST:
                self.doubt()
                _log.warning("tail_away")
            except Exception:  # whatever it is: were this to end, every reader of it would wait in vain
                self.doubt()
                _log.exception("tail_failed")
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(POLL_S):
                    await hint.wait()

    async def _look(self) -> None:
        """Read what is new; at the first look, behind more than is kept, and in a log that was exchanged, begin at its end."""
        if self.read_to < 0:
            await self._begin_at_the_end()
            return
        try:
            await self._read()
        except (CursorAheadError, CursorForkedError) as exchanged:
            _log.warning("log_forked", read_to=self.read_to, head=exchanged.head)
            await self._begin_at_the_end()

    async def _begin_at_the_end(self) -> None:
        """Followers read the log themselves up to there."""
        async with self._connection() as conn:
            head = await self._feed.head(conn, self._selection)
            self._begin_at(await self._feed.anchor_at(conn, head) or _NOWHERE)
        self._sure = True
        self.arrivals.announce()

    async def _read(self) -> None:
        """Read page by page; each compares what stands at our place with what stood there."""
        head = self.read_to + 1
        while self.read_to < head and self._followers:
            before = self.place
            events, place, head = await self._feed.read(self._connection, self._selection, before, PAGE)
            if self.place != before:
                return  # the last follower left meanwhile
            if head - before.position > KEPT:
                await self._begin_at_the_end()
                return
            self._keep(events)
            news, self.place, self._sure = place != before or not self._sure, place, True
            if news:
                self.arrivals.announce()

    def _keep(self, events: Sequence[Event]) -> None:
        """Remember events, and forget the oldest beyond what is kept."""
        self._events.extend(events)
        self._bytes += sum(event.size for event in events)
        while len(self._events) > KEPT or (len(self._events) > 1 and self._bytes - self._events[-1].size > KEPT_BYTES):
            oldest = self._events.popleft()
            self._bytes -= oldest.size
            self._before = oldest.leaf_hash

    def _begin_at(self, place: Anchor) -> None:
        """With nothing in memory."""
        self._events.clear()
        self._bytes = 0
        self.place, self._before = place, place.leaf_hash
