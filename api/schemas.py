"""Extension schemas of a directory over HTTP: registering one, listing them (RFC 7643 §7)."""

from fastapi import APIRouter, Request, Response

from api.acts import as_json, authorised, caller_of, reached_directory, record_in
from api.problems import ProblemError
from api.services import Services
from ledger.administration import registered, schema_facts
from ledger.directories import Directory
from ledger.tokens import Token
from scim.body import read_json

ROLES = ("operator", "admin")
BODY_BYTES_MAX = 2**20


def routes(services: Services) -> APIRouter:
    """GET and POST /v1/directories/{directory}/schemas."""
    router = APIRouter()

    @router.get("/v1/directories/{directory}/schemas")
    async def list_schemas(request: Request, directory: str) -> Response:
        _, found = await _reached(services, request, directory)
        return _listed(found)

    @router.post("/v1/directories/{directory}/schemas")
    async def register_schema(request: Request, directory: str) -> Response:
        token, found = await _reached(services, request, directory)
        raw = await request.body()
        if len(raw) > BODY_BYTES_MAX:
            raise ProblemError(413, "too_large", f"A schema has at most {BODY_BYTES_MAX} bytes.")
        body = read_json(raw)
        schema, resource_type = body.get("schema"), body.get("resource_type", "User")
        if not isinstance(schema, dict) or not isinstance(resource_type, str):
            raise ProblemError(400, "refused", 'Send {"resource_type": "User", "schema": {…the Schema document…}}.')
        facts = schema_facts(found, resource_type, schema)
        if facts is None:
            return _listed(found)
        await record_in(services, found, caller_of(request, token), facts, 1_000 + len(raw))
        _, found = await _reached(services, request, directory)
        return _listed(found, 201)

    return router


async def _reached(services: Services, request: Request, slug: str) -> tuple[Token, Directory]:
    token = await authorised(services, request, *ROLES)
    async with services.pool.connection() as conn:
        return token, await reached_directory(services, conn, token, slug)


def _listed(directory: Directory, status: int = 200) -> Response:
    return as_json({"object": "list", "data": registered(directory)}, status)
