"""The newest events of the log, read once for all followers: a thousand idle readers cost one query a second.

NOTIFY makes the tail read at once. It also reads every second, so a lost notification delays events but loses none.
"""

import asyncio
import contextlib
from collections import OrderedDict, deque
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import AbstractAsyncContextManager
from itertools import islice
from typing import Final
from uuid import UUID

import structlog

from database.connections import LOST, Connection
from ledger.cursor import Anchor
from ledger.feed import CursorAheadError, CursorForkedError, Feed, Selection
from ledger.ids import Position
from ledger.rendering import BODIES_BYTES_MAX, ERASED, NO_DATA, Event

KEPT: Final = 2_000  # events in memory; a reader that is further behind reads pages of the log
KEPT_BYTES: Final = BODIES_BYTES_MAX  # bytes of their JSON, without the newest event
PAGE: Final = 500
ERASED_MAX: Final = 10_000  # erased subjects in memory
POLL_S: Final = 1.0
_EVERYTHING: Final = Selection()
_NOWHERE: Final = Anchor(Position(-1))  # before the first read
_log = structlog.get_logger("ledger.tail")


class Arrivals:
    """Wakes tasks that wait for new events. Only a hint: they read the log afterwards."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def announce(self) -> None:
        waiting, self._event = self._event, asyncio.Event()
        waiting.set()

    def next(self) -> asyncio.Event:
        """The asyncio.Event of the next announcement. Take it before reading, otherwise an announcement in between is missed."""
        return self._event


class Tail:
    """Reads the end of the log while run() runs and there are followers. `place` is how far it has read.

    Without followers it reads nothing, because opening every new event would be wasted work. Each read compares the leaf hash at
    `place`. If the log was replaced, since() returns None; followers then read the log and get the error for their cursor there.
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
        self._sure = False  # whether the events in memory were compared with the log since the database was last away
        self._erased: OrderedDict[UUID, None] = (
            OrderedDict()
        )  # the newest erased subjects: a page may have been read before the erasure
        self._before = b""  # the leaf hash of the event before the first one in memory
        self.arrivals = Arrivals()  # announced after each read that found events

    @property
    def read_to(self) -> int:
        """The position up to which the tail has read; -1 before the first read."""
        return self.place.position

    def since(self, place: Anchor) -> list[Event] | None:
        """All events after a place; None if some are not in memory, or the log may have been replaced. Read the log then.

        The events are shared: do not change them, and keep only those that are being sent.
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
        """The leaf hash of the event with this index in memory; -1 is the event before the first one."""
        return self._events[number].leaf_hash if number >= 0 else self._before

    def doubt(self) -> None:
        """Make since() return None until the next read has compared the log: the database was away, or the log was replaced."""
        self._sure = False

    @property
    def followed(self) -> bool:
        return bool(self._followers)

    async def wanted(self) -> None:
        """Wait until somebody follows."""
        await self._wanted.wait()

    def follow(self, who: object) -> None:
        """Add a follower. `arrivals` is announced soon after, even without new events."""
        self._followers.add(who)
        self._wanted.set()

    def leave(self, who: object) -> None:
        """Remove a follower. Without followers the tail stops reading and forgets its events."""
        self._followers.discard(who)
        if not self._followers:
            self._wanted.clear()
            self._begin_at(_NOWHERE)

    async def run(self) -> None:
        """Read until cancelled. While the database is away nothing is announced."""
        while True:
            await self._wanted.wait()
            hint = self._hints.next()
            try:
                await self._look()
            except LOST:
                self.doubt()
                _log.warning("tail_away")
            except Exception:  # if this task ended, all followers would wait for ever
                self.doubt()
                _log.exception("tail_failed")
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(POLL_S):
                    await hint.wait()

    async def _look(self) -> None:
        """Read new events. Start from the end of the log at the first read, when too far behind, and when the log was replaced."""
        if self.read_to < 0:
            await self._begin_at_the_end()
            return
        try:
            await self._read()
        except (CursorAheadError, CursorForkedError) as exchanged:
            _log.warning("log_forked", read_to=self.read_to, head=exchanged.head)
            await self._begin_at_the_end()

    async def _begin_at_the_end(self) -> None:
        """Forget the events and go to the end of the log. Followers read the log themselves up to there."""
        async with self._connection() as conn:
            head = await self._feed.head(conn, self._selection)
            self._begin_at(await self._feed.anchor_at(conn, head) or _NOWHERE)
        self._sure = True
        self.arrivals.announce()

    async def _read(self) -> None:
        """Read page by page. Each page compares the leaf hash at `place`; raises CursorAheadError or CursorForkedError."""
        head = self.read_to + 1
        while self.read_to < head and self._followers:
            before = self.place
            events, place, head = await self._feed.read(self._connection, self._selection, before, PAGE)
            if self.place != before:
                return  # the last follower left during the read
            if head - before.position > KEPT:
                await self._begin_at_the_end()
                return
            self._keep(events)
            news, self.place, self._sure = place != before or not self._sure, place, True
            if news:
                self.arrivals.announce()

    def forget(self, subjects: Collection[UUID]) -> None:
        """Show events of erased users and groups in their erased form, also to followers that hold them already."""
        self._erased.update((subject, None) for subject in subjects)
        while len(self._erased) > ERASED_MAX:
            self._erased.popitem(last=False)
        self._scrub(self._events)
        self._bytes = sum(event.size for event in self._events)

    def _scrub(self, events: Iterable[Event]) -> None:
        for event in events:
            if event.obj in self._erased and event.mem is None and event.data not in {b"", NO_DATA}:
                event.data = ERASED

    def _keep(self, events: Sequence[Event]) -> None:
        """Add events, and drop the oldest ones above KEPT or KEPT_BYTES."""
        if self._erased:
            self._scrub(events)
        self._events.extend(events)
        self._bytes += sum(event.size for event in events)
        while len(self._events) > KEPT or (len(self._events) > 1 and self._bytes - self._events[-1].size > KEPT_BYTES):
            oldest = self._events.popleft()
            self._bytes -= oldest.size
            self._before = oldest.leaf_hash

    def _begin_at(self, place: Anchor) -> None:
        """Continue from a place with no events in memory."""
        self._events.clear()
        self._bytes = 0
        self.place, self._before = place, place.leaf_hash
