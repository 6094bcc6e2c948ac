"""What a process forgets once it was erased: it looks for new erasures, and tells those who hold events or names in memory.

An erasure commits in one process; others have its subject in memory: rendered events of the tail and of deliveries, names of groups.
Within a second each of them looks, and whoever is about to send what was rendered a while ago asks first (`current`).
"""

import asyncio
import contextlib
from collections import OrderedDict
from collections.abc import Callable, Collection
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Final
from uuid import UUID

import structlog

from database.connections import LOST, Connection
from ledger.receipts import erased_since, last_number
from ledger.rendering import ERASED
from ledger.tail import Arrivals
from scim.errors import Unavailable

LOOK_S: Final = 1.0
PAUSE_S: Final = 0.25  # between two looks, however many commits there are
FRESH_S: Final = 0.1  # what a look found is that old at most for whoever asks for the current state
FIRST: Final = 1_000  # erasures before the first look that are forgotten too: something may have been read before it
REMEMBERED_MAX: Final = 100_000
_log = structlog.get_logger("ledger.forgetting")


@dataclass(slots=True)
class Forgetting:
    """The newest erased subjects. `forget` is called with each new one, on the event loop."""

    connection: Callable[[], AbstractAsyncContextManager[Connection]]
    forget: Callable[[Collection[UUID]], None]
    found: asyncio.Event = field(default_factory=asyncio.Event)  # set by each look that finds an erasure
    _subjects: OrderedDict[UUID, None] = field(default_factory=OrderedDict[UUID, None])
    _number: int | None = None
    _looked_at: float = 0.0  # event loop time at which the last look began
    _one: asyncio.Lock = field(default_factory=asyncio.Lock)

    def __contains__(self, subject: object) -> bool:
        return subject in self._subjects

    def stale(self, subject: UUID, json: bytes) -> bool:
        """Whether the JSON of an event of a subject was rendered before the subject was erased."""
        return bool(json) and subject in self._subjects and ERASED not in json

    async def current(self) -> None:
        """Look, unless the last look began a moment ago. Raises psycopg errors."""
        clock = asyncio.get_running_loop().time
        async with self._one:
            if self._number is None or clock() - self._looked_at > FRESH_S:
                await self.look()

    async def look(self) -> None:
        """Look for new erasures. Raises psycopg errors."""
        began = asyncio.get_running_loop().time()
        async with self.connection() as conn:
            if self._number is None:
                self._number = max(0, await last_number(conn) - FIRST)
            rows = await erased_since(conn, self._number)
        self._looked_at = began
        if not rows:
            return
        self._number = rows[-1][0]
        self._subjects.update((subject, None) for _, subject in rows)
        while len(self._subjects) > REMEMBERED_MAX:
            self._subjects.popitem(last=False)
        self.forget({subject for _, subject in rows})
        self.found.set()

    async def run(self, hints: Arrivals) -> None:
        """Look after each commit, and each second, until cancelled."""
        while True:
            hint = hints.next()
            try:
                async with self._one:
                    await self.look()
            except (*LOST, Unavailable):
                pass  # told elsewhere; nothing can be erased meanwhile
            except Exception:  # a defect must not end it: what it forgets would be shown
                _log.exception("forgetting_failed")
            await asyncio.sleep(PAUSE_S)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK_S - PAUSE_S):
                    await hint.wait()
