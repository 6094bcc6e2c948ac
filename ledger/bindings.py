"""Check a row of `tokens` against the log: a seal that only the service can make, and the events of the token. Pure.

A row grants access only if `token.issued` is in the log, `token.revoked` is not, the seal matches the row, and the row names a
successor exactly if `token.rotated` is in the log. The seal also covers the expiry and the successor, so putting back the row
from before a rotation does not bring the old token back.
"""

import hmac
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from functools import lru_cache
from typing import Any, Final, TypeVar
from uuid import UUID

import orjson

from ledger.clocks import EPOCH, microseconds
from ledger.events import TOKEN_ISSUED, TOKEN_REVOKED, TOKEN_ROTATED
from ledger.sealing import TOKEN_SEAL, Kek

Bound = TypeVar("Bound")  # a row that is checked against the log
STATES: Final = ("active", "overlapping", "expired", "revoked")


@dataclass(frozen=True, slots=True)
class TokenRow:
    """A row of `tokens`. `facts` holds the types of the token's events as bits."""

    id: UUID
    hash: bytes
    role: str
    name: str
    directories: tuple[str, ...]
    types: tuple[str, ...]
    consumers: tuple[str, ...]
    bodies: bool
    created_by: str | None
    supersedes: UUID | None
    superseded_by: UUID | None
    expires_at: datetime
    created_at: datetime = EPOCH
    revoked_at: datetime | None = None
    last_used_at: datetime | None = None
    seal: bytes | None = None
    facts: int = 0

    def state(self, now: datetime) -> str:
        """One of STATES. `overlapping`: the token was rotated and works until its expiry."""
        if self.revoked_at is not None or self.facts & TOKEN_REVOKED.bit:
            return "revoked"
        if self.expires_at <= now:
            return "expired"
        return "active" if self.superseded_by is None else "overlapping"


def token_row(columns: tuple[Any, ...]) -> TokenRow:
    """Convert a row of the token queries (transaction.sql, tokens.sql)."""
    (
        token,
        hashed,
        role,
        name,
        directories,
        types,
        consumers,
        bodies,
        by,
        before,
        after,
        end,
        begun,
        revoked,
        used,
        seal,
        facts,
    ) = columns
    return TokenRow(
        token, bytes(hashed), role, name, tuple(directories), tuple(types), tuple(consumers), bodies, by, before, after, end, begun,
        revoked, used, None if seal is None else bytes(seal), facts or 0,
    )  # fmt: skip


def seal_of(kek: Kek, row: TokenRow) -> bytes:
    """The seal of a row, 32 bytes: an HMAC over scopes, owner, expiry and successor. Last use and revocation are not sealed."""
    granted = [
        str(row.id), row.hash.hex(), row.role, row.name, row.directories, row.types, row.consumers, row.bodies, row.created_by,
        _id_text(row.supersedes), _id_text(row.superseded_by), microseconds(row.expires_at),
    ]  # fmt: skip
    return kek.mac(TOKEN_SEAL, orjson.dumps(granted))


def _id_text(token: UUID | None) -> str | None:
    return None if token is None else str(token)


def sealed(kek: Kek, row: TokenRow) -> TokenRow:
    """The row with its seal filled in."""
    return replace(row, seal=seal_of(kek, row))


def sound(rows: Iterable[Bound], fault: Callable[[Bound], str | None], tell: Callable[[Bound, str], None]) -> list[Bound]:
    """The rows without a fault; of each other one `tell` is given the fault."""
    kept: list[Bound] = []
    for row in rows:
        found = fault(row)
        if found is None:
            kept.append(row)
        else:
            tell(row, found)
    return kept


@lru_cache(maxsize=1_024)
def fault_of(kek: Kek, row: TokenRow) -> str | None:
    """The reason, as a sentence for an operator, why a row that looks valid must be refused; None for a sound row.

    Remembered for equal rows: each request of an IdP reads the row of the same token.
    """
    if not row.facts & TOKEN_ISSUED.bit:
        return "no event token.issued made this row: somebody wrote it by hand"
    if row.facts & TOKEN_REVOKED.bit and row.revoked_at is None:
        return "the event token.revoked stands in the log, but the row says that it was never revoked"
    if bool(row.facts & TOKEN_ROTATED.bit) != (row.superseded_by is not None):
        return "the row and the log differ on whether it was rotated"
    if row.seal is None:
        return (
            "the row has no seal: it was made by hand, or by an earlier release, whose rows the next start of the service seals"
        )
    if not hmac.compare_digest(row.seal, seal_of(kek, row)):
        return "the rights in the row differ from those that the service issued: somebody changed it by hand"
    return None


@dataclass(frozen=True, slots=True)
class Told:
    """The bodies of a token's events; a body is empty if there is no event of that type."""

    issued: dict[str, Any]
    bound: dict[str, Any]
    rotated: dict[str, Any]

    @property
    def seal(self) -> str | None:
        """The seal of the row at issuance; None for a token of an earlier release that no start has bound yet."""
        return self.issued.get("seal") or self.bound.get("seal")


def differs(kek: Kek, row: TokenRow, told: Told) -> str | None:
    """A sentence that says how the row differs from the log; None if they agree."""
    if told.issued:
        for name, said in _granted(told.issued).items():
            if said != getattr(row, name):
                return f"{name} is not what token.issued says"
    if row.revoked_at is not None and not row.facts & TOKEN_REVOKED.bit:
        return "the row is revoked, but no event token.revoked says so"
    if told.seal is None and row.seal is None and told.issued:
        return None  # of an earlier release and not bound yet: the events hold no seal to compare
    return fault_of(kek, row) or _otherwise_sealed(kek, row, told)


def _granted(issued: dict[str, Any]) -> dict[str, Any]:
    scopes = {name: tuple(issued.get(name, ("*",))) for name in ("directories", "types", "consumers")}
    superseded = issued.get("supersedes")
    return {
        **scopes, "role": issued["role"], "name": issued["name"], "bodies": issued["bodies"],
        "supersedes": None if superseded is None else UUID(superseded),
    }  # fmt: skip


def _otherwise_sealed(kek: Kek, row: TokenRow, told: Told) -> str | None:
    issued = replace(row, superseded_by=None, expires_at=datetime.fromisoformat(told.issued["expires_at"]))
    if told.seal != seal_of(kek, issued).hex():
        return "its hash or its issuer differs from the sealed event in the log"
    ended = told.rotated or {"superseded_by": None, "expires_at": told.issued["expires_at"]}
    if (_id_text(row.superseded_by), row.expires_at) != (ended["superseded_by"], datetime.fromisoformat(ended["expires_at"])):
        return "its expiry or its successor differs from the log"
    return None
