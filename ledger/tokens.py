"""Bearer tokens: `sl_<role>_<id>_<secret+checksum>`. A token is shown once; the ledger stores its SHA-256.

issue, rotate and revoke are pure: each returns the act (`RecordFacts`) for the log of `_system`. bindings.py checks stored rows.
"""

import hashlib
import zlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Annotated, Any, Final, Literal, TypeAlias, TypedDict, get_args
from uuid import UUID

import orjson
import structlog
from msgspec import Meta

from database.arrays import byteas, int2s, uuids
from database.connections import Connection
from database.queries import load_queries
from ledger.bindings import STATES, TokenRow, Told, differs, fault_of, sealed, sound, token_row
from ledger.clocks import microseconds
from ledger.commands import RecordFacts, Statement
from ledger.directories import SYSTEM, Directory
from ledger.event_data import Id, Instant
from ledger.events import (
    OPERATOR,
    TOKEN,
    TOKEN_BOUND,
    TOKEN_EXPIRING,
    TOKEN_ISSUED,
    TOKEN_REVOKED,
    TOKEN_ROTATED,
    Body,
    Draft,
    EventType,
    type_mask,
)
from ledger.refused import StateError
from ledger.rendering import rfc3339
from ledger.sealing import Kek, open_payload, unwrap_key
from ledger.token_use import UsedFrom
from proofs.body import BodyError
from proofs.keys import WrapError

SQL = load_queries(__file__)
Role = Literal["scim", "consumer", "operator", "auditor", "admin"]
ROLES: Final = get_args(Role)
RoleName: TypeAlias = Annotated[str, Meta(extra_json_schema={"enum": list(ROLES)})]
TokenState: TypeAlias = Annotated[str, Meta(extra_json_schema={"enum": list(STATES)})]
# Tokens of these roles are revoked with their directory if they reach no other. Tokens that only read stay valid: applications must still
# read that access ended, and auditors must still see the past.
ENDED_ROLES: Final = ("scim", "operator", "admin")
SECRET_BYTES: Final = 32
LIFE_DAYS: Final = 365
WARNED_DAYS: Final = (30, 7, 1)  # before a token expires
DAY_S: Final = 86_400
OVERLAP_S: Final = 86_400  # default time for which a rotated token still works
TOKEN_OVERLAP_S_MAX: Final = 90 * 86_400  # after 90 days with two valid secrets it is no rotation any more
ANY: Final = ("*",)
ENDLESS: Final = datetime.max.replace(tzinfo=UTC)
_log = structlog.get_logger("ledger.tokens")


class TokenRefusedError(ValueError):
    """A token cannot be issued or rotated as asked; the text says why and what to do."""


@dataclass(frozen=True, slots=True)
class Token:
    """The rights of a token. `directories`: slugs, or `*` for all but `_system`. `consumers`: those it may acknowledge for."""

    id: UUID
    role: str
    name: str
    directories: tuple[str, ...]
    types: tuple[str, ...]
    bodies: bool
    consumers: tuple[str, ...] = ANY
    expires_at: datetime = ENDLESS
    client: UUID | None = None  # of an access token: the OAuth 2.0 client that got it

    @property
    def actor(self) -> str:
        """Who acts, as events say it: the token, or the client of an access token."""
        return f"tok_{self.id.hex}" if self.client is None else f"cli_{self.client.hex}"

    @property
    def owner(self) -> UUID:
        """The id that stays: of the token, or of the client, whose access tokens live an hour."""
        return self.client or self.id

    @property
    def reaches_system(self) -> bool:
        """Whether it may read `_system`: operator and admin tokens that are not narrowed to directories."""
        return self.role in {"operator", "admin"} and "*" in self.directories

    def reaches(self, slug: str) -> bool:
        """Whether it may read an IdP's directory. For `_system` see `reaches_system`."""
        return slug != SYSTEM and ("*" in self.directories or slug in self.directories)

    def reaches_log(self, slug: str) -> bool:
        """Whether it may read a directory's log, that of `_system` included."""
        return self.reaches_system if slug == SYSTEM else self.reaches(slug)

    def reaches_all(self, directories: Iterable[str]) -> bool:
        """Whether it reaches all directories of a list; `*` in the list needs a token that is not narrowed."""
        return all("*" in self.directories if slug == "*" else self.reaches_log(slug) for slug in directories)

    def reads(self, types: Sequence[str]) -> bool:
        """Whether it may read all these event types. False for a pattern that matches no event type."""
        asked = type_mask(types)
        return asked is not None and self.reads_bits(asked)

    def reads_bits(self, types: int) -> bool:
        """Whether it may read all event types of a bit mask."""
        return not types & ~(type_mask(self.types) or 0)

    def moves(self, consumer: str) -> bool:
        """Whether it may acknowledge for a consumer. A token without consumers can only read the feed."""
        return "*" in self.consumers or consumer in self.consumers

    def covers(self, other: "Token") -> bool:
        """Whether its scope includes the other token's scope. A token can issue and see only tokens that it covers."""
        return (
            self.reaches_all(other.directories)
            and self.reads(other.types)
            and all(self.moves(name) for name in other.consumers)
            and (self.bodies or not other.bodies)
        )


@dataclass(frozen=True, slots=True)
class Scope:
    """The narrowing of a consumer token: event types, consumers it may acknowledge for, whether it sees attributes."""

    types: tuple[str, ...] = ANY
    consumers: tuple[str, ...] = ANY
    bodies: bool = True


@dataclass(frozen=True, slots=True)
class NewToken:
    """A new token. `text` is shown once; `row` is sealed and ready to store."""

    row: TokenRow
    text: str
    ends: TokenRow | None = None  # the row of the replaced token after the rotation

    @property
    def token(self) -> Token:
        return token_of(self.row)

    def command(self) -> RecordFacts:
        """The act that stores the token, and sets the expiry and successor of the token that it replaces."""
        r = self.row
        issued = Draft(TOKEN_ISSUED, r.id, TOKEN, cause=OPERATOR, body=Body(issued_facts(r), [], r.name))
        insert = (SQL["insert_token"], (
            r.id, r.hash, r.role, r.name, list(r.directories), list(r.types), list(r.consumers), r.bodies, r.created_by, r.supersedes,
            r.expires_at, r.created_at, r.seal,
        ))  # fmt: skip
        if self.ends is None:
            return RecordFacts((issued,), (insert,))
        old = self.ends
        said = {
            "id": str(old.id),
            "name": old.name,
            "superseded_by": str(r.id),
            "expires_at": rfc3339(microseconds(old.expires_at)),
        }
        rotated = Draft(TOKEN_ROTATED, old.id, TOKEN, cause=OPERATOR, body=Body(said, [], old.name))
        supersede = (SQL["supersede_token"], (old.id, r.id, old.expires_at, old.seal))
        return RecordFacts((issued, rotated), (insert, supersede), stands=_without(old.id, TOKEN_ROTATED, TOKEN_REVOKED))


def issued_facts(row: TokenRow) -> dict[str, Any]:
    """The body of `token.issued`: the token's rights, and the seal of its row at issuance."""
    facts = {
        "id": str(row.id), "role": row.role, "name": row.name, "directories": list(row.directories), "types": list(row.types),
        "bodies": row.bodies, "expires_at": rfc3339(microseconds(row.expires_at)), "consumers": list(row.consumers), "seal": (row.seal or b"").hex(),
    }  # fmt: skip
    return facts if row.supersedes is None else {**facts, "supersedes": str(row.supersedes)}


@dataclass(frozen=True, slots=True)
class Issuer:
    """Inputs of issuing: the KEK, randomness, the time, and the actor as it appears in leaves."""

    kek: Kek
    random: Callable[[int], bytes]
    now: datetime
    by: str


def issue(issuer: Issuer, token_id: UUID, role: str, name: str, directories: tuple[str, ...], *, expires_at: datetime, scope: Scope | None = None) -> NewToken:  # fmt: skip
    """Make a token of a role. Raises TokenRefusedError for an unknown role, and for a scope on a role that cannot be narrowed."""
    narrow = scope or Scope()
    _refuse(role, directories, scope)
    text = new_text(issuer.random, role, token_id)
    bodies = narrow.bodies and role != "operator"
    row = TokenRow(
        token_id, token_hash(text), role, name, directories, narrow.types, narrow.consumers, bodies, issuer.by, None, None, expires_at, issuer.now,
    )  # fmt: skip
    return NewToken(sealed(issuer.kek, row), text)


def _refuse(role: str, directories: tuple[str, ...], scope: Scope | None) -> None:
    if role not in ROLES:
        raise TokenRefusedError(f"There is no such role. Choose one of {', '.join(ROLES)}.")
    if SYSTEM in directories:
        raise TokenRefusedError(f"No token names {SYSTEM}: operators and admins that are not narrowed to directories reach it.")
    if role == "scim" and (len(directories) != 1 or directories == ANY):
        raise TokenRefusedError("A scim token belongs to exactly one directory: name it.")
    if not directories:
        raise TokenRefusedError("A token without directories reaches nothing. Name some, or * for all.")
    if scope is not None and role != "consumer":
        raise TokenRefusedError("Types, consumers and attributes narrow tokens of role consumer only.")
    if scope is not None and not scope.types:
        raise TokenRefusedError("A token without types reads nothing. Name some, or * for all.")
    if scope is not None and type_mask(scope.types) is None:
        raise TokenRefusedError("The types name an event type that does not exist. See docs/events.md for the list.")


def new_text(random: Callable[[int], bytes], word: str, number: UUID) -> str:
    """A new secret text: its kind, whose it is, 256 random bits, and a checksum, by which secret scanners and `well_formed` know it."""
    start = f"sl_{word}_{number.hex}_{random(SECRET_BYTES).hex()}"
    return start + _checksum(start)


def _checksum(text: str) -> str:
    return f"{zlib.crc32(text.encode()):08x}"


def rotate(issuer: Issuer, token_id: UUID, old: TokenRow, overlap_seconds: int = OVERLAP_S) -> NewToken:
    """Make the successor of a token with the same scope and lifetime. The old token expires after the overlap.

    Raises StateError if the token is expired, revoked or already rotated, TokenRefusedError for an overlap out of range.
    """
    if not 0 <= overlap_seconds <= TOKEN_OVERLAP_S_MAX:
        raise TokenRefusedError(f"overlap_seconds is 0 to {TOKEN_OVERLAP_S_MAX}: the seconds that both tokens work.")
    state = old.state(issuer.now)
    if state == "overlapping":
        raise StateError("This token was rotated already. Rotate its successor, which superseded_by names.", "token_rotated")
    if state != "active":
        raise StateError(f"This token is {state}: there is nothing to rotate. Issue a new one.", f"token_{state}")
    if fault_of(issuer.kek, old) is not None:
        why = "The stored token does not agree with the log. Run `scim-ledger replay verify`, and issue a new one."
        raise StateError(why, "token_not_of_the_log")
    text = new_text(issuer.random, old.role, token_id)
    ends = replace(
        old, superseded_by=token_id, expires_at=min(old.expires_at, issuer.now + timedelta(seconds=overlap_seconds)), seal=None
    )
    row = replace(
        old, id=token_id, hash=token_hash(text), created_by=issuer.by, supersedes=old.id, superseded_by=None,
        expires_at=issuer.now + (old.expires_at - old.created_at), created_at=issuer.now, last_used_at=None, facts=0,
    )  # fmt: skip
    return NewToken(sealed(issuer.kek, row), text, sealed(issuer.kek, ends))


def revocation(token: UUID, name: str, reason: str | None = None) -> RecordFacts:
    """The act that revokes a token, effective from the next request on. The reason is sealed in the event's body."""
    said = {"id": str(token), "name": name} | ({} if reason is None else {"reason": reason})
    draft = Draft(TOKEN_REVOKED, token, TOKEN, cause=OPERATOR, body=Body(said, [], name))
    return RecordFacts((draft,), ((SQL["revoke_token"], (token,)),), stands=_without(token, TOKEN_REVOKED))


def _without(token: UUID, *kinds: EventType) -> Statement:
    return SQL["token_without"], (token, int2s([kind.number for kind in kinds]))


def warning_due(left_s: float, lifetime_s: float, told: int | None) -> int | None:
    """The warning that a token is due for, in days before its expiry; None where there is none, or it is on record (`told`).

    A token that never had so much time gets no such warning: who asks for a week knows that it ends in a week.
    """
    due = [days for days in WARNED_DAYS if left_s <= days * DAY_S and lifetime_s > days * DAY_S]
    return min(due) if due and (told is None or min(due) < told) else None


def expiring(token: UUID, name: str, expires_at: datetime, days: int) -> RecordFacts:
    """The act of recording that a token expires within so many days."""
    said = {"id": str(token), "name": name, "expires_at": rfc3339(microseconds(expires_at)), "days": days}
    draft = Draft(TOKEN_EXPIRING, token, TOKEN, cause=OPERATOR, body=Body(said, [], name))
    return RecordFacts((draft,), ((SQL["note_warning"], (token, days)),), stands=(SQL["warned_less"], (token, days)))


def revoke(row: TokenRow, reason: str | None = None) -> RecordFacts | None:
    """The act that revokes a stored token; None if it is revoked already."""
    return None if row.facts & TOKEN_REVOKED.bit else revocation(row.id, row.name, reason)


class ShownToken(TypedDict):
    """A token without its text. `types`, `consumers` and `bodies` narrow tokens of role consumer; `supersedes` and `superseded_by` name the other side of a rotation."""

    object: Literal["token"]
    id: Id
    role: RoleName
    name: str
    directories: list[str]
    types: list[str]
    consumers: list[str]
    bodies: bool
    created_at: Instant
    created_by: str | None
    expires_at: Instant
    last_used_at: Instant | None
    last_used_from: UsedFrom | None
    revoked_at: Instant | None
    supersedes: Id | None
    superseded_by: Id | None
    state: TokenState


def shown(row: TokenRow, now: datetime, used: UsedFrom | None = None) -> ShownToken:
    """The JSON of a token (docs/operations.md, "Tokens and directories"); its secret is not in it."""
    return {
        "object": "token", "id": str(row.id), "role": row.role, "name": row.name, "directories": list(row.directories),
        "types": list(row.types), "consumers": list(row.consumers), "bodies": row.bodies, "created_at": row.created_at,
        "created_by": row.created_by, "expires_at": row.expires_at, "last_used_at": row.last_used_at, "last_used_from": used,
        "revoked_at": row.revoked_at,
        "supersedes": _text(row.supersedes), "superseded_by": _text(row.superseded_by),
        "state": row.state(now),
    }  # fmt: skip


def _text(number: UUID | None) -> str | None:
    return None if number is None else str(number)


def token_hash(text: str) -> bytes:
    """The hash that is stored. The secret has 256 random bits, so a plain SHA-256 is enough."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()


def well_formed(text: str) -> bool:
    """Check form and checksum: False for a mistyped or foreign token, without a query."""
    return text.startswith("sl_") and len(text) > 12 and text.isascii() and _checksum(text[:-8]) == text[-8:]


def token_of(row: TokenRow) -> Token:
    return Token(row.id, row.role, row.name, row.directories, row.types, row.bodies, row.consumers, row.expires_at)


def believed(kek: Kek, rows: Iterable[TokenRow]) -> list[TokenRow]:
    """The rows that agree with the ledger. The others are logged as `token_not_of_the_log` with the reason."""
    return sound(rows, partial(fault_of, kek), lambda row, fault: _log.error("token_not_of_the_log", token=row.id, problem=fault))


async def live_tokens(conn: Connection, kek: Kek, hashes: list[bytes]) -> dict[bytes, Token]:
    """Look up valid tokens by hash. Expired and revoked ones, and rows that do not agree with the log, are left out."""
    cursor = await conn.cursor(binary=True).execute(SQL["tokens_by_hash"], (byteas(hashes),))
    return {row.hash: token_of(row) for row in believed(kek, map(token_row, await cursor.fetchall()))}


async def find(conn: Connection, token: UUID) -> TokenRow | None:
    """A token by id, in any state."""
    found = await _select(conn, token, None, None)
    return found[0] if found else None


async def find_all(conn: Connection, *, role: str | None = None, directory: str | None = None) -> list[TokenRow]:
    """Tokens in the order of issuance, optionally of one role, or that reach one directory."""
    return await _select(conn, None, role, directory)


async def expiring_soon(conn: Connection) -> list[tuple[UUID, str, str, datetime, datetime, int | None]]:
    """Active tokens that expire within the longest warning: (id, name, role, created_at, expires_at, tightest warning on record)."""
    return await (await conn.cursor(binary=True).execute(SQL["expiring"], (max(WARNED_DAYS),))).fetchall()


async def database_clock(conn: Connection) -> datetime:
    """The database's time, which decides when tokens expire."""
    row = await (await conn.cursor(binary=True).execute(SQL["clock"])).fetchone()
    assert row is not None
    return row[0]


async def _select(conn: Connection, token: UUID | None, role: str | None, directory: str | None) -> list[TokenRow]:
    cursor = await conn.cursor(binary=True).execute(SQL["tokens_all"], (token, role, directory))
    return [token_row(row) for row in await cursor.fetchall()]


async def told(conn: Connection, kek: Kek, system: Directory, tokens: Sequence[UUID]) -> dict[UUID, Told]:
    """The events of tokens, from the log. Raises BodyError or WrapError if an event cannot be opened."""
    said: dict[UUID, dict[int, dict[str, Any]]] = {token: {} for token in tokens}
    cursor = await conn.cursor(binary=True).execute(SQL["token_events"], (system.id, uuids(list(tokens))))
    for token, kind, seq, ct, wrapped in await cursor.fetchall():
        if ct is not None and wrapped is not None:
            key = unwrap_key(kek, wrapped, directory=system.uuid, obj=token)
            payload = open_payload(key, ct, directory=system.uuid, obj=token, seq=seq)
            said[token].setdefault(kind, orjson.loads(payload)["data"]["object"])
    return {token: Told(*(found.get(kind.number, {}) for kind in _TELLING)) for token, found in said.items()}


_TELLING: Final = (TOKEN_ISSUED, TOKEN_BOUND, TOKEN_ROTATED)


async def unbound(conn: Connection, kek: Kek, system: Directory) -> RecordFacts | None:
    """The act that seals token rows of releases before seals existed, if they agree with `token.issued`; None if there is none."""
    rows = [row for row in await find_all(conn) if row.seal is None]
    try:
        said = await told(conn, kek, system, [row.id for row in rows])
    except (BodyError, WrapError):
        _log.exception("tokens_not_bound")
        return None
    bound = [
        sealed(kek, row)
        for row in rows
        if said[row.id].issued and said[row.id].seal is None and differs(kek, row, said[row.id]) is None
    ]
    drafts = tuple(
        Draft(TOKEN_BOUND, row.id, TOKEN, cause=OPERATOR, body=Body({"id": str(row.id), "name": row.name, "seal": (row.seal or b"").hex()}, [], row.name))
        for row in bound
    )  # fmt: skip
    return RecordFacts(drafts, tuple((SQL["bind_token"], (row.id, row.seal)) for row in bound)) if bound else None
