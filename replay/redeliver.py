"""Redelivery: which events a run sends, and the acts on runs. The delivery processes send the events."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final
from uuid import UUID

import anyio.to_thread
import orjson

from database.arrays import int4s, int8s, uuids
from database.connections import Connection
from database.queries import load_queries
from delivery.audit import matching
from delivery.consumers import Consumer, reads_on, touched
from delivery.log_positions import seqs_at
from delivery.replays import Replays
from delivery.runs import ENDED, Planned, Range, ReplayRefusedError, Run, State
from ledger.commands import RecordFacts
from ledger.events import (
    OPERATOR,
    REPLAY,
    REPLAY_CANCELLED,
    REPLAY_FAILED,
    REPLAY_FINISHED,
    REPLAY_PAUSED,
    REPLAY_RESUMED,
    REPLAY_STARTED,
    Body,
    Draft,
    EventType,
    Fact,
    numbers,
)
from ledger.ids import Position
from ledger.refused import StateError
from ledger.sealing import Kek, open_optional, seal_note

SQL: Final = load_queries(__file__)
EVENTS_MAX: Final = 500_000  # events of one run; for more, seek the consumer
PAGE: Final = 5_000
ON_LOOP_RUNS: Final = 200  # runs whose sealed texts are opened on the event loop: about a millisecond
GRANTS: Final = numbers(Fact.GRANTS_ACCESS)


@dataclass(frozen=True, slots=True)
class Plan:
    """The events of a run, and how many grants are left out because a later event took them back."""

    events: list[Planned]
    superseded: int


async def plan(conn: Connection, wanted: Range, head: int) -> Plan:
    """The events of a range in order. With `superseded` "skip", grants that an event up to `head` took back are left out.

    Otherwise replaying March would give access again that ended in August. Raises ReplayRefusedError above EVENTS_MAX.
    """
    events: list[Planned] = []
    async for rows in matching(conn, wanted.after, wanted.through, wanted.directories, wanted.types, wanted.subjects):
        events += [Planned(*row) for row in rows]
        if len(events) > EVENTS_MAX:
            raise ReplayRefusedError(
                f"More than {EVENTS_MAX} events match. Split the range, or move the consumer back with a seek."
            )
    if wanted.superseded == "include":
        return Plan(events, 0)
    gone = await taken_back(conn, events, head)
    return Plan([event for event in events if event.position not in gone], len(gone))


async def taken_back(conn: Connection, events: Sequence[Planned], head: int) -> set[Position]:
    """The positions of grants that an event up to `head` took back."""
    candidates = [event for event in events if event.kind in GRANTS]
    heads = await seqs_at(conn, head)
    gone = set[Position]()
    for start in range(0, len(candidates), PAGE):
        grants = await _giving_access(conn, candidates[start : start + PAGE])
        params = (
            int4s([g.directory for g in grants]), int8s([g.seq for g in grants]), uuids([g.obj for g in grants]),
            uuids([g.mem for g in grants]), int8s([heads[g.directory] for g in grants]),
        )  # fmt: skip
        rows = await (await conn.cursor(binary=True).execute(SQL["taken_back"], params)).fetchall()
        gone |= {grants[number - 1].position for (number,) in rows}
    return gone


async def gives_access(conn: Connection, event: Planned) -> bool:
    """Whether an event gives somebody access."""
    return event.kind in GRANTS and bool(await _giving_access(conn, [event]))


async def _giving_access(conn: Connection, candidates: Sequence[Planned]) -> list[Planned]:
    """The events that give access. Creations and memberships of inactive users do not."""
    params = (int4s([c.directory for c in candidates]), int8s([c.seq for c in candidates]))
    rows = await (await conn.cursor(binary=True).execute(SQL["grant_flags"], params)).fetchall()
    gives = {(directory, seq) for directory, seq, leaf in rows if _gives(orjson.loads(leaf))}
    return [candidate for candidate in candidates if (candidate.directory, candidate.seq) in gives]


def _gives(leaf: dict[str, Any]) -> bool:
    return bool(leaf["eff"] if "mem" in leaf else leaf.get("active"))


async def run_of(conn: Connection, kek: Kek, number: UUID) -> Run | None:
    """A run by id, or None."""
    row = await (await conn.cursor(binary=True).execute(SQL["replay_by_id"], (number,))).fetchone()
    return _run(kek, row) if row else None


async def runs_of(
    conn: Connection, kek: Kek, consumer: int | None, *, open_only: bool = False, limit: int = 1_000, after: UUID | None = None
) -> list[Run]:
    """The runs of a consumer, or of all if None, newest first, behind a run. `open_only`: only runs that have not ended."""
    rows = await (await conn.cursor(binary=True).execute(SQL["replays_of"], (consumer, open_only, limit, after))).fetchall()
    if len(rows) <= ON_LOOP_RUNS:
        return _runs(kek, rows)
    return await anyio.to_thread.run_sync(_runs, kek, rows)


async def unended(conn: Connection, kek: Kek, consumer: int) -> list[Run]:
    """The running and paused runs of a consumer."""
    return await runs_of(conn, kek, consumer, open_only=True)


async def planned(conn: Connection, run: Run, head: int) -> list[Planned]:
    """The events that a run sends, without grants that an event up to `head` took back."""
    return (await plan(conn, run.range, head)).events


def _runs(kek: Kek, rows: Sequence[tuple[Any, ...]]) -> list[Run]:
    return [_run(kek, row) for row in rows]


def _run(kek: Kek, row: tuple[Any, ...]) -> Run:
    (
        number, sealed_name, consumer, consumer_name, after, through, head, types, directories, subjects, rate, superseded, sealed_reason, state, total,
        skipped, created, ended, done, reached, ahead, at, failure,
    ) = row  # fmt: skip
    wanted = Range(after, through, types, tuple(directories), None if subjects is None else tuple(subjects), superseded)
    name = open_optional(kek, sealed_name, kind="replay_name", owner=number) or ""
    reason = open_optional(kek, sealed_reason, kind="replay_reason", owner=number) or ""
    return Run(
        number, name, consumer, consumer_name, wanted, head, rate, reason, state, total, skipped, created, ended, done, reached, tuple(ahead), at,
        failure,
    )  # fmt: skip


# -- acts -------------------------------------------------------------------


def started(
    consumer: Consumer, run: Run, positions: Sequence[Position], *, kek: Kek, random: Callable[[int], bytes]
) -> RecordFacts:
    """The act that starts a run of a consumer over these positions. Deliveries blocked or retried there become due once, at its start.

    A run over no positions ends in the same commit: after a commit of its own a delivery process could end it first, and the request
    would be decided again and start another run.

    Name and reason are free text of the operator, so they are stored sealed.
    """
    r = run.range
    name = seal_note(kek, run.name, kind="replay_name", owner=run.id, random=random)
    reason = seal_note(kek, run.reason, kind="replay_reason", owner=run.id, random=random)
    row = (
        run.id, name, run.consumer, r.after, r.through, run.head, r.types, list(r.directories),
        None if r.subjects is None else list(r.subjects), run.rate_per_second, r.superseded, reason, run.total, run.skipped,
    )  # fmt: skip
    facts = {
        "from_position": r.after + 1, "to_position": r.through, "count": run.total, "superseded": run.skipped, "reason": run.reason,
    }  # fmt: skip
    due = (SQL["due_in_run"], (run.consumer, int8s(positions)))
    act = _act(REPLAY_STARTED, run, facts, (SQL["insert_replay"], row), due)
    if not positions:
        end = moved(run, "finished")
        act = replace(act, drafts=act.drafts + end.drafts, statements=act.statements + end.statements)
    return replace(act, stands=reads_on(consumer))


def moved(run: Run, state: State, reason: str = "") -> RecordFacts:
    """The act that changes the state of a run. Raises StateError if the run has ended."""
    if run.state in ENDED:
        raise StateError(f"This run was {run.state} already. Start another one.", "replay_ended")
    kinds = {
        "running": REPLAY_RESUMED, "paused": REPLAY_PAUSED, "cancelled": REPLAY_CANCELLED, "finished": REPLAY_FINISHED,
        "failed": REPLAY_FAILED,
    }  # fmt: skip
    facts = {"done": run.done, "total": run.total, **({"reason": reason} if reason else {})}
    given_up, resumed = (SQL["forget_replay"], (run.id,)), (SQL["drop_superseded"], (run.id,))
    forget = {"cancelled": given_up, "failed": given_up, "running": resumed}.get(state)
    change = (SQL["set_replay_state"], (run.id, state, reason if state == "failed" else None))
    act = _act(kinds[state], run, facts, change, *([forget] if forget else []))
    return replace(act, stands=(SQL["replay_unchanged"], (run.id, run.state)))


def _act(kind: EventType, run: Run, facts: dict[str, Any], *statements: tuple[Any, ...]) -> RecordFacts:
    body = Body({"id": str(run.id), "name": run.name, "consumer": run.consumer_name, **facts}, [], run.name)
    draft = Draft(kind, run.id, REPLAY, cause=OPERATOR, body=body)
    # touched() takes the consumer's lock: deliveries recorded before the act are counted, those recorded after see the new state.
    return RecordFacts((draft,), touched(run.consumer, *statements))


REPLAYS: Final = Replays(unended, planned, moved)  # the functions that the delivery processes use
