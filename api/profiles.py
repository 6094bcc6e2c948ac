"""Profiles over HTTP: which there are, what one says, and which a directory has (how its IdP is understood)."""

import asyncio
from typing import Any

import orjson
from fastapi import APIRouter, Request, Response

from api.problems import ProblemError, request_uuid
from api.services import Services
from database.connections import Connection
from ledger.administration import RefusedError, known_profile, profile_facts, profiles
from ledger.commands import needs_of
from ledger.directories import SYSTEM, Directory
from ledger.tokens import Token
from ledger.transaction import Outcome, Submission
from scim.body import read_json
from scim.profile import Profile, ProfileError, is_shipped, read_profile

READERS = ("operator", "auditor", "admin")
BODY_BYTES_MAX = 2**18


def routes(services: Services) -> APIRouter:
    """GET /v1/profiles and one of them; GET and PUT /v1/directories/{directory}/profile."""
    router = APIRouter()

    @router.get("/v1/profiles")
    async def list_profiles(request: Request) -> Response:
        await _read_by(services, request)
        async with services.pool.connection() as conn:
            found = await profiles(conn)
        rows = [{"profile": text, "title": p.file.title, "shipped": is_shipped(p.file.name)} for text, p in found.items()]
        return _json({"object": "list", "data": rows})

    @router.get("/v1/profiles/{name}")
    async def show_profile(request: Request, name: str) -> Response:
        await _read_by(services, request)
        async with services.pool.connection() as conn:
            try:
                return _json(_shown(await known_profile(conn, name)))
            except RefusedError as unknown:
                raise ProblemError(404, "not_found", str(unknown)) from unknown

    @router.get("/v1/directories/{directory}/profile")
    async def show_profile_of(request: Request, directory: str) -> Response:
        token = await _read_by(services, request)
        async with services.pool.connection() as conn:
            found = await _reached(services, conn, token, directory)
        return _json({"directory": directory, **_shown(found.speaks)})

    @router.put("/v1/directories/{directory}/profile")
    async def set_profile_of(request: Request, directory: str) -> Response:
        token = await services.authenticate(request.headers.get("authorization"))
        if token.role != "admin":
            raise ProblemError(403, "forbidden", "Changing a profile needs a token of role admin.")
        raw = await request.body()
        if len(raw) > BODY_BYTES_MAX:
            raise ProblemError(413, "too_large", f"A profile has at most {BODY_BYTES_MAX} bytes.")
        async with services.pool.connection() as conn:
            found = await _reached(services, conn, token, directory)
            profile = await _asked_for(conn, read_json(raw).get("profile"))
            facts = await profile_facts(conn, found, profile)
        if facts is not None:
            waiter: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
            await services.writer.submit(
                Submission(
                    found, facts, needs_of(facts), token.actor, request_uuid(request), 0, waiter, token.id, 1_000 + len(raw)
                )
            )
        return _json({"directory": directory, **_shown(profile)})

    return router


async def _read_by(services: Services, request: Request) -> Token:
    token = await services.authenticate(request.headers.get("authorization"))
    if token.role not in READERS:
        raise ProblemError(403, "forbidden", "Profiles need a token of role operator, auditor or admin.")
    return token


async def _reached(services: Services, conn: Connection, token: Token, slug: str) -> Directory:
    await services.directories.refresh(conn)
    found = await services.directories.by_slug(conn, slug) if token.reaches(slug) and slug != SYSTEM else None
    if found is None:
        raise ProblemError(403, "forbidden", "This token does not reach a directory of that name.")
    return found


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


def _json(document: Any) -> Response:
    return Response(orjson.dumps(document), media_type="application/json")
