"""Tokens: issue, list, rotate, revoke. A caller neither issues nor sees a token that reaches further than its own."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

import psycopg
import structlog

from database.connections import Connection
from delivery.consumers import NAME
from ledger import tokens
from ledger.bindings import STATES, TokenRow
from ledger.directories import SYSTEM
from ledger.lifecycle import check_open
from ledger.refused import OvertakenError, StateError
from ledger.token_use import last_uses
from ledger.tokens import (
    Issuer,
    NewToken,
    Scope,
    ShownToken,
    Token,
    database_clock,
    expiring,
    expiring_soon,
    shown,
    token_of,
    warning_due,
)
from operations.admin_commands import record
from operations.admission import on_token, operation, reached_directory
from operations.caller import MACHINE, Caller
from operations.open_ledger import OpenLedger
from operations.refusals import ForbiddenError, InvalidError, mask_of, not_one_of, unknown_directory

NAME_LENGTH_MAX: Final = 200
DAYS_MAX: Final = 3_650
UNUSED_S_MIN: Final = 300  # uses are written every few seconds
UNUSED_S_MAX: Final = 365 * 86_400
_log = structlog.get_logger("operations.tokens")


@dataclass(frozen=True, slots=True)
class Issued:
    """The JSON of a new token, and its text, which is shown once."""

    shown: ShownToken
    text: str


@operation("tokens.issue")
async def issue(
    ledger: OpenLedger, caller: Caller, role: str, name: str, directories: tuple[str, ...], scope: Scope | None, *, days: int
) -> Issued:
    """Issue a token within the caller's own scopes.

    Raises TokenRefusedError for an invalid role or scope, InvalidError for an unknown directory, StateError for a closed one,
    ForbiddenError if the token would reach further than the caller's.
    """
    if scope is not None:
        mask_of(scope.types)  # raises for a type that does not exist
    async with ledger.connection() as conn:
        issuer = await issuer_of(ledger, conn, caller)
        end = issuer.now + timedelta(days=days)
        made = tokens.issue(issuer, ledger.new_id(), role, name, directories, expires_at=end, scope=scope)
        _check_scope(caller, made.token)
    await caller.admitted()
    async with ledger.connection() as conn:
        _check_names(made.token)
        await _check_directories(ledger, conn, role, directories)
    return await _recorded(ledger, caller, made, issuer)


def _check_scope(caller: Caller, asked: Token) -> None:
    # Checked before names are looked up, so that a hidden directory and a missing one look alike.
    if not caller.token.covers(asked):
        raise ForbiddenError("A token can issue only tokens within its own scopes: this one would reach further.")


def _check_names(asked: Token) -> None:
    """Raises InvalidError for a name that no consumer can have. Consumers need not exist yet."""
    if any(name != "*" and not NAME.fullmatch(name) for name in asked.consumers):
        raise InvalidError(
            "`consumers` has an invalid name. Names are 1 to 63 of a-z, 0-9, _, . and -, beginning with a letter or digit."
        )


async def _check_directories(ledger: OpenLedger, conn: Connection, role: str, directories: Sequence[str]) -> None:
    await ledger.directories.refresh(conn)
    for slug in directories:
        found = await ledger.directories.by_slug(conn, slug) if slug != "*" else None
        if slug != "*" and found is None:
            raise unknown_directory(slug, [d.slug for d in await ledger.directories.all(conn)])
        if found is not None and found.is_closed and role == "scim":
            check_open(found)  # no IdP writes to a closed directory


async def issuer_of(ledger: OpenLedger, conn: Connection, caller: Caller) -> Issuer:
    """What a new token or client is made with: the key, randomness, the database's time, and who asks."""
    return Issuer(ledger.kek, ledger.entropy, await database_clock(conn), caller.actor)


async def _recorded(ledger: OpenLedger, caller: Caller, made: NewToken, issuer: Issuer) -> Issued:
    await record(ledger, caller, made.command())
    return Issued(shown(made.row, issuer.now), made.text)


@operation("tokens.list")
async def list_all(
    ledger: OpenLedger, caller: Caller, *, role: str | None, directory: str | None, state: str | None
) -> list[ShownToken]:
    """The tokens that the caller's token covers, in the order of issuance, optionally of one role, directory or state."""
    if role is not None and role not in tokens.ROLES:
        raise not_one_of("role", role, tokens.ROLES)
    if state is not None and state not in STATES:
        raise not_one_of("state", state, STATES)
    if directory is not None:
        await reached_directory(ledger, caller, directory)
    async with ledger.connection() as conn:
        now = await database_clock(conn)
        rows = await tokens.find_all(conn, role=role, directory=directory)
        mine = [row for row in rows if caller.token.covers(token_of(row)) and state in {None, row.state(now)}]
        used = await last_uses(conn, ledger.kek, [row.id for row in mine])
    return [shown(row, now, used.get(row.id)) for row in mine]


@on_token("tokens.show")
async def show(ledger: OpenLedger, _caller: Caller, token: TokenRow) -> ShownToken:
    """One token, without its text."""
    async with ledger.connection() as conn:
        used = await last_uses(conn, ledger.kek, [token.id])
        return shown(token, await database_clock(conn), used.get(token.id))


@on_token("tokens.rotate")
async def rotate(ledger: OpenLedger, caller: Caller, token: TokenRow, overlap_seconds: int) -> Issued:
    """Make the successor of a token with the same scope; the old token works until the overlap ends.

    Raises StateError if the token is not active, TokenRefusedError for an overlap out of range.
    """
    async with ledger.connection() as conn:
        issuer = await issuer_of(ledger, conn, caller)
    return await _recorded(ledger, caller, tokens.rotate(issuer, ledger.new_id(), token, overlap_seconds), issuer)


@on_token("tokens.revoke")
async def revoke(
    ledger: OpenLedger, caller: Caller, token: TokenRow, reason: str | None, unused_for_seconds: int | None = None
) -> None:
    """Revoke a token: every process refuses it from the next request on. Revoking again makes no event.

    `unused_for_seconds`: raises StateError (`token_in_use`) if it was used within that time, so that nobody ends a token that an IdP
    still has. Uses are written every few seconds, so it is at least UNUSED_S_MIN; a token that is younger proves nothing.
    """
    if unused_for_seconds is not None:
        await _check_unused(ledger, token, unused_for_seconds)
    facts = tokens.revoke(token, reason)
    if facts is not None:
        await record(ledger, caller, facts)


async def _check_unused(ledger: OpenLedger, token: TokenRow, seconds: int) -> None:
    async with ledger.connection() as conn:
        now = await database_clock(conn)
    if (token.last_used_at or token.created_at) > now - timedelta(seconds=seconds):
        raise StateError(
            f"This token was used, or made, within the last {seconds} seconds: whoever uses it would be refused. Nothing was changed. Find out who it is "
            "(`last_used_from`), give them the new one, and ask again.",
            "token_in_use",
        )


async def warn_of_expiry(ledger: OpenLedger) -> int:
    """Record which tokens expire within 30, 7 and 1 days: `token.expiring`, once for each. Returns how many events were made."""
    async with ledger.connection() as conn:
        now = await database_clock(conn)
        rows = await expiring_soon(conn)
    made = 0
    for token, name, role, created_at, expires_at, told in rows:
        days = warning_due((expires_at - now).total_seconds(), (expires_at - created_at).total_seconds(), told)
        if days is None:
            continue
        with suppress(OvertakenError):  # another process was first, or it was rotated just now
            await record(ledger, Caller(MACHINE, ledger.new_id()), expiring(token, name, expires_at, days))
            made += 1
            _log.warning("token_expiring", token=str(token), name=name, role=role, days=days)
    return made


async def bind(ledger: OpenLedger, caller: Caller) -> int:
    """At every start: seal token rows of earlier releases that agree with the log. Returns their number."""
    async with ledger.connection() as conn:
        system = await ledger.directories.by_slug(conn, SYSTEM)
        assert system is not None, "made at first start"
        facts = await tokens.unbound(conn, ledger.kek, system)
    if facts is None:
        return 0
    try:
        await record(ledger, caller, facts)
    except psycopg.IntegrityError:  # the trigger refused it: another starting process has bound them already
        return 0
    return len(facts.drafts)
