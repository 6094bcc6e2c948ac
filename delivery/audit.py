"""What a consumer acknowledged, recomputed from its checkpoints and held against the log: holes are named, not trusted away."""

from bisect import bisect_right
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from database.arrays import int4s
from database.connections import Connection
from database.queries import load_queries
from delivery.consumers import Consumer, reach_of
from delivery.progress import STATES, exceptions
from ledger.directories import Directory
from ledger.feed import type_mask
from ledger.sealing import Kek, open_optional

SQL: Final = load_queries(__file__)
PAGE: Final = 5_000
EVERY: Final = 2**62


@dataclass(frozen=True, slots=True)
class Epoch:
    """A stretch of a consumer's life under one filter: it settled what lies in (start, through], but `open`."""

    start: int
    through: int
    open: frozenset[int]
    directories: tuple[str, ...]
    types: tuple[str, ...]


@dataclass(slots=True)
class Hole:
    """Consecutive events of a consumer's own that it did not acknowledge, for one reason."""

    why: str
    first: int
    last: int
    count: int
    reason: str | None = None


@dataclass(slots=True)
class Audit:
    """`expected` events of its own between its first start and `through`, `acknowledged` of them, and the rest as holes.

    `ahead` are the events behind `through`: they are not holes, they are still to come. `broken` names a place where the log
    itself is not dense.
    """

    through: int = 0
    expected: int = 0
    acknowledged: int = 0
    ahead: int = 0
    holes: list[Hole] = field(default_factory=list[Hole])
    broken: list[str] = field(default_factory=list[str])


async def audit(
    conn: Connection, kek: Kek, consumer: Consumer, directories: Sequence[Directory], *, after: int = 0, through: int = EVERY
) -> Audit:
    """Recompute what a consumer acknowledged in (after, through]. The head is that of the first look."""
    rows = await (await conn.cursor(binary=True).execute(SQL["epochs_of"], (consumer.id,))).fetchall()
    epochs = [Epoch(row[1], row[2], frozenset(row[3]), tuple(row[4]), tuple(row[5])) for row in rows]
    # A delivery that a replay repeats was acknowledged before.
    open_ = [e for e in await exceptions(conn, consumer) if e.replay is None]
    parked = ((e, open_optional(kek, e.sealed_reason, kind="parked", owner=consumer.uuid)) for e in open_)
    states = {e.position: (STATES[e.state], reason or e.error) for e, reason in parked}
    rows = await (await conn.cursor(binary=True).execute(SQL["skips_of"], (consumer.id,))).fetchall()
    skipped = {row[0]: open_optional(kek, row[1], kind="skipped", owner=consumer.uuid) for row in rows}
    found = Audit(through=min(max(e.through for e in epochs), through))
    begin = max(min(e.start for e in epochs), after)
    found.broken = await _broken(conn, begin, found.through)
    for position in await _matching(conn, epochs, directories, begin, through):
        if position > max(e.through for e in epochs):
            found.ahead += 1
            continue
        found.expected += 1
        why, reason = _verdict(position, epochs, states, skipped)
        if why is None:
            found.acknowledged += 1
        else:
            _add(found.holes, why, reason, position)
    return found


def _verdict(
    position: int, epochs: Sequence[Epoch], states: dict[int, tuple[str, str | None]], skipped: dict[int, str | None]
) -> tuple[str | None, str | None]:
    if position in states:
        return states[position]
    if position in skipped:
        return "skipped", skipped[position]
    if any(e.start < position <= e.through and position not in e.open for e in epochs):
        return None, None
    if position in epochs[-1].open or position > epochs[-1].start:
        return "under_way", None
    return "sought_over", None


def _add(holes: list[Hole], why: str, reason: str | None, position: int) -> None:
    if holes and (holes[-1].why, holes[-1].reason) == (why, reason):
        holes[-1].last = position
        holes[-1].count += 1
    else:
        holes.append(Hole(why, position, position, 1, reason))


async def _matching(
    conn: Connection, epochs: Sequence[Epoch], directories: Sequence[Directory], after: int, through: int
) -> list[int]:
    """Positions of the consumer's own events: of each under the filter that held when its place passed it, the last one beyond."""
    bounds = [epoch.start for epoch in epochs]
    masks = [type_mask(epoch.types) or 0 for epoch in epochs]
    reach = [frozenset(reach_of(epoch.directories, directories)) for epoch in epochs]
    every = sorted(set[int]().union(*reach))
    positions: list[int] = []
    while True:
        params = (after, through, int4s(every), _joined(masks), PAGE, None)
        rows = await (await conn.cursor(binary=True).execute(SQL["positions_matching"], params)).fetchall()
        for position, directory, _, kind, *_ in rows:
            if any((1 << kind) & masks[n] and directory in reach[n] for n in _epochs_over(position, epochs, bounds)):
                positions.append(position)
        if len(rows) < PAGE:
            return positions
        after = rows[-1][0]


def _epochs_over(position: int, epochs: Sequence[Epoch], bounds: Sequence[int]) -> list[int]:
    """The epochs whose place passed a position; where none did, the last that began before it."""
    passed = [n for n, epoch in enumerate(epochs) if epoch.start < position <= epoch.through]
    if passed:
        return passed
    if position > epochs[-1].start:
        return [len(epochs) - 1]
    before = bisect_right(sorted(bounds), position - 1)
    return [n for n, start in enumerate(bounds) if start < position][-1:] if before else []


def _joined(masks: Sequence[int]) -> int:
    joined = 0
    for mask in masks:
        joined |= mask
    return joined


async def _broken(conn: Connection, after: int, through: int) -> list[str]:
    """Places where positions are not dense: the log itself would have lost something."""
    rows = await (await conn.cursor(binary=True).execute(SQL["gaps_between"], (after, through))).fetchall()
    return [f"positions {row[0]} to {row[1]} are missing in the log" for row in rows]


def summary(found: Audit) -> dict[str, Any]:
    """The audit as JSON."""
    kinds = Counter[str]()
    for hole in found.holes:
        kinds[hole.why] += hole.count
    return {
        "object": "consumer_audit", "through_position": found.through, "expected": found.expected, "acknowledged": found.acknowledged,
        "to_come": found.ahead, "not_acknowledged": dict(kinds), "broken": found.broken,
        "holes": [
            {"why": h.why, "first_position": h.first, "last_position": h.last, "count": h.count, "reason": h.reason} for h in found.holes
        ],
    }  # fmt: skip
