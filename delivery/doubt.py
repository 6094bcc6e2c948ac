"""Whether a receiver seems to take nothing, and how hard it is tried meanwhile. Pure: the clock is an argument, in seconds.

After CIRCUIT different events failed without one success the receiver is in doubt. It may be away; it may as well stumble over
just these, and then whoever has nothing to do with them must still be told. So new events are tried on, at a bounded pace.
"""

from dataclasses import dataclass, field
from typing import Final

from ledger.ids import Position

CIRCUIT: Final = 8  # different events failing in a row: the receiver is in doubt
BLAMED_MAX: Final = 64  # so many failing events use up attempts; further ones do not, because any event would have failed
IN_FLIGHT_MAX: Final = 16  # requests at once to one consumer
IN_DOUBT_MAX: Final = 8  # the same while it is in doubt
HUNG_S: Final = 2.0  # a request under way for so long gives its place to another, while requests fail
HUNG_MAX: Final = 64  # requests at once including those that hang; as many as one host gets connections
PACE: Final = 4.0  # tries a second while nobody seems to be there: 240 lanes a minute, whether they hang or fail at once
BURST: Final = 4.0  # tries saved up: a leaver after a silence is told at once
PROBE_S: Final = 30.0  # of silence in doubt, until one is tried before its time
STRAINED_S: Final = 60.0  # after a failure


@dataclass(slots=True)
class Doubt:
    """What the last deliveries of a consumer say about its receiver."""

    failing: dict[Position, None] = field(default_factory=dict[Position, None])  # positions that failed since the last success
    away: bool = False  # whether the last failure said that nobody is there
    _tokens: float = BURST
    _at: float = 0.0  # when that was so
    _tried: float = 0.0
    _strained_until: float = 0.0

    @property
    def open(self) -> bool:
        return len(self.failing) >= CIRCUIT

    def accepted(self) -> None:
        """A success: somebody is there."""
        self.failing.clear()
        self.away = False

    def failed(self, position: Position, now: float, *, away: bool) -> bool:
        """A failure. Gives whether the event is to blame, so that it uses up an attempt."""
        self.away = away
        self.strain(now)
        if position in self.failing:
            return True
        if len(self.failing) < BLAMED_MAX:
            self.failing[position] = None
            return True
        return not away

    def strain(self, now: float) -> None:
        """A request failed: for a while those that hang give their places to others."""
        self._strained_until = now + STRAINED_S

    def tried(self, now: float) -> None:
        """A request begins."""
        self._refill(now)
        self._tokens = max(self._tokens - 1.0, 0.0)
        self._tried = now

    def may_try(self, now: float) -> bool:
        """Whether the pace allows one more."""
        self._refill(now)
        return not (self.open and self.away) or self._tokens >= 1.0

    def may_try_at(self, now: float) -> float:
        """When the pace allows one more."""
        self._refill(now)
        return now if self.may_try(now) else now + (1.0 - self._tokens) / PACE

    def probe_at(self, now: float) -> float:
        """When an event is tried before its time."""
        self._tried = min(self._tried, now)  # a clock that was set back
        return self._tried + PROBE_S

    def silent(self, now: float) -> bool:
        """Whether nobody seems to be there and nothing was tried for so long that one should."""
        return self.open and self.away and now >= self.probe_at(now)

    def room(self, began: list[float], now: float) -> int:
        """How many requests may be under way at once, where those that are began at these times."""
        usual = IN_DOUBT_MAX if self.open else IN_FLIGHT_MAX
        return min(usual + len([at for at in began if at + HUNG_S <= now]), HUNG_MAX) if self.strained(now) else usual

    def room_at(self, began: list[float], now: float) -> float | None:
        """When a request under way will have hung for HUNG_S, so that another may begin; None if no request will."""
        times = [at + HUNG_S for at in began if at + HUNG_S > now]
        return min(times) if times and len(began) < HUNG_MAX and self.strained(now) else None

    def strained(self, now: float) -> bool:
        """Whether requests failed lately."""
        return now < self._strained_until <= now + STRAINED_S

    def _refill(self, now: float) -> None:
        self._tokens = min(self._tokens + max(now - self._at, 0.0) * PACE, BURST)
        self._at = now
