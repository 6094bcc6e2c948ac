"""The surge brake over HTTP."""

from typing import Annotated, Literal, TypedDict

from fastapi import APIRouter, Request
from pydantic import Field

from api.answers import Json
from api.bodies import Body
from api.consumers import ReasonBody
from api.gate import caller_of
from api.invalid_fields import StrictRoute
from api.services import Services
from delivery.surge_control import PER_HOUR_MAX
from delivery.surge_policy import Action
from ledger.event_data import Count
from operations import surges
from operations.surges import Surge


class LimitBody(Body):
    per_hour: Annotated[int, Field(ge=0, le=PER_HOUR_MAX)]
    action: Action = "alarm"


class ShownSurge(TypedDict):
    """The surge brake of a directory. `surging`: more users lost access in the last hour than `per_hour` allows."""

    object: Literal["surge"]
    directory: str
    per_hour: Count
    action: Action
    released_through_seq: Count
    revocations_last_hour: Count
    surging: bool


def routes(services: Services) -> APIRouter:
    """/v1/directories/{directory}/surge and …/surge/release."""
    router, ledger = APIRouter(route_class=StrictRoute), services.ledger

    @router.get("/v1/directories/{directory}/surge", name="surges.show")
    async def get_surge(request: Request, directory: str) -> Json[ShownSurge]:
        return _surge_json(await surges.show(ledger, caller_of(request), directory))

    @router.put("/v1/directories/{directory}/surge", name="surges.set")
    async def put_surge(request: Request, directory: str, body: LimitBody) -> Json[ShownSurge]:
        return _surge_json(await surges.set_limit(ledger, caller_of(request), directory, body.per_hour, body.action))

    @router.post("/v1/directories/{directory}/surge/release", name="surges.release")
    async def release_surge(request: Request, directory: str, body: ReasonBody) -> Json[ShownSurge]:
        return _surge_json(await surges.release(ledger, caller_of(request), directory, body.reason))

    return router


def _surge_json(surge: Surge) -> Json[ShownSurge]:
    limit = surge.limit
    return Json({
        "object": "surge", "directory": surge.directory, "per_hour": limit.per_hour, "action": limit.action,
        "released_through_seq": limit.released, "revocations_last_hour": surge.lately, "surging": surge.lately > limit.per_hour,
    })  # fmt: skip
