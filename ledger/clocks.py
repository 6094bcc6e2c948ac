"""Whether the clocks can be trusted with the time of an event; pure. Times are µs since the epoch.

Time enters the log at one place: the database's clock_timestamp, read under the directory's lock. It is compared with the clock of the
service, because a clock that is alone cannot be doubted, and with the directory's last event, because `at` never runs backwards there.
What an IdP asks for is held up where a clock is wrong; what an operator does, a revocation above all, never is.
"""

from dataclasses import dataclass, field
from typing import Final, Literal

from scim.errors import Unavailable

APART_MAX_US: Final = 60_000_000  # of two clocks, and of a last event before the clock
CLOCK_RETRY_S: Final = 5
Clock = Literal["running", "behind", "frozen"]  # of a directory: writes take the clock's time, none, or the last event's
CLOCKS_DISAGREE: Final = "clocks_disagree"
CLOCK_BEHIND: Final = "clock_behind_ledger"
_SAYS: Final = {
    CLOCKS_DISAGREE: "The clocks of the service and of its database are more than 60 seconds apart (clocks_disagree); nothing was changed. "
    "Send the request again when an operator has put them right.",
    CLOCK_BEHIND: "The clock of the database is more than 60 seconds behind the last event of this directory (clock_behind_ledger); nothing "
    "was changed. Send the request again when an operator has put the clock right, or accepted it with `directory accept-clock`.",
}


class ClockError(Unavailable):
    """503: a change of an IdP that no time can be given to. `code` is CLOCKS_DISAGREE or CLOCK_BEHIND."""

    def __init__(self, code: str) -> None:
        super().__init__(_SAYS[code], retry_after=CLOCK_RETRY_S)
        self.code = code


def apart(before: int, database: int, after: int) -> bool:
    """Whether the database's clock, read between two looks at the service's, cannot be within a minute of it."""
    return not before - APART_MAX_US <= database <= after + APART_MAX_US


@dataclass(slots=True)
class DirectoryTail:
    """The end of a directory's log while a batch extends it. `at` is the last event's time, `clock` the database's."""

    seq: int
    at: int
    clock: int
    accepted: bool = False  # an operator took it that events have the time `at` until the clock has caught up with it
    doubted: bool = field(default=False, init=False)

    def compare(self, before: int, after: int) -> None:
        """Look whether the service's clock bears the database's out.

        Where it does not, the earlier of the two is what acts are stamped by: one of them is right, and an event that is ahead of its
        time would hold up all that come after it.
        """
        if apart(before, self.clock, after):
            self.doubted, self.clock = True, min(self.clock, after)

    @property
    def now(self) -> int:
        """What the next event is stamped with: never less than the last."""
        return max(self.clock, self.at)

    @property
    def state(self) -> Clock:
        if self.at - self.clock <= APART_MAX_US:
            return "running"
        return "frozen" if self.accepted else "behind"

    @property
    def trouble(self) -> str | None:
        """Why a change of an IdP cannot be written now: a code, or None."""
        if self.doubted:
            return CLOCKS_DISAGREE
        return CLOCK_BEHIND if self.state == "behind" else None
