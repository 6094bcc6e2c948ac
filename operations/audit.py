"""Audit: who existed, who was in what, who could reach what, as of a time or a seq (CONTRACT §7)."""

from collections.abc import Iterable
from typing import Any
from uuid import UUID

from database.connections import Connection
from ledger.commands import parse_id
from ledger.directories import Directory
from ledger.events import GROUP, MEMBER_TYPE_NAMES, USER
from operations.admission import on_directory
from operations.caller import Caller
from operations.open_ledger import OpenLedger
from operations.refusals import InvalidError, NotFoundError
from projections import history
from projections.history import Point, State

PAGE_MAX = 1_000
Rows = list[dict[str, Any]]


@on_directory("audit.population")
async def population(
    ledger: OpenLedger, _caller: Caller, directory: Directory, as_of: str, *, kind: str, after: str | None, limit: int
) -> tuple[Rows, Point, str | None]:
    """Everyone who existed, by id after an id: `limit` at a time, or fewer where their attributes are large.

    With the id to go on after, or None at the end.
    """
    if kind not in {USER, GROUP}:
        raise InvalidError("`type` is User or Group.", "invalid_parameters")
    start = None if after is None else _id(after)
    async with ledger.connection() as conn:
        point = await history.resolve(conn, directory, as_of, now=ledger.clock())
        people = await history.population(conn, directory, point.seq, ot=kind, after=start, limit=limit)

    def row(number: int, document: dict[str, Any] | None, why: str) -> dict[str, Any]:
        person = people[number]
        return {"id": person.id, "type": kind, "active": person.active, **_names(document, why)}

    seqs = [person.body_seq for person in people]
    rows = await history.documents_at(ledger.connection, ledger.kek, directory, seqs, row)
    whole = len(rows) == len(people) < limit
    return rows, point, None if whole or not rows else str(rows[-1]["id"])


@on_directory("audit.user")
async def user(ledger: OpenLedger, _caller: Caller, directory: Directory, user_id: str, as_of: str) -> tuple[State, Point]:
    """One user as it was; without a resource once erased. Raises NotFoundError where there was none."""
    async with ledger.connection() as conn:
        point, state = await _state(ledger, conn, directory, user_id, USER, as_of)
    if state is None:
        raise NotFoundError(f"There was no user with this id in this directory at seq {point.seq}.")
    return state, point


@on_directory("audit.access")
async def access(
    ledger: OpenLedger, _caller: Caller, directory: Directory, user_id: str, as_of: str, *, nested: bool
) -> tuple[Rows, Point]:
    """Groups the user could reach: none while inactive or gone, from the commit on that made it so."""
    async with ledger.connection() as conn:
        point, state = await _state(ledger, conn, directory, user_id, USER, as_of)
        if state is None and not await history.ever_existed(conn, directory, USER, _id(user_id)):
            raise NotFoundError("This directory never had a user with this id.")
        if state is None or not state.active:
            return [], point
        reached = await history.access_at(conn, directory, _id(user_id), point.seq, nested=nested)
        names = await _group_names(ledger, conn, directory, [found.group for found in reached], point.seq)
    rows = [
        {
            "id": found.group, "type": GROUP, "direct": found.direct, "since_seq": found.since_seq, "display": names.get(found.group),
            "paths": [list(path) for path in found.paths],
        }
        for found in reached
    ]  # fmt: skip
    return rows, point


@on_directory("audit.members")
async def members(
    ledger: OpenLedger, _caller: Caller, directory: Directory, group_id: str, as_of: str, *, nested: bool, effective: bool | None
) -> tuple[Rows, Point]:
    """Members of a group: `effective` tells those who are active from those who are only stored."""
    async with ledger.connection() as conn:
        point, state = await _state(ledger, conn, directory, group_id, GROUP, as_of)
        if state is None:
            raise NotFoundError(f"There was no group with this id in this directory at seq {point.seq}.")
        found = await history.members_at(conn, directory, _id(group_id), point.seq, nested=nested)
    rows = [
        {"id": m.id, "type": m.type, "effective": m.active, "direct": not m.via, "via": list(m.via), "since_seq": m.since_seq}
        for m in found
        if effective is None or m.active is effective
    ]
    return rows, point


@on_directory("audit.diff")
async def diff(
    ledger: OpenLedger, _caller: Caller, directory: Directory, first: str, to: str, *, group: str | None, user_id: str | None
) -> tuple[Rows, Point, Point]:
    """What stands at one point and not at the other; applied to the first it gives the second. With both points."""
    async with ledger.connection() as conn:
        begin = await history.resolve(conn, directory, first, now=ledger.clock())
        end = await history.resolve(conn, directory, to, now=ledger.clock())
        if begin.seq > end.seq:
            raise InvalidError("`from` lies after `to`. Swap them.", "invalid_parameters")
        of_group, of_user = (_id(group) if group else None), (_id(user_id) if user_id else None)
        memberships, states = await history.diff(conn, directory, begin.seq, end.seq, group=of_group, user=of_user)
    rows = [_state_change(row) for row in states]
    rows += [
        {"change": "member_removed" if sign < 0 else "member_added", "id": grp, "type": GROUP,
         "member": {"id": mem, "type": MEMBER_TYPE_NAMES[mt]}, "seq": to_seq if sign < 0 else from_seq}
        for grp, mem, mt, sign, from_seq, to_seq in memberships
    ]  # fmt: skip
    return rows, begin, end


def _state_change(row: tuple[Any, ...]) -> dict[str, Any]:
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
) -> tuple[Point, State | None]:
    point = await history.resolve(conn, directory, as_of, now=ledger.clock())
    state = await history.state_at(conn, ledger.kek, directory, _id(obj), point.seq)
    return point, state if state is not None and state.type == kind else None


async def _group_names(
    ledger: OpenLedger, conn: Connection, directory: Directory, groups: Iterable[UUID], seq: int
) -> dict[UUID, str]:
    names: dict[UUID, str] = {}
    for group in groups:
        state = await history.state_at(conn, ledger.kek, directory, group, seq)
        if state is not None and state.resource is not None:
            names[group] = state.resource.document["displayName"]
    return names


def _names(document: dict[str, Any] | None, why: str) -> dict[str, Any]:
    if document is None:
        return {why: True}
    return {name: document[name] for name in ("userName", "displayName", "externalId") if name in document}
