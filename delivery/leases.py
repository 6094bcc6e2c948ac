"""Tells which holders of leases are alive: a holder is alive if its row changes between two looks of ours. Pure.

A holder renews its lease every second, which changes its row. Whoever would take over waits until it has itself looked at an unchanged
row for as long as the lease is. So no two clocks are compared, and setting one moves no lease. Time that it did not look
(because it was stopped, or the database away) does not count: in that time nobody could renew anything, or it could not have seen it.
"""

import time
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from typing import Final, Generic, TypeVar

GAP_MAX_S: Final = 2.0  # of time between two looks that counts; looks are a second apart
Holder = TypeVar("Holder", bound=Hashable)


@dataclass(slots=True)
class Signs(Generic[Holder]):
    """The last sign of each holder, and for how long that sign has been the same."""

    _seen: dict[Holder, tuple[Hashable, float]] = field(default_factory=dict[Holder, tuple[Hashable, float]])
    _looked: float | None = None

    def look(self, found: Mapping[Holder, Hashable], now: float) -> None:
        """Compare with the look before. `now` is a clock of one's own that nobody sets."""
        passed = 0.0 if self._looked is None else min(max(now - self._looked, 0.0), GAP_MAX_S)
        self._looked = now
        before, self._seen = self._seen, {}
        for key, sign in found.items():
            known = before.get(key)
            self._seen[key] = (sign, known[1] + passed if known is not None and known[0] == sign else 0.0)

    def quiet_s(self, key: Holder) -> float:
        """For how long the sign of one that was there at the last look has been the same."""
        return self._seen[key][1]


def _steady() -> Callable[[], float]:
    """Seconds of a clock that nobody sets and that goes on while the process is stopped, and while the machine sleeps where that can be told."""
    boot = getattr(time, "CLOCK_BOOTTIME", None)  # Linux only
    return time.monotonic if boot is None else lambda: time.clock_gettime(boot)


steady: Final = _steady()
