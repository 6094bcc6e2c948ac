"""Profiles over HTTP: which there are, what one says, and which a directory has (how its IdP is understood)."""

from typing import Any

import orjson
from fastapi import APIRouter, Request, Response

from api.acts import as_json, authorised, caller_of, reached_directory, record_in
from api.problems import ProblemError
from api.services import Services
from database.connections import Connection
from ledger.administration import RefusedError, known_profile, profile_facts, profiles
from scim.body import read_json
from scim.profile import Profile, ProfileError, is_shipped, read_profile

READERS = ("operator", "auditor", "admin")
BODY_BYTES_MAX = 2**18


def routes(services: Services) -> APIRouter:
    """GET /v1/profiles and one of them; GET and PUT /v1/directories/{directory}/profile."""
    router = APIRouter()

    @router.get("/v1/profiles")
    async def list_profiles(request: Request) -> Response:
        await authorised(services, request, *READERS)
        async with services.pool.connection() as conn:
            found = await profiles(conn)
        rows = [{"profile": text, "title": p.file.title, "shipped": is_shipped(p.file.name)} for text, p in found.items()]
        return as_json({"object": "list", "data": rows})

    @router.get("/v1/profiles/{name}")
    async def show_profile(request: Request, name: str) -> Response:
        await authorised(services, request, *READERS)
        async with services.pool.connection() as conn:
            try:
                return as_json(_shown(await known_profile(conn, name)))
            except RefusedError as unknown:
                raise ProblemError(404, "not_found", str(unknown)) from unknown

    @router.get("/v1/directories/{directory}/profile")
    async def show_profile_of(request: Request, directory: str) -> Response:
        token = await authorised(services, request, *READERS)
        async with services.pool.connection() as conn:
            found = await reached_directory(services, conn, token, directory)
        return as_json({"directory": directory, **_shown(found.speaks)})

    @router.put("/v1/directories/{directory}/profile")
    async def set_profile_of(request: Request, directory: str) -> Response:
        token = await authorised(services, request, "admin")
        raw = await request.body()
        if len(raw) > BODY_BYTES_MAX:
            raise ProblemError(413, "too_large", f"A profile has at most {BODY_BYTES_MAX} bytes.")
        async with services.pool.connection() as conn:
            found = await reached_directory(services, conn, token, directory)
            profile = await _asked_for(conn, read_json(raw).get("profile"))
            facts = await profile_facts(conn, found, profile)
        if facts is not None:
            await record_in(services, found, caller_of(request, token), facts, 1_000 + len(raw))
        return as_json({"directory": directory, **_shown(profile)})

    return router


async def _asked_for(conn: Connection, asked: Any) -> Profile:
    """A name, or a document of the operator's own."""
    if isinstance(asked, str):
        return await known_profile(conn, asked)
    if not isinstance(asked, dict):
        raise ProblemError(
            400, "refused", 'Send {"profile": "okta"}, or with a profile of your own {"profile": {…its document…}}.'
        )
    try:
        return read_profile(orjson.dumps(asked), json=True)
    except ProfileError as wrong:
        raise ProblemError(400, "refused", str(wrong)) from wrong


def _shown(profile: Profile) -> dict[str, Any]:
    return {"profile": profile.text, "document": profile.file.model_dump()}
