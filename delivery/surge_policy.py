"""The surge brake: when more users of a directory lose access in an hour than its limit allows. Pure.

Access is lost by whatever takes it: a user is deactivated or deleted, or taken out of a group, whoever's write that was.

It follows from the log and the limit alone, so whoever asks, whenever, gets the same answer; nothing is stored per event.
"""

from collections import Counter, deque
from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from typing import Final, Literal
from uuid import UUID

from ledger.events import Fact, bits
from ledger.ids import Seq

Action = Literal["alarm", "hold"]
HOUR_US: Final = 3_600_000_000
PER_HOUR: Final = (
    100  # users of a directory who lose access in an hour before somebody is told, unless its operator says otherwise
)
REVOKING: Final = bits(Fact.SURGE)  # of the event types that end some of a user's access


@dataclass(frozen=True, slots=True)
class Limit:
    """What a directory's operator asked for. `released` is the last seq that was let go in spite of it.

    Where the directory is `closed` nothing is held: ending all access was an operator's act, with the directory's name repeated.
    """

    per_hour: int = PER_HOUR
    action: Action = "alarm"
    released: int = 0
    closed: bool = False


@dataclass(frozen=True, slots=True)
class Loss:
    """A commit by which users lose access: its first seq, when it was made in µs, the users, each once.

    That is its time, but where the clock stood: then many hours have one time, and each its own here.
    """

    seq: Seq
    at: int
    users: Collection[UUID]


def excess(losses: Iterable[Loss], limit: Limit) -> list[Seq]:
    """The first seqs of the commits over the limit, of commits in the order of the log.

    The first must lie an hour before the first that is asked for: each is counted with those of the hour that ends with it.
    """
    if limit.closed:
        return []
    window, users = deque[Loss](), Counter[UUID]()
    found: list[Seq] = []
    for loss in losses:
        _set_back(window, loss.at)
        window.append(loss)
        users.update(loss.users)
        while window[0].at <= loss.at - HOUR_US:
            users -= Counter(window.popleft().users)  # keeps what is above zero
        if len(users) > limit.per_hour and loss.seq > limit.released:
            found.append(loss.seq)
    return found


def _set_back(window: deque[Loss], at: int) -> None:
    """What was made before something is no later than it, whatever a clock that was ahead said."""
    later: list[Loss] = []
    while window and window[-1].at > at:
        later.append(replace(window.pop(), at=at))
    window.extend(reversed(later))
