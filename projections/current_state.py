"""Apply events to the core read models: fold a batch of events in memory, then run a few set-wise statements.

The same functions serve the writer (inside the commit) and the rebuild (beside the live tables).
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, LiteralString
from uuid import UUID

from database.arrays import bools, byteas, int2s, int4s, int8s, texts, uuids
from database.queries import load_queries
from ledger.commands import Statement
from ledger.events import (
    ACTIVE,
    CLOSED,
    DELETED,
    DIRECTORY_CLOSED,
    DIRECTORY_DELETED,
    DIRECTORY_PAUSED,
    DIRECTORY_RESUMED,
    GROUP,
    GROUP_CREATED,
    MEMBER_TYPES,
    PAUSED,
    USER,
    USER_CREATED,
    Effect,
    Macs,
    Recorded,
)
from ledger.ids import DirectoryNumber, Seq

SQL: Final = load_queries(__file__)
OPEN: Final = Seq(9_223_372_036_854_775_807)
Obj = tuple[DirectoryNumber, UUID]
MembershipKey = tuple[DirectoryNumber, UUID, UUID]
Encode = Callable[[Sequence[Recorded], dict[Obj, int]], tuple[Any, ...]]  # (rows, creation times of new rows) -> parameters


@dataclass(slots=True)
class _State:
    """A state interval of a resource that begins in this batch."""

    ot: int
    active: bool
    body_seq: Seq
    from_seq: Seq
    to_seq: Seq = OPEN


@dataclass(slots=True)
class _Standing:
    """The state of a directory after this batch."""

    state: str
    since: int
    closed_seq: int = 0  # 0: not closed in this batch
    closed_at: int = 0


@dataclass(slots=True)
class Delta:
    """The net changes of a batch of events to the read models."""

    users: dict[Obj, Recorded] = field(default_factory=dict[Obj, Recorded])  # newest event of each changed user
    groups: dict[Obj, Recorded] = field(default_factory=dict[Obj, Recorded])
    created: dict[Obj, int] = field(default_factory=dict[Obj, int])  # resources created in this batch, and when
    deleted: set[Obj] = field(default_factory=set[Obj])  # resources that existed before this batch and were deleted
    states: dict[Obj, list[_State]] = field(default_factory=dict[Obj, list[_State]])
    closed_states: dict[Obj, Seq] = field(default_factory=dict[Obj, Seq])
    edges: dict[MembershipKey, list[list[int]]] = field(
        default_factory=dict[MembershipKey, list[list[int]]]
    )  # [mt, from_seq, to_seq]
    closed_edges: dict[MembershipKey, Seq] = field(default_factory=dict[MembershipKey, Seq])
    directories: dict[DirectoryNumber, _Standing] = field(default_factory=dict[DirectoryNumber, _Standing])


def fold(events: Iterable[Recorded]) -> Delta:
    """Fold a batch of events, in order, into their net changes."""
    delta = Delta()
    for event in events:
        match event.kind.effect:
            case Effect.NOTHING:
                pass
            case Effect.CHANGES:
                _changed(delta, event)
            case Effect.ENDS:
                _ended(delta, event)
            case Effect.ADDS_MEMBER:
                _member_added(delta, event)
            case Effect.REMOVES_MEMBER:
                _member_removed(delta, event)
            case Effect.MOVES_DIRECTORY:
                _directory_moved(delta, event)
    return delta


def project(events: Sequence[Recorded]) -> list[Statement]:
    """The statements that apply a batch of events inside its commit (an InlineProjection)."""
    return changes(fold(events))


def _changed(delta: Delta, event: Recorded) -> None:
    obj = (event.directory, event.obj)
    resources, ot = (delta.users, USER) if event.kind.subject == USER else (delta.groups, GROUP)
    resources[obj] = event
    if event.kind is USER_CREATED or event.kind is GROUP_CREATED:
        delta.created[obj] = event.at
    _end_state(delta, obj, event.seq)
    active = True if event.active is None else event.active
    delta.states.setdefault(obj, []).append(_State(MEMBER_TYPES[ot], active, event.seq, event.seq))


def _ended(delta: Delta, event: Recorded) -> None:
    obj = (event.directory, event.obj)
    (delta.users if event.kind.subject == USER else delta.groups).pop(obj, None)
    if obj in delta.created:
        del delta.created[obj]
    else:
        delta.deleted.add(obj)
    _end_state(delta, obj, event.seq)


def _end_state(delta: Delta, obj: Obj, seq: Seq) -> None:
    """End a state interval: in memory if it began in this batch, else by an update."""
    begun = delta.states.get(obj)
    if begun and begun[-1].to_seq == OPEN:
        begun[-1].to_seq = seq
    elif obj not in delta.created:
        delta.closed_states[obj] = seq


def _member_added(delta: Delta, event: Recorded) -> None:
    assert event.mem is not None
    assert event.mt is not None
    edge = (event.directory, event.obj, event.mem)
    delta.edges.setdefault(edge, []).append([MEMBER_TYPES[event.mt], event.seq, OPEN])


def _member_removed(delta: Delta, event: Recorded) -> None:
    assert event.mem is not None
    edge = (event.directory, event.obj, event.mem)
    begun = delta.edges.get(edge)
    if begun and begun[-1][2] == OPEN:
        begun[-1][2] = event.seq
    else:
        delta.closed_edges[edge] = event.seq


def _directory_moved(delta: Delta, event: Recorded) -> None:
    before = delta.directories.get(event.directory)
    standing = _Standing(_STANDINGS[event.kind], event.at)
    if event.kind is DIRECTORY_CLOSED:
        standing.closed_seq, standing.closed_at = event.seq, event.at
    elif before is not None:
        standing.closed_seq, standing.closed_at = before.closed_seq, before.closed_at
    delta.directories[event.directory] = standing


_STANDINGS: Final = {
    DIRECTORY_PAUSED: PAUSED,
    DIRECTORY_RESUMED: ACTIVE,
    DIRECTORY_CLOSED: CLOSED,
    DIRECTORY_DELETED: DELETED,
}


# -- to statements ----------------------------------------------------------


def changes(delta: Delta) -> list[Statement]:
    """Encode a delta for the live tables: new rows are inserted, older ones updated."""
    users, groups, created = delta.users, delta.groups, delta.created
    out = _deletions(delta)
    out += _encoded(SQL["update_users"], _user_rows, [event for obj, event in users.items() if obj not in created], created)
    out += _encoded(SQL["insert_users"], _user_rows, [event for obj, event in users.items() if obj in created], created)
    out += _encoded(SQL["update_groups"], _group_rows, [event for obj, event in groups.items() if obj not in created], created)
    out += _encoded(SQL["insert_groups"], _group_rows, [event for obj, event in groups.items() if obj in created], created)
    return out + _intervals(delta)


def rewriting(delta: Delta) -> list[Statement]:
    """Encode a delta for tables that are being rebuilt: changed rows are deleted and inserted.

    A batch of a rebuild may move a userName from one user to another; the row-by-row unique check of an UPDATE would refuse that.
    """
    out = _deletions(delta)
    out += _rewritten(SQL["rewrite_users"], _user_rows, delta.users, delta.created)
    out += _rewritten(SQL["rewrite_groups"], _group_rows, delta.groups, delta.created)
    return out + _intervals(delta)


def _encoded(statement: LiteralString, encode: Encode, rows: Sequence[Recorded], created: dict[Obj, int]) -> list[Statement]:
    return [(statement, encode(rows, created))] if rows else []


def _rewritten(statement: LiteralString, encode: Encode, rows: dict[Obj, Recorded], created: dict[Obj, int]) -> list[Statement]:
    older = _keys([obj for obj in rows if obj not in created])
    return [(statement, (*older, *encode(list(rows.values()), created)))] if rows else []


def _deletions(delta: Delta) -> list[Statement]:
    gone = _keys(sorted(delta.deleted))
    return [(SQL["delete_users"], gone), (SQL["delete_groups"], gone)] if delta.deleted else []


def _intervals(delta: Delta) -> list[Statement]:
    return [*_states(delta), *_memberships(delta), *_directories(delta)]


def _keys(objs: Sequence[Obj]) -> tuple[Any, ...]:
    return int4s([d for d, _ in objs]), uuids([i for _, i in objs])


def _macs(event: Recorded) -> Macs:
    assert event.macs is not None
    return event.macs


def _user_rows(rows: Sequence[Recorded], born: dict[Obj, int]) -> tuple[Any, ...]:
    macs = [_macs(row) for row in rows]
    return (
        int4s([r.directory for r in rows]), uuids([r.obj for r in rows]), bools([bool(r.active) for r in rows]),
        int8s([r.seq for r in rows]), int4s([r.rv for r in rows]), int4s([r.etag_rv for r in rows]),
        int8s([born.get((r.directory, r.obj), r.at) for r in rows]), int8s([r.at for r in rows]),
        byteas([m.name for m in macs]), byteas([m.external_id for m in macs]), byteas([m.display_name for m in macs]),
        texts([_bytea_literal(m.emails) for m in macs]),
    )  # fmt: skip


def _bytea_literal(values: tuple[bytes, ...]) -> str | None:
    # unnest flattens arrays of arrays, so each row's array is sent as a text literal.
    return "{" + ",".join(f'"\\\\x{value.hex()}"' for value in values) + "}" if values else None


def _group_rows(rows: Sequence[Recorded], born: dict[Obj, int]) -> tuple[Any, ...]:
    macs = [_macs(row) for row in rows]
    return (
        int4s([r.directory for r in rows]), uuids([r.obj for r in rows]), int8s([r.seq for r in rows]),
        int8s([born.get((r.directory, r.obj), r.at) for r in rows]), byteas([m.name for m in macs]), byteas([m.external_id for m in macs]),
    )  # fmt: skip


def _states(delta: Delta) -> list[Statement]:
    out: list[Statement] = []
    if delta.closed_states:
        objs = list(delta.closed_states)
        out.append((SQL["close_states"], (
            int4s([d for d, _ in objs]), uuids([o for _, o in objs]), int8s([delta.closed_states[obj] for obj in objs]),
        )))  # fmt: skip
    rows = [(obj, state) for obj, begun in delta.states.items() for state in begun]
    if rows:
        out.append((SQL["insert_states"], (
            int4s([obj[0] for obj, _ in rows]), uuids([obj[1] for obj, _ in rows]), int2s([s.ot for _, s in rows]),
            bools([s.active for _, s in rows]), int8s([s.body_seq for _, s in rows]), int8s([s.from_seq for _, s in rows]),
            int8s([s.to_seq for _, s in rows]),
        )))  # fmt: skip
    return out


def _memberships(delta: Delta) -> list[Statement]:
    out: list[Statement] = []
    if delta.closed_edges:
        edges = list(delta.closed_edges)
        out.append((SQL["close_memberships"], (
            int4s([e[0] for e in edges]), uuids([e[1] for e in edges]), uuids([e[2] for e in edges]),
            int8s([delta.closed_edges[edge] for edge in edges]),
        )))  # fmt: skip
    rows = [(edge, interval) for edge, begun in delta.edges.items() for interval in begun]
    if rows:
        out.append((SQL["insert_memberships"], (
            int4s([e[0] for e, _ in rows]), uuids([e[1] for e, _ in rows]), uuids([e[2] for e, _ in rows]), int2s([i[0] for _, i in rows]),
            int8s([i[1] for _, i in rows]), int8s([i[2] for _, i in rows]),
        )))  # fmt: skip
    return out


def _directories(delta: Delta) -> list[Statement]:
    rows = delta.directories
    if not rows:
        return []
    standings = list(rows.values())
    return [(SQL["upsert_directory_states"], (
        int4s(list(rows)), texts([s.state for s in standings]), int8s([s.since for s in standings]),
        int8s([s.closed_seq for s in standings]), int8s([s.closed_at for s in standings]),
    ))]  # fmt: skip
