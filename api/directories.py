"""Directories over HTTP (docs/operations.md, "Tokens and directories")."""

from typing import Annotated, Literal, TypeAlias, TypedDict

from fastapi import APIRouter, Request
from msgspec import Meta

from api.answers import Created, Json, ListOf, listed
from api.bodies import Body
from api.consumers import ReasonBody
from api.gate import caller_of
from api.invalid_fields import StrictRoute
from api.services import Services
from ledger.directories import PROFILE, Directory
from ledger.event_data import Id, Time
from ledger.events import DIRECTORY_STATES
from ledger.feed import rfc3339
from operations import directories

State: TypeAlias = Annotated[str, Meta(extra_json_schema={"enum": list(DIRECTORY_STATES)})]


class DirectoryBody(Body):
    slug: str
    profile: str = PROFILE


class CloseBody(ReasonBody):
    confirm: str


class ShownDirectory(TypedDict):
    """A directory: the connection of one IdP. `scim_base_url`: the address that is entered in the IdP."""

    object: Literal["directory"]
    slug: str
    id: Id
    profile: str
    state: State
    scim_base_url: str
    created_at: Time


def routes(services: Services) -> APIRouter:
    """/v1/directories and one directory. Profile, schemas, surge and others have their own modules."""
    router, ledger = APIRouter(route_class=StrictRoute), services.ledger

    def shown(directory: Directory) -> ShownDirectory:
        return {
            "object": "directory", "slug": directory.slug, "id": str(directory.uuid), "profile": directory.profile.text, "state": directory.state,
            "scim_base_url": f"{services.base_url}/scim/{directory.slug}/v2", "created_at": rfc3339(directory.created_at),
        }  # fmt: skip

    @router.post("/v1/directories", name="directories.create")
    async def create_directory(request: Request, body: DirectoryBody) -> Created[ShownDirectory]:
        return Created(shown(await directories.create(ledger, caller_of(request), body.slug, body.profile)))

    @router.get("/v1/directories", name="directories.list")
    async def list_directories(request: Request) -> Json[ListOf[ShownDirectory]]:
        return listed([shown(found) for found in await directories.list_all(ledger, caller_of(request))])

    @router.get("/v1/directories/{directory}", name="directories.show")
    async def get_directory(request: Request, directory: str) -> Json[ShownDirectory]:
        return Json(shown(await directories.show(ledger, caller_of(request), directory)))

    @router.post("/v1/directories/{directory}/pause", name="directories.pause")
    async def pause_directory(request: Request, directory: str, body: ReasonBody) -> Json[ShownDirectory]:
        return Json(shown(await directories.pause(ledger, caller_of(request), directory, body.reason)))

    @router.post("/v1/directories/{directory}/resume", name="directories.resume")
    async def resume_directory(request: Request, directory: str, body: ReasonBody) -> Json[ShownDirectory]:
        return Json(shown(await directories.resume(ledger, caller_of(request), directory, body.reason)))

    @router.post("/v1/directories/{directory}/close", name="directories.close")
    async def close_directory(request: Request, directory: str, body: CloseBody) -> Json[ShownDirectory]:
        return Json(shown(await directories.close(ledger, caller_of(request), directory, body.reason, body.confirm)))

    @router.post("/v1/directories/{directory}/accept-clock", name="directories.accept_clock")
    async def accept_clock(request: Request, directory: str, body: ReasonBody) -> Json[ShownDirectory]:
        return Json(shown(await directories.accept_clock(ledger, caller_of(request), directory, body.reason)))

    return router
