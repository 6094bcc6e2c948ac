"""Bearer tokens: `sl_<role>_<id>_<secret+checksum>`. Shown once; the ledger keeps a SHA-256."""

import hashlib
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from database.arrays import byteas
from database.connections import Connection
from database.queries import load_queries
from ledger.commands import RecordFacts
from ledger.events import OPERATOR, TOKEN, TOKEN_ISSUED, TOKEN_REVOKED, Body, Draft

SQL = load_queries(__file__)
ROLES: Final = ("scim", "consumer", "operator", "auditor", "admin")
SECRET_BYTES: Final = 32
LIFE_DAYS: Final = 365


@dataclass(frozen=True, slots=True)
class Token:
    """What a presented token may do. `directories` holds slugs, or `*` for all but `_system`; `consumers` names that it may read for."""

    id: UUID
    role: str
    name: str
    directories: tuple[str, ...]
    types: tuple[str, ...]
    bodies: bool
    consumers: tuple[str, ...] = ("*",)

    @property
    def actor(self) -> str:
        return f"tok_{self.id.hex}"

    def reaches(self, slug: str) -> bool:
        return slug in self.directories or ("*" in self.directories and not slug.startswith("_"))


@dataclass(frozen=True, slots=True)
class NewToken:
    """A token being issued; `text` is shown once."""

    token: Token
    text: str
    hash: bytes
    expires_at: datetime

    def command(self) -> RecordFacts:
        """Give the command that stores it, with the event that says so."""
        t = self.token
        row = (t.id, self.hash, t.role, t.name, list(t.directories), list(t.types), t.bodies, self.expires_at, list(t.consumers))
        facts = {
            "id": str(t.id), "role": t.role, "name": t.name, "directories": list(t.directories), "types": list(t.types),
            "bodies": t.bodies, "expires_at": self.expires_at.isoformat(), "consumers": list(t.consumers),
        }  # fmt: skip
        draft = Draft(TOKEN_ISSUED, t.id, TOKEN, cause=OPERATOR, body=Body(facts, [], t.name))
        return RecordFacts((draft,), ((SQL["insert_token"], row),))


def _checksum(text: str) -> str:
    return f"{zlib.crc32(text.encode()):08x}"


@dataclass(frozen=True, slots=True)
class Scope:
    """What narrows a token of role consumer: event types, the consumers it may read for, whether it sees attributes."""

    types: tuple[str, ...] = ("*",)
    consumers: tuple[str, ...] = ("*",)
    bodies: bool = True


def new_token(
    token_id: UUID,
    role: str,
    name: str,
    directories: tuple[str, ...],
    *,
    expires_at: datetime,
    random: Callable[[int], bytes],
    scope: Scope | None = None,
) -> NewToken:
    """Make a token of a role. Raises ValueError for a role that does not exist, and for a scope where it means nothing."""
    if role not in ROLES:
        raise ValueError(f"There is no role {role}. Choose one of {', '.join(ROLES)}.")
    if scope is not None and role != "consumer":
        raise ValueError("Types, consumers and attributes narrow tokens of role consumer only.")
    narrow = scope or Scope()
    start = f"sl_{role}_{token_id.hex}_{random(SECRET_BYTES).hex()}"
    text = start + _checksum(start)
    token = Token(
        token_id, role, name, directories, narrow.types, bodies=narrow.bodies and role != "operator", consumers=narrow.consumers
    )
    return NewToken(token, text, token_hash(text), expires_at)


def revocation(token: UUID, name: str) -> RecordFacts:
    """Give the command that revokes a token from the next request on."""
    draft = Draft(TOKEN_REVOKED, token, TOKEN, cause=OPERATOR, body=Body({"id": str(token), "name": name}, [], name))
    return RecordFacts((draft,), ((SQL["revoke_token"], (token,)),))


def token_hash(text: str) -> bytes:
    """What is stored of a token. The secret has 256 random bits, so one plain hash is enough."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()


def well_formed(text: str) -> bool:
    """Tell a mistyped or foreign token without asking the database."""
    return text.startswith("sl_") and len(text) > 12 and text.isascii() and _checksum(text[:-8]) == text[-8:]


async def live_tokens(conn: Connection, hashes: list[bytes]) -> dict[bytes, Token]:
    """Look up tokens by hash; expired and revoked ones are not found."""
    cursor = await conn.cursor(binary=True).execute(SQL["tokens_by_hash"], (byteas(hashes),))
    return {hashes[row[0] - 1]: _token(row[1:]) for row in await cursor.fetchall()}


def _token(row: tuple[Any, ...]) -> Token:
    number, role, name, directories, types, bodies, consumers = row
    return Token(number, role, name, tuple(directories), tuple(types), bodies, tuple(consumers))
