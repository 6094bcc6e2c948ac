"""Numbered migrations under an advisory lock, with checksums; then roles and grants."""

import contextlib
import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import LiteralString, cast

import psycopg
import structlog
from psycopg import Connection, sql
from psycopg.rows import TupleRow

_HERE = Path(__file__).parent
_LOCK = 7_302_001  # any fixed number: two migrations never run at once
POSTGRES_VERSION_MIN = 150_000
_log = structlog.get_logger("database")


class MigrationError(Exception):
    """The schema cannot be brought to this release's version; the text says what to do."""


@dataclass(frozen=True, slots=True)
class Migration:
    """One numbered SQL file; never edited once shipped (its checksum is stored)."""

    number: int
    name: str
    sql: LiteralString
    checksum: str


def shipped() -> list[Migration]:
    """Give the migrations of this release in order."""
    found: list[Migration] = []
    for path in sorted((_HERE / "migrations").glob("*.sql")):
        text = path.read_text(encoding="utf-8")
        number, _, name = path.stem.partition("_")
        sql = cast("LiteralString", text)  # shipped with the code, takes no input
        found.append(Migration(int(number), name, sql, hashlib.sha256(text.encode()).hexdigest()))
    return found


def migrate(url: str) -> list[str]:
    """Bring the schema `ledger` to this release; give the names of the migrations applied.

    `url` logs in as the owner role (or a superuser). Raises MigrationError, or psycopg.OperationalError when the server
    cannot be reached.
    """
    with psycopg.connect(url, autocommit=True) as conn:
        if conn.info.server_version < POSTGRES_VERSION_MIN:
            raise MigrationError(f"PostgreSQL 15 or newer is needed; this server is {conn.info.server_version // 10_000}.")
        conn.execute("select pg_advisory_lock(%s)", (_LOCK,))
        _make_room(conn)
        return _apply(conn)


def _make_room(conn: Connection[TupleRow]) -> None:
    role = conn.execute("select 1 from pg_roles where rolname = 'ledger_app'").fetchone()
    if role is None:
        try:
            conn.execute("create role ledger_app login")
        except psycopg.errors.InsufficientPrivilege as refused:
            hint = "Role ledger_app is missing and this login may not create it. As a superuser: create role ledger_app login;"
            raise MigrationError(hint) from refused
    conn.execute("create schema if not exists ledger")
    conn.execute("set search_path to ledger")
    conn.execute(
        "create table if not exists migrations (number int primary key, name text not null, checksum text not null, "
        "applied_at timestamptz not null default clock_timestamp())"
    )


def _known(conn: Connection[TupleRow]) -> dict[int, str]:
    return dict(conn.execute("select number, checksum from ledger.migrations").fetchall())


def _apply(conn: Connection[TupleRow]) -> list[str]:
    known, applied = _known(conn), list[str]()
    _refuse_foreign(known)
    for migration in shipped():
        if migration.number in known:
            continue
        with conn.transaction():
            conn.execute(migration.sql)
            conn.execute(
                "insert into migrations (number, name, checksum) values (%s, %s, %s)",
                (migration.number, migration.name, migration.checksum),
            )
        applied.append(f"{migration.number:04} {migration.name}")
    with conn.transaction():
        conn.execute(cast("LiteralString", (_HERE / "grants.sql").read_text(encoding="utf-8")))
    _close_to_strangers(conn)
    return applied


def _close_to_strangers(conn: Connection[TupleRow]) -> None:
    """Take CONNECT and TEMP from everybody but the roles of the ledger: whoever may connect can take our advisory locks.

    Logins that need the database besides are granted CONNECT by name; that is kept. Where this login may not do it, the log
    says what somebody else must run.
    """
    name = sql.Identifier(conn.info.dbname)
    public = "select has_database_privilege('public', current_database(), 'connect, temporary')"  # whether it has either
    if not _true(conn, public):
        return
    statements = [
        sql.SQL("grant connect on database {} to ledger_app").format(name),
        sql.SQL("grant connect, temporary on database {} to current_user").format(name),
        sql.SQL("revoke connect, temporary on database {} from public").format(name),
    ]
    with contextlib.suppress(psycopg.errors.InsufficientPrivilege), conn.transaction():
        for statement in statements:
            conn.execute(statement)
    if _true(conn, public):
        todo = "; ".join(statement.as_string(conn) for statement in (statements[0], statements[2]))
        _log.warning("database_open_to_every_login", run_as_its_owner=todo)


def _true(conn: Connection[TupleRow], question: LiteralString) -> bool:
    row = conn.execute(question).fetchone()
    return row is not None and bool(row[0])


def _refuse_foreign(known: dict[int, str]) -> None:
    ours = {m.number: m for m in shipped()}
    for number, checksum in known.items():
        if number not in ours:
            raise MigrationError(
                f"The database has migration {number:04}, which this release does not know. Run the newer release."
            )
        if ours[number].checksum != checksum:
            raise MigrationError(
                f"Migration {number:04} {ours[number].name} was applied with other content than this release ships. "
                "Restore the file, never edit a shipped migration; add a new one."
            )
