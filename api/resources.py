"""The current users and groups of a directory over HTTP (docs/events.md, "What an id stands for")."""

from typing import Annotated

from fastapi import APIRouter, Query, Request

from api.answers import Json, ListOf, listed
from api.gate import caller_of
from api.invalid_fields import StrictRoute
from api.services import Services
from operations import resources
from operations.resources import RESOURCES_PAGE_MAX, ShownResource

_Limit = Annotated[int, Query(ge=1, le=RESOURCES_PAGE_MAX)]


def routes(services: Services) -> APIRouter:
    """/v1/directories/{directory}/users and /groups."""
    router, ledger = APIRouter(prefix="/v1/directories/{directory}", route_class=StrictRoute), services.ledger

    @router.get("/users", name="users.list")
    async def list_users(
        request: Request, directory: str, external_id: str | None = None, user_name: str | None = None, after: str | None = None,
        limit: _Limit = 100,
    ) -> Json[ListOf[ShownResource]]:  # fmt: skip
        caller = caller_of(request)
        rows, more = await resources.list_users(
            ledger, caller, directory, external_id=external_id, user_name=user_name, after=after, limit=limit
        )
        return listed(rows, after=more)

    @router.get("/users/{user}", name="users.show")
    async def get_user(request: Request, directory: str, user: str) -> Json[ShownResource]:
        return Json(await resources.show_user(ledger, caller_of(request), directory, user))

    @router.get("/groups", name="groups.list")
    async def list_groups(
        request: Request, directory: str, external_id: str | None = None, display_name: str | None = None, after: str | None = None,
        limit: _Limit = 100,
    ) -> Json[ListOf[ShownResource]]:  # fmt: skip
        caller = caller_of(request)
        rows, more = await resources.list_groups(
            ledger, caller, directory, external_id=external_id, display_name=display_name, after=after, limit=limit
        )
        return listed(rows, after=more)

    @router.get("/groups/{group}", name="groups.show")
    async def get_group(request: Request, directory: str, group: str) -> Json[ShownResource]:
        return Json(await resources.show_group(ledger, caller_of(request), directory, group))

    return router
