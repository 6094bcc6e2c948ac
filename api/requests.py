"""The journal over HTTP, and the health of a directory."""

from typing import Annotated

from fastapi import APIRouter, Query, Request

from api.answers import Json, ListOf, listed
from api.gate import caller_of
from api.invalid_fields import StrictRoute
from api.services import Services
from operations import journal
from operations.journal import JOURNAL_PAGE_MAX, DirectoryHealth, RequestEntry

HOURS = 24


def routes(services: Services) -> APIRouter:
    """GET /v1/requests and /v1/directories/{directory}/health."""
    router, ledger = APIRouter(route_class=StrictRoute), services.ledger

    @router.get("/v1/requests", name="requests.list")
    async def list_requests(
        request: Request,
        directory: str | None = None,
        status: Annotated[int | None, Query(ge=100, le=599)] = None,
        refused: bool | None = None,
        after: Annotated[int, Query(ge=1)] = 2**62,
        limit: Annotated[int, Query(ge=1, le=JOURNAL_PAGE_MAX)] = 100,
    ) -> Json[ListOf[RequestEntry]]:
        """Requests of IdPs that reached the service, newest first."""
        rows = await journal.list_requests(
            ledger, caller_of(request), directory=directory, status=status, refused=refused, before=after, limit=limit
        )  # fmt: skip
        return listed(rows, after=rows[-1]["id"] if len(rows) == limit else None)

    @router.get("/v1/directories/{directory}/health", name="directories.health")
    async def health(
        request: Request, directory: str, hours: Annotated[int, Query(ge=1, le=720)] = HOURS
    ) -> Json[DirectoryHealth]:
        return Json(await journal.health(ledger, caller_of(request), directory, hours))

    return router
