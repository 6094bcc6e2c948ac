"""The audit of a consumer: recomputes from its checkpoints what it acknowledged, compares that with the log, and names each hole with its reason."""

from collections import Counter
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import reduce
from itertools import pairwise
from operator import or_
from typing import Annotated, Any, Final, Literal, NamedTuple, TypedDict
from uuid import UUID

from msgspec import Meta

from database.arrays import Int4Array, UuidArray, int4s, uuids
from database.connections import Connection
from database.queries import load_queries
from delivery.checkpoints import exceptions
from delivery.consumers import Consumer, reach_of
from delivery.log_positions import by_index_alone
from delivery.reports import EXCEPTION_STATES
from ledger.directories import Directory
from ledger.event_data import Count, FromOne
from ledger.events import type_mask
from ledger.ids import DirectoryNumber, Position
from ledger.sealing import Kek, open_optional

SQL: Final = load_queries(__file__)
PAGE: Final = 5_000
LOOKED_UP_MAX: Final = 20_000  # events of subjects that are looked up one by one
STRETCH: Final = 200_000  # positions that one statement looks through: more would exceed the time limit of a statement
EVERY: Final = 2**62
NONE_OF_ITS_OWN: Final = frozenset({"before_start", "filtered_out"})


@dataclass(frozen=True, slots=True)
class Epoch:
    """A stretch of a consumer's life under one filter: it settled what lies in (start, through], but `open`."""

    start: int
    through: int
    open: frozenset[int]
    mask: int
    reach: frozenset[DirectoryNumber]
    reason: str | None = None  # of the seek that began it

    def takes(self, directory: int, kind: int) -> bool:
        """Whether an event was, or is, one of the consumer's own."""
        return bool((1 << kind) & self.mask) and directory in self.reach

    def passed(self, position: int) -> bool:
        return self.start < position <= self.through


@dataclass(frozen=True, slots=True)
class Readings:
    """Everything stored about a consumer's progress: its epochs with their filters, its exceptions, and what an operator skipped."""

    epochs: Sequence[Epoch]
    states: dict[Position, tuple[str, str | None]]  # of exceptions: the state, and the reason or the error
    skipped: dict[int, str | None]
    replayed: frozenset[int] = frozenset()  # delivered by a run, whatever the epochs say

    @property
    def through(self) -> int:
        return max(epoch.through for epoch in self.epochs)

    @property
    def start(self) -> int:
        return min(epoch.start for epoch in self.epochs)

    def verdict(self, position: Position, directory: int, kind: int) -> tuple[str | None, str | None]:
        """Give why an event is not acknowledged, and the operator's reason if there is one; (None, …) if the event is acknowledged.

        `before_start` and `filtered_out` are of events that were none of the consumer's own when its place passed them.
        """
        if position in self.states:
            return self.states[position]
        if position in self.skipped:
            return "skipped", self.skipped[position]
        if position in self.replayed:
            return None, None
        own = [epoch for epoch in self.epochs if epoch.takes(directory, kind)]
        if any(epoch.passed(position) and position not in epoch.open for epoch in own):
            return None, None
        last = self.epochs[-1]
        if last in own and (position in last.open or position > last.start):
            return ("under_way" if position <= self.through else "to_come"), None
        if position <= self.start:
            return "before_start", None
        if self._over(position) in own or any(e.passed(position) for e in own):
            return "sought_over", self._why_sought(position)
        return "filtered_out", None

    def _why_sought(self, position: int) -> str | None:
        """The reason of the last seek that passed over the event."""
        over = (later for before, later in pairwise(self.epochs) if before.start < position <= later.start)
        return next((epoch.reason for epoch in reversed(list(over))), None)

    def _over(self, position: int) -> Epoch | None:
        """The epoch whose filter applied to an event: the one that passed the event, or else the last that began before it."""
        passed = next((epoch for epoch in reversed(self.epochs) if epoch.passed(position)), None)
        return passed or next(epoch for epoch in reversed(self.epochs) if epoch.start < position)


@dataclass(slots=True)
class Hole:
    """Consecutive events that a consumer should have acknowledged and did not, all for the same reason."""

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


async def readings_of(conn: Connection, kek: Kek, consumer: Consumer, directories: Sequence[Directory]) -> Readings:
    """Read the Readings of a consumer as they are now."""
    rows = await (await conn.cursor(binary=True).execute(SQL["epochs_of"], (consumer.id,))).fetchall()
    epochs = [
        Epoch(
            start,
            through,
            frozenset(open_),
            type_mask(types) or 0,
            frozenset(reach_of(slugs, directories)),
            open_optional(kek, sealed_reason, kind="sought", owner=consumer.uuid),
        )
        for start, through, open_, slugs, types, sealed_reason in rows
    ]
    # An exception of a replay is left out: the event was acknowledged before the replay, or it stays a hole until the replay delivered it.
    open_ = [e for e in await exceptions(conn, consumer) if e.replay is None]
    parked = ((e, open_optional(kek, e.sealed_reason, kind="parked", owner=consumer.uuid)) for e in open_)
    states = {e.position: (EXCEPTION_STATES[e.state], reason or e.error) for e, reason in parked}
    skipped = {
        skip.position: open_optional(kek, skip.sealed_reason, kind="skipped", owner=consumer.uuid)
        for skip in await skips(conn, consumer)
        if skip.replay is None
    }
    rows = await (await conn.cursor(binary=True).execute(SQL["replayed_of"], (consumer.id,))).fetchall()
    return Readings(epochs, states, skipped, frozenset(row[0] for row in rows))


class Skip(NamedTuple):
    """What an operator decided not to deliver; `replay` is the run whose repetition it was."""

    position: int
    sealed_reason: bytes | None
    at: datetime
    replay: UUID | None


async def skips(conn: Connection, consumer: Consumer) -> list[Skip]:
    """What is not delivered to a consumer because an operator said so, in the order of the log."""
    rows = await (await conn.cursor(binary=True).execute(SQL["skips_of"], (consumer.id,))).fetchall()
    return [Skip(*row) for row in rows]


async def audit(
    conn: Connection, kek: Kek, consumer: Consumer, directories: Sequence[Directory], *, after: int = 0, through: int = EVERY
) -> Audit:
    """Recompute what a consumer acknowledged in (after, through]. The head is that of the first look."""
    readings = await readings_of(conn, kek, consumer, directories)
    found = Audit(through=min(readings.through, through))
    begin = max(readings.start, after)
    found.broken = await _broken(conn, begin, found.through)
    async for position, directory, kind in _matching(conn, readings, begin, through):
        why, reason = readings.verdict(position, directory, kind)
        if why in NONE_OF_ITS_OWN:
            continue
        if why is not None and position > readings.through:
            found.ahead += 1
            continue
        found.expected += 1
        if why is None:
            found.acknowledged += 1
        else:
            _add(found.holes, why, reason, position)
    return found


def _add(holes: list[Hole], why: str, reason: str | None, position: int) -> None:
    if holes and (holes[-1].why, holes[-1].reason) == (why, reason):
        holes[-1].last = position
        holes[-1].count += 1
    else:
        holes.append(Hole(why, position, position, 1, reason))


async def matching(
    conn: Connection,
    after: int,
    through: int,
    directories: Sequence[DirectoryNumber],
    types: int,
    subjects: Sequence[UUID] | None = None,
) -> AsyncIterator[list[tuple[Any, ...]]]:
    """Events of some types (bits) after a position and through another, page by page: (position, directory, seq, type, obj, mem, at).

    Of subjects with few events these are looked up; of others, and without subjects, the stretch is read.
    """
    some, of = int4s(directories), None if subjects is None else uuids(subjects)
    if of is not None and await _few(conn, some, of):
        async with by_index_alone(conn):
            params = (after, through, some, types, of)
            yield await (await conn.cursor(binary=True).execute(SQL["positions_of_subjects"], params)).fetchall()
        return
    while True:
        params = (after, through, some, types, PAGE, of)
        async with by_index_alone(conn):
            rows = await (await conn.cursor(binary=True).execute(SQL["positions_matching"], params)).fetchall()
        yield rows
        if len(rows) < PAGE:
            return
        after = rows[-1][0]


async def _few(conn: Connection, directories: Int4Array, subjects: UuidArray) -> bool:
    """Whether the subjects have few events. A group of 100 000 members has more than a page at a time should hold."""
    async with by_index_alone(conn):
        cursor = await conn.cursor(binary=True).execute(SQL["few_of_subjects"], (directories, subjects, LOOKED_UP_MAX + 1))
        row = await cursor.fetchone()
    assert row is not None
    (count,) = row
    return count <= LOOKED_UP_MAX


async def _matching(
    conn: Connection, readings: Readings, after: int, through: int
) -> AsyncIterator[tuple[Position, DirectoryNumber, int]]:
    """Position, directory and type of the events that any filter of the consumer takes, or took."""
    every = sorted(set[DirectoryNumber]().union(*(epoch.reach for epoch in readings.epochs)))
    mask = reduce(or_, (epoch.mask for epoch in readings.epochs))
    async for rows in matching(conn, after, through, every, mask):
        for position, directory, _, kind, *_ in rows:
            yield position, directory, kind


async def _broken(conn: Connection, after: int, through: int) -> list[str]:
    """Give the gaps between positions of the log. There should be none: a gap means that the log itself lost commits."""
    found: list[str] = []
    # Each stretch begins with the commit at its first position, so no commit between two stretches is left out.
    for start in range(after, through, STRETCH):
        params = (start, min(start + STRETCH, through))
        rows = await (await conn.cursor(binary=True).execute(SQL["gaps_between"], params)).fetchall()
        found += [f"positions {first} to {last} are missing in the log" for first, last in rows]
    return found


class ShownHole(TypedDict):
    """Positions next to each other whose events were not acknowledged, all for the same reason."""

    why: str
    from_position: FromOne
    to_position: FromOne
    first_position: Annotated[FromOne, Meta(description="The same as `from_position`.")]
    last_position: Annotated[FromOne, Meta(description="The same as `to_position`.")]
    count: Count
    reason: str | None


class AuditSummary(TypedDict):
    """What a consumer acknowledged, recomputed from the log. `to_come`: it acknowledged some of these ahead; `broken`: gaps in the log."""

    object: Literal["consumer_audit"]
    to_position: Count
    through_position: Annotated[Count, Meta(description="The same as `to_position`.")]
    expected: Count
    acknowledged: Count
    to_come: Count
    not_acknowledged: dict[str, int]
    broken: list[str]
    holes: list[ShownHole]


def summary(found: Audit) -> AuditSummary:
    """The audit as JSON."""
    kinds = Counter[str]()
    for hole in found.holes:
        kinds[hole.why] += hole.count
    return {
        "object": "consumer_audit", "to_position": found.through, "through_position": found.through, "expected": found.expected, "acknowledged": found.acknowledged,
        "to_come": found.ahead, "not_acknowledged": dict(kinds), "broken": found.broken,
        "holes": [
            {
                "why": h.why, "from_position": h.first, "to_position": h.last, "first_position": h.first, "last_position": h.last,
                "count": h.count, "reason": h.reason,
            }
            for h in found.holes
        ],
    }  # fmt: skip
