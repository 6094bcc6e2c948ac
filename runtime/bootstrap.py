"""First start: create roles and database of the embedded cluster, `_system` and the first directory."""

from dataclasses import dataclass, field
from pathlib import Path

import orjson
import psycopg
from psycopg import sql
from psycopg.abc import ConnDict
from psycopg.conninfo import conninfo_to_dict
from pydantic import SecretStr

from database.connections import BoundedThread
from database.deadlines import with_deadlines
from database.migrate import eraser_membership
from ledger.directories import SYSTEM
from ledger.private_files import write_private
from ledger.tokens import LIFE_DAYS, ROLES
from operations import directories, tokens
from operations.caller import MACHINE, Caller
from operations.open_ledger import OpenLedger
from runtime import embedded
from runtime.identifiers import uuid7
from runtime.settings import Settings

DATABASE = "ledger"
FIRST_DIRECTORY = "acme"


class StartError(Exception):
    """The service cannot start; the text says why and what to do."""


@dataclass(frozen=True, slots=True)
class Urls:
    """The URLs of the database: for the serving role, and for the owner, who migrates and rebuilds.

    `pooled` leads to a pooler in transaction mode; connections that need a session do not use it.
    """

    serve: str = field(repr=False)  # not shown: contains the password
    migrate: str = field(repr=False)
    pooled: str | None = field(default=None, repr=False)
    place: Path | None = None  # data directory of the embedded PostgreSQL, whose disk must have room


def embedded_urls(cluster: embedded.Cluster) -> Urls:
    """Create roles and database at the first start of the embedded cluster. Returns its URLs."""
    with BoundedThread.connect(with_deadlines(cluster.url(embedded.SUPERUSER, "postgres")), autocommit=True) as conn:
        for role in ("ledger_owner", "ledger_app"):
            if conn.execute("select 1 from pg_roles where rolname = %s", (role,)).fetchone() is None:
                conn.execute(sql.SQL("create role {} login").format(sql.Identifier(role)))
        if conn.execute("select 1 from pg_roles where rolname = 'ledger_eraser'").fetchone() is None:
            conn.execute("create role ledger_eraser nologin")
        conn.execute(eraser_membership(conn.info.server_version))
        if conn.execute("select 1 from pg_database where datname = %s", (DATABASE,)).fetchone() is None:
            conn.execute("create database ledger owner ledger_owner")
    with BoundedThread.connect(with_deadlines(cluster.url(embedded.SUPERUSER, DATABASE)), autocommit=True) as conn:
        conn.execute(
            "grant execute on function pg_switch_wal() to ledger_owner"
        )  # an erasure closes the WAL segment with what it deleted
    return Urls(cluster.url("ledger_app", DATABASE), cluster.url("ledger_owner", DATABASE), place=cluster.data_dir)


def configured_urls(settings: Settings) -> Urls | None:
    """The URLs of an outside PostgreSQL, or None for the embedded one. Raises StartError for an invalid or a missing URL."""
    if settings.database_url is None:
        alone = [name for name in ("migrate_url", "direct_url") if getattr(settings, name) is not None]
        if alone:
            raise StartError(
                f"LEDGER_{alone[0].upper()} is set, but LEDGER_DATABASE_URL is not: the embedded PostgreSQL would be used, with a ledger of its "
                f"own. Set LEDGER_DATABASE_URL to the same database, or unset LEDGER_{alone[0].upper()}."
            )
        return None
    given = _checked("LEDGER_DATABASE_URL", settings.database_url)
    direct = _checked("LEDGER_DIRECT_URL", settings.direct_url) if settings.direct_url else None
    migrate = _checked("LEDGER_MIGRATE_URL", settings.migrate_url) if settings.migrate_url else direct or given
    return Urls(direct or given, migrate, given if direct else None)


def _checked(name: str, secret: SecretStr) -> str:
    """Check a URL. The error shows nothing of it, because its password may be in any part."""
    text = secret.get_secret_value()
    try:
        parts = conninfo_to_dict(text)
    except psycopg.Error:
        parts = None
    # A @ or / in a password must be written %40 or %2F: otherwise it ends the password, and the rest is read as host, port or database.
    if parts is None or any("@" in str(parts.get(part, "")) for part in ("host", "port", "dbname")) or not _numbers(parts):
        raise StartError(
            f"{name} is not understood (it is not shown here, because of its password). It has the form "
            "postgresql://USER:PASSWORD@HOST:PORT/DATABASE; write @, / and % of a password as %40, %2F and %25."
        ) from None
    return text


def _numbers(parts: ConnDict) -> bool:
    return all(word.isascii() and word.isdigit() for word in str(parts.get("port", "")).split(",") if word)


async def first_start(ledger: OpenLedger, settings: Settings) -> bool:
    """Create `_system`, then directory `acme` with a token of each role and first-run.json. Returns whether this was the first start.

    If it is interrupted, the next start completes it: the file is written last, and tokens that nobody saw are replaced.
    """
    async with ledger.connection() as conn:
        known = [directory.slug for directory in await ledger.directories.all(conn)]
    if SYSTEM not in known:
        await directories.found(ledger, machine())
        known = [SYSTEM, *known]
    if known not in ([SYSTEM], [SYSTEM, FIRST_DIRECTORY]) or settings.first_run_path.exists():
        return False
    if FIRST_DIRECTORY not in known:
        await directories.create(ledger, machine(), FIRST_DIRECTORY)
    elif await tokens.list_all(ledger, machine(), role=None, directory=None, state=None):
        return False
    issued: dict[str, str] = {}
    for role in ROLES:
        reach = (FIRST_DIRECTORY,) if role == "scim" else ("*",)
        made = await tokens.issue(ledger, machine(), role, f"first-run {role}", reach, None, days=LIFE_DAYS)
        issued[role] = made.text
    document = {
        "base_url": settings.base_url, "directory": FIRST_DIRECTORY,
        "scim_base_url": f"{settings.base_url}/scim/{FIRST_DIRECTORY}/v2", "tokens": issued,
    }  # fmt: skip
    write_private(settings.first_run_path, orjson.dumps(document, option=orjson.OPT_INDENT_2).decode() + "\n")
    return True


def machine() -> Caller:
    """The caller `sys` of acts on the machine itself, with a new request id."""
    return Caller(MACHINE, uuid7())
