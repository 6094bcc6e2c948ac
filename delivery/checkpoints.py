"""Stores and reads the progress of consumers: checkpoints (a place in the log, and the events still open at or below it) and exceptions."""

from collections.abc import Sequence
from typing import Any, Final

from database.arrays import byteas, int2s, int4s, int8s, texts, uuids
from database.connections import Connection
from database.pipeline import transaction
from database.queries import load_queries
from delivery.consumers import Consumer, lock
from delivery.log_positions import PlaceMovedError
from delivery.reports import EXCEPTION_STATES, REVOCATION_KINDS, REVOCATIONS, Exceptional, Place, Report

SQL: Final = load_queries(__file__)


async def places(conn: Connection, consumers: Sequence[int]) -> dict[int, Place]:
    """Read the places of consumers, by their numbers."""
    rows = await (await conn.cursor(binary=True).execute(SQL["places"], (int4s(consumers),))).fetchall()
    return {number: Place(epoch, low, through, tuple(open_), *more) for number, epoch, low, through, open_, *more in rows}


async def place_of(conn: Connection, consumer: Consumer) -> Place:
    """Read the place of one consumer."""
    return (await places(conn, [consumer.id]))[consumer.id]


async def record(conn: Connection, reports: Sequence[Report]) -> set[int]:
    """Store what was delivered, in one transaction. Gives the consumers whose report was stored.

    A report whose lease or epoch is another by now is left out: the deliveries belong to whoever holds the lease. So is one that was read
    from a log that has lost its end since.
    """
    async with transaction(conn):
        await conn.execute(SQL["share_consumers"], (int4s(sorted(r.consumer for r in reports)),))
        params = (
            int4s([r.consumer for r in reports]), int8s([r.fence for r in reports]), int4s([r.place.epoch for r in reports]),
            int8s([r.read_to.position for r in reports]), byteas([r.read_to.leaf_hash for r in reports]),
        )  # fmt: skip
        rows = await (await conn.cursor(binary=True).execute(SQL["guard"], params)).fetchall()
        held = {row[0] for row in rows}
        for name, columns in _statements([report for report in reports if report.consumer in held]):
            await conn.execute(SQL[name], columns)
    return held


def _statements(reports: Sequence[Report]) -> list[tuple[str, tuple[Any, ...]]]:
    gone = [(r.consumer, position) for r in reports for position in r.settled]
    replayed = [(r.consumer, position) for r in reports for position in r.replayed]
    begun = [(r.consumer, e) for r in reports for e in r.begun]
    went_on = [(r.consumer, e) for r in reports for e in r.went_on]
    acked = [(r.consumer, *revocation) for r in reports for revocation in r.revocations]
    replays = [replay for r in reports for replay in r.replays]
    statements: list[tuple[str, tuple[Any, ...]]] = []
    if reports:
        statements.append(("move_checkpoints", (
            int4s([r.consumer for r in reports]), int4s([r.place.epoch for r in reports]), int8s([r.place.low for r in reports]),
            int8s([r.place.through for r in reports]), texts([_array(r.place.open) for r in reports]),
        )))  # fmt: skip
    if gone:
        statements.append(("delete_open", (int4s([c for c, _ in gone]), int8s([p for _, p in gone]))))
    if replayed:
        statements.append(("insert_replayed", (int4s([c for c, _ in replayed]), int8s([p for _, p in replayed]))))
    if begun:
        statements.append(("insert_open", (
            int4s([c for c, _ in begun]), int8s([e.position for _, e in begun]), int4s([e.directory for _, e in begun]),
            int8s([e.seq for _, e in begun]), int2s([e.state for _, e in begun]), int4s([e.attempts for _, e in begun]),
            [e.since for _, e in begun], [e.next_at for _, e in begun], texts([e.error for _, e in begun]),
            byteas([e.answer for _, e in begun]), uuids([e.replay for _, e in begun]), [e.tried_at for _, e in begun],
            [e.asked_s for _, e in begun],
        )))  # fmt: skip
    if went_on:
        statements.append(("update_open", (
            int4s([c for c, _ in went_on]), int8s([e.position for _, e in went_on]), int2s([e.state for _, e in went_on]),
            int4s([e.attempts for _, e in went_on]), [e.since for _, e in went_on], [e.next_at for _, e in went_on], texts([e.error for _, e in went_on]),
            byteas([e.answer for _, e in went_on]), uuids([e.replay for _, e in went_on]), [e.tried_at for _, e in went_on],
            [e.asked_s for _, e in went_on],
        )))  # fmt: skip
    if acked:
        statements.append(("insert_revocation_acks", (
            int4s([a[0] for a in acked]), int4s([a[1] for a in acked]), int8s([a[2] for a in acked]), int8s([a[3] for a in acked]),
        )))  # fmt: skip
    if replays:
        statements.append(("move_replay_progress", (
            uuids([run for run, _, _, _ in replays]), int8s([done for _, done, _, _ in replays]),
            int8s([through for _, _, through, _ in replays]), texts([_array(ahead) for _, _, _, ahead in replays]),
        )))  # fmt: skip
    return statements


def _array(positions: Sequence[int]) -> str:
    return "{" + ",".join(map(str, positions)) + "}"


async def acknowledge(conn: Connection, consumer: Consumer, through: int, reach: Sequence[int]) -> bool:
    """Move a consumer that pulls to `through`; False where it is there already, or further.

    Raises PlaceMovedError where it reads in another epoch by now than `consumer` says: what was read before such an act does not
    speak for what comes after it.
    """
    async with conn.transaction():
        await conn.execute(*lock(consumer.id))
        before = await place_of(conn, consumer)
        if before.epoch != consumer.epoch:
            raise PlaceMovedError(before.through)
        row = await (await conn.execute(SQL["move_pull_checkpoint"], (consumer.id, through, consumer.epoch))).fetchone()
        if row is None:
            return False
        if consumer.mask & REVOCATIONS:
            kinds = [kind for kind in REVOCATION_KINDS if (1 << kind) & consumer.mask]
            await conn.execute(SQL["ack_revocations"], (consumer.id, before.through, through, int2s(kinds), int4s(reach)))
    return True


async def exceptions(
    conn: Connection,
    consumer: Consumer,
    *,
    states: Sequence[int] = tuple(EXCEPTION_STATES),
    after: int = 0,
    limit: int = 2**31 - 1,
) -> list[Exceptional]:
    """Read the exceptions of a consumer in the order of the log, `limit` of them after a position."""
    rows = await (await conn.cursor(binary=True).execute(SQL["open_page"], (consumer.id, int2s(states), after, limit))).fetchall()
    return [Exceptional(*row) for row in rows]


async def exception_at(conn: Connection, consumer: Consumer, directory: int, seq: int) -> Exceptional | None:
    """Read the exception of one event; None if it has none."""
    row = await (await conn.cursor(binary=True).execute(SQL["open_at"], (consumer.id, directory, seq))).fetchone()
    return Exceptional(*row) if row else None


async def failing(conn: Connection, consumer: Consumer) -> Exceptional | None:
    """Read the exception that a consumer is stuck on: the oldest blocked one, or else the oldest that is retried; None without one."""
    row = await (await conn.cursor(binary=True).execute(SQL["oldest_failing"], (consumer.id,))).fetchone()
    return Exceptional(*row) if row else None
