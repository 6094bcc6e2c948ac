"""Apply numbered migrations under an advisory lock, with checksums; then roles and grants.

The service does not wait for a migration: a table is locked only for a moment, and while somebody reads it for long the migration
releases its locks and tries again. Processes of other releases keep running; releases.py says which.
"""

import contextlib
import hashlib
import re
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, LiteralString, TypeVar, cast

import psycopg
import structlog
from psycopg import AsyncConnection, Connection, RawCursor, sql
from psycopg.rows import TupleRow

from database.connections import APPLICATION_NAME, set_for_the_owner
from database.deadlines import FROZEN, SCHEMA_CHANGE, SCHEMA_LOCK, with_deadlines
from database.holders import Holder, holders_at_once, waits_for
from database.queries import load_queries
from database.releases import Applied, Migration, SchemaRelation, refusal, schema_relation
from database.server import refuse_old

SQL: Final = load_queries(__file__)
_HERE = Path(__file__).parent
_PAUSES_S: Final = (0.25, 0.5, 1.0, 2.0)  # between two attempts; the last one is repeated
_BRIEFLY: Final = cast(
    "LiteralString",
    f"set local lock_timeout = {SCHEMA_LOCK.ms // 2}; set local idle_in_transaction_session_timeout = {FROZEN.ms}",
)
_OWN_OPTIONS: Final = 160_000  # from this version on a membership has options of its own
_HELD: Final = (psycopg.errors.LockNotAvailable, psycopg.errors.DeadlockDetected)
_T = TypeVar("_T")
_log = structlog.get_logger("database")


class MigrationError(Exception):
    """The schema cannot be brought to this release's version; the text says what to do."""


def shipped() -> list[Migration]:
    """The migrations of this release, in order."""
    found: list[Migration] = []
    for path in sorted((_HERE / "migrations").glob("*.sql")):
        text = path.read_text(encoding="utf-8")
        number, _, name = path.stem.partition("_")
        sql = cast("LiteralString", text)  # shipped with the code, takes no input
        found.append(Migration(int(number), name, sql, hashlib.sha256(text.encode()).hexdigest()))
    return found


def migrate(url: str, migrations: Sequence[Migration] = (), *, patience_s: float = SCHEMA_CHANGE.seconds) -> list[str]:
    """Bring the schema `ledger` to this release. Returns the names of the applied migrations.

    If the schema is newer and this release may serve it, nothing is done: the grants are those of the newer release.
    `url` logs in as the owner role or a superuser. `migrations`: instead of the shipped ones. `patience_s`: how long to wait for
    readers of tables and for another migrating process. Raises MigrationError, or psycopg.OperationalError if the server cannot be
    reached.
    """
    ours = list(migrations) or shipped()
    until = time.monotonic() + patience_s
    with psycopg.connect(with_deadlines(url), autocommit=True, application_name=APPLICATION_NAME) as conn:
        refuse_old(conn.info.server_version)
        # Does not wait for a synchronous standby, which may hang: no client was promised a migration, and every later commit includes it.
        set_for_the_owner(conn, synchronous_commit="local")
        _take_turn(conn, until)
        _make_room(conn)
        known = _known(conn)
        if schema_relation(ours, known.values()) is SchemaRelation.NEWER:
            _log.info("schema_newer", migrations=[f"{number:04}" for number in sorted(known.keys() - {m.number for m in ours})])
            return []
        return _apply(conn, ours, known, until)


def _take_turn(conn: Connection[TupleRow], until: float) -> None:
    while not _true(conn, SQL["try_migrating"]):
        if time.monotonic() > until:
            raise MigrationError("Another process is changing the schema of this database. Start again when it has ended.")
        time.sleep(_PAUSES_S[0])


def _make_room(conn: Connection[TupleRow]) -> None:
    if not _true(conn, "select exists (select from pg_roles where rolname = 'ledger_app')"):
        _as_allowed(conn, "Role ledger_app is missing and this login may not create it.", "create role ledger_app login")
    member = eraser_membership(conn.info.server_version)
    if not _true(conn, "select exists (select from pg_roles where rolname = 'ledger_eraser')"):
        _as_allowed(
            conn, "Role ledger_eraser is missing and this login may not create it.", "create role ledger_eraser nologin", member
        )
    elif not _true(conn, "select pg_has_role('ledger_app', 'ledger_eraser', 'member')"):
        _as_allowed(conn, "Role ledger_app must be a member of ledger_eraser, and this login may not make it one.", member)
    conn.execute("create schema if not exists ledger")
    conn.execute(
        "create table if not exists migrations (number int primary key, name text not null, checksum text not null, "
        "applied_at timestamptz not null default clock_timestamp(), serves int)"
    )


def eraser_membership(server_version: int) -> LiteralString:
    """The statement that lets ledger_app become ledger_eraser, if possible without inheriting its rights.

    Before PostgreSQL 16 they are inherited. That gives no more: a trigger refuses to delete as anybody but ledger_eraser.
    """
    member: LiteralString = "grant ledger_eraser to ledger_app"
    return member if server_version < _OWN_OPTIONS else f"{member} with inherit false, set true"


def _as_allowed(conn: Connection[TupleRow], lacks: str, *statements: LiteralString) -> None:
    """Run statements about roles. Raises MigrationError with the statements for a superuser, if this login may not run them."""
    try:
        for statement in statements:
            conn.execute(statement)
    except psycopg.errors.InsufficientPrivilege as refused:
        raise MigrationError(f"{lacks} As a superuser: {'; '.join(statements)};") from refused


def _known(conn: Connection[TupleRow]) -> dict[int, Applied]:
    rows = RawCursor(conn).execute(SQL["migrations_applied"]).fetchall()
    return {row[0]: Applied(*row) for row in rows}


def _apply(conn: Connection[TupleRow], ours: Sequence[Migration], known: dict[int, Applied], until: float) -> list[str]:
    if (why := refusal(ours, known)) is not None:
        raise MigrationError(why)
    missing = [migration for migration in ours if migration.number not in known]
    if missing:
        _refuse_older_processes(conn, missing)
        _patiently(conn, until, lambda: _note_what_each_serves(conn))
    for migration in missing:
        if migration.one_by_one:
            _run_one_by_one(conn, migration, until)
        else:
            _patiently(conn, until, lambda migration=migration: _run(conn, migration))
    with conn.transaction():
        conn.execute(cast("LiteralString", (_HERE / "grants.sql").read_text(encoding="utf-8")))
    _close_to_strangers(conn)
    return [str(migration) for migration in missing]


def _refuse_older_processes(conn: Connection[TupleRow], missing: Sequence[Migration]) -> None:
    """Raises MigrationError, before any change, if running processes of an older release could not go on."""
    for migration in missing:
        rows = RawCursor(conn).execute(SQL["older_processes"], (migration.serves,)).fetchall()
        if rows:
            raise MigrationError(
                f"Migration {migration} cannot be applied beside processes of a release older than {migration.serves:04}, and "
                f"{len(rows)} of such a release serve this database. Nothing was changed. Stop them, then start this release."
            )


def _patiently(conn: Connection[TupleRow], until: float, work: Callable[[], _T]) -> _T:
    """Do something that needs exclusive tables, as soon as nobody holds them. Between the attempts no lock is held."""
    pauses = iter(_PAUSES_S)
    while True:
        try:
            with conn.transaction():
                conn.execute(_BRIEFLY)
                return work()
        except _HELD as held:
            who = waits_for(_holders(conn))
            if time.monotonic() > until:
                raise MigrationError(f"A table that a migration changes is in use; nothing was changed. Gave up {who}.") from held
            _log.warning("migration_waits", reason=who)
        time.sleep(next(pauses, _PAUSES_S[-1]))


def _holders(conn: Connection[TupleRow]) -> list[Holder]:
    tables = [row[0] for row in conn.execute("select format('ledger.%I', tablename) from pg_tables where schemaname = 'ledger'")]
    return holders_at_once(conn, tables)


def _note_what_each_serves(conn: Connection[TupleRow]) -> None:
    """Add the column `serves` to a database of an older release."""
    there = "select exists (select from pg_attribute where attrelid = 'migrations'::regclass and attname = 'serves')"
    if not _true(conn, there):  # checked first, because ALTER TABLE locks the table even if nothing changes
        conn.execute("alter table migrations add column serves int")


def _run(conn: Connection[TupleRow], migration: Migration) -> None:
    conn.execute(migration.sql)
    conn.execute(
        "insert into migrations (number, name, checksum, serves) values (%s, %s, %s, %s)",
        (migration.number, migration.name, migration.checksum, migration.serves),
    )


def _run_one_by_one(conn: Connection[TupleRow], migration: Migration, until: float) -> None:
    """Create indexes concurrently: this waits for older snapshots, but nobody waits for it. Drops half-made indexes first."""
    for (broken,) in conn.execute(SQL["broken_indexes"]).fetchall():
        conn.execute(sql.SQL("drop index concurrently ledger.{}").format(sql.Identifier(broken)))
    conn.execute(cast("LiteralString", f"set statement_timeout = {max(int((until - time.monotonic()) * 1000), 1)}"))
    try:
        for statement in re.split(r";\s*\n", re.sub(r"^--.*\n", "", migration.sql, flags=re.MULTILINE)):
            if statement.strip():
                conn.execute(cast("LiteralString", statement))
    except psycopg.errors.QueryCanceled as late:
        who = waits_for(_holders(conn))
        raise MigrationError(f"Migration {migration} did not finish in time; the next start tries it again. {who}") from late
    finally:
        conn.execute("set statement_timeout = 0")
    with conn.transaction():
        conn.execute(
            "insert into migrations (number, name, checksum, serves) values (%s, %s, %s, %s)",
            (migration.number, migration.name, migration.checksum, migration.serves),
        )


def _close_to_strangers(conn: Connection[TupleRow]) -> None:
    """Revoke CONNECT and TEMP from PUBLIC: any login that can connect could take the ledger's advisory locks.

    CONNECT that was granted to other logins by name stays. If this login may not revoke, the log has the statements to run.
    """
    name = sql.Identifier(conn.info.dbname)
    public = "select has_database_privilege('public', current_database(), 'connect, temporary')"  # true if PUBLIC has either
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


async def relation_to(conn: AsyncConnection[TupleRow], ours: Sequence[Migration]) -> SchemaRelation:
    """What the schema of a database is to a release, as a serving process asks."""
    rows = await (await conn.execute(SQL["migrations_applied"])).fetchall()
    return schema_relation(ours, (Applied(*row) for row in rows))


async def note_release(conn: AsyncConnection[TupleRow]) -> None:
    """For as long as this session lasts, let processes of newer releases know that one of this release serves."""
    await conn.execute(SQL["note_release"], (max(migration.number for migration in shipped()),))


def _true(conn: Connection[TupleRow], question: LiteralString) -> bool:
    row = conn.execute(question).fetchone()
    return row is not None and bool(row[0])
