"""When a request is sent again, and after how long. Pure."""

from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final

# The service, or a proxy before it, could not answer now; nothing was done, or the request may be repeated.
PASSING: Final = frozenset({429, 502, 503, 504})


@dataclass(frozen=True, slots=True)
class Retries:
    """`attempts` in all, the waits between them doubling from `first_s` to `longest_s`. `Retry-After` is respected up to `retry_after_max_s`."""

    attempts: int = 8
    first_s: float = 0.5
    longest_s: float = 30.0
    retry_after_max_s: float = 300.0

    def wait_s(self, failures: int, retry_after: float | None, random: float) -> float | None:
        """Seconds until the next attempt after so many failures; None: give up. `random` is from 0 to 1.

        A random part keeps many clients from coming back at the same moment.
        """
        if failures >= self.attempts or (retry_after or 0.0) > self.retry_after_max_s:
            return None
        backoff = min(self.first_s * 2.0 ** min(failures - 1, 32), self.longest_s) * (0.5 + random / 2)
        return max(backoff, retry_after or 0.0)


def retry_after_s(text: str | None, now: datetime | None = None) -> float | None:
    """Seconds that a header `Retry-After` asks for (RFC 9110 §10.2.3: a number or a date); None if it asks for nothing that can be read."""
    if text is None:
        return None
    if text.strip().isascii() and text.strip().isdigit():
        return float(text)
    try:
        moment = parsedate_to_datetime(text)
    except ValueError:
        return None
    zoned = moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
    return max((zoned - (now or datetime.now(UTC))).total_seconds(), 0.0)
