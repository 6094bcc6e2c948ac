"""Read and compute stretches of the log in other processes, one for each core.

Hashing, opening and encoding in Python take most of the time of a rebuild or a verification. Each stretch has its own connection. Their
snapshots differ, which is harmless because the log is append-only.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple
from uuid import UUID

import orjson

from database.arrays import int4s, uuids
from database.connections import Connection, connect_owner
from database.queries import load_queries
from ledger.commands import Statement
from ledger.ids import DirectoryNumber, Seq
from ledger.sealing import Kek
from projections import current_state
from replay.log_check import Commits, Stretch, Versions, check
from replay.stored_events import Finding, Leaf, Origin, StoredEvent, recorded

SQL: Final = load_queries(__file__)
PROCESSES_MAX: Final = 4  # more processes would compute faster than PostgreSQL applies in one session


class Task(NamedTuple):
    """A stretch to compute: the events of a directory in (after, to]. `verifies`: also check each event."""

    url: str
    kek: Kek
    origin: Origin
    after: Seq
    to: Seq
    verifies: bool


class Computed(NamedTuple):
    """The statements of a stretch for the read models, and its findings. With findings there are no statements."""

    directory: DirectoryNumber
    to: Seq
    events: int
    statements: Sequence[Statement]
    unreadable: Sequence[Finding]
    findings: Sequence[Finding]
    erased: int = 0  # events whose body an erasure deleted


def compute(task: Task) -> Computed:
    """Read a stretch, check it if requested, and encode its statements. Runs in a thread or in another process."""
    # The result is not returned through asyncio.run: in a main thread its Ctrl-C handling formats the result as text, which is slow.
    read: list[Stretch] = []
    asyncio.run(_read(task, read.append))
    (stretch,) = read
    findings, leaves = check(task.origin, stretch) if task.verifies else _trusted(stretch)
    if findings:
        return Computed(task.origin.id, task.to, len(stretch.events), (), (), findings)
    events, unreadable = recorded(task.kek, task.origin, stretch.events, leaves, stretch.erased, verifies=task.verifies)
    statements = current_state.rewriting(current_state.fold(events))
    return Computed(task.origin.id, task.to, len(events), statements, unreadable, (), stretch.erased_bodies)


def _trusted(stretch: Stretch) -> tuple[list[Finding], list[Leaf]]:
    return [], [orjson.loads(event.leaf) for event in stretch.events]


async def _read(task: Task, give: Callable[[Stretch], None]) -> None:
    conn = await connect_owner(task.url, pinned=True)  # without pinned plans each stretch reads all keys and bodies of the ledger
    try:
        first = max(task.after - 1, 0) if task.verifies else task.after
        rows = await (
            await conn.cursor(binary=True).execute(SQL["events_with_keys"], (task.origin.id, first, task.to))
        ).fetchall()
        events = [StoredEvent(*row) for row in rows]
        erased = await _erased(conn, events)
        if not task.verifies:
            give(Stretch(task.after, task.to, None, events, {}, {}, erased))
            return
        before = events.pop(0) if events and events[0].seq <= task.after else None
        versions = await _versions_before(conn, task, events)
        give(Stretch(task.after, task.to, before, events, versions, await _commits(conn, task), erased))
    finally:
        await conn.close()


async def _erased(conn: Connection, events: Sequence[StoredEvent]) -> frozenset[UUID]:
    """Those resources without a body that were erased, by the last event of each. Asked after the bodies were read: none is erased between."""
    lacking = list({event.obj for event in events if event.ct is None and event.mem is None})
    if not lacking:
        return frozenset()
    rows = await (await conn.cursor(binary=True).execute(SQL["erased_of"], (uuids(lacking),))).fetchall()
    return frozenset(row[0] for row in rows)


async def _versions_before(conn: Connection, task: Task, events: Sequence[StoredEvent]) -> Versions:
    """The versions of resources that were created before the stretch, from the event before the first one of each in it."""
    firsts = {event.obj: event.rv for event in reversed(events)}
    older = [(task.origin.id, obj, rv - 1) for obj, rv in firsts.items() if rv > 1]
    params = (
        int4s([number for number, _, _ in older]),
        uuids([obj for _, obj, _ in older]),
        int4s([rv for _, _, rv in older]),
        task.after,
    )
    rows = await (await conn.cursor(binary=True).execute(SQL["versions_before"], params)).fetchall()
    return {obj: (rv, etag_rv) for obj, rv, etag_rv in rows}


async def _commits(conn: Connection, task: Task) -> Commits:
    params = (task.origin.id, task.after, task.to)
    rows = await (await conn.cursor(binary=True).execute(SQL["commits_between"], params)).fetchall()
    return {seq: (size, at, str(req)) for seq, size, at, req in rows}
