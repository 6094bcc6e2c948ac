"""Authenticate requests. The database is asked for each token, except for a write, whose transaction asks again."""

import re
from collections import OrderedDict
from collections.abc import Callable
from typing import Final
from uuid import UUID

from api.metrics import count_slowed
from api.strangers import Strangers
from database.coalesce import Coalescer
from ledger.clocks import microseconds
from ledger.token_use import Use
from ledger.tokens import Token, token_hash, well_formed
from scim.errors import TooManyRequests, Unauthorized

_BEARER: Final = re.compile(r"bearer +(\S+) *", re.IGNORECASE)  # RFC 9110 §11.1
_SLOWED: Final = "Too many requests without a valid token came from this address. Check the token, then try again."
REFUSED_MAX: Final = (
    1_000  # refused hashes that wait to be compared with ended tokens; strangers can fill it, and it says nothing of them
)
KNOWN_MAX: Final = 10_000  # tokens in memory, about 1 KB each; the least recently used is dropped first


class SlowedError(TooManyRequests):
    """429: the credential is none, or is not valid, and its address has failed too often."""


class Authentication:
    """Finds the token of a request. `used`: the last use of each token and client since they were last written to the database."""

    def __init__(self, tokens: Coalescer[bytes, Token], clock: Callable[[], int], strangers: Strangers) -> None:
        self._tokens = tokens
        self.strangers = strangers
        self._clock = clock  # µs since the epoch
        self._known: OrderedDict[bytes, Token] = OrderedDict()
        self.used: dict[UUID, Use] = {}
        self.refused: set[bytes] = set()  # hashes that are of no living token; some may be of one that has ended

    async def authenticate(self, authorization: str | None, address: str = "", *, route: str = "", fresh: bool = True) -> Token:
        """The token of an Authorization header. `address`: from api.strangers.address_of; `route`: the template that it is used at.

        Raises Unauthorized, or TooManyRequests if the address has failed too often; a valid token is not refused for that. `fresh` asks
        the database, so that a revoked token is refused from the next request on. A write may pass False and use a known, unexpired
        token, because its transaction checks the token again. If the write is refused before the transaction, ask freshly first:
        a revoked token must get 401, not another error.
        """
        try:
            hashed = presented(authorization)
        except Unauthorized as nobody:
            raise self._refused(address, nobody) from None
        token = None if fresh else self._live(hashed)
        if token is None:
            token = await self._asked(hashed, address)
        self.used[token.owner] = Use(route, address)
        return token

    async def _asked(self, hashed: bytes, address: str) -> Token:
        if hashed not in self._known and not await self.strangers.admits(address):
            raise TooManyRequests(_SLOWED)
        token = await self._tokens.get(hashed)
        if token is None:
            self._known.pop(hashed, None)
            if len(self.refused) < REFUSED_MAX:
                self.refused.add(hashed)
            raise self._refused(address, Unauthorized("The token is unknown, was revoked or has expired. Issue a new one."))
        self._remember(hashed, token)
        return token

    def _refused(self, address: str, why: Unauthorized) -> Unauthorized | SlowedError:
        wait = self.strangers.failed(address)
        if not wait:
            return why
        count_slowed()
        return SlowedError(_SLOWED, retry_after=wait)

    async def current(self, hashed: bytes) -> Token | None:
        """The token of an admitted request, if it is still valid. Concurrent calls share one query."""
        return await self._tokens.get(hashed)

    def forget(self, authorization: str | None) -> None:
        """Forget a token that a transaction found invalid, so that the next write asks the database."""
        self._known.pop(presented(authorization), None)

    def _live(self, hashed: bytes) -> Token | None:
        token = self._known.get(hashed)
        if token is None or microseconds(token.expires_at) <= self._clock():
            return None
        self._known.move_to_end(hashed)
        return token

    def _remember(self, hashed: bytes, token: Token) -> None:
        self._known[hashed] = token
        self._known.move_to_end(hashed)
        if len(self._known) > KNOWN_MAX:
            self._known.popitem(last=False)


def presented(authorization: str | None) -> bytes:
    """The hash of the token in an Authorization header. Raises Unauthorized if there is none, or a mistyped one."""
    match = _BEARER.fullmatch(authorization or "")
    if match is None:
        raise Unauthorized("Send a token in the header: Authorization: Bearer sl_...")
    if not well_formed(match[1]):
        raise Unauthorized("This is not a token of this service. Copy it again, whole.")
    return token_hash(match[1])
