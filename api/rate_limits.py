"""The limits of SCIM requests over HTTP."""

from typing import Annotated, Literal, TypedDict

from fastapi import APIRouter, Request
from pydantic import Field

from api.answers import Json
from api.bodies import Body
from api.gate import caller_of
from api.invalid_fields import StrictRoute
from api.problems import ProblemError
from api.services import Services
from ledger.directories import Directory
from ledger.event_data import FromOne
from operations import rate_limits
from scim.profile import PER_SECOND_MAX, PER_SECOND_MIN, RateLimit


class RateLimitBody(Body):
    per_second: Annotated[int, Field(ge=PER_SECOND_MIN, le=PER_SECOND_MAX)]
    burst: Annotated[int, Field(ge=PER_SECOND_MIN, le=10 * PER_SECOND_MAX)]


class ShownRateLimit(TypedDict):
    """The limit of SCIM requests of a directory, null where there is none. `set_by`: an operator for this directory, or its profile."""

    object: Literal["rate_limit"]
    directory: str
    per_second: FromOne | None
    burst: FromOne | None
    set_by: Literal["operator", "profile"]


def routes(services: Services) -> APIRouter:
    """GET, PUT and DELETE /v1/directories/{directory}/rate-limit."""
    router, ledger = APIRouter(route_class=StrictRoute), services.ledger

    @router.get("/v1/directories/{directory}/rate-limit", name="rate_limits.show")
    async def get_rate_limit(request: Request, directory: str) -> Json[ShownRateLimit]:
        return _limit_json(await rate_limits.show(ledger, caller_of(request), directory))

    @router.put("/v1/directories/{directory}/rate-limit", name="rate_limits.set")
    async def put_rate_limit(request: Request, directory: str, body: RateLimitBody) -> Json[ShownRateLimit]:
        if body.burst < body.per_second:
            raise ProblemError(400, "refused", "burst is less than per_second: send at least as much.")
        limit = RateLimit(per_second=body.per_second, burst=body.burst)
        return _limit_json(await rate_limits.set_rate_limit(ledger, caller_of(request), directory, limit))

    @router.delete("/v1/directories/{directory}/rate-limit", name="rate_limits.reset")
    async def delete_rate_limit(request: Request, directory: str) -> Json[ShownRateLimit]:
        return _limit_json(await rate_limits.reset(ledger, caller_of(request), directory))

    return router


def _limit_json(directory: Directory) -> Json[ShownRateLimit]:
    limit = directory.rate_limit
    return Json({
        "object": "rate_limit", "directory": directory.slug, "per_second": limit.per_second if limit else None,
        "burst": limit.burst if limit else None, "set_by": "operator" if directory.own_rate_limit else "profile",
    })  # fmt: skip
