"""The text of /metrics for a scrape: all processes of the service. It is cached for some seconds, so scrapes cannot load anything."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping
from typing import Final, TypeAlias

import anyio.to_thread

from api.exposition import Exposition, merged, text_of
from api.ledger_figures import named_families, nameless_families, revocation_seconds
from api.metrics import serving_figures
from api.recent import Recent
from database.connections import LOST
from operations.figures import figures, head_of, revocations_acknowledged
from operations.open_ledger import OpenLedger

RECENT_S: Final = 3.0  # Prometheus scrapes every 15 s or less often
MEDIA_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
ByProcess: TypeAlias = Mapping[str, Exposition | None]  # None: the process did not answer in time


async def no_others() -> ByProcess:
    """The other processes of a service that has only one."""
    return {}


class Scrapes:
    """The text of /metrics. `process`: the name of this one. `others`: asks all other processes of the service for their figures."""

    def __init__(self, ledger: OpenLedger, process: str, others: Callable[[], Awaitable[ByProcess]]) -> None:
        self._ledger, self._process, self._others = ledger, process, others
        self._families = named_families([], [], [])
        self._revocations = revocation_seconds()
        self._counted = 0  # the id of the last revocation that is in the histogram
        self.nameless = Recent(self._nameless, RECENT_S)
        self.whole = Recent(self._whole, RECENT_S)

    async def _nameless(self) -> bytes:
        processes, head = await asyncio.gather(self._processes(), self._head())
        return merged(_nameless_texts(processes, head))

    async def _whole(self) -> bytes:
        processes, head, _ = await asyncio.gather(self._processes(), self._head(), self._look())
        named = [found.named for found in processes.values() if found is not None]
        of_ledger = text_of([*self._families, *self._revocations.collect()])
        return merged([*_nameless_texts(processes, head), *named, of_ledger])

    async def _processes(self) -> ByProcess:
        own, others = await asyncio.gather(anyio.to_thread.run_sync(serving_figures, self._process), self._others())
        return {self._process: own, **others}

    async def _head(self) -> int:
        """The last readable position; -1 while the database is away."""
        with contextlib.suppress(*LOST):
            return await head_of(self._ledger)
        return -1

    async def _look(self) -> None:
        """Read the figures of consumers, directories and tokens; while the database is away the last ones stay."""
        with contextlib.suppress(*LOST):
            self._families = named_families(*await figures(self._ledger))
            while rows := await revocations_acknowledged(self._ledger, self._counted):
                for self._counted, consumer, seconds in rows:
                    self._revocations.observe(consumer, seconds)


def _nameless_texts(processes: ByProcess, head: int) -> list[bytes]:
    up = {name: found is not None for name, found in sorted(processes.items())}
    return [text_of(nameless_families(up, head)), *(found.nameless for found in processes.values() if found is not None)]
