"""Audit over HTTP: who existed, who was in what, who could reach what, as of a time or a seq (docs/concepts.md, "As of")."""

from collections.abc import Sequence
from typing import Annotated, Any, Final, TypedDict, TypeVar

import anyio.to_thread
from fastapi import APIRouter, Query, Request

from api.answers import Json, ListOf, list_of
from api.gate import caller_of
from api.invalid_fields import StrictRoute
from api.scim.resources import with_meta
from api.services import Services
from api.watching import watched
from ledger.event_data import Time
from ledger.events import USER
from ledger.feed import rfc3339
from ledger.ids import Seq
from operations import audit
from operations.audit import AUDIT_PAGE_MAX, AUDIT_STEPS, AccessRow, Difference, MemberRow, PopulationRow
from projections.history import Frozen, PastState, Point, frozen

Row = TypeVar("Row")
B = TypeVar("B")

ROWS_AT_ONCE: Final = 500  # rows that are encoded at once on the event loop
TOO_MUCH: Final = (
    "This question has to look at too many memberships. Ask for fewer at once: a smaller group, or without `nested`."
)


class AsOf(Frozen):
    """The point in history that an answer is of: the state after event `seq`. `requested`: the words of the request."""

    seq: Seq
    time: Time
    requested: str


class ListAsOf(ListOf[Row]):
    """A list as of a point in history."""

    as_of: AsOf


# Written as a call, because `from` is a keyword of Python.
_From = TypedDict("_From", {"from": AsOf})


class ListBetween(ListAsOf[Row], _From):
    """What differs between two points in history, `from` and `as_of`."""


class PastUser(TypedDict):
    """A user as it was, in the form of SCIM; `{"erased": true}` if it was erased, `{"unreadable": true}` if its attributes are damaged."""

    as_of: AsOf
    data: dict[str, Any]


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
    ) -> Json[ListAsOf[PopulationRow]]:  # fmt: skip
        caller = caller_of(request)
        rows, point, last = await audit.population(ledger, caller, directory, as_of, kind=type, after=after, limit=limit)
        return await _answered(_list_as_of(point, rows, last), len(rows))


def _add_users(router: APIRouter, services: Services) -> None:
    ledger = services.ledger

    @router.get("/users/{user}", name="audit.user")
    async def user(request: Request, directory: str, user: str, as_of: str = "seq:head") -> Json[PastUser]:
        found, point = await audit.user(ledger, caller_of(request), directory, user, as_of)
        return Json({"as_of": _as_of(point), "data": _scim(services.base_url, directory, found)})

    @router.get("/users/{user}/access", name="audit.access")
    async def access(
        request: Request, directory: str, user: str, as_of: str = "seq:head", nested: bool = True, after: str | None = None
    ) -> Json[ListAsOf[AccessRow]]:
        caller = caller_of(request)
        async with watched(request, AUDIT_STEPS, TOO_MUCH) as work:
            rows, point, more = await audit.access(ledger, caller, directory, user, as_of, nested=nested, after=after, work=work)
        return await _answered(_list_as_of(point, rows, more), len(rows))


def _add_groups(router: APIRouter, services: Services) -> None:
    ledger = services.ledger

    @router.get("/groups/{group}/members", name="audit.members")
    async def members(
        request: Request, directory: str, group: str, as_of: str = "seq:head", nested: bool = False, effective: bool | None = None,
        after: str | None = None,
    ) -> Json[ListAsOf[MemberRow]]:  # fmt: skip
        caller = caller_of(request)
        async with watched(request, AUDIT_STEPS, TOO_MUCH) as work:
            rows, point, more = await audit.members(
                ledger, caller, directory, group, as_of, nested=nested, effective=effective, after=after, work=work
            )
        return await _answered(_list_as_of(point, rows, more), len(rows))


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
    ) -> Json[ListBetween[Difference]]:
        caller = caller_of(request)
        async with watched(request, AUDIT_STEPS, TOO_MUCH) as work:
            rows, begin, end = await audit.diff(ledger, caller, directory, first, to, group=group, user_id=user, work=work)
        between: ListBetween[Difference] = {"as_of": _as_of(end), **list_of(rows), "from": _as_of(begin)}
        return await _answered(between, len(rows))


def _scim(base_url: str, slug: str, state: PastState) -> dict[str, Any]:
    return {state.why: True} if state.resource is None else with_meta(state.resource, f"{base_url}/scim/{slug}/v2")


def _as_of(point: Point) -> AsOf:
    return {"seq": point.seq, "time": rfc3339(point.at), **frozen(point), "requested": point.requested}


def _list_as_of(point: Point, rows: Sequence[Row], after: str | None) -> ListAsOf[Row]:
    return {"as_of": _as_of(point), **list_of(rows, after)}


async def _answered(body: B, rows: int) -> Json[B]:
    return Json(body) if rows < ROWS_AT_ONCE else await anyio.to_thread.run_sync(Json, body)
