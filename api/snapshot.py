"""The snapshot of a directory over HTTP, as lines of JSON (docs/events.md, "A snapshot to begin with")."""

from fastapi import APIRouter, Request
from starlette.responses import StreamingResponse

from api.gate import caller_of
from api.invalid_fields import StrictRoute
from api.revocation import still_allowed, token_hash_of
from api.services import Services
from operations import snapshot


class Lines(StreamingResponse):
    """Lines of JSON."""

    media_type = "application/x-ndjson"


def routes(services: Services) -> APIRouter:
    """GET /v1/directories/{directory}/snapshot."""
    router = APIRouter(route_class=StrictRoute)

    @router.get("/v1/directories/{directory}/snapshot", name="snapshot.read")
    async def get_snapshot(request: Request, directory: str) -> Lines:
        """All state of a directory as of now, as lines of JSON."""
        found, hashed = await snapshot.read(services.ledger, caller_of(request), directory), token_hash_of(request)

        async def check() -> None:
            await still_allowed(services, hashed)

        return Lines(found.lines(check))

    return router
