"""As-of: who existed, who was in what, who could reach what, at a seq of the log.

Membership and states are half-open seq intervals, so the past and the present are the same index query. An instant is first
mapped to a seq: the last commit with at <= T, whole.
"""

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, TypeVar
from uuid import UUID

import anyio.to_thread
import orjson

from database.arrays import int8s, uuids
from database.connections import Connection
from database.queries import load_queries
from ledger.directories import Directory
from ledger.events import MEMBER_TYPE_NAMES, MEMBER_TYPES, USER
from ledger.feed import Connecting
from ledger.rendering import BODIES_BYTES_MAX, DAMAGED, Budget, tell_unreadable
from ledger.sealing import Kek, open_payload, unwrap_key
from projections.reads import Resource, open_document
from proofs.body import PayloadTooLargeError

T = TypeVar("T")
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
    resource: Resource | None  # None once erased, or where its body is damaged
    why: str = "erased"  # why there is no resource: "erased" or "unreadable"


async def state_at(conn: Connection, kek: Kek, directory: Directory, obj: UUID, seq: int) -> State | None:
    """The resource as of a seq, or None where it did not exist then."""
    row = await (await conn.cursor(binary=True).execute(SQL["state_at"], (directory.id, obj, seq))).fetchone()
    if row is None:
        return None
    ot, active, body_seq, ct, wrapped, etag_rv, updated, created = row
    name = MEMBER_TYPE_NAMES[ot]
    if ct is None or wrapped is None:
        return State(name, active, None)
    try:
        document = shown(open_document(kek, directory, obj, body_seq, ct, wrapped), active=active)
    except DAMAGED:
        tell_unreadable(directory, body_seq)
        return State(name, active, None, "unreadable")
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


async def documents_at(
    connection: Connecting,
    kek: Kek,
    directory: Directory,
    seqs: Sequence[int],
    make: Callable[[int, dict[str, Any] | None, str], T],
    *,
    budget: int = BODIES_BYTES_MAX,
) -> list[T]:
    """What `make` makes of documents, by the seq of their body, in the order of these: as many as `budget` bytes besides the first allow.

    `make` is given the index in `seqs`, and the document or why there is none: "erased" or "unreadable". It runs in a thread.
    """
    if not seqs:
        return []
    async with connection() as conn:
        sealed = await _sealed(conn, directory, seqs, budget)

    def opened() -> list[T]:
        found, left = list[T](), Budget(budget)
        for number, seq in enumerate(seqs[: sealed.count]):
            document, why = _opened(kek, directory, seq, sealed.rows.get(seq), left)
            if why == _LATER:
                break
            found.append(make(number, document, why))
        return found

    return await anyio.to_thread.run_sync(opened)


_LATER: Final = "later"


@dataclass(slots=True)
class _Sealed:
    """Sealed documents by seq: resource, size, ciphertext, key; and how many of the seqs asked for are there or erased."""

    rows: dict[int, tuple[UUID, int, bytes | None, bytes]]
    count: int


async def _sealed(conn: Connection, directory: Directory, seqs: Sequence[int], budget: int) -> _Sealed:
    at_once = budget // max(len(seqs), 1)
    rows = await (await conn.cursor(binary=True).execute(SQL["bodies_of"], (directory.id, int8s(list(seqs)), at_once))).fetchall()
    sealed = _Sealed({seq: (obj, size, ct, wrapped) for seq, obj, size, ct, wrapped in rows}, len(seqs))
    total, long = 0, list[int]()
    for number, seq in enumerate(seqs):
        _, size, ct, _ = sealed.rows.get(seq, (None, 0, b"", None))
        total += size if number else 0
        if number and total > budget:
            sealed.count = number
            break
        if ct is None:
            long.append(seq)
    if long:
        for seq, ct in await (await conn.cursor(binary=True).execute(SQL["long_bodies"], (directory.id, int8s(long)))).fetchall():
            obj, size, _, wrapped = sealed.rows[seq]
            sealed.rows[seq] = (obj, size, ct, wrapped)
    return sealed


def _opened(
    kek: Kek, directory: Directory, seq: int, row: tuple[UUID, int, bytes | None, bytes] | None, left: Budget
) -> tuple[dict[str, Any] | None, str]:
    """A document, or why there is none."""
    obj, _, ct, wrapped = row if row is not None else (None, 0, None, None)
    if obj is None or ct is None or wrapped is None:
        return None, "erased"
    try:
        key = unwrap_key(kek, wrapped, directory=directory.uuid, obj=obj)
        payload = open_payload(key, ct, directory=directory.uuid, obj=obj, seq=seq, payload_max=left.allowed)
        if not left.spend(len(payload)):
            return None, _LATER
        return orjson.loads(payload)["data"]["object"], ""
    except PayloadTooLargeError:
        if left.allowed is not None:
            return None, _LATER
        tell_unreadable(directory, seq)
    except DAMAGED:
        tell_unreadable(directory, seq)
    return None, "unreadable"


async def members_packed(conn: Connection, directory: Directory, group: UUID, seq: int) -> tuple[str, str]:
    """The direct members of a group as of a seq, by id: 36 characters of id each, and a digit each (type, and 2 where active)."""
    row = await (await conn.execute(SQL["members_packed"], (directory.id, group, seq))).fetchone()
    assert row is not None
    return row[0], row[1]


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
