"""OAuth 2.0 clients of directories (RFC 6749 §4.4), and the access tokens that they get.

A client has a secret, `sl_client_<id>_<secret+checksum>`, or public keys with which its assertions are verified (RFC 7523). An access token
is `sl_access_<client>_<secret+checksum>`: opaque, stored as its SHA-256, and no event, since it ends within the hour. The acts on clients are
events of `_system`, as those on tokens are.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import partial
from typing import Annotated, Any, Final, Literal, NotRequired, TypeAlias, TypedDict, get_args
from uuid import UUID

import orjson
import structlog
from msgspec import Meta

from database.arrays import byteas, int2s
from database.connections import Connection
from database.queries import load_queries
from ledger.bindings import sound
from ledger.client_bindings import (
    CLIENT_STATES,
    AccessRow,
    ClientRow,
    access_fault,
    access_row,
    client_fault,
    client_row,
    sealed_access,
    sealed_client,
)
from ledger.clocks import microseconds
from ledger.commands import RecordFacts, Statement
from ledger.directories import Directory
from ledger.event_data import Id, Instant
from ledger.events import CLIENT, CLIENT_CREATED, CLIENT_REVOKED, CLIENT_ROTATED, OPERATOR, Body, Draft, EventType
from ledger.refused import StateError
from ledger.rendering import rfc3339
from ledger.sealing import Kek, open_payload, unwrap_key
from ledger.token_use import UsedFrom
from ledger.tokens import TOKEN_OVERLAP_S_MAX, Issuer, Token, TokenRefusedError, new_text, token_hash

SQL = load_queries(__file__)
Auth = Literal["secret", "jwt"]
AuthName: TypeAlias = Annotated[str, Meta(extra_json_schema={"enum": list(get_args(Auth))})]
ClientState: TypeAlias = Annotated[str, Meta(extra_json_schema={"enum": list(CLIENT_STATES)})]
ACCESS_S: Final = 3_600  # how long an access token works
ASSERTIONS_MAX: Final = (
    20_000  # assertions of one client that are remembered at once: each until its `exp`, so that none is used twice
)
ACCESS_TOKENS_MAX: Final = 10_000  # live access tokens of one client; the oldest above are deleted
PRUNE_BATCH: Final = 10_000
_log = structlog.get_logger("ledger.clients")


@dataclass(frozen=True, slots=True)
class NewSecret:
    """A client with a new secret, which is shown once (None for a client with keys), and the act that stores it."""

    row: ClientRow
    text: str | None
    command: RecordFacts


def create(
    issuer: Issuer, client_id: UUID, directory: Directory, name: str, *, jwks: dict[str, Any] | None, jwks_uri: str | None
) -> NewSecret:
    """Make a client: with keys if they are given, inline or by their URL, else with a secret."""
    auth = "secret" if jwks is None and jwks_uri is None else "jwt"
    text = _new_secret(issuer, client_id) if auth == "secret" else None
    row = sealed_client(
        issuer.kek,
        ClientRow(
            client_id, directory.slug, name, auth, None if text is None else token_hash(text), created_by=issuer.by, created_at=issuer.now,
            jwks=None if jwks is None else orjson.dumps(jwks).decode(), jwks_uri=jwks_uri,
        ),
    )  # fmt: skip
    keys = ({} if jwks is None else {"jwks": jwks}) | ({} if jwks_uri is None else {"jwks_uri": jwks_uri})
    said = _said(row) | {"auth": auth, "seal": (row.seal or b"").hex()} | keys
    insert = SQL["insert_client"], (
        row.id, directory.id, name, auth, row.secret, row.jwks, jwks_uri, row.created_by, row.created_at, row.seal,
    )  # fmt: skip
    return NewSecret(row, text, RecordFacts((_draft(CLIENT_CREATED, row, said),), (insert,)))


def rotate_secret(issuer: Issuer, old: ClientRow, overlap_seconds: int) -> NewSecret:
    """Give a client a new secret; the old one works until the overlap ends, and one before that no longer.

    Raises StateError if the client is revoked or has no secret, TokenRefusedError for an overlap out of range.
    """
    if not 0 <= overlap_seconds <= TOKEN_OVERLAP_S_MAX:
        raise TokenRefusedError(f"overlap_seconds is 0 to {TOKEN_OVERLAP_S_MAX}: the seconds that both secrets work.")
    if old.auth != "secret":
        why = "This client has no secret: it signs with its own key. Change the keys at its jwks_uri; for inline keys make a new client."
        raise StateError(why, "client_without_secret")
    if old.state(issuer.now) == "revoked":
        raise StateError("This client is revoked: there is nothing to rotate. Make a new one.", "client_revoked")
    if client_fault(issuer.kek, old) is not None:
        why = "The stored client does not agree with the log. Run `scim-ledger replay verify`, and make a new one."
        raise StateError(why, "client_not_of_the_log")
    text, until = _new_secret(issuer, old.id), issuer.now + timedelta(seconds=overlap_seconds)
    row = sealed_client(
        issuer.kek,
        replace(
            old, secret=token_hash(text), former=old.secret, former_until=until, rotations=old.rotations + 1, rotated_at=issuer.now,
            rotated=old.rotated + 1, facts=old.facts | CLIENT_ROTATED.bit,
        ),
    )  # fmt: skip
    said = _said(row) | {"former_until": rfc3339(microseconds(until)), "seal": (row.seal or b"").hex()}
    update = SQL["rotate_client"], (row.id, row.secret, row.former, until, row.rotations, issuer.now, row.seal)
    stands = SQL["client_rotated_times"], (row.id, old.rotations)
    return NewSecret(row, text, RecordFacts((_draft(CLIENT_ROTATED, row, said),), (update,), stands=stands))


def revoke_client(row: ClientRow, reason: str | None = None) -> RecordFacts | None:
    """The act that ends a client and its access tokens, effective from the next request on; None if it is revoked already."""
    if row.facts & CLIENT_REVOKED.bit:
        return None
    said = _said(row) | ({} if reason is None else {"reason": reason})
    return RecordFacts(
        (_draft(CLIENT_REVOKED, row, said),), ((SQL["revoke_client"], (row.id,)),), stands=_unless(row.id, CLIENT_REVOKED)
    )


def _draft(kind: EventType, row: ClientRow, said: dict[str, Any]) -> Draft:
    return Draft(kind, row.id, CLIENT, cause=OPERATOR, body=Body(said, [], row.name))


def _said(row: ClientRow) -> dict[str, Any]:
    return {"id": str(row.id), "name": row.name, "directory": row.directory}


def _unless(client: UUID, kind: EventType) -> Statement:
    return SQL["client_without"], (client, int2s([kind.number]))


def _new_secret(issuer: Issuer, client: UUID) -> str:
    return new_text(issuer.random, "client", client)


class ShownClient(TypedDict):
    """A client without its secret. `old_secret_until`: until when the secret from before the last rotation works."""

    object: Literal["client"]
    id: Id
    client_id: str
    directory: str
    name: str
    auth: AuthName
    jwks: NotRequired[dict[str, Any]]
    jwks_uri: NotRequired[str]
    created_at: Instant
    created_by: str | None
    rotated_at: Instant | None
    old_secret_until: Instant | None
    last_used_at: Instant | None
    last_used_from: UsedFrom | None
    revoked_at: Instant | None
    state: ClientState


def shown_client(row: ClientRow, now: datetime, used: UsedFrom | None = None) -> ShownClient:
    """The JSON of a client (docs/operations.md, "OAuth 2.0"); its secret is not in it."""
    said: ShownClient = {
        "object": "client", "id": str(row.id), "client_id": row.client_id, "directory": row.directory, "name": row.name, "auth": row.auth,
        "created_at": row.created_at, "created_by": row.created_by, "rotated_at": row.rotated_at, "old_secret_until": row.former_until,
        "last_used_at": row.last_used_at, "last_used_from": used, "revoked_at": row.revoked_at, "state": row.state(now),
    }  # fmt: skip
    if row.jwks is not None:
        said["jwks"] = orjson.loads(row.jwks)
    if row.jwks_uri is not None:
        said["jwks_uri"] = row.jwks_uri
    return said


async def find_clients(conn: Connection, *, client: UUID | None = None, directory: str | None = None) -> list[ClientRow]:
    """Clients in any state, in the order of creation, optionally one by id, or those of a directory."""
    cursor = await conn.cursor(binary=True).execute(SQL["clients_all"], (client, directory))
    return [client_row(row) for row in await cursor.fetchall()]


async def client_to_authenticate(conn: Connection, kek: Kek, client: UUID, directory: str) -> ClientRow | None:
    """The client that may ask for access tokens of a directory; None if it is unknown, revoked, of another or of a closed directory."""
    cursor = await conn.cursor(binary=True).execute(SQL["client_by_id"], (client, directory))
    row = await cursor.fetchone()
    found = None if row is None else client_row(row)
    fault = None if found is None else client_fault(kek, found)
    if fault is not None:
        _log.error("client_not_of_the_log", client=client, problem=fault)
        return None
    return found


@dataclass(frozen=True, slots=True)
class OnceOnly:
    """What makes an assertion one of a kind: the SHA-256 of its `jti`, remembered until `until`."""

    jti: bytes
    until: datetime


class AssertionUsedError(Exception):
    """An assertion with this `jti` was used before. `full`: too many are remembered of this client to tell."""

    def __init__(self, *, full: bool) -> None:
        super().__init__()
        self.full = full


@dataclass(frozen=True, slots=True)
class NewAccess:
    text: str
    row: AccessRow


def new_access(kek: Kek, random: Callable[[int], bytes], number: UUID, client: ClientRow, now: datetime) -> NewAccess:
    """Make an access token of a client; it is valid once it is stored."""
    text = new_text(random, "access", client.id)
    return NewAccess(text, sealed_access(kek, AccessRow(number, token_hash(text), client, now + timedelta(seconds=ACCESS_S))))


async def store_access(conn: Connection, made: NewAccess, once: OnceOnly | None) -> None:
    """Store an access token, and with it that the assertion was used: one statement, so both or nothing.

    Raises AssertionUsedError, also if another process takes the same assertion at the same moment.
    """
    row = made.row
    own = (row.id, row.hash, row.client.id, row.expires_at, row.seal)
    if once is None:
        await conn.execute(SQL["insert_access"], own)
        return
    if await (await conn.execute(SQL["insert_access_once"], (*own, once.jti, once.until, ASSERTIONS_MAX))).fetchone() is None:
        used = await (await conn.execute(SQL["assertion_used"], (row.client.id, once.jti))).fetchone()
        raise AssertionUsedError(full=used is None)


async def live_access(conn: Connection, kek: Kek, hashes: list[bytes]) -> dict[bytes, Token]:
    """Look up valid access tokens by hash. Expired ones, those of ended clients, and rows that do not agree with the log are left out."""
    cursor = await conn.cursor(binary=True).execute(SQL["access_by_hash"], (byteas(hashes),))
    return {row.hash: token_of_access(row) for row in believed_access(kek, map(access_row, await cursor.fetchall()))}


def believed_access(kek: Kek, rows: Iterable[AccessRow]) -> list[AccessRow]:
    """The access tokens that the service issued, of clients that agree with the log. The others are logged with the reason."""
    return sound(
        rows,
        partial(access_fault, kek),
        lambda row, fault: _log.error("client_not_of_the_log", client=row.client.id, problem=fault),
    )


def token_of_access(row: AccessRow) -> Token:
    """The rights of an access token: those of a bearer token of role scim for the client's directory."""
    client = row.client
    return Token(row.id, "scim", client.name, (client.directory,), ("*",), True, expires_at=row.expires_at, client=client.id)


async def prune_access(conn: Connection) -> None:
    """Delete access tokens that expired a day ago, what a client has above ACCESS_TOKENS_MAX, and assertions that have expired."""
    await conn.execute(SQL["prune_access_tokens"], (PRUNE_BATCH,))
    await conn.execute(SQL["prune_surplus_access_tokens"], (ACCESS_TOKENS_MAX, PRUNE_BATCH))
    await conn.execute(SQL["prune_assertions"], (PRUNE_BATCH,))


_SEALING: Final = [CLIENT_CREATED.number, CLIENT_ROTATED.number]


async def seals_told(conn: Connection, kek: Kek, system: Directory, client: UUID) -> list[str]:
    """The seals in the events of a client, in order. Raises BodyError or WrapError if an event cannot be opened."""
    seals = list[str]()
    cursor = await conn.cursor(binary=True).execute(SQL["client_events"], (system.id, client, int2s(_SEALING)))
    for seq, ct, wrapped in await cursor.fetchall():
        if ct is not None and wrapped is not None:
            key = unwrap_key(kek, wrapped, directory=system.uuid, obj=client)
            payload = open_payload(key, ct, directory=system.uuid, obj=client, seq=seq)
            seals.append(orjson.loads(payload)["data"]["object"].get("seal", ""))
    return seals
