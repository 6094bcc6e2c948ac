"""Room on the disk of the embedded PostgreSQL.

A server that cannot write its log ends, and cannot even start again. So writes are refused while there is still room for it to clean up,
to stop in order, and for an operator's acts.
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
    """Looks at most every half a second. `place`: a directory on that disk; `free`: bytes free there, raises OSError."""

    def __init__(
        self, place: Path, free: Callable[[Path], int] = free_bytes, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._place, self._free, self._clock = place, free, clock
        self._looked = -math.inf
        self._found: Fault | None = None

    def trouble(self) -> Fault | None:
        """Why nothing may be written, or None."""
        now = self._clock()
        if now - self._looked >= LOOK_S:
            self._looked, self._found = now, self._look()
        return self._found

    def _look(self) -> Fault | None:
        try:
            return NEARLY_FULL if self._free(self._place) < FREE_BYTES_MIN else None
        except OSError:
            return GONE
