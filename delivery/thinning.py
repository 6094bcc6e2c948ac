"""How much of a consumer's way is kept: each checkpoint for ten minutes, then the last of each minute, hour and day.

A pass looks at what has come of age since the pass before, and only in whole steps of time, so it costs by what it removes and not by
what is kept. The newest checkpoint of an epoch always stays: it says for ever what was acknowledged there.
"""

from dataclasses import dataclass, field
from typing import Final

from database.connections import Connection
from database.queries import load_queries

SQL: Final = load_queries(__file__)
MINUTE, HOUR, DAY = 60.0, 3_600.0, 86_400.0
ROWS_AT_ONCE: Final = 2_000  # of each epoch, in one statement: it ends within the time that a statement of a request has
STATEMENTS_MAX: Final = 200  # in one pass: what an earlier release kept is worked off over several


@dataclass(frozen=True, slots=True)
class Step:
    """Of checkpoints older than `age_s` the last of each `length_s` stays."""

    number: int
    age_s: float
    length_s: float


STEPS: Final = (Step(1, 10 * MINUTE, MINUTE), Step(2, DAY, HOUR), Step(3, 30 * DAY, DAY))


@dataclass(slots=True)
class Thinning:
    """Remembers which steps are through: of hours nothing comes of age before another hour is over."""

    _next: dict[int, float] = field(default_factory=dict[int, float])

    async def run(self, conn: Connection, now: float) -> int:
        """One pass over all consumers, deleted ones too; how many checkpoints it removed. `now`: seconds of any steady clock."""
        removed = 0
        for step in STEPS:
            if now >= self._next.get(step.number, now):
                gone, through = await _thin(conn, step)
                removed += gone
                self._next[step.number] = now + step.length_s if through else now
        await conn.execute(SQL["thin_replay_progress"])
        return removed


async def _thin(conn: Connection, step: Step) -> tuple[int, bool]:
    removed = 0
    for _ in range(STATEMENTS_MAX):
        params = (step.number, step.age_s, step.length_s, ROWS_AT_ONCE)
        row = await (await conn.execute(SQL["thin_checkpoints"], params)).fetchone()
        assert row is not None
        looked_at, gone = row
        removed += gone
        if looked_at < ROWS_AT_ONCE:
            return removed, True
    return removed, False
