"""Decide which time an event gets, and whether the clocks can be trusted. Pure. Times are µs since the epoch.

The only source of event times is the database's clock_timestamp, read under the directory's lock. It is compared with the clock of
the service, because a single clock cannot be checked, and with the directory's last event, because `at` must never decrease there.
If a clock is wrong, changes from an IdP are refused. Acts of operators are never refused for it: a revocation must always go through.
"""

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Final, Literal

from ledger.ids import Seq
from scim.errors import Unavailable

APART_MAX_US: Final = 60_000_000  # largest difference between the two clocks, and by which the last event may be ahead
CLOCK_RETRY_S: Final = 5
# of a directory: an event gets the clock's time, is refused, or gets the last event's time
Clock = Literal["running", "behind", "frozen"]
CLOCKS_DISAGREE: Final = "clocks_disagree"
CLOCK_BEHIND: Final = "clock_behind_ledger"
_SAYS: Final = {
    CLOCKS_DISAGREE: "The clocks of the service and of its database are more than 60 seconds apart (clocks_disagree); nothing was changed. "
    "Send the request again when an operator has put them right.",
    CLOCK_BEHIND: "The clock of the database is more than 60 seconds behind the last event of this directory (clock_behind_ledger); nothing "
    "was changed. Send the request again when an operator has put the clock right, or accepted it with `directory accept-clock`.",
}


PLUS: Final = "In an address a + is a space: write Z, or %2B."  # about an instant whose offset a query string has lost
EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)


def microseconds(moment: datetime) -> int:
    """An instant, which has a zone, as µs since the epoch."""
    return (moment - EPOCH) // _MICROSECOND


class ClockError(Unavailable):
    """503: no trustworthy time for a change from an IdP. `code` is CLOCKS_DISAGREE or CLOCK_BEHIND."""

    def __init__(self, code: str) -> None:
        super().__init__(_SAYS[code], retry_after=CLOCK_RETRY_S)
        self.code = code


def apart(before: int, database: int, after: int) -> bool:
    """Whether the database's clock differs by more than a minute from the service's, which was read before and after it."""
    return not before - APART_MAX_US <= database <= after + APART_MAX_US


@dataclass(slots=True)
class DirectoryTail:
    """The end of a directory's log while a batch extends it. `at` is the last event's time, `clock` the database's."""

    seq: Seq
    at: int
    clock: int
    accepted: bool = False  # an operator accepted that events get the time `at` until the clock has passed it
    doubted: bool = field(default=False, init=False)

    def compare(self, before: int, after: int) -> None:
        """Compare the database's clock with the service's.

        If they disagree, acts of operators get the earlier of the two times: one clock is right, and an event with a time in the
        future would delay all later ones.
        """
        if apart(before, self.clock, after):
            self.doubted, self.clock = True, min(self.clock, after)

    @property
    def now(self) -> int:
        """The time of the next event, never before that of the last one."""
        return max(self.clock, self.at)

    @property
    def state(self) -> Clock:
        if self.at - self.clock <= APART_MAX_US:
            return "running"
        return "frozen" if self.accepted else "behind"

    @property
    def trouble(self) -> str | None:
        """The code of the reason why no change from an IdP can be written now, or None."""
        if self.doubted:
            return CLOCKS_DISAGREE
        return CLOCK_BEHIND if self.state == "behind" else None
