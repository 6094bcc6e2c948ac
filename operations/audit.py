"""Audit: who existed, who was in what, who could reach what, as of a time or a seq (docs/concepts.md, "As of")."""

from bisect import bisect_right
from collections.abc import Callable
from functools import partial
from typing import Annotated, Any, Final, Literal, NotRequired, Required, TypeAlias, TypedDict, TypeVar
from uuid import UUID

from msgspec import Meta

from database.connections import Connection
from ledger.commands import parse_id
from ledger.directories import Directory
from ledger.events import GROUP, MEMBER_TYPE_NAMES, USER
from ledger.ids import Seq
from ledger.rendering import BODIES_BYTES_MAX
from operations.admission import on_directory
from operations.caller import Caller
from operations.open_ledger import OpenLedger
from operations.refusals import NotFoundError, invalid, not_one_of
from projections import history
from projections.access import Access, Edge
from projections.access import access as access_by
from projections.history import Below, PastState, Point, SealedPastState
from scim.errors import TooMany
from scim.work import Work

ResourceName: TypeAlias = Annotated[str, Meta(extra_json_schema={"enum": [USER, GROUP]})]


class Names(TypedDict, total=False):
    """What a list shows besides the id; `erased` or `unreadable` where there are no attributes any more.

    The names of SCIM are older, and say the same.
    """

    user_name: str
    display_name: str
    external_id: str
    userName: str
    displayName: str
    externalId: str
    erased: bool
    unreadable: bool


class PopulationRow(Names):
    """A user or group that existed."""

    id: Required[UUID]
    type: Required[ResourceName]
    active: Required[bool]


class AccessRow(TypedDict):
    """A group that a user could reach. `paths`: the groups that each way leads through; `paths_capped`: there were more ways."""

    id: UUID
    type: ResourceName
    direct: bool
    since_seq: Seq
    display: str | None
    paths: list[list[UUID]]
    paths_capped: bool


class MemberRow(TypedDict):
    """A member of a group. `via`: the groups that it was a member through; `effective`: it was active, so the membership gave access."""

    id: UUID
    type: ResourceName
    effective: bool
    direct: bool
    via: list[UUID]
    since_seq: Seq


class ChangedMember(TypedDict):
    id: UUID
    type: ResourceName


class Difference(TypedDict):
    """A difference between two points. `active` of users and groups, `member` of memberships; `seq` null: it did not exist at the second point."""

    change: Literal["created", "deleted", "reactivated", "deactivated", "updated", "member_added", "member_removed"]
    id: UUID
    type: ResourceName
    active: NotRequired[bool | None]
    member: NotRequired[ChangedMember]
    seq: Seq | None


AUDIT_PAGE_MAX = 1_000
AUDIT_STEPS: Final = 3_000_000  # budget of one question: a million memberships, or the names of a hundred thousand users
LEVEL_STEPS: Final = 500  # charged for the query of one level of groups
ROW_BYTES: Final = 200  # of a row as JSON, without its parts of variable length
ID_BYTES: Final = 39  # of an id in a JSON list
Row = TypeVar("Row", AccessRow, MemberRow)


@on_directory("audit.population")
async def population(
    ledger: OpenLedger, _caller: Caller, directory: Directory, as_of: str, *, kind: str, after: str | None, limit: int
) -> tuple[list[PopulationRow], Point, str | None]:
    """All resources that existed, by id, after an id: at most `limit`, fewer if their attributes are large.

    Also returns the id after which the next page begins, or None at the end.
    """
    if kind not in {USER, GROUP}:
        raise not_one_of("type", kind, (USER, GROUP))
    start = None if after is None else _id(after)
    async with ledger.turns.connection(directory.id) as conn:
        point = await history.resolve(conn, directory, as_of, now=ledger.clock())
        people = await history.population(conn, directory, point.seq, ot=kind, after=start, limit=limit)

    def row(number: int, document: dict[str, Any] | None, why: str) -> PopulationRow:
        person = people[number]
        return {"id": person.id, "type": kind, "active": person.active, **_names(document, why)}

    seqs = [person.body_seq for person in people]
    rows = await history.documents_at(lambda: ledger.turns.connection(directory.id), ledger.kek, directory, seqs, row)
    whole = len(rows) == len(people) < limit
    return rows, point, None if whole or not rows else str(rows[-1]["id"])


@on_directory("audit.user")
async def user(ledger: OpenLedger, _caller: Caller, directory: Directory, user_id: str, as_of: str) -> tuple[PastState, Point]:
    """The past state of one user; without attributes if erased. Raises NotFoundError if it did not exist then."""
    async with ledger.turns.connection(directory.id) as conn:
        point, then = await _state(ledger, conn, directory, user_id, USER, as_of)
    if then is None:
        raise NotFoundError(f"There was no user with this id in this directory at seq {point.seq}.")
    return await ledger.turns.compute(directory.id, partial(history.opened_then, ledger.kek, directory, then)), point


@on_directory("audit.access")
async def access(
    ledger: OpenLedger, _caller: Caller, directory: Directory, user_id: str, as_of: str, *, nested: bool, after: str | None, work: Work
) -> tuple[list[AccessRow], Point, str | None]:  # fmt: skip
    """The groups that the user could reach: none from the commit on that deactivated or deleted the user.

    By id, after an id. Also returns the id after which the next page begins, or None at the end.
    """
    async with ledger.turns.connection(directory.id) as conn:
        point, state = await _state(ledger, conn, directory, user_id, USER, as_of)
        if state is None and not await history.ever_existed(conn, directory, USER, _id(user_id)):
            raise NotFoundError("This directory never had a user with this id.")
    if state is None or not state.active:
        return [], point, None
    edges = await _edges_above(ledger, directory, _id(user_id), point.seq, nested=nested, work=work)

    def reached() -> tuple[list[AccessRow], str | None]:
        return _page([_access_row(found) for found in access_by(_id(user_id), edges, work)], after, _path_bytes)

    page, more = await ledger.turns.compute(directory.id, reached)
    names = await _listed_attributes(ledger, directory, [row["id"] for row in page], point.seq, work)
    return [{**row, "display": names.get(row["id"], {}).get("displayName")} for row in page], point, more


def _access_row(found: Access) -> AccessRow:
    return {
        "id": found.group, "type": GROUP, "direct": found.direct, "since_seq": found.since_seq, "display": None,
        "paths": [list(path) for path in found.paths], "paths_capped": found.capped,
    }  # fmt: skip


async def _edges_above(ledger: OpenLedger, directory: Directory, user: UUID, seq: Seq, *, nested: bool, work: Work) -> list[Edge]:
    """The memberships through which the user reaches groups, read level by level, each once."""
    edges: list[Edge] = []
    level, seen = [user], {user}
    while level:
        async with ledger.turns.connection(directory.id) as conn:
            found = await history.edges_above(conn, directory, level, seq)
        work.spend(LEVEL_STEPS + len(found))
        edges += found
        level = [group for group in dict.fromkeys(edge.group for edge in found) if group not in seen] if nested else []
        seen.update(level)
    return edges


@on_directory("audit.members")
async def members(
    ledger: OpenLedger, _caller: Caller, directory: Directory, group_id: str, as_of: str, *, nested: bool, effective: bool | None,
    after: str | None, work: Work,
) -> tuple[list[MemberRow], Point, str | None]:  # fmt: skip
    """The members of a group. `effective`: the member was active, so the membership gave access.

    By id, after an id. Also returns the id after which the next page begins, or None at the end.
    """
    async with ledger.turns.connection(directory.id) as conn:
        point, state = await _state(ledger, conn, directory, group_id, GROUP, as_of)
    if state is None:
        raise NotFoundError(f"There was no group with this id in this directory at seq {point.seq}.")
    below = Below(_id(group_id))
    while below.level:
        async with ledger.turns.connection(directory.id) as conn:
            edges = await history.edges_below(conn, directory, list(below.level), point.seq)
        work.spend(LEVEL_STEPS)
        await ledger.turns.compute(directory.id, partial(below.add, edges, work))
        if not nested:
            break

    def rows() -> tuple[list[MemberRow], str | None]:
        found: list[MemberRow] = [
            {"id": m.id, "type": m.type, "effective": m.active, "direct": not m.via, "via": list(m.via), "since_seq": m.since_seq}
            for m in below.members()
            if effective is None or m.active is effective
        ]
        return _page(found, after, _via_bytes)

    page, more = await ledger.turns.compute(directory.id, rows)
    return page, point, more


@on_directory("audit.diff")
async def diff(
    ledger: OpenLedger, _caller: Caller, directory: Directory, first: str, to: str, *, group: str | None, user_id: str | None, work: Work
) -> tuple[list[Difference], Point, Point]:  # fmt: skip
    """The differences between two points, which are returned too. Applied to the first state they give the second.

    Raises TooMany if more than ROWS_MAX memberships or resources differ.
    """
    async with ledger.turns.connection(directory.id) as conn:
        begin = await history.resolve(conn, directory, first, now=ledger.clock())
        end = await history.resolve(conn, directory, to, now=ledger.clock())
        if begin.seq > end.seq:
            raise invalid("from", "lies after `to`: swap them")
        of_group, of_user = (_id(group) if group else None), (_id(user_id) if user_id else None)
        memberships, states = await history.diff(conn, directory, begin.seq, end.seq, group=of_group, user=of_user)
    if max(len(memberships), len(states)) > history.ROWS_MAX:
        raise TooMany(f"More than {history.ROWS_MAX} things differ. Ask for a shorter time, or for one group or user.")

    def rows() -> list[Difference]:
        work.spend(len(states) + len(memberships))
        return [*map(_state_change, states), *map(_edge_change, memberships)]

    return await ledger.turns.compute(directory.id, rows), begin, end


def _edge_change(row: tuple[Any, ...]) -> Difference:
    grp, mem, mt, sign, from_seq, to_seq = row
    change, seq = ("member_removed", to_seq) if sign < 0 else ("member_added", from_seq)
    return {"change": change, "id": grp, "type": GROUP, "member": {"id": mem, "type": MEMBER_TYPE_NAMES[mt]}, "seq": seq}


def _state_change(row: tuple[Any, ...]) -> Difference:
    obj, ot, was_active, is_active, was_body, is_body = row
    if was_body is None:
        change = "created"
    elif is_body is None:
        change = "deleted"
    elif was_active is not is_active:
        change = "reactivated" if is_active else "deactivated"
    else:
        change = "updated"
    return {"change": change, "id": obj, "type": MEMBER_TYPE_NAMES[ot], "active": is_active, "seq": is_body}


def _id(text: str) -> UUID:
    found = parse_id(text)
    if found is None:
        raise NotFoundError("There is no resource with this id in this directory at that point.")
    return found


async def _state(
    ledger: OpenLedger, conn: Connection, directory: Directory, obj: str, kind: str, as_of: str
) -> tuple[Point, SealedPastState | None]:
    point = await history.resolve(conn, directory, as_of, now=ledger.clock())
    state = await history.state_at(conn, directory, _id(obj), point.seq)
    return point, state if state is not None and state.type == kind else None


async def _listed_attributes(
    ledger: OpenLedger, directory: Directory, resources: list[UUID], seq: Seq, work: Work
) -> dict[UUID, dict[str, Any]]:
    """The names that a list shows besides the ids; none of erased resources."""
    return await history.documents_then(ledger.turns, ledger.kek, directory, resources, seq, ("displayName",), work)


def _names(document: dict[str, Any] | None, why: str) -> Names:
    if document is None:
        return {"erased": True} if why == "erased" else {"unreadable": True}
    names: Names = {}
    if "userName" in document:
        names["user_name"] = names["userName"] = document["userName"]
    if "displayName" in document:
        names["display_name"] = names["displayName"] = document["displayName"]
    if "externalId" in document:
        names["external_id"] = names["externalId"] = document["externalId"]
    return names


def _page(rows: list[Row], after: str | None, size: Callable[[Row], int]) -> tuple[list[Row], str | None]:
    """The rows after an id, up to BODIES_BYTES_MAX besides the first, and the id after which the next page begins."""
    start = 0 if after is None else bisect_right(rows, _id(after).bytes, key=lambda row: row["id"].bytes)
    total = 0
    for n in range(start + 1, len(rows)):
        total += ROW_BYTES + size(rows[n])
        if total > BODIES_BYTES_MAX:
            return rows[start:n], str(rows[n - 1]["id"])
    return rows[start:], None


def _path_bytes(row: AccessRow) -> int:
    return ID_BYTES * sum(map(len, row["paths"]))


def _via_bytes(row: MemberRow) -> int:
    return ID_BYTES * len(row["via"])
