"""Check rows of OAuth 2.0 clients and of their access tokens: seals that only the service can make, and the client's events. Pure.

A client is believed only if `client.created` is in the log, `client.revoked` is not, its row counts as many rotations as the log, and
the seal matches the row. So neither a changed key nor the row from before a rotation lets anybody in (bindings.py: the same for tokens).
"""

import hmac
from dataclasses import dataclass, replace
from datetime import datetime
from functools import lru_cache
from typing import Any, Final
from uuid import UUID

import orjson

from ledger.clocks import EPOCH, microseconds
from ledger.events import CLIENT_CREATED, CLIENT_REVOKED
from ledger.sealing import ACCESS_SEAL, CLIENT_SEAL, Kek

CLIENT_STATES: Final = ("active", "overlapping", "revoked")


@dataclass(frozen=True, slots=True)
class ClientRow:
    """A row of `clients`. `facts` holds the types of its events as bits, `rotated` the number of its events `client.rotated`."""

    id: UUID
    directory: str
    name: str
    auth: str
    secret: bytes | None = None  # SHA-256
    former: bytes | None = None  # of the secret before the last rotation, which works until `former_until`
    former_until: datetime | None = None
    jwks: str | None = None
    jwks_uri: str | None = None
    created_by: str | None = None
    rotations: int = 0
    created_at: datetime = EPOCH
    rotated_at: datetime | None = None
    revoked_at: datetime | None = None
    last_used_at: datetime | None = None
    seal: bytes | None = None
    facts: int = 0
    rotated: int = 0

    @property
    def client_id(self) -> str:
        """The `client_id` of RFC 6749 §2.2, which is also the actor in events."""
        return f"cli_{self.id.hex}"

    def state(self, now: datetime) -> str:
        """One of CLIENT_STATES. `overlapping`: the secret from before a rotation still works."""
        if self.revoked_at is not None or self.facts & CLIENT_REVOKED.bit:
            return "revoked"
        return "overlapping" if self.former_until is not None and self.former_until > now else "active"


@dataclass(frozen=True, slots=True)
class AccessRow:
    """A row of `access_tokens`, with its client."""

    id: UUID
    hash: bytes
    client: ClientRow
    expires_at: datetime
    seal: bytes = b""


def client_row(columns: tuple[Any, ...]) -> ClientRow:
    """Convert a row of the client queries (clients.sql, transaction.sql)."""
    (
        number,
        directory,
        name,
        auth,
        secret,
        former,
        until,
        jwks,
        uri,
        by,
        rotations,
        made,
        rotated_at,
        revoked,
        used,
        seal,
        facts,
        rotated,
    ) = columns
    return ClientRow(
        number, directory, name, auth, _bytes(secret), _bytes(former), until, jwks, uri, by, rotations, made, rotated_at, revoked, used,
        _bytes(seal), facts or 0, rotated,
    )  # fmt: skip


def access_row(columns: tuple[Any, ...]) -> AccessRow:
    """Convert a row of the queries of access tokens: its own four columns, then those of its client."""
    number, hashed, expires_at, seal, *client = columns
    return AccessRow(number, bytes(hashed), client_row(tuple(client)), expires_at, bytes(seal))


def _bytes(value: Any) -> bytes | None:
    return None if value is None else bytes(value)


def seal_of_client(kek: Kek, row: ClientRow) -> bytes:
    """The seal of a client's row, 32 bytes. Last use and revocation are not sealed."""
    until = None if row.former_until is None else microseconds(row.former_until)
    granted = [
        str(row.id), row.directory, row.name, row.auth, _hex(row.secret), _hex(row.former), until, row.jwks, row.jwks_uri, row.created_by,
        row.rotations,
    ]  # fmt: skip
    return kek.mac(CLIENT_SEAL, orjson.dumps(granted))


def _hex(value: bytes | None) -> str | None:
    return None if value is None else value.hex()


def sealed_client(kek: Kek, row: ClientRow) -> ClientRow:
    """The row with its seal filled in."""
    return replace(row, seal=seal_of_client(kek, row))


def sealed_access(kek: Kek, row: AccessRow) -> AccessRow:
    """The row with its seal filled in: nobody can give a client another token by writing into the table."""
    return replace(row, seal=_seal_of_access(kek, row))


def _seal_of_access(kek: Kek, row: AccessRow) -> bytes:
    return kek.mac(ACCESS_SEAL, orjson.dumps([str(row.id), row.hash.hex(), str(row.client.id), microseconds(row.expires_at)]))


@lru_cache(maxsize=1_024)
def client_fault(kek: Kek, row: ClientRow) -> str | None:
    """The reason, as a sentence for an operator, why the row of a client must be refused; None for a sound row."""
    if not row.facts & CLIENT_CREATED.bit:
        return "no event client.created made this row: somebody wrote it by hand"
    if row.facts & CLIENT_REVOKED.bit and row.revoked_at is None:
        return "the event client.revoked stands in the log, but the row says that it was never revoked"
    if row.rotations != row.rotated:
        return "the row and the log differ on how often its secret was rotated"
    if row.seal is None or not hmac.compare_digest(row.seal, seal_of_client(kek, row)):
        return "the row differs from what the service wrote: somebody changed it by hand"
    return None


@lru_cache(maxsize=1_024)
def access_fault(kek: Kek, row: AccessRow) -> str | None:
    """The same for an access token, and its client. Remembered for equal rows: each request of an IdP reads the same one."""
    if not hmac.compare_digest(row.seal, _seal_of_access(kek, row)):
        return "this access token was not issued by the service: somebody wrote or changed its row by hand"
    return client_fault(kek, row.client)


def client_differs(kek: Kek, row: ClientRow, seals: list[str]) -> str | None:
    """A sentence that says how a client's row differs from the log; None if they agree. `seals`: of its events, in order."""
    if row.revoked_at is not None and not row.facts & CLIENT_REVOKED.bit:
        return "the row is revoked, but no event client.revoked says so"
    fault = client_fault(kek, row)
    if fault is None and seals[-1:] != [(row.seal or b"").hex()]:
        return "its secret, its keys or its directory differ from the sealed event in the log"
    return fault
