"""The surge brake over HTTP: what is ordinary in a directory, what is held, letting go."""

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from api.acts import Caller, as_json, authorised, caller_of, reached_directory, record
from api.consumers import OPERATORS, Reason
from api.services import Services
from database.connections import Connection
from delivery.brake import Limit
from delivery.surges import PER_HOUR_MAX, lately, limited, limits, released
from ledger.directories import Directory
from ledger.feed import Selection


class LimitBody(BaseModel):
    model_config = ConfigDict(extra="forbid")
    per_hour: Annotated[int, Field(ge=0, le=PER_HOUR_MAX)]
    action: Literal["alarm", "hold"] = "alarm"


class ReleaseBody(BaseModel):
    model_config = ConfigDict(extra="forbid")
    reason: Reason


def routes(services: Services) -> APIRouter:
    """/v1/directories/{directory}/surge and …/surge/release."""
    router = APIRouter()

    @router.get("/v1/directories/{directory}/surge")
    async def get_surge(request: Request, directory: str) -> Response:
        token = await authorised(services, request, *OPERATORS, "auditor")
        async with services.pool.connection() as conn:
            return as_json(await surge_of(conn, await reached_directory(services, conn, token, directory)))

    @router.put("/v1/directories/{directory}/surge")
    async def put_surge(request: Request, directory: str, body: LimitBody) -> Response:
        token = await authorised(services, request, *OPERATORS)
        async with services.pool.connection() as conn:
            found = await reached_directory(services, conn, token, directory)
            await record(services, conn, caller_of(request, token), limited(services.new_id(), found, body.per_hour, body.action))
            return as_json(await surge_of(conn, found))

    @router.post("/v1/directories/{directory}/surge/release")
    async def release_surge(request: Request, directory: str, body: ReleaseBody) -> Response:
        token = await authorised(services, request, *OPERATORS)
        async with services.pool.connection() as conn:
            found = await reached_directory(services, conn, token, directory)
            return as_json(await release(services, conn, caller_of(request, token), found, body.reason))

    return router


async def surge_of(conn: Connection, directory: Directory) -> dict[str, Any]:
    """What is ordinary in a directory, and what the last hour brought."""
    limit = (await limits(conn)).get(directory.id, Limit())
    count = (await lately(conn)).get(directory.id, 0)
    return {
        "object": "surge", "directory": directory.slug, "per_hour": limit.per_hour, "action": limit.action,
        "released_through_seq": limit.released, "revocations_last_hour": count, "surging": count > limit.per_hour,
    }  # fmt: skip


async def release(services: Services, conn: Connection, caller: Caller, directory: Directory, reason: str) -> dict[str, Any]:
    """Let go what is held now; what comes later is counted anew against the limit."""
    head = await services.feed.head(conn, Selection(directory=directory))
    limit = (await limits(conn)).get(directory.id, Limit())
    await record(services, conn, caller, released(services.new_id(), directory, head, limit, reason))
    return await surge_of(conn, directory)
