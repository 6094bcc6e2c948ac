"""When a failed delivery is tried again. Pure: clock and randomness are arguments."""

from collections.abc import Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final

# Attempts, not only repetitions: at once, then 5 s, 30 s, 2 min, 10 min, 30 min, 1 h, and hourly to 72 h (docs/consumers.md, "Push").
SCHEDULE_S: Final = (0, 5, 30, 120, 600, 1_800, *([3_600] * 71))
ATTEMPTS_MAX: Final = 200
DELAY_S_MAX: Final = 86_400  # of one step, and of a Retry-After
JITTER: Final = 0.1  # of the delay, to either side: many deliveries that failed together do not come back together


def whole_schedule(schedule: Sequence[int]) -> tuple[int, ...]:
    """Give the seconds before each attempt, the first included, which is always made at once."""
    return tuple(schedule) if schedule and schedule[0] == 0 else (0, *schedule)


def delay_s(schedule: Sequence[int], attempts: int, random: float, retry_after_s: float | None = None) -> float | None:
    """Seconds until the next attempt after `attempts` failed ones, or None where the schedule is exhausted.

    `random` is in [0, 1). A Retry-After of the receiver is waited for, however short the schedule's own delay is.
    """
    if attempts >= len(schedule):
        return None
    jittered = schedule[attempts] * (1 + JITTER * (2 * random - 1))
    return max(jittered, min(retry_after_s or 0.0, DELAY_S_MAX))


def retry_after_s(header: str | None, now: datetime) -> float | None:
    """Seconds that a Retry-After header asks for (RFC 9110 §10.2.3: seconds, or a date); None where it says nothing."""
    if header is None:
        return None
    text = header.strip()
    if text.isascii() and text.isdigit():
        return float(min(int(text[:9]), DELAY_S_MAX))
    try:
        moment = parsedate_to_datetime(text)
    except (ValueError, OverflowError):  # the latter for an offset of more digits than a clock has
        return None
    aware = moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
    return min(max((aware - now).total_seconds(), 0.0), DELAY_S_MAX)
