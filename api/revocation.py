"""A request that waits gets no more data once its token is revoked or expired (docs/events.md, "The stream")."""

from datetime import datetime

from fastapi import Request

from api.gate import caller_of
from api.services import Services
from ledger.tokens import ENDLESS, token_hash
from scim.errors import Unauthorized


def token_hash_of(request: Request) -> bytes | None:
    """The hash of the token of an admitted request; None for the machine itself. The token's text is not kept."""
    if caller_of(request).token_id is None:
        return None
    return token_hash(request.headers["authorization"].split()[-1])


async def still_allowed(services: Services, hashed: bytes | None) -> datetime:
    """Check the token again before a page or an event is sent. Returns when the token expires.

    The check comes after the read, so events that were committed after the end of the token are never sent. All readers of a process
    share one query for each batch of events (api.authentication). Raises Unauthorized if the token was revoked or has expired, and
    psycopg errors while the database is away.
    """
    if hashed is None:
        return ENDLESS
    token = await services.authentication.current(hashed)
    if token is None:
        raise Unauthorized("The token was revoked or has expired while the request waited. Issue a new one.")
    return token.expires_at
