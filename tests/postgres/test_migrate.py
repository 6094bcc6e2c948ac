"""Migrations and grants on a real server: each is applied once, safe with concurrent starts, never over an edited file; the log
is append-only for everyone.
"""

import asyncio
import os
import re
from collections.abc import Callable, MutableMapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier, Event
from typing import Any, LiteralString, cast

import psycopg
import pytest
import structlog
from psycopg import sql
from psycopg.errors import InsufficientPrivilege, RestrictViolation

from database import migrate as database_migrate
from database.migrate import SQL, MigrationError, eraser_membership, migrate, shipped
from database.releases import Migration
from runtime import embedded
from tests import warm
from tests.postgres.test_server import waiting, waiting_for_a_standby

GRANTS = Path(database_migrate.__file__).with_name("grants.sql").read_text(encoding="utf-8")
LOG = ("events", "commits")
CHANGES = ("UPDATE {} SET directory = directory", "DELETE FROM {}", "TRUNCATE {}")
EVENT = (
    "INSERT INTO ledger.events (directory, seq, type, rv, etag_rv, obj, leaf_hash, leaf) "
    "VALUES (1, 1, 0, 1, 1, gen_random_uuid(), '\\x00', '\\x00')"
)
COMMIT = "INSERT INTO ledger.commits VALUES (1, 1, 1, 1, 1, 1, gen_random_uuid(), 0)"
BODY = "INSERT INTO ledger.bodies VALUES (1, 1, '\\x00')"
KEY = "INSERT INTO ledger.subject_keys VALUES (gen_random_uuid(), 1, '\\x00')"


@pytest.fixture
def empty_url(cluster: embedded.Cluster, new_database: Callable[[str], str]) -> str:
    """A database without our schema."""
    return cluster.url("postgres", new_database("template1"))


def change(statement: str, table: str) -> sql.Composed:
    return sql.SQL(statement).format(sql.Identifier("ledger", table))


def names_of_all() -> list[str]:
    return [f"{migration.number:04} {migration.name}" for migration in shipped()]


def test_the_first_run_applies_every_migration_and_the_next_none(empty_url: str) -> None:
    """`serve` migrates at every start: a second start must find nothing to do."""
    assert migrate(empty_url) == names_of_all()
    assert migrate(empty_url) == []


@pytest.mark.parametrize("first", [True, False])
def test_a_start_does_not_wait_for_a_synchronous_standby(superuser_url: str, owner_url: str, empty_url: str, first: bool) -> None:
    """No client was promised a schema or a grant, and every later acknowledged commit comes after them in the server's WAL."""
    url = psycopg.conninfo.make_conninfo(empty_url if first else owner_url, options="-c synchronous_commit=on")
    over = Event()

    def write() -> None:
        with psycopg.connect(superuser_url, autocommit=True, options="-c synchronous_commit=on") as conn:
            while not over.is_set():
                conn.execute("select pg_logical_emit_message(true, 'anybody', 'writes')")

    with ThreadPoolExecutor(2) as threads, waiting_for_a_standby(superuser_url) as conn:
        threads.submit(write)
        try:
            asyncio.run(waiting(conn))
        finally:
            over.set()
        names = threads.submit(migrate, url).result(timeout=5)
    assert names == (names_of_all() if first else [])


def test_settings_of_the_database_do_not_apply_to_a_migration(empty_url: str) -> None:
    """Earlier, a statement_timeout that an operator had set for people stopped the creation of an index on a large table."""
    theirs = {"statement_timeout": "20s", "search_path": "public", "datestyle": "SQL, DMY"}
    with psycopg.connect(empty_url, autocommit=True) as conn:
        name = sql.Identifier(conn.info.dbname)
        for setting, value in theirs.items():
            conn.execute(sql.SQL("alter database {} set {} to {}").format(name, sql.Identifier(setting), sql.Literal(value)))
    found = " or ".join(f"current_setting('{setting}') = '{value}'" for setting, value in theirs.items())
    looks = [*shipped(), made(NEWEST + 1, f"do $$ begin if {found} then raise 'theirs'; end if; end $$;")]
    assert migrate(empty_url, looks) == [*names_of_all(), f"{NEWEST + 1:04} made_up"]
    assert migrate(empty_url, looks) == []


def test_migrations_are_numbered_without_gaps_from_one() -> None:
    """Two branches that both add a number, or one that leaves a gap, would apply in different orders on different ledgers."""
    assert [migration.number for migration in shipped()] == list(range(1, len(shipped()) + 1))


def test_several_first_runs_at_once_apply_each_migration_once(empty_url: str) -> None:
    """Workers and replicas start together; the second one waits, and finds that everything is done."""
    together = Barrier(4)

    def run(_: int) -> list[str]:
        together.wait(timeout=30)
        return migrate(empty_url)

    with ThreadPoolExecutor(4) as threads:
        applied = [name for names in threads.map(run, range(4)) for name in names]
    assert applied == names_of_all()


def test_a_failed_run_releases_the_lock(owner_url: str) -> None:
    """A refused start must not block the next one, which may be the right release."""
    with psycopg.connect(owner_url, autocommit=True) as connection:
        connection.execute("INSERT INTO ledger.migrations (number, name, checksum) VALUES (9999, 'later', 'x')")
        with pytest.raises(MigrationError):
            migrate(owner_url)
        connection.execute("DELETE FROM ledger.migrations WHERE number = 9999")
    assert migrate(owner_url) == []


def test_a_shipped_migration_that_was_edited_is_refused(owner_url: str) -> None:
    """Otherwise two ledgers of one release could have different schemas, and nobody would know."""
    with psycopg.connect(owner_url) as connection:
        connection.execute("UPDATE ledger.migrations SET checksum = 'another' WHERE number = 1")
    with pytest.raises(MigrationError, match=r"0001 ledger was applied with other content.*never edit a shipped migration"):
        migrate(owner_url)


def test_a_migration_of_a_newer_release_is_refused(owner_url: str) -> None:
    """An old release on a new schema would write rows that the new one cannot explain."""
    with psycopg.connect(owner_url) as connection:
        connection.execute("INSERT INTO ledger.migrations (number, name, checksum) VALUES (9999, 'later', 'x')")
    with pytest.raises(MigrationError, match=r"migration 9999, which this release does not know\. Run the newer release"):
        migrate(owner_url)


def test_every_run_restores_the_grants(owner_url: str) -> None:
    """A right that was given by hand in an incident must not outlive the next start."""
    with psycopg.connect(owner_url, autocommit=True) as connection:
        connection.execute("GRANT UPDATE, DELETE, TRUNCATE ON ledger.events TO ledger_app")
        migrate(owner_url)
        kept = "SELECT has_table_privilege('ledger_app', 'ledger.events', 'UPDATE, DELETE, TRUNCATE')"
        assert connection.execute(kept).fetchone() == (False,)


def test_the_grants_name_every_table(owner_url: str) -> None:
    """Whoever adds a table must decide who may write to it."""
    with psycopg.connect(owner_url) as connection:
        tables = connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'ledger'").fetchall()
    statements = re.sub(r"--.*", "", GRANTS)
    granted = {
        name.strip()
        for names in re.findall(r"^grant .*? on ([a-z_, ]+) to ", statements, re.MULTILINE)
        for name in names.split(",")
    }
    assert {name for (name,) in tables} <= granted


def test_the_serving_role_owns_nothing(owner_url: str) -> None:
    """An owner may drop the trigger and grant itself anything; append-only by grant needs another owner."""
    with psycopg.connect(owner_url) as connection:
        owners = connection.execute("SELECT DISTINCT tableowner FROM pg_tables WHERE schemaname = 'ledger'").fetchall()
    assert owners == [("ledger_owner",)]


def test_the_serving_role_may_add_to_the_log(app_url: str) -> None:
    """Otherwise the refusals below could have another cause."""
    with psycopg.connect(app_url) as connection:
        for statement in (EVENT, COMMIT, BODY, KEY):
            assert connection.execute(statement).rowcount == 1


@pytest.mark.parametrize("statement", CHANGES)
@pytest.mark.parametrize("table", [*LOG, "bodies", "subject_keys"])
def test_the_serving_role_may_not_change_the_log(app_url: str, table: str, statement: str) -> None:
    """Append-only is a grant: a bug or an injection in the service cannot rewrite history."""
    with psycopg.connect(app_url) as connection, pytest.raises(InsufficientPrivilege, match="permission denied"):
        connection.execute(change(statement, table))


@pytest.mark.parametrize("statement", CHANGES)
@pytest.mark.parametrize("table", LOG)
def test_not_even_a_superuser_in_replica_mode_changes_the_log(superuser_url: str, table: str, statement: str) -> None:
    """Restores and logical replication run in replica mode, where ordinary triggers are silent: these are ENABLE ALWAYS."""
    with psycopg.connect(superuser_url) as connection:
        connection.execute("SET session_replication_role = replica")
        connection.execute(EVENT)
        connection.execute(COMMIT)
        with pytest.raises(RestrictViolation, match=f"{table} is append-only"):
            connection.execute(change(statement, table))


@pytest.mark.parametrize("statement", ["UPDATE {} SET directory = directory", "TRUNCATE {}"])
def test_a_sealed_body_cannot_be_changed_in_place(superuser_url: str, statement: str) -> None:
    """The leaf has its hash."""
    with psycopg.connect(superuser_url) as connection:
        connection.execute(BODY)
        with pytest.raises(RestrictViolation, match="bodies is append-only"):
            connection.execute(change(statement, "bodies"))


@pytest.mark.parametrize("table", ["bodies", "subject_keys"])
@pytest.mark.parametrize("user", ["postgres", "ledger_owner", "ledger_app"])
def test_bodies_and_keys_are_deleted_by_the_eraser_alone(superuser_url: str, table: str, user: str) -> None:
    """Not by the owner, nor by a superuser in replica mode; and ledger_app must say so, because it does not inherit the right."""
    with psycopg.connect(superuser_url) as connection:
        connection.execute(BODY)
        connection.execute(KEY)
        connection.execute("set local session_replication_role = replica")
        connection.execute(sql.SQL("set local role {}").format(sql.Identifier(user)))
        with pytest.raises((RestrictViolation, InsufficientPrivilege)):
            connection.execute(sql.SQL("delete from ledger.{}").format(sql.Identifier(table)))


def test_the_serving_role_becomes_the_eraser_for_a_statement(app_url: str) -> None:
    with psycopg.connect(app_url) as connection:
        connection.execute(BODY)
        connection.execute(KEY)
        connection.execute("set local role ledger_eraser")
        assert connection.execute("delete from ledger.bodies where seq = 1").rowcount == 1
        assert connection.execute("delete from ledger.subject_keys").rowcount == 1
        with pytest.raises(InsufficientPrivilege):
            connection.execute("delete from ledger.users")


@pytest.mark.parametrize("table", ["events", "commits", "users", "erasures", "holds", "requests", "open_deliveries", "tokens"])
def test_the_eraser_deletes_nothing_else(superuser_url: str, table: str) -> None:
    with psycopg.connect(superuser_url) as connection:
        connection.execute("set local role ledger_eraser")
        with pytest.raises(InsufficientPrivilege):
            connection.execute(sql.SQL("delete from ledger.{}").format(sql.Identifier(table)))


def test_a_login_that_may_not_create_roles_is_told_what_to_do(admin_url: str, owner_url: str) -> None:
    """Managed databases give no superuser; the message is the statement somebody else must run."""
    with psycopg.connect(admin_url, autocommit=True) as connection:
        connection.execute("ALTER ROLE ledger_app RENAME TO ledger_app_away")
        try:
            with pytest.raises(MigrationError, match="As a superuser: create role ledger_app login;"):
                migrate(owner_url)
        finally:
            connection.execute("ALTER ROLE ledger_app_away RENAME TO ledger_app")


def test_a_login_that_may_not_make_the_eraser_is_told_what_to_do(admin_url: str, owner_url: str) -> None:
    """The role that alone deletes bodies and keys, and the membership by which the serving role becomes it."""
    with psycopg.connect(admin_url, autocommit=True) as connection:
        connection.execute("ALTER ROLE ledger_eraser RENAME TO ledger_eraser_away")
        try:
            with pytest.raises(MigrationError, match="create role ledger_eraser nologin; grant ledger_eraser to ledger_app"):
                migrate(owner_url)
        finally:
            connection.execute("ALTER ROLE ledger_eraser_away RENAME TO ledger_eraser")
        connection.execute("REVOKE ledger_eraser FROM ledger_app")
        try:
            with pytest.raises(MigrationError, match="must be a member of ledger_eraser"):
                migrate(owner_url)
        finally:
            connection.execute(eraser_membership(connection.info.server_version))
    assert eraser_membership(150_000) == "grant ledger_eraser to ledger_app", "PostgreSQL 15 knows no options of a membership"


# -- beside running processes --------------------------------------------------


def made(number: int, sql: str, serves: int | None = None) -> Migration:
    """A migration that only exists in the test."""
    said = "" if serves is None else f"-- serves: {serves:04}\n"
    return Migration(number, "made_up", cast("LiteralString", said + sql), str(number))


NEWEST = max(migration.number for migration in shipped())
NEXT = made(NEWEST + 1, "alter table consumers add made_up int;", NEWEST)


@pytest.mark.parametrize("words", ["migrate", "serve"])
def test_a_login_that_does_not_own_the_schema_is_told_which_setting_is_missing(app_url: str, tmp_path: Path, words: str) -> None:
    kek = tmp_path / "kek"
    kek.write_bytes(os.urandom(32))
    kek.chmod(0o600)
    settings = {"LEDGER_DATABASE_URL": app_url, "LEDGER_DATA_DIR": str(tmp_path), "LEDGER_KEK_FILE": str(kek), "LEDGER_PORT": "0"}
    done = warm.run(words.split(), {**os.environ, **settings})
    assert done.returncode == 2, done.stderr
    assert "Set LEDGER_MIGRATE_URL" in done.stderr
    assert "Traceback" not in done.stderr


def test_every_migration_says_which_release_it_serves() -> None:
    """From 0011 on, the author of a migration must decide whether older processes may go on, and write it down."""
    assert [m for m in shipped() if m.number > 10 and "\n-- serves: " not in f"\n{m.sql}"] == []


def test_no_migration_creates_an_index_that_blocks_writers() -> None:
    """On an existing table an index must be created concurrently."""
    for migration in (m for m in shipped() if m.number > 10):
        text = re.sub(r"--.*", "", migration.sql)
        new = set(re.findall(r"create table (\w+)", text))
        assert set(re.findall(r"create (?:unique )?index (?!concurrently)\w+ on (\w+)", text)) <= new, migration


def test_an_older_release_starts_with_a_newer_schema_and_changes_nothing(owner_url: str) -> None:
    """Its grants would revoke rights that the newer release has given."""
    assert migrate(owner_url, [*shipped(), NEXT]) == [str(NEXT)]
    with psycopg.connect(owner_url, autocommit=True) as connection:
        connection.execute("GRANT DELETE ON ledger.consumers TO ledger_app")
        assert migrate(owner_url) == []
        kept = "SELECT has_table_privilege('ledger_app', 'ledger.consumers', 'DELETE')"
        assert connection.execute(kept).fetchone() == (True,)


def test_a_migration_that_serves_no_older_release_is_refused_while_one_runs(owner_url: str, app_url: str) -> None:
    """A migration that running processes would not survive is refused before anything is changed."""
    contract = [*shipped(), NEXT, made(NEWEST + 2, "alter table consumers drop made_up;", NEWEST + 1)]
    with psycopg.connect(app_url, autocommit=True) as serving:
        psycopg.RawCursor(serving).execute(SQL["note_release"], (NEWEST,))
        with pytest.raises(MigrationError, match=rf"{NEWEST + 2:04} made_up cannot be applied beside .* Nothing was changed"):
            migrate(owner_url, contract)
        with psycopg.connect(owner_url) as connection:
            applied = connection.execute("SELECT max(number) FROM ledger.migrations").fetchone()
        assert applied == (NEWEST,)
    assert migrate(owner_url, contract) == [str(m) for m in contract[-2:]]
    with pytest.raises(MigrationError, match="cannot go on beside it"):
        migrate(owner_url)


def test_a_migration_waits_for_a_long_reader_and_nobody_queues_behind_it(owner_url: str, superuser_url: str) -> None:
    """A dump holds the table that the migration changes: writers of the table go on, and after the dump the change is made."""
    asked = Event()

    def notice(_logger: object, _method: str, entry: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        if entry["event"] == "migration_waits" and "dump" in entry["reason"]:
            asked.set()
        return entry

    structlog.configure(processors=[notice, structlog.processors.KeyValueRenderer()])
    try:
        with (
            psycopg.connect(superuser_url, application_name="dump") as dump,
            psycopg.connect(superuser_url, autocommit=True, options="-c lock_timeout=2s -c search_path=ledger") as writer,
            ThreadPoolExecutor(1) as threads,
        ):
            dump.execute("LOCK TABLE ledger.consumers IN ACCESS SHARE MODE")
            migrating = threads.submit(migrate, owner_url, [*shipped(), NEXT])
            for _ in range(3):
                asked.clear()
                assert asked.wait(10)
                writer.execute("UPDATE consumers SET version = version + 1")
            dump.commit()
            assert migrating.result(30) == [str(NEXT)]
    finally:
        structlog.reset_defaults()


def test_a_reader_that_holds_a_table_too_long_is_named(owner_url: str, superuser_url: str) -> None:
    with psycopg.connect(superuser_url, application_name="dump") as dump:
        dump.execute("LOCK TABLE ledger.consumers IN ACCESS SHARE MODE")
        with pytest.raises(MigrationError, match=rf"nothing was changed.*pid {dump.info.backend_pid} \(postgres, dump\)"):
            migrate(owner_url, [*shipped(), NEXT], patience_s=0)


def test_an_index_of_a_migration_is_created_concurrently_and_again_after_an_interruption(
    owner_url: str, superuser_url: str
) -> None:
    """The creation waits for an older snapshot and blocks no writer; the invalid index of an interrupted attempt is dropped
    first.
    """
    index = made(
        NEWEST + 1, "-- one by one\ncreate index concurrently if not exists made_up on requests (status);\n", serves=NEWEST
    )
    with psycopg.connect(superuser_url, application_name="dump") as dump:
        dump.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        dump.execute("SELECT count(*) FROM ledger.requests")
        with pytest.raises(MigrationError, match="the next start tries it again"):
            migrate(owner_url, [*shipped(), index], patience_s=0.5)
        with psycopg.connect(superuser_url, options="-c lock_timeout=1s") as writer:
            writer.execute("DELETE FROM ledger.requests")
    assert migrate(owner_url, [*shipped(), index]) == [str(index)]
    with psycopg.connect(owner_url) as connection:
        valid = connection.execute("SELECT indisvalid FROM pg_index WHERE indexrelid = 'ledger.made_up'::regclass").fetchone()
    assert valid == (True,)
