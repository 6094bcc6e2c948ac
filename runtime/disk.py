"""Room on the disk of the embedded PostgreSQL.

A PostgreSQL server that cannot write its WAL stops and cannot start again. So writes are refused early: the rest of the disk is for
crash recovery, clean-up, an orderly stop and acts of operators.
"""

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from database.faults import Fault, Kind
from runtime.embedded import FREE_BYTES_MIN, free_bytes

LOOK_S: Final = 0.5
MIB: Final = 2**20
NEARLY_FULL: Final = Fault(
    Kind.OPERATOR, "disk_nearly_full",
    f"Less than {FREE_BYTES_MIN // MIB} MiB are free on the disk of the data directory, so no more is written.",
)  # fmt: skip
GONE: Final = Fault(Kind.OPERATOR, "data_directory_gone", "The data directory cannot be reached.")


class Disk:
    """Checks at most every half second. `place`: a directory on the disk. `free`: returns the free bytes, raises OSError."""

    def __init__(
        self, place: Path, free: Callable[[Path], int] = free_bytes, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._place, self._free, self._clock = place, free, clock
        self._looked = -math.inf
        self._found: Fault | None = None

    def trouble(self) -> Fault | None:
        """The fault if there is no room for writes, else None."""
        now = self._clock()
        if now - self._looked >= LOOK_S:
            self._looked, self._found = now, self._look()
        return self._found

    def _look(self) -> Fault | None:
        try:
            return NEARLY_FULL if self._free(self._place) < FREE_BYTES_MIN else None
        except OSError:
            return GONE
