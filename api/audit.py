"""Audit: who existed, who was in what, who could reach what, as of a time or a seq (CONTRACT §7)."""

from collections.abc import Iterable
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Query, Request, Response

from api.acts import as_json
from api.problems import ProblemError
from api.scim.resources import with_meta
from api.services import Services
from database.connections import Connection
from ledger.commands import parse_id
from ledger.directories import Directory
from ledger.events import GROUP, MEMBER_TYPE_NAMES, USER
from ledger.feed import rfc3339
from projections import history
from projections.history import Point, State
from scim.errors import Forbidden

ROLES = ("auditor", "admin")
PAGE_MAX = 1_000


def routes(services: Services) -> APIRouter:
    """The audit routes; each answer says which point in history it speaks of."""
    router = APIRouter(prefix="/v1/audit/{directory}")

    @router.get("/population")
    async def population(
        request: Request, directory: str, as_of: str = "seq:head", type: str = USER, after: str | None = None,  # noqa: A002
        limit: Annotated[int, Query(ge=1, le=PAGE_MAX)] = PAGE_MAX,
    ) -> Response:  # fmt: skip
        if type not in {USER, GROUP}:
            raise ProblemError(400, "invalid_parameters", "`type` is User or Group.")
        found = await _open(services, request, directory)
        async with services.pool.connection() as conn:
            rows, point = await population_rows(services, conn, found, as_of, kind=type, after=_id_or_none(after), limit=limit)
        return _many(point, rows, str(rows[-1]["id"]) if len(rows) == limit else None)

    @router.get("/users/{user}")
    async def user(request: Request, directory: str, user: str, as_of: str = "seq:head") -> Response:
        found = await _open(services, request, directory)
        async with services.pool.connection() as conn:
            rows, point = await user_rows(services, conn, found, user, as_of)
        return _one(point, rows[0])

    @router.get("/users/{user}/access")
    async def access(request: Request, directory: str, user: str, as_of: str = "seq:head", nested: bool = True) -> Response:
        found = await _open(services, request, directory)
        async with services.pool.connection() as conn:
            rows, point = await access_rows(services, conn, found, user, as_of, nested=nested)
        return _many(point, rows, None)

    @router.get("/groups/{group}/members")
    async def members(
        request: Request, directory: str, group: str, as_of: str = "seq:head", nested: bool = False, effective: bool | None = None
    ) -> Response:
        found = await _open(services, request, directory)
        async with services.pool.connection() as conn:
            rows, point = await member_rows(services, conn, found, group, as_of, nested=nested, effective=effective)
        return _many(point, rows, None)

    @router.get("/diff")
    async def diff(
        request: Request,
        directory: str,
        first: Annotated[str, Query(alias="from")],
        to: str = "seq:head",
        group: str | None = None,
        user: str | None = None,
    ) -> Response:
        found = await _open(services, request, directory)
        async with services.pool.connection() as conn:
            begin = await history.resolve(conn, found, first, now=services.clock())
            rows, point = await diff_rows(services, conn, found, first, to, group=group, user=user)
        return _many(point, rows, None, begin=begin)

    return router


# The functions below are what the CLI asks too.


async def population_rows(
    services: Services, conn: Connection, directory: Directory, as_of: str, *, kind: str = USER, after: UUID | None = None,
    limit: int = PAGE_MAX,
) -> tuple[list[dict[str, Any]], Point]:  # fmt: skip
    """Everyone who existed, by id."""
    point = await history.resolve(conn, directory, as_of, now=services.clock())
    people = await history.population(conn, directory, point.seq, ot=kind, after=after, limit=limit)
    documents = await history.documents_at(conn, services.kek, directory, [person.body_seq for person in people])
    rows = [{"id": p.id, "type": kind, "active": p.active, **_names(documents.get(p.body_seq))} for p in people]
    return rows, point


async def user_rows(
    services: Services, conn: Connection, directory: Directory, user: str, as_of: str
) -> tuple[list[dict[str, Any]], Point]:
    """One user as it was: the SCIM resource."""
    point, state = await _state(services, conn, directory, user, USER, as_of)
    return [_scim(services, directory, state)], point


async def access_rows(
    services: Services, conn: Connection, directory: Directory, user: str, as_of: str, *, nested: bool
) -> tuple[list[dict[str, Any]], Point]:
    """Groups the user could reach: none while inactive or gone, from the commit on that made it so."""
    point, state = await _state(services, conn, directory, user, USER, as_of, must_exist=False)
    if state is None and not await history.ever_existed(conn, directory, USER, _id(user)):
        raise ProblemError(404, "not_found", "This directory never had a user with this id.")
    if state is None or not state.active:
        return [], point
    reached = await history.access_at(conn, directory, _id(user), point.seq, nested=nested)
    names = await _group_names(services, conn, directory, [access.group for access in reached], point.seq)
    rows = [
        {
            "id": access.group, "type": GROUP, "direct": access.direct, "since_seq": access.since_seq, "display": names.get(access.group),
            "paths": [list(path) for path in access.paths],
        }
        for access in reached
    ]  # fmt: skip
    return rows, point


async def member_rows(
    services: Services, conn: Connection, directory: Directory, group: str, as_of: str, *, nested: bool, effective: bool | None
) -> tuple[list[dict[str, Any]], Point]:
    """Members of a group: `effective` tells those who are active from those who are only stored."""
    point, _ = await _state(services, conn, directory, group, GROUP, as_of)
    found = await history.members_at(conn, directory, _id(group), point.seq, nested=nested)
    rows = [
        {"id": m.id, "type": m.type, "effective": m.active, "direct": not m.via, "via": list(m.via), "since_seq": m.since_seq}
        for m in found
        if effective is None or m.active is effective
    ]
    return rows, point


async def diff_rows(
    services: Services, conn: Connection, directory: Directory, first: str, to: str, *, group: str | None, user: str | None
) -> tuple[list[dict[str, Any]], Point]:
    """What stands at one point and not at the other; applied to the first it gives the second."""
    begin = await history.resolve(conn, directory, first, now=services.clock())
    end = await history.resolve(conn, directory, to, now=services.clock())
    if begin.seq > end.seq:
        raise ProblemError(400, "invalid_parameters", "`from` lies after `to`. Swap them.")
    memberships, states = await history.diff(
        conn, directory, begin.seq, end.seq, group=_id(group) if group else None, user=_id(user) if user else None
    )
    rows = [_state_change(row) for row in states]
    rows += [
        {"change": "member_removed" if sign < 0 else "member_added", "id": grp, "type": GROUP,
         "member": {"id": mem, "type": MEMBER_TYPE_NAMES[mt]}, "seq": to_seq if sign < 0 else from_seq}
        for grp, mem, mt, sign, from_seq, to_seq in memberships
    ]  # fmt: skip
    return rows, end


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


# -- shared -----------------------------------------------------------------


async def _open(services: Services, request: Request, slug: str) -> Directory:
    token = await services.authenticate(request.headers.get("authorization"))
    if token.role not in ROLES:
        raise ProblemError(403, "forbidden", "Audit answers need a token of role auditor or admin.")
    try:
        return await services.directory(slug, token)
    except Forbidden as refused:
        raise ProblemError(403, "forbidden", refused.detail) from refused


def _id(text: str) -> UUID:
    found = parse_id(text)
    if found is None:
        raise ProblemError(404, "not_found", "There is no resource with this id in this directory at that point.")
    return found


def _id_or_none(text: str | None) -> UUID | None:
    return None if text is None else _id(text)


async def _state(
    services: Services, conn: Connection, directory: Directory, obj: str, kind: str, as_of: str, *, must_exist: bool = True
) -> tuple[Point, State | None]:
    point = await history.resolve(conn, directory, as_of, now=services.clock())
    state = await history.state_at(conn, services.kek, directory, _id(obj), point.seq)
    if state is not None and state.type != kind:
        state = None
    if state is None and must_exist:
        raise ProblemError(404, "not_found", f"There was no {kind.lower()} with this id in this directory at seq {point.seq}.")
    return point, state


async def _group_names(
    services: Services, conn: Connection, directory: Directory, groups: Iterable[UUID], seq: int
) -> dict[UUID, str]:
    names: dict[UUID, str] = {}
    for group in groups:
        state = await history.state_at(conn, services.kek, directory, group, seq)
        if state is not None and state.resource is not None:
            names[group] = state.resource.document["displayName"]
    return names


def _names(document: dict[str, Any] | None) -> dict[str, Any]:
    if document is None:
        return {"erased": True}
    return {name: document[name] for name in ("userName", "displayName", "externalId") if name in document}


def _scim(services: Services, directory: Directory, state: State | None) -> dict[str, Any]:
    if state is None or state.resource is None:
        return {"erased": True}
    return with_meta(state.resource, f"{services.base_url}/scim/{directory.slug}/v2")


def _as_of(point: Point) -> dict[str, Any]:
    return {"seq": point.seq, "time": rfc3339(point.at), "requested": point.requested}


def _one(point: Point, data: dict[str, Any]) -> Response:
    return as_json({"as_of": _as_of(point), "data": data})


def _many(point: Point, rows: list[dict[str, Any]], after: str | None, *, begin: Point | None = None) -> Response:
    body = {"as_of": _as_of(point), "object": "list", "data": rows, "list_metadata": {"after": after}}
    if begin is not None:
        body["from"] = _as_of(begin)
    return as_json(body)
