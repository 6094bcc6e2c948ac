"""Extension schemas of a directory over HTTP: registering one, listing them (RFC 7643 §7)."""

import asyncio

import orjson
from fastapi import APIRouter, Request, Response

from api.problems import ProblemError, request_uuid
from api.services import Services
from ledger.administration import registered, schema_facts
from ledger.commands import needs_of
from ledger.directories import SYSTEM, Directory
from ledger.tokens import Token
from ledger.transaction import Outcome, Submission
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
        waiter: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        await services.writer.submit(
            Submission(found, facts, needs_of(facts), token.actor, request_uuid(request), 0, waiter, token.id, 1_000 + len(raw))
        )
        _, found = await _reached(services, request, directory)
        return _listed(found, 201)

    return router


async def _reached(services: Services, request: Request, slug: str) -> tuple[Token, Directory]:
    token = await services.authenticate(request.headers.get("authorization"))
    if token.role not in ROLES:
        raise ProblemError(403, "forbidden", "Schemas need a token of role operator or admin.")
    async with services.pool.connection() as conn:
        await services.directories.refresh(conn)
        found = await services.directories.by_slug(conn, slug) if token.reaches(slug) and slug != SYSTEM else None
    if found is None:
        raise ProblemError(403, "forbidden", "This token does not reach a directory of that name.")
    return token, found


def _listed(directory: Directory, status: int = 200) -> Response:
    return Response(orjson.dumps({"object": "list", "data": registered(directory)}), status, media_type="application/json")
