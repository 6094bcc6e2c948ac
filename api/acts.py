"""Administrative acts over HTTP: each one commit in `_system`, written by the same writer as everything else."""

import asyncio
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import orjson
from fastapi import Request, Response

from api.problems import ProblemError, request_uuid
from api.services import Services
from database.connections import Connection
from ledger.commands import RecordFacts, needs_of
from ledger.directories import SYSTEM, Directory
from ledger.tokens import Token
from ledger.transaction import Outcome, Submission


@dataclass(frozen=True, slots=True)
class Caller:
    """Who acts: `token` is None for the command line."""

    actor: str
    request: UUID
    token: UUID | None = None


def caller_of(request: Request, token: Token) -> Caller:
    return Caller(token.actor, request_uuid(request), token.id)


async def authorised(services: Services, request: Request, *roles: str) -> Token:
    """The token of a request. Raises Unauthorized; ProblemError 403 for another role."""
    token = await services.authenticate(request.headers.get("authorization"))
    if token.role not in roles:
        raise ProblemError(403, "forbidden", f"This needs a token of role {' or '.join(roles)}.")
    return token


async def reached_directory(services: Services, conn: Connection, token: Token, slug: str) -> Directory:
    """A directory that a token may speak about, as it stands now. Raises ProblemError 403: what is hidden and what is not there look alike."""
    await services.directories.refresh(conn)
    found = await services.directories.by_slug(conn, slug) if token.reaches(slug) and slug != SYSTEM else None
    if found is None:
        raise ProblemError(403, "forbidden", "This token does not reach a directory of that name.")
    return found


def as_json(document: Any, status: int = 200) -> Response:
    return Response(orjson.dumps(document, default=str), status, media_type="application/json")


async def record(services: Services, conn: Connection, caller: Caller, facts: RecordFacts) -> None:
    """Carry out an act of the ledger's own directory. Returns when it is durable; raises what refuses it."""
    system = await services.directories.by_slug(conn, SYSTEM)
    assert system is not None, "made at first start"
    await record_in(services, system, caller, facts)


async def record_in(services: Services, directory: Directory, caller: Caller, facts: RecordFacts, weight: int = 1_000) -> None:
    """The same in the log of a directory. `weight`: bytes of the request, for the bound of the queue."""
    waiter: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
    await services.writer.submit(
        Submission(directory, facts, needs_of(facts), caller.actor, caller.request, 0, waiter, caller.token, weight)
    )
