"""Past states as of a seq: resources, members, access.

Memberships and states are half-open intervals of seq, so past and present are read with the same index query. An instant T is mapped
to the end of the last commit with at <= T.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final, Literal, NamedTuple, NotRequired, TypedDict, TypeVar
from uuid import UUID

import anyio.to_thread
import orjson

from database.arrays import int8s, uuids
from database.connections import Connection
from database.queries import load_queries
from ledger.clocks import PLUS, microseconds
from ledger.directories import Directory
from ledger.events import MEMBER_TYPE_NAMES, MEMBER_TYPES, USER
from ledger.feed import Connecting
from ledger.ids import Seq
from ledger.rendering import BODIES_BYTES_MAX, DAMAGED, Budget, tell_unreadable
from ledger.sealing import Kek, open_payload, unwrap_key
from ledger.turns import Turns
from projections.access import Edge
from projections.reads import Resource, SealedResource, open_document, open_sized
from proofs.body import PayloadTooLargeError
from scim.sorting import in_runs
from scim.work import STEP_BYTES, Work, reading

T = TypeVar("T")
SQL: Final = load_queries(__file__)
PIECE: Final = 1_000  # resources that one query looks up


class InvalidAsOfError(ValueError):
    """The `as_of` is invalid or cannot be answered; the text says why and what to send."""


@dataclass(frozen=True, slots=True)
class Point:
    """A point in a directory's history: the state after event `seq`, whose time is `at` (µs).

    `frozen`: the times around it were frozen, so they are not the real ones; the order of events is right.
    """

    seq: Seq
    at: int
    requested: str
    frozen: bool = False


class Frozen(TypedDict):
    """`clock` is there if times were frozen around the point: they are not the real ones, but the order of events is right."""

    clock: NotRequired[Literal["frozen"]]


def frozen(point: Point) -> Frozen:
    """The field `clock` of an answer if times were frozen, else nothing."""
    return {"clock": "frozen"} if point.frozen else {}


async def resolve(conn: Connection, directory: Directory, as_of: str, *, now: int) -> Point:
    """Map `seq:N`, `seq:head` or an RFC 3339 instant with offset to the end of a commit.

    Raises InvalidAsOfError for the future, a time before the directory was created, a bare date and other texts; none of them means now.
    """
    at = None if as_of.startswith("seq:") else _instant(as_of)
    if at is not None and at > now and at not in {end for _, end in await _stretches(conn, directory)}:
        raise InvalidAsOfError("as_of lies in the future. Ask for an instant that has passed.")
    point = await (_resolve_seq(conn, directory, as_of) if at is None else _resolve_time(conn, directory, as_of, at))
    # Read after the point: a clock may have been accepted between the two reads, and the point may be in that stretch.
    stretches = await _stretches(conn, directory)
    return replace(point, frozen=any(point.at == end or (at or 0) in range(begin, end + 1) for begin, end in stretches))


async def _stretches(conn: Connection, directory: Directory) -> list[tuple[int, int]]:
    """Stretches of frozen time in µs: from the clock's time at an acceptance to the time that events got until the clock passed it."""
    rows = await (await conn.execute(SQL["frozen_stretches"], (directory.id, directory.uuid))).fetchall()
    return [(begin, end) for begin, end in rows]


async def _resolve_time(conn: Connection, directory: Directory, as_of: str, at: int) -> Point:
    row = await (await conn.execute(SQL["point_at_time"], (directory.id, at))).fetchone()
    if row is None:
        raise InvalidAsOfError("as_of lies before the directory was created.")
    seq, at_then = row
    return Point(seq, at_then, as_of)


async def _resolve_seq(conn: Connection, directory: Directory, as_of: str) -> Point:
    text = as_of.removeprefix("seq:")
    head = await (await conn.execute(SQL["point_at_seq"], (directory.id, 2**62))).fetchone()
    if head is None:
        raise InvalidAsOfError("The directory has no events yet.")
    last, at = head
    if text == "head":
        return Point(last, at, as_of)
    if not (text.isascii() and text.isdigit() and len(text) < 19) or int(text) < 1:
        raise InvalidAsOfError('as_of "seq:" takes a number from 1, or "head".')
    if int(text) > last:
        raise InvalidAsOfError(f"as_of lies beyond the last event of the directory, seq {last}.")
    row = await (await conn.execute(SQL["point_at_seq"], (directory.id, int(text)))).fetchone()
    assert row is not None
    seq, at = row
    return Point(seq, at, as_of)


def _instant(text: str) -> int:
    hint = 'as_of takes "seq:N", "seq:head" or an instant with offset such as 2026-10-01T00:00:00Z.'
    if len(text) <= 10 or text[10] not in "Tt " or len(text) > 40:
        raise InvalidAsOfError(f"{hint} A bare date is ambiguous.")
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as broken:
        raise InvalidAsOfError(f"{PLUS} {hint}" if "T" in text.upper() and " " in text else hint) from broken
    if moment.tzinfo is None:
        raise InvalidAsOfError(f"{hint} The offset is missing.")
    return microseconds(moment)


@dataclass(frozen=True, slots=True)
class SealedPastState:
    """A resource at a point, still sealed."""

    type: str
    active: bool
    sealed: SealedResource | None  # None if erased


async def state_at(conn: Connection, directory: Directory, obj: UUID, seq: Seq) -> SealedPastState | None:
    """A resource as of a seq, still sealed; None if it did not exist then."""
    row = await (await conn.cursor(binary=True).execute(SQL["state_at"], (directory.id, obj, seq))).fetchone()
    if row is None:
        return None
    ot, active, body_seq, ct, wrapped, etag_rv, updated, created = row
    if ct is None or wrapped is None:
        return SealedPastState(MEMBER_TYPE_NAMES[ot], active, None)
    return SealedPastState(
        MEMBER_TYPE_NAMES[ot], active, SealedResource(obj, body_seq, etag_rv, created, updated, ct, wrapped, active)
    )


@dataclass(frozen=True, slots=True)
class PastState:
    """A resource at a point, opened."""

    type: str
    active: bool
    resource: Resource | None  # None if erased, or if its body is damaged
    why: str = "erased"  # why there is no resource: "erased" or "unreadable"


def opened_then(kek: Kek, directory: Directory, then: SealedPastState) -> PastState:
    """Open a past state."""
    sealed = then.sealed
    if sealed is None:
        return PastState(then.type, then.active, None)
    try:
        document = open_document(kek, directory, sealed.id, sealed.body_seq, sealed.ct, sealed.wrapped)
    except DAMAGED:
        tell_unreadable(directory, sealed.body_seq)
        return PastState(then.type, then.active, None, "unreadable")
    document = shown(document, active=then.active)
    return PastState(
        then.type, then.active, Resource(then.type, sealed.id, document, sealed.etag_rv, sealed.created_at, sealed.updated_at)
    )


def shown(document: dict[str, Any], *, active: bool) -> dict[str, Any]:
    """The document with the right `active`: closing a directory deactivates all users without a new body for each."""
    return document if active or "active" not in document else {**document, "active": False}


async def ever_existed(conn: Connection, directory: Directory, ot: str, obj: UUID) -> bool:
    """Whether the directory ever had a resource of this type and id."""
    row = await (await conn.execute(SQL["ever_existed"], (directory.id, obj, MEMBER_TYPES[ot]))).fetchone()
    return row is not None


@dataclass(frozen=True, slots=True)
class Person:
    """One row of a population."""

    id: UUID
    active: bool
    body_seq: Seq


async def population(
    conn: Connection, directory: Directory, seq: Seq, *, ot: str = USER, after: UUID | None = None, limit: int = 1000
) -> list[Person]:
    """All users (or groups) that existed at a seq, by id."""
    params = (directory.id, MEMBER_TYPES[ot], seq, after or UUID(int=0), limit)
    rows = await (await conn.cursor(binary=True).execute(SQL["states_after"], params)).fetchall()
    return [Person(*row) for row in rows]


async def documents_at(
    connection: Connecting,
    kek: Kek,
    directory: Directory,
    seqs: Sequence[Seq],
    make: Callable[[int, dict[str, Any] | None, str], T],
    *,
    budget: int = BODIES_BYTES_MAX,
) -> list[T]:
    """Open the bodies at `seqs` in order and apply `make` to each, up to `budget` bytes besides the first.

    `make` gets the index in `seqs`, and the document or the reason why there is none: "erased" or "unreadable". It runs in a thread.
    """
    if not seqs:
        return []
    async with connection() as conn:
        sealed = await _sealed(conn, directory, seqs, budget)

    def opened() -> list[T]:
        found, left = list[T](), Budget(budget)
        for number, seq in enumerate(seqs[: sealed.count]):
            document, why = open_within(kek, directory, seq, sealed.rows.get(seq), left)
            if why == LATER:
                break
            found.append(make(number, document, why))
        return found

    return await anyio.to_thread.run_sync(opened)


LATER: Final = "later"  # instead of a document: the budget ends before it


@dataclass(slots=True)
class _Sealed:
    """Sealed documents by seq (resource, size, ciphertext, key), and how many of the requested seqs were read."""

    rows: dict[Seq, tuple[UUID, int, bytes | None, bytes]]
    count: int


async def _sealed(conn: Connection, directory: Directory, seqs: Sequence[Seq], budget: int) -> _Sealed:
    at_once = budget // max(len(seqs), 1)
    rows = await (await conn.cursor(binary=True).execute(SQL["bodies_of"], (directory.id, int8s(list(seqs)), at_once))).fetchall()
    sealed = _Sealed({seq: (obj, size, ct, wrapped) for seq, obj, size, ct, wrapped in rows}, len(seqs))
    total, long = 0, list[Seq]()
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


def open_within(
    kek: Kek, directory: Directory, seq: Seq, row: tuple[UUID, int, bytes | None, bytes] | None, left: Budget
) -> tuple[dict[str, Any] | None, str]:
    """The document, or the reason why there is none."""
    obj, _, ct, wrapped = row if row is not None else (None, 0, None, None)
    if obj is None or ct is None or wrapped is None:
        return None, "erased"
    try:
        key = unwrap_key(kek, wrapped, directory=directory.uuid, obj=obj)
        payload = open_payload(key, ct, directory=directory.uuid, obj=obj, seq=seq, payload_max=left.allowed)
        if not left.spend(len(payload)):
            return None, LATER
        return orjson.loads(payload)["data"]["object"], ""
    except PayloadTooLargeError:
        if left.allowed is not None:
            return None, LATER
        tell_unreadable(directory, seq)
    except DAMAGED:
        tell_unreadable(directory, seq)
    return None, "unreadable"


async def members_packed(conn: Connection, directory: Directory, group: UUID, seq: Seq) -> tuple[str, str]:
    """The direct members of a group as of a seq, by id: a text of 36 characters for each id, and one of a digit each (type + 2 if active)."""
    row = await (await conn.execute(SQL["members_packed"], (directory.id, group, seq))).fetchone()
    assert row is not None
    ids, digits = row
    return ids, digits


@dataclass(frozen=True, slots=True)
class Member:
    """A member of a group at a point. `via`: the groups in between, outermost first; empty for a direct member."""

    id: UUID
    type: str
    active: bool
    since_seq: Seq
    via: tuple[UUID, ...] = ()


async def members_at(conn: Connection, directory: Directory, group: UUID, seq: Seq) -> list[Member]:
    """The direct members of a group as of a seq, by id."""
    return sorted((edge.member for edge in await edges_below(conn, directory, [group], seq)), key=_id_of)


class EdgeBelow(NamedTuple):
    """A stored membership, found by its group."""

    group: UUID
    member: Member


async def edges_below(conn: Connection, directory: Directory, groups: Sequence[UUID], seq: Seq) -> list[EdgeBelow]:
    """The direct members of groups as of a seq."""
    params = (directory.id, uuids(list(groups)), seq)
    rows = await (await conn.cursor(binary=True).execute(SQL["members_at"], params)).fetchall()
    return [EdgeBelow(group, Member(member, MEMBER_TYPE_NAMES[mt], active, since)) for group, member, mt, active, since in rows]


class Below:
    """The members of a group, found level by level. The first way to a member is kept: it is a shortest one, and circles end."""

    def __init__(self, group: UUID) -> None:
        self.found: dict[UUID, Member] = {}
        self.level: dict[UUID, tuple[UUID, ...]] = {group: ()}  # the groups of the next level, and the way to each
        self._seen = {group}

    def add(self, edges: Sequence[EdgeBelow], work: Work) -> None:
        """Add the members of this level. Raises as Work.spend does."""
        below: dict[UUID, tuple[UUID, ...]] = {}
        work.spend(len(edges))
        for group, member in edges:
            via = self.level[group]
            if member.id not in self.found:
                work.spend(len(via))
                self.found[member.id] = replace(member, via=via)
            if member.type != USER and member.id not in self._seen:
                self._seen.add(member.id)
                below[member.id] = (*via, member.id)
        self.level = below

    def members(self) -> list[Member]:
        """All found members, by id."""
        return in_runs(list(self.found.values()), _id_of)


def _id_of(member: Member) -> bytes:
    return member.id.bytes


async def edges_above(conn: Connection, directory: Directory, members: Sequence[UUID], seq: Seq) -> list[Edge]:
    """The groups that have these as direct members as of a seq."""
    params = (directory.id, uuids(list(members)), seq)
    rows = await (await conn.cursor(binary=True).execute(SQL["groups_at"], params)).fetchall()
    return [Edge(*row) for row in rows]


ROWS_MAX: Final = 100_000  # rows of a comparison


async def diff(
    conn: Connection, directory: Directory, first: int, second: int, *, group: UUID | None, user: UUID | None
) -> tuple[list[tuple[Any, ...]], list[tuple[Any, ...]]]:
    """The differences between two seqs: rows of membership_diff and state_diff, at most ROWS_MAX + 1 of each."""
    cursor, limit = conn.cursor(binary=True), ROWS_MAX + 1
    params = (directory.id, first, second, group, user, limit)
    memberships = await (await cursor.execute(SQL["membership_diff"], params)).fetchall()
    if group is not None and user is not None:
        return memberships, []
    states = await (await cursor.execute(SQL["state_diff"], (directory.id, first, second, group or user, limit))).fetchall()
    return memberships, states


class SealedThen(NamedTuple):
    """A resource as of a seq, still sealed."""

    id: UUID
    body_seq: Seq
    ct: bytes
    wrapped: bytes

    def document(self, kek: Kek, directory: Directory, work: Work) -> dict[str, Any]:
        """Open the document; empty if it cannot be opened. Raises as Work.spend does."""
        work.spend(reading(len(self.ct)))
        try:
            document, size = open_sized(kek, directory, self.id, self.body_seq, self.ct, self.wrapped)
        except DAMAGED:
            tell_unreadable(directory, self.body_seq)
            return {}
        work.spend(size // STEP_BYTES)
        return document


async def sealed_at(conn: Connection, directory: Directory, resources: Sequence[UUID], seq: Seq) -> tuple[list[SealedThen], int]:
    """Resources as of a seq, up to BODIES_BYTES_MAX, and how many of the requested ids that covers.

    Resources that did not exist then, or were erased since, are left out.
    """
    params = (directory.id, uuids(list(resources)), seq, BODIES_BYTES_MAX)
    rows = await (await conn.cursor(binary=True).execute(SQL["sealed_at"], params)).fetchall()
    found: list[SealedThen] = []
    for place, obj, body_seq, ct, wrapped in rows:
        if ct is None:  # the budget ends before it
            return found, place - 1
        found.append(SealedThen(obj, body_seq, ct, wrapped))
    return found, len(resources)


async def documents_then(
    turns: Turns, kek: Kek, directory: Directory, resources: Sequence[UUID], seq: Seq, shown: Sequence[str], work: Work
) -> dict[UUID, dict[str, Any]]:
    """Some attributes of resources as of a seq. No connection is held while they are opened. Raises as Work.spend does."""
    found: dict[UUID, dict[str, Any]] = {}
    done = 0
    while done < len(resources):
        async with turns.connection(directory.id) as conn:
            rows, looked_at = await sealed_at(conn, directory, resources[done : done + PIECE], seq)
        done += looked_at

        def read(rows: Sequence[SealedThen] = rows) -> dict[UUID, dict[str, Any]]:
            opened = ((sealed.id, sealed.document(kek, directory, work)) for sealed in rows)
            return {obj: {name: document[name] for name in shown if name in document} for obj, document in opened}

        found |= await turns.compute(directory.id, read)
    return found
