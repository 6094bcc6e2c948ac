"""The token endpoint of a directory: client credentials become an access token (RFC 6749 §4.4)."""

import hashlib
import hmac
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal
from uuid import UUID

import orjson

from ledger.client_bindings import ClientRow
from ledger.clients import (
    ACCESS_S,
    AssertionUsedError,
    OnceOnly,
    client_to_authenticate,
    new_access,
    store_access,
)
from ledger.directories import Directory
from ledger.tokens import database_clock, token_hash, well_formed
from operations.assertions import (
    Assertion,
    AssertionRefusedError,
    PublicKey,
    Unverified,
    key_for,
    public_keys,
    read_assertion,
    verified,
)
from operations.key_sets import KeySets
from operations.open_ledger import OpenLedger

SCOPE: Final = "scim"
AuthenticationMethod = Literal["client_secret_basic", "client_secret_post", "private_key_jwt"]
NOBODY: Final = "The client is unknown here, or its secret or its assertion is wrong."


class InvalidClientError(Exception):
    """The client did not authenticate (RFC 6749 §5.2, `invalid_client`). The text is the same whether it exists or not."""

    def __init__(self, why: str = NOBODY) -> None:
        super().__init__(why or NOBODY)


class TooManyAssertionsError(Exception):
    """A client has used so many assertions within their life that no more can be remembered."""


@dataclass(frozen=True, slots=True)
class Credentials:
    """What a client authenticates with: its secret, or an assertion. `client_id` may be empty beside an assertion, which names it."""

    client_id: str
    secret: str | None = None
    assertion: str | None = None


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A directory's token endpoint. Its issuer, and its own URL, are the audiences of assertions."""

    directory: str
    issuer: str
    metadata_url: str

    @property
    def url(self) -> str:
        return f"{self.issuer}/token"


def endpoint_of(base_url: str, directory: str) -> Endpoint:
    # RFC 8414 §3.1: the path of the issuer stands after the well-known one.
    metadata = f"{base_url}/.well-known/oauth-authorization-server/oauth/{directory}"
    return Endpoint(directory, f"{base_url}/oauth/{directory}", metadata)


@dataclass(frozen=True, slots=True)
class Granted:
    """An access token of a client, shown once, and the seconds for which it works."""

    text: str
    client: UUID
    expires_in: int = ACCESS_S


async def grant(
    ledger: OpenLedger, key_sets: KeySets, endpoint: Endpoint, sent: Credentials, admit: Callable[[Directory], Awaitable[None]]
) -> Granted:
    """Authenticate a client of a directory, and give it an access token, if `admit` lets its directory have one.

    Raises InvalidClientError, TooManyAssertionsError, and what `admit` raises.
    """
    assertion = None if sent.assertion is None else _read(sent.assertion)
    number = _number(sent.client_id or (assertion.subject if assertion is not None else None) or "")
    async with ledger.connection() as conn:
        now = await database_clock(conn)
        client = None if number is None else await client_to_authenticate(conn, ledger.kek, number, endpoint.directory)
    once = None
    if assertion is not None:
        once = await _authenticated(key_sets, client, assertion, endpoint, now)
    elif not _knows_secret(client, sent.secret or "", now):
        raise InvalidClientError
    if client is None:
        raise InvalidClientError
    async with ledger.connection() as conn:
        directory = await ledger.directories.by_slug(conn, endpoint.directory)
    assert directory is not None, "the client is one of its"
    await admit(directory)
    made = new_access(ledger.kek, ledger.entropy, ledger.new_id(), client, now)
    async with ledger.connection() as conn:
        try:
            await store_access(conn, made, once)
        except AssertionUsedError as used:
            if used.full:
                raise TooManyAssertionsError from used
            raise InvalidClientError("The assertion was used before (`jti`). Sign a new one for each request.") from used
    return Granted(made.text, client.id)


def _read(text: str) -> Unverified:
    try:
        return read_assertion(text)
    except AssertionRefusedError as refused:
        raise InvalidClientError from refused


def _number(client_id: str) -> UUID | None:
    digits = client_id.removeprefix("cli_")
    known = client_id.startswith("cli_") and len(digits) == 32 and not set(digits) - set("0123456789abcdef")
    return UUID(digits) if known else None


def _knows_secret(client: ClientRow | None, secret: str, now: datetime) -> bool:
    """Whether the secret is that of the client, or the one from before a rotation whose overlap has not ended."""
    if client is None or not well_formed(secret):
        return False
    hashed = token_hash(secret)
    former = client.former if client.former_until is not None and client.former_until > now else None
    return any(known is not None and hmac.compare_digest(known, hashed) for known in (client.secret, former))


async def _authenticated(
    key_sets: KeySets, client: ClientRow | None, assertion: Unverified, endpoint: Endpoint, now: datetime
) -> OnceOnly:
    key = None if client is None else await _key(key_sets, client, assertion)
    if client is None or key is None:
        raise InvalidClientError
    try:
        proven: Assertion = verified(assertion, key, client.client_id, (endpoint.issuer, endpoint.url), now)
    except AssertionRefusedError as refused:
        raise InvalidClientError(refused.why) from refused
    return OnceOnly(hashlib.sha256(proven.jti.encode("utf-8", "surrogatepass")).digest(), proven.until)


async def _key(key_sets: KeySets, client: ClientRow, assertion: Unverified) -> PublicKey | None:
    if client.jwks_uri is not None:
        return await key_sets.key_for(client.jwks_uri, assertion)
    return None if client.jwks is None else key_for(public_keys(orjson.loads(client.jwks)), assertion)
