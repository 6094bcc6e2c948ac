"""Legal holds over HTTP (docs/operations.md, "Erasure"): place, list, show, release."""

from datetime import datetime
from typing import Annotated, Literal

from fastapi import APIRouter, Query, Request
from pydantic import AwareDatetime, Field

from api.answers import Created, Json, ListOf, NoContent, listed
from api.bodies import Body
from api.erasures import SubjectBody
from api.gate import caller_of
from api.invalid_fields import StrictRoute
from api.services import Services
from operations import holds
from operations.holds import ShownHold

HOLDS_PAGE_MAX = 1_000
MATTER_LENGTH_MAX = 1_000


class HoldBody(Body):
    """The body of POST …/holds. `matter` is kept sealed. `until`: an instant; without it the hold stands until it is released."""

    subject: SubjectBody
    matter: Annotated[str, Field(min_length=1, max_length=MATTER_LENGTH_MAX)]
    until: AwareDatetime | None = None


def routes(services: Services) -> APIRouter:
    """/v1/directories/{directory}/holds."""
    router, ledger = APIRouter(route_class=StrictRoute), services.ledger

    @router.post("/v1/directories/{directory}/holds", name="holds.place")
    async def place_hold(request: Request, directory: str, body: HoldBody) -> Created[ShownHold]:
        until: datetime | None = body.until
        subject, caller = body.subject, caller_of(request)
        return Created(await holds.place(ledger, caller, directory, subject.type, subject.id, body.matter, until))

    @router.get("/v1/directories/{directory}/holds", name="holds.list")
    async def list_holds(
        request: Request,
        directory: str,
        subject: str | None = None,
        state: Literal["open", "released", "ended"] | None = None,
        after: str | None = None,
        limit: Annotated[int, Query(ge=1, le=HOLDS_PAGE_MAX)] = 100,
    ) -> Json[ListOf[ShownHold]]:
        rows, more = await holds.list_all(
            ledger, caller_of(request), directory, subject=subject, state=state, after=after, limit=limit
        )
        return listed(rows, after=more)

    @router.get("/v1/directories/{directory}/holds/{hold}", name="holds.show")
    async def get_hold(request: Request, directory: str, hold: str) -> Json[ShownHold]:
        return Json(await holds.show(ledger, caller_of(request), directory, hold))

    @router.delete("/v1/directories/{directory}/holds/{hold}", name="holds.release")
    async def release_hold(request: Request, directory: str, hold: str) -> NoContent:
        await holds.release_hold(ledger, caller_of(request), directory, hold)
        return NoContent()

    return router
