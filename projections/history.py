"""As-of: who existed, who was in what, who could reach what, at a seq of the log.

Membership and states are half-open seq intervals, so the past and the present are the same index query. An instant is first
mapped to a seq: the last commit with at <= T, whole.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from database.arrays import int8s, uuids
from database.connections import Connection
from database.queries import load_queries
from ledger.directories import Directory
from ledger.events import MEMBER_TYPE_NAMES, MEMBER_TYPES, USER
from ledger.sealing import Kek
from projections.reads import Resource, open_document

SQL: Final = load_queries(__file__)
DEPTH_MAX: Final = 64  # of group nesting; cycles end earlier


class InvalidAsOfError(ValueError):
    """The point in time cannot be answered; the text says why and what to send."""


@dataclass(frozen=True, slots=True)
class Point:
    """A place in a directory's history: the state after event `seq`, which happened at `at` (µs)."""

    seq: int
    at: int
    requested: str


async def resolve(conn: Connection, directory: Directory, as_of: str, *, now: int) -> Point:
    """Map `seq:N`, `seq:head` or an RFC 3339 instant with offset to the end of a commit.

    Raises InvalidAsOfError for the future, a time before the directory was created, a bare date or anything else: never "now".
    """
    if as_of.startswith("seq:"):
        return await _resolve_seq(conn, directory, as_of)
    at = _instant(as_of)
    if at > now:
        raise InvalidAsOfError("as_of lies in the future. Ask for an instant that has passed.")
    row = await (await conn.execute(SQL["point_at_time"], (directory.id, at))).fetchone()
    if row is None:
        raise InvalidAsOfError("as_of lies before the directory was created.")
    return Point(row[0], row[1], as_of)


async def _resolve_seq(conn: Connection, directory: Directory, as_of: str) -> Point:
    text = as_of.removeprefix("seq:")
    head = await (await conn.execute(SQL["point_at_seq"], (directory.id, 2**62))).fetchone()
    if head is None:
        raise InvalidAsOfError("The directory has no events yet.")
    if text == "head":
        return Point(head[0], head[1], as_of)
    if not (text.isascii() and text.isdigit() and len(text) < 19) or int(text) < 1:
        raise InvalidAsOfError('as_of "seq:" takes a number from 1, or "head".')
    if int(text) > head[0]:
        raise InvalidAsOfError(f"as_of lies beyond the last event of the directory, seq {head[0]}.")
    row = await (await conn.execute(SQL["point_at_seq"], (directory.id, int(text)))).fetchone()
    assert row is not None
    return Point(row[0], row[1], as_of)


def _instant(text: str) -> int:
    hint = 'as_of takes "seq:N", "seq:head" or an instant with offset such as 2026-10-01T00:00:00Z.'
    if len(text) <= 10 or text[10] not in "Tt " or len(text) > 40:
        raise InvalidAsOfError(f"{hint} A bare date is ambiguous.")
    try:
        moment = datetime.fromisoformat(text.replace(" ", "+") if text.count(" ") == 1 and "T" in text.upper() else text)
    except ValueError as broken:
        raise InvalidAsOfError(hint) from broken
    if moment.tzinfo is None:
        raise InvalidAsOfError(f"{hint} The offset is missing.")
    return int(moment.timestamp()) * 1_000_000 + moment.microsecond


@dataclass(frozen=True, slots=True)
class State:
    """A resource as of a point."""

    type: str
    active: bool
    resource: Resource | None  # None once erased


async def state_at(conn: Connection, kek: Kek, directory: Directory, obj: UUID, seq: int) -> State | None:
    """The resource as of a seq, or None where it did not exist then."""
    row = await (await conn.cursor(binary=True).execute(SQL["state_at"], (directory.id, obj, seq))).fetchone()
    if row is None:
        return None
    ot, active, body_seq, ct, wrapped, etag_rv, updated, created = row
    name = MEMBER_TYPE_NAMES[ot]
    if ct is None or wrapped is None:
        return State(name, active, None)
    document = shown(open_document(kek, directory, obj, body_seq, ct, wrapped), active=active)
    return State(name, active, Resource(name, obj, document, etag_rv, created, updated))


def shown(document: dict[str, Any], *, active: bool) -> dict[str, Any]:
    """A document with its user's activity as it is: the closing of a directory ends that of all, and writes no document anew."""
    return document if active or "active" not in document else {**document, "active": False}


async def ever_existed(conn: Connection, directory: Directory, ot: str, obj: UUID) -> bool:
    """Whether the directory ever had such a resource."""
    row = await (await conn.execute(SQL["ever_existed"], (directory.id, obj, MEMBER_TYPES[ot]))).fetchone()
    return row is not None


@dataclass(frozen=True, slots=True)
class Person:
    """One row of a population."""

    id: UUID
    active: bool
    body_seq: int


async def population(
    conn: Connection, directory: Directory, seq: int, *, ot: str = USER, after: UUID | None = None, limit: int = 1000
) -> list[Person]:
    """All users (or groups) that existed at a seq, by id."""
    params = (directory.id, MEMBER_TYPES[ot], seq, after or UUID(int=0), limit)
    rows = await (await conn.cursor(binary=True).execute(SQL["states_after"], params)).fetchall()
    return [Person(*row) for row in rows]


async def documents_at(conn: Connection, kek: Kek, directory: Directory, seqs: Sequence[int]) -> dict[int, dict[str, Any]]:
    """Unsealed documents by the seq of their body; erased ones are left out."""
    rows = await (await conn.cursor(binary=True).execute(SQL["bodies_of"], (directory.id, int8s(list(seqs))))).fetchall()
    return {seq: open_document(kek, directory, obj, seq, ct, wrapped) for seq, obj, ct, wrapped in rows}


@dataclass(frozen=True, slots=True)
class Member:
    """A member of a group as of a point. `via` holds the groups between, outermost first; empty for a direct member."""

    id: UUID
    type: str
    active: bool
    since_seq: int
    via: tuple[UUID, ...] = ()


async def members_at(conn: Connection, directory: Directory, group: UUID, seq: int, *, nested: bool) -> list[Member]:
    """Members of a group as of a seq; with `nested` also those reached through member groups, each with one path."""
    found: dict[UUID, Member] = {}
    level: dict[UUID, tuple[UUID, ...]] = {group: ()}
    seen = {group}
    for _ in range(DEPTH_MAX):
        params = (directory.id, uuids(list(level)), seq)
        rows = await (await conn.cursor(binary=True).execute(SQL["members_at"], params)).fetchall()
        below: dict[UUID, tuple[UUID, ...]] = {}
        for parent, member, mt, active, since in rows:
            found.setdefault(member, Member(member, MEMBER_TYPE_NAMES[mt], active, since, level[parent]))
            if MEMBER_TYPE_NAMES[mt] != USER and member not in seen:
                seen.add(member)
                below[member] = (*level[parent], member)
        if not nested or not below:
            break
        level = below
    return sorted(found.values(), key=lambda member: member.id)


@dataclass(frozen=True, slots=True)
class Access:
    """A group a user reaches, with every path: each path runs from the direct group up to this one."""

    group: UUID
    paths: tuple[tuple[UUID, ...], ...]
    since_seq: int

    @property
    def direct(self) -> bool:
        return any(len(path) == 1 for path in self.paths)


PATHS_MAX: Final = 100  # of one group; diamonds multiply


async def access_at(conn: Connection, directory: Directory, user: UUID, seq: int, *, nested: bool) -> list[Access]:
    """The groups a user belongs to as of a seq. Whether that is access depends on the user's activity: see state_at."""
    parents, since = await _groups_above(conn, directory, user, seq, nested=nested)
    paths: dict[UUID, list[tuple[UUID, ...]]] = defaultdict(list)
    open_paths: list[tuple[UUID, ...]] = [(group,) for group in parents.get(user, ())]
    while open_paths:
        path = open_paths.pop()
        if len(paths[path[-1]]) >= PATHS_MAX:
            continue
        paths[path[-1]].append(path)
        if nested:
            open_paths += [(*path, above) for above in parents.get(path[-1], ()) if above not in path]
    return [
        Access(group, tuple(sorted(found)), min(_since(user, path, since) for path in found))
        for group, found in sorted(paths.items())
    ]


def _since(user: UUID, path: tuple[UUID, ...], since: dict[tuple[UUID, UUID], int]) -> int:
    """A path gives access since its youngest edge."""
    return max(since[edge] for edge in zip((user, *path), path, strict=False))


async def _groups_above(
    conn: Connection, directory: Directory, member: UUID, seq: int, *, nested: bool
) -> tuple[dict[UUID, list[UUID]], dict[tuple[UUID, UUID], int]]:
    parents: dict[UUID, list[UUID]] = defaultdict(list)
    since: dict[tuple[UUID, UUID], int] = {}
    level = [member]
    for _ in range(DEPTH_MAX):
        rows = await (await conn.cursor(binary=True).execute(SQL["groups_at"], (directory.id, uuids(level), seq))).fetchall()
        for below, group, from_seq in rows:
            parents[below].append(group)
            since[below, group] = from_seq
        level = [group for group in {row[1] for row in rows} if group not in parents]
        if not nested or not level:
            break
    return parents, since


async def diff(
    conn: Connection, directory: Directory, first: int, second: int, *, group: UUID | None, user: UUID | None
) -> tuple[list[tuple[Any, ...]], list[tuple[Any, ...]]]:
    """What changed between two seqs: (memberships, states) rows as the named queries give them."""
    cursor = conn.cursor(binary=True)
    memberships = await (await cursor.execute(SQL["membership_diff"], (directory.id, first, second, group, user))).fetchall()
    if group is not None and user is not None:
        return memberships, []
    states = await (await cursor.execute(SQL["state_diff"], (directory.id, first, second, group or user))).fetchall()
    return memberships, states
