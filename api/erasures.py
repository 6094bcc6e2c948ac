"""Erasures over HTTP (docs/operations.md, "Erasure"): plan, erase, receipt, list."""

from typing import Annotated

from fastapi import APIRouter, Query, Request

from api.answers import Accepted, Json, ListOf, listed
from api.bodies import Body
from api.consumers import Reason
from api.gate import caller_of
from api.invalid_fields import StrictRoute
from api.services import Services
from operations import erasures
from operations.erasures import Erasure, ErasurePlan
from operations.holds import SubjectType

ERASURES_PAGE_MAX = 1_000


class SubjectBody(Body):
    """A user or group of the directory."""

    type: SubjectType
    id: str


class ErasureBody(Body):
    """The body of POST …/erasures. `reason` is kept sealed, for the receipt; leave names out of it."""

    subject: SubjectBody
    reason: Reason
    dry_run: bool = False


def routes(services: Services) -> APIRouter:
    """/v1/directories/{directory}/erasures."""
    router, ledger = APIRouter(route_class=StrictRoute), services.ledger

    @router.post("/v1/directories/{directory}/erasures", name="erasures.create")
    async def make_erasure(request: Request, directory: str, body: ErasureBody) -> Json[ErasurePlan] | Accepted[Erasure]:
        subject, caller = body.subject, caller_of(request)
        found = await erasures.erase(ledger, caller, directory, subject.type, subject.id, body.reason, dry_run=body.dry_run)
        if found["object"] == "erasure_plan":
            return Json[ErasurePlan](found)
        services.erased.set()
        return Accepted[Erasure](found)

    @router.get("/v1/directories/{directory}/erasures", name="erasures.list")
    async def list_erasures(
        request: Request,
        directory: str,
        after: Annotated[int, Query(ge=0)] = 0,
        limit: Annotated[int, Query(ge=1, le=ERASURES_PAGE_MAX)] = 100,
    ) -> Json[ListOf[Erasure]]:
        rows, more = await erasures.list_all(ledger, caller_of(request), directory, after=after, limit=limit)
        return listed(rows, after=more)

    @router.get("/v1/directories/{directory}/erasures/{erasure}", name="erasures.show")
    async def get_erasure(request: Request, directory: str, erasure: str) -> Json[Erasure]:
        return Json(await erasures.show(ledger, caller_of(request), directory, erasure))

    return router
