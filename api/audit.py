"""Audit over HTTP: who existed, who was in what, who could reach what, as of a time or a seq (docs/concepts.md, "As of")."""

from typing import Annotated, Any, Final

import anyio.to_thread
from fastapi import APIRouter, Query, Request, Response

from api.answers import as_json, list_of
from api.gate import caller_of
from api.invalid_fields import StrictRoute
from api.scim.resources import with_meta
from api.services import Services
from api.watching import watched
from ledger.events import USER
from ledger.feed import rfc3339
from operations import audit
from operations.audit import AUDIT_PAGE_MAX, AUDIT_STEPS, Rows
from projections.history import PastState, Point, frozen

ROWS_AT_ONCE: Final = 500  # rows that are encoded at once on the event loop
TOO_MUCH: Final = (
    "This question has to look at too many memberships. Ask for fewer at once: a smaller group, or without `nested`."
)


def routes(services: Services) -> APIRouter:
    """The audit routes. Each answer has the point in history in `as_of`."""
    router = APIRouter(prefix="/v1/audit/{directory}", route_class=StrictRoute)
    _add_population(router, services)
    _add_users(router, services)
    _add_groups(router, services)
    _add_diff(router, services)
    return router


def _add_population(router: APIRouter, services: Services) -> None:
    ledger = services.ledger

    @router.get("/population", name="audit.population")
    async def population(
        request: Request, directory: str, as_of: str = "seq:head", type: str = USER, after: str | None = None,  # noqa: A002
        limit: Annotated[int, Query(ge=1, le=AUDIT_PAGE_MAX)] = AUDIT_PAGE_MAX,
    ) -> Response:  # fmt: skip
        caller = caller_of(request)
        rows, point, last = await audit.population(ledger, caller, directory, as_of, kind=type, after=after, limit=limit)
        return await _many(point, rows, last)


def _add_users(router: APIRouter, services: Services) -> None:
    ledger = services.ledger

    @router.get("/users/{user}", name="audit.user")
    async def user(request: Request, directory: str, user: str, as_of: str = "seq:head") -> Response:
        found, point = await audit.user(ledger, caller_of(request), directory, user, as_of)
        return as_json({"as_of": _as_of(point), "data": _scim(services.base_url, directory, found)})

    @router.get("/users/{user}/access", name="audit.access")
    async def access(
        request: Request, directory: str, user: str, as_of: str = "seq:head", nested: bool = True, after: str | None = None
    ) -> Response:
        caller = caller_of(request)
        async with watched(request, AUDIT_STEPS, TOO_MUCH) as work:
            rows, point, more = await audit.access(ledger, caller, directory, user, as_of, nested=nested, after=after, work=work)
        return await _many(point, rows, more)


def _add_groups(router: APIRouter, services: Services) -> None:
    ledger = services.ledger

    @router.get("/groups/{group}/members", name="audit.members")
    async def members(
        request: Request, directory: str, group: str, as_of: str = "seq:head", nested: bool = False, effective: bool | None = None,
        after: str | None = None,
    ) -> Response:  # fmt: skip
        caller = caller_of(request)
        async with watched(request, AUDIT_STEPS, TOO_MUCH) as work:
            rows, point, more = await audit.members(
                ledger, caller, directory, group, as_of, nested=nested, effective=effective, after=after, work=work
            )
        return await _many(point, rows, more)


def _add_diff(router: APIRouter, services: Services) -> None:
    ledger = services.ledger

    @router.get("/diff", name="audit.diff")
    async def diff(
        request: Request,
        directory: str,
        first: Annotated[str, Query(alias="from")],
        to: str = "seq:head",
        group: str | None = None,
        user: str | None = None,
    ) -> Response:
        caller = caller_of(request)
        async with watched(request, AUDIT_STEPS, TOO_MUCH) as work:
            rows, begin, end = await audit.diff(ledger, caller, directory, first, to, group=group, user_id=user, work=work)
        return await _many(end, rows, None, begin=begin)


def _scim(base_url: str, slug: str, state: PastState) -> dict[str, Any]:
    return {state.why: True} if state.resource is None else with_meta(state.resource, f"{base_url}/scim/{slug}/v2")


def _as_of(point: Point) -> dict[str, Any]:
    return {"seq": point.seq, "time": rfc3339(point.at), **frozen(point), "requested": point.requested}


async def _many(point: Point, rows: Rows, after: str | None, *, begin: Point | None = None) -> Response:
    body = {"as_of": _as_of(point), **list_of(rows, after)}
    if begin is not None:
        body["from"] = _as_of(begin)
    return as_json(body) if len(rows) < ROWS_AT_ONCE else await anyio.to_thread.run_sync(as_json, body)
