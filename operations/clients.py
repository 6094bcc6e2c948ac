"""OAuth 2.0 clients of directories: create, list, show, rotate, revoke. A caller neither makes nor sees one of a directory beyond its reach."""

from dataclasses import dataclass
from typing import Any, Final

import orjson

from delivery.consumers import Allowed, check_reachable
from ledger import clients
from ledger.client_bindings import ClientRow
from ledger.clients import ShownClient, find_clients, shown_client
from ledger.directories import Directory
from ledger.lifecycle import check_open
from ledger.token_use import last_uses
from ledger.tokens import database_clock
from operations.admin_commands import record
from operations.admission import on_client, on_directory, operation, reached_directory
from operations.assertions import KeySetError, check_inline
from operations.caller import Caller
from operations.open_ledger import OpenLedger
from operations.refusals import InvalidError, invalid
from operations.tokens import issuer_of

INLINE_BYTES_MAX: Final = 16_384  # of a key set that is stored with the client: each look-up of an access token reads it


@dataclass(frozen=True, slots=True)
class Keys:
    """Where the public keys of a client are: here, or at a URL."""

    jwks: dict[str, Any] | None = None
    jwks_uri: str | None = None


@dataclass(frozen=True, slots=True)
class Made:
    """The JSON of a client, and its new secret, which is shown once; None for a client with keys."""

    shown: ShownClient
    secret: str | None


@on_directory("clients.create")
async def create(
    ledger: OpenLedger, caller: Caller, directory: Directory, name: str, auth: str, keys: Keys, allowed: Allowed
) -> Made:
    """Make an OAuth 2.0 client that writes to one directory, with a secret, or with public keys that verify its assertions.

    Raises InvalidFieldsError for keys that do not fit `auth` or cannot be used, StateError for a closed directory.
    """
    check_open(directory)
    _check_keys(auth, keys, allowed)
    async with ledger.connection() as conn:
        issuer = await issuer_of(ledger, conn, caller)
    made = clients.create(issuer, ledger.new_id(), directory, name, jwks=keys.jwks, jwks_uri=keys.jwks_uri)
    await record(ledger, caller, made.command)
    return Made(shown_client(made.row, issuer.now), made.text)


def _check_keys(auth: str, keys: Keys, allowed: Allowed) -> None:
    given = sum(one is not None for one in (keys.jwks, keys.jwks_uri))
    if auth == "secret" and given:
        raise invalid("auth", "is `secret`, and then there are no keys: leave out `jwks` and `jwks_uri`, or choose `jwt`")
    if auth == "jwt" and given != 1:
        raise invalid("jwks", "or `jwks_uri`: a client with `auth` `jwt` needs one of them")
    if keys.jwks is not None:
        if len(orjson.dumps(keys.jwks)) > INLINE_BYTES_MAX:
            raise invalid(
                "jwks", f"is larger than {INLINE_BYTES_MAX} bytes: send the keys alone, without certificates, or use `jwks_uri`"
            )
        try:
            check_inline(keys.jwks)
        except KeySetError as refused:
            raise InvalidError(str(refused)) from refused
    if keys.jwks_uri is not None:
        check_reachable("jwks_uri", keys.jwks_uri, allowed)


@operation("clients.list")
async def list_all(ledger: OpenLedger, caller: Caller, *, directory: str | None) -> list[ShownClient]:
    """The OAuth 2.0 clients of the directories that the caller reaches, or of one of them, in the order of creation."""
    if directory is not None:
        await reached_directory(ledger, caller, directory)
    async with ledger.connection() as conn:
        now = await database_clock(conn)
        rows = [row for row in await find_clients(conn, directory=directory) if caller.token.reaches(row.directory)]
        used = await last_uses(conn, ledger.kek, [row.id for row in rows])
    return [shown_client(row, now, used.get(row.id)) for row in rows]


@on_client("clients.show")
async def show(ledger: OpenLedger, _caller: Caller, client: ClientRow) -> ShownClient:
    """One OAuth 2.0 client, without its secret."""
    async with ledger.connection() as conn:
        used = await last_uses(conn, ledger.kek, [client.id])
        return shown_client(client, await database_clock(conn), used.get(client.id))


@on_client("clients.rotate")
async def renew_secret(ledger: OpenLedger, caller: Caller, client: ClientRow, overlap_seconds: int) -> Made:
    """Give an OAuth 2.0 client a new secret; the old one works until the overlap ends.

    Raises StateError if the client has no secret or is revoked, TokenRefusedError for an overlap out of range.
    """
    async with ledger.connection() as conn:
        issuer = await issuer_of(ledger, conn, caller)
    made = clients.rotate_secret(issuer, client, overlap_seconds)
    await record(ledger, caller, made.command)
    return Made(shown_client(made.row, issuer.now), made.text)


@on_client("clients.revoke")
async def revoke_client(ledger: OpenLedger, caller: Caller, client: ClientRow, reason: str | None) -> None:
    """Revoke an OAuth 2.0 client: every process refuses it and its access tokens from the next request on. Again makes no event."""
    facts = clients.revoke_client(client, reason)
    if facts is not None:
        await record(ledger, caller, facts)
