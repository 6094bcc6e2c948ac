"""A request that waits gets no more data once its token is revoked or expired (docs/events.md, "The stream")."""

from datetime import datetime

from fastapi import Request

from api.gate import caller_of
from api.services import Services
from ledger.tokens import ENDLESS, token_hash
from scim.errors import Unauthorized


def token_hash_of(request: Request) -> bytes | None:
    """The hash of the token of a request that was let in; None where this machine itself asks. The text is not kept."""
    if caller_of(request).token_id is None:
        return None
    return token_hash(request.headers["authorization"].split()[-1])


async def still_allowed(services: Services, hashed: bytes | None) -> datetime:
    """Ask the database again before a page or an event leaves.

    It is asked after that was read, so what was committed later than the end of the token never reaches its holder. All readers
    of a process share one query for each batch of news (api.authentication). Raises Unauthorized for a token that was revoked or
    has expired, and what the query raises while the database is away. Gives the time at which the token ends.
    """
    if hashed is None:
        return ENDLESS
    token = await services.authentication.current(hashed)
    if token is None:
        raise Unauthorized("The token was revoked or has expired while the request waited. Issue a new one.")
    return token.expires_at
