"""The text of /metrics for a scrape. It is cached for some seconds, so scrapes cannot load the database."""

import contextlib
from collections.abc import Callable
from typing import Final

from api.metrics import REVOCATION_SECONDS, exposition, named_exposition, show_consumers, show_directories, show_tokens
from api.recent import Recent
from database.connections import LOST
from operations.figures import figures, head_of, revocations_acknowledged
from operations.open_ledger import OpenLedger

RECENT_S: Final = 3.0  # Prometheus scrapes every 15 s or less often
MEDIA_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"


class Scrapes:
    """The text of /metrics. `queued`: commands waiting for the writer."""

    def __init__(self, ledger: OpenLedger, queued: Callable[[], int]) -> None:
        self._ledger, self._queued = ledger, queued
        self.nameless = Recent(self._nameless, RECENT_S)
        self.whole = Recent(self._whole, RECENT_S)

    async def _nameless(self) -> bytes:
        head = -1  # the value while the database is away
        with contextlib.suppress(*LOST):
            head = await head_of(self._ledger)
        return exposition(self._queued(), head)

    async def _whole(self) -> bytes:
        nameless = await self.nameless.get()
        with contextlib.suppress(*LOST):  # while the database is away the last figures stay
            of_consumers, of_directories, of_tokens = await figures(self._ledger)
            show_consumers(of_consumers)
            show_directories(of_directories)
            show_tokens(of_tokens)
            while rows := await revocations_acknowledged(self._ledger, REVOCATION_SECONDS.seen):
                REVOCATION_SECONDS.count(rows)
        return nameless + named_exposition()
