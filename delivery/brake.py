"""The surge brake: which revocations of a directory are more than its limit allows in an hour. Pure.

It follows from the log and the limit alone, so whoever asks, whenever, gets the same answer; nothing is stored per event.
"""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Literal

from ledger.events import USER_DEACTIVATED, USER_DELETED

Action = Literal["alarm", "hold"]
HOUR_US: Final = 3_600_000_000
PER_HOUR: Final = 100  # revocations of a directory in an hour before somebody is told, unless its operator says otherwise
REVOKING: Final = USER_DEACTIVATED.bit | USER_DELETED.bit  # bits of the event types that end a user's access


@dataclass(frozen=True, slots=True)
class Limit:
    """What a directory's operator asked for. `released` is the last seq that was let go in spite of it.

    Where the directory is `closed` nothing is held: ending all access was an operator's act, with the directory's name repeated.
    """

    per_hour: int = PER_HOUR
    action: Action = "alarm"
    released: int = 0
    closed: bool = False


def excess(revocations: Iterable[tuple[int, int]], limit: Limit) -> list[int]:
    """The first seqs of the commits over the limit, of (first seq, time in µs) in the order of the log.

    The first must lie an hour before the first that is asked for: each is counted with those of the hour that ends with it.
    """
    if limit.closed:
        return []
    window: deque[int] = deque()
    found: list[int] = []
    for seq, at in revocations:
        window.append(at)
        while window[0] <= at - HOUR_US:
            window.popleft()
        if len(window) > limit.per_hour and seq > limit.released:
            found.append(seq)
    return found
