"""The governance report: credentials that somebody should rotate, revoke or narrow, with since when and the command that does it."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Annotated, Final, Literal, TypeAlias, TypedDict
from uuid import UUID

from msgspec import Meta

from database.arrays import int2s, int4s, uuids
from database.connections import Connection
from database.queries import load_queries
from delivery.consumers import Consumer, consumers
from ledger.bindings import TokenRow
from ledger.client_bindings import ClientRow
from ledger.clients import find_clients
from ledger.event_data import Count, Instant
from ledger.events import CONSUMER_CREATED, CONSUMER_SECRET_ROTATED
from ledger.key_epochs import Epoch, epochs
from ledger.tokens import ANY, database_clock, find_all, token_of
from operations.admission import operation
from operations.caller import Caller
from operations.open_ledger import OpenLedger

SQL: Final = load_queries(__file__)
EXPIRES_SOON: Final = timedelta(days=30)
EXPIRES_NOW: Final = timedelta(days=7)
UNUSED: Final = timedelta(days=90)
NEVER_USED: Final = timedelta(days=7)
NOT_ROTATED: Final = timedelta(days=180)
SECRET_OLD: Final = timedelta(days=365)
KEY_LEFT: Final = timedelta(days=90)  # an epoch that is replaced for so long should be destroyed
SETTLING: Final = timedelta(days=30)  # the tokens of the first start are for setting up: for so long their width is no finding
FIRST_START: Final = timedelta(minutes=10)  # after the birth of the ledger: its tokens are made within
KINDS: Final = (
    "expires_soon", "expired_in_use", "unused", "never_used", "not_rotated", "wide", "two_live", "webhook_secret_old", "client_secret_old",
    "key_old",
)  # fmt: skip
FindingName: TypeAlias = Annotated[str, Meta(extra_json_schema={"enum": list(KINDS)})]
Severity = Literal["high", "medium", "low"]


class CredentialSubject(TypedDict):
    """The credential of a finding."""

    kind: Literal["token", "consumer", "client", "key"]
    id: str
    name: str


class CredentialFinding(TypedDict):
    """One credential that needs somebody. `since`: when it began to; `fix`: the command that mends it."""

    finding: FindingName
    severity: Severity
    subject: CredentialSubject
    since: Instant
    fix: str


class CredentialReport(TypedDict):
    """All findings, the worst first, and how many there are of each kind."""

    as_of: Instant
    data: list[CredentialFinding]
    counts: dict[str, Count]


@dataclass(frozen=True, slots=True)
class Evidence:
    """What the findings are made from. `refused`: the last request that was refused because its token had ended, by token."""

    now: datetime
    born: datetime  # of the ledger
    tokens: Sequence[TokenRow]
    refused: Mapping[UUID, datetime] = field(default_factory=dict[UUID, datetime])
    secrets: Sequence[tuple[Consumer, datetime]] = ()  # webhooks, and when their secret was made
    clients: Sequence[ClientRow] = ()
    epochs: Sequence[Epoch] = ()

    def first(self, row: TokenRow) -> bool:
        """Whether the first start made a token, and the time for setting up is not over."""
        return row.created_by == "sys" and row.created_at - self.born < FIRST_START and self.now - self.born < SETTLING


@operation("tokens.report")
async def report(ledger: OpenLedger, caller: Caller) -> CredentialReport:
    """The credentials that need somebody, of those that the token reaches: what to rotate, to revoke or to narrow."""
    await caller.admitted()
    async with ledger.connection() as conn:
        found = await _evidence(conn, caller)
    findings = sorted(findings_of(found), key=lambda one: (_RANK[one["severity"]], one["since"]))
    return {"as_of": found.now, "data": findings, "counts": dict(Counter(one["finding"] for one in findings))}


_RANK: Final[Mapping[Severity, int]] = {"high": 0, "medium": 1, "low": 2}


async def _evidence(conn: Connection, caller: Caller) -> Evidence:
    now = await database_clock(conn)
    tokens = [row for row in await find_all(conn) if caller.token.covers(token_of(row))]
    born = await (await conn.cursor(binary=True).execute(SQL["born"])).fetchone()
    assert born is not None, "made at first start"
    ended = [row for row in tokens if row.state(now) in {"expired", "revoked"}]
    params = (uuids([row.id for row in ended]),)
    refused = dict(await (await conn.cursor(binary=True).execute(SQL["refused_since"], params)).fetchall())
    webhooks = [
        c for c in await consumers(conn) if c.definition.mode == "webhook" and caller.token.reaches_all(c.definition.directories)
    ]
    made = {CONSUMER_CREATED.number, CONSUMER_SECRET_ROTATED.number}
    params = (int4s([c.id for c in webhooks]), int2s(sorted(made)))
    ages = dict(await (await conn.cursor(binary=True).execute(SQL["secrets_made"], params)).fetchall())
    clients = [client for client in await find_clients(conn) if caller.token.reaches(client.directory)]
    known = await epochs(conn) if caller.token.directories == ANY else []
    return Evidence(now, born[0], tokens, refused, [(c, ages[c.id]) for c in webhooks if c.id in ages], clients, known)


def findings_of(found: Evidence) -> Iterator[CredentialFinding]:
    """Every finding. A token that is replaced already needs nothing but its end, so only `expired_in_use` looks at it."""
    for row in found.tokens:
        if row.state(found.now) == "active":
            yield from _of_active(found, row)
        elif row.id in found.refused:
            yield _token(row, "expired_in_use", "high", _ended(row), _replace(row))
    yield from _two_live(found)
    for client in found.clients:
        if client.state(found.now) != "revoked":
            yield from _of_client(found.now, client)
    yield from _of_keys(found)
    for consumer, made in found.secrets:
        if found.now - made >= SECRET_OLD:
            subject: CredentialSubject = {"kind": "consumer", "id": str(consumer.uuid), "name": consumer.name}
            yield _old_secret("webhook_secret_old", subject, made, f"scim-ledger consumer rotate-secret {consumer.name}")


def _of_client(now: datetime, client: ClientRow) -> Iterator[CredentialFinding]:
    """An OAuth 2.0 client that is not used, or whose secret nobody has rotated. Clients with keys rotate them at their own place."""
    subject: CredentialSubject = {"kind": "client", "id": str(client.id), "name": client.name}
    made, revoke = client.rotated_at or client.created_at, f"scim-ledger client revoke {client.id}"
    if client.last_used_at is None and now - client.created_at >= NEVER_USED:
        yield {"finding": "never_used", "severity": "medium", "subject": subject, "since": client.created_at, "fix": revoke}
    elif client.last_used_at is not None and now - client.last_used_at >= UNUSED:
        yield {"finding": "unused", "severity": "medium", "subject": subject, "since": client.last_used_at, "fix": revoke}
    if client.auth == "secret" and now - made >= SECRET_OLD:
        yield _old_secret("client_secret_old", subject, made, f"scim-ledger client rotate {client.id}")


def _of_keys(found: Evidence) -> Iterator[CredentialFinding]:
    """The current key epoch when it is old, and earlier ones that could be destroyed for long."""
    active = [(epoch, epoch.active_at) for epoch in found.epochs if epoch.wrapped is not None and epoch.active_at is not None]
    for (epoch, _), (_, replaced) in pairwise(active):
        if found.now - replaced >= KEY_LEFT:
            fix = f"scim-ledger key rewrap, then key destroy {epoch.number}"
            yield _old_key(epoch, replaced + KEY_LEFT, fix)
    for epoch, since in active[-1:]:
        if found.now - since >= SECRET_OLD:
            yield _old_key(epoch, since + SECRET_OLD, "scim-ledger key rotate, then key rewrap")


def _old_key(epoch: Epoch, since: datetime, fix: str) -> CredentialFinding:
    subject: CredentialSubject = {"kind": "key", "id": str(epoch.number), "name": f"key epoch {epoch.number}"}
    return {"finding": "key_old", "severity": "medium", "subject": subject, "since": since, "fix": fix}


def _old_secret(finding: str, subject: CredentialSubject, made: datetime, fix: str) -> CredentialFinding:
    return {"finding": finding, "severity": "medium", "subject": subject, "since": made + SECRET_OLD, "fix": fix}


def _of_active(found: Evidence, row: TokenRow) -> Iterator[CredentialFinding]:
    now, rotate, revoke = found.now, f"scim-ledger token rotate {row.id}", f"scim-ledger token revoke {row.id}"
    left = row.expires_at - now
    if left <= EXPIRES_SOON:
        yield _token(row, "expires_soon", "high" if left <= EXPIRES_NOW else "medium", row.expires_at - EXPIRES_SOON, rotate)
    if row.last_used_at is None and now - row.created_at >= NEVER_USED and not found.first(row):
        yield _token(row, "never_used", "medium", row.created_at, revoke)
    elif row.last_used_at is not None and now - row.last_used_at >= UNUSED:
        yield _token(row, "unused", "medium", row.last_used_at, revoke)
    if now - row.created_at >= NOT_ROTATED:
        yield _token(row, "not_rotated", "medium", row.created_at + NOT_ROTATED, rotate)
    if _wide(row) and not found.first(row):
        fix = f"scim-ledger token issue --role {row.role} --directory … --types … --consumer …, then {revoke}"
        yield _token(row, "wide", "low", row.created_at, fix)


def _wide(row: TokenRow) -> bool:
    """Whether a token of an application reads everything of everybody."""
    return row.role == "consumer" and row.bodies and row.directories == row.types == row.consumers == ANY


def _two_live(found: Evidence) -> Iterator[CredentialFinding]:
    """Tokens that an IdP has beside a newer one of the same directory, and that no rotation ends."""
    of_directory: defaultdict[tuple[str, ...], list[TokenRow]] = defaultdict(list)
    for row in found.tokens:
        if row.role == "scim" and row.state(found.now) == "active":
            of_directory[row.directories].append(row)
    for rows in of_directory.values():
        *older, newest = sorted(rows, key=lambda row: row.created_at)
        for row in older:
            fix = f"scim-ledger token revoke {row.id}, once token show says that it is unused"
            yield _token(row, "two_live", "medium", newest.created_at, fix)


def _ended(row: TokenRow) -> datetime:
    return row.expires_at if row.revoked_at is None else min(row.revoked_at, row.expires_at)


def _replace(row: TokenRow) -> str:
    if row.superseded_by is not None:
        return f"put the token {row.superseded_by} where {row.id} is still used, or scim-ledger token rotate {row.superseded_by} for a new text"
    where = f" --directory {row.directories[0]}" if row.role == "scim" else ""
    return f"scim-ledger token issue --role {row.role}{where} --name …, and put it where {row.id} is still used"


def _token(row: TokenRow, finding: str, severity: Severity, since: datetime, fix: str) -> CredentialFinding:
    return {
        "finding": finding, "severity": severity, "subject": {"kind": "token", "id": str(row.id), "name": row.name}, "since": since,
        "fix": fix,
    }  # fmt: skip
