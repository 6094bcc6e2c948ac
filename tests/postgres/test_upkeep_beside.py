"""Verify and rebuild during writes: the results of both are right, and neither waits for the other."""

import asyncio
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any
from uuid import UUID

import psycopg
import pytest

from database.connections import Connection, connect_owner
from ledger.bindings import TokenRow
from ledger.events import USER_CREATED, USER_DELETED
from ledger.sealing import Kek
from replay import rebuild as rebuilding
from replay import verify
from replay.rebuild import Result, rebuild
from replay.stored_events import Finding
from runtime import embedded
from tests.postgres.ledgers import Ledger, id_of, opened
from tests.postgres.machine import Machine, administration

PG_DUMP = str(embedded._programs(None) / "pg_dump")
KEK = Kek.of(b"k" * 32)


def unheard(_done: int, _total: int) -> None:
    pass


async def verified(ledger: Ledger, owner_url: str) -> list[Finding]:
    """Run the check of `scim-ledger replay verify`."""
    async with ledger.services.ledger.connection() as serving:
        directories = await ledger.services.ledger.directories.all(serving)
    findings, _, _ = await verify.verify(owner_url, KEK, directories, unheard)
    return findings


class Busy:
    """Writers that go on as long as they are allowed to: without a limit the log would grow faster than the test can read it."""

    def __init__(self) -> None:
        self._turns = asyncio.Semaphore(0)
        self._over = asyncio.Event()
        self.rounds = 0

    def go_on(self, rounds: int) -> None:
        for _ in range(rounds):
            self._turns.release()

    async def repeat(self, work: Callable[[int], Awaitable[object]]) -> None:
        for number in count():
            await self._turns.acquire()
            if self._over.is_set():
                return
            await work(number)
            self.rounds += 1

    def end(self) -> None:
        self._over.set()
        self.go_on(100)


def provisioning(ledger: Ledger, writer: int, group: UUID) -> Callable[[int], Awaitable[object]]:
    """An IdP: users are created, join groups, change and leave."""

    async def work(number: int) -> None:
        user = id_of(await ledger.create_user(f"w{writer}n{number}"))
        await ledger.add_member(group, user)
        await ledger.patch_user(user, {"op": "replace", "path": "active", "value": bool(number % 2)})
        if number % 3 == 0:
            await ledger.delete_user(user)

    return work


def administering(acts: Machine) -> Callable[[int], Awaitable[object]]:
    """An operator: tokens and directories are made and ended."""

    async def work(number: int) -> None:
        await acts.create_directory(f"made-{number}")
        expires = datetime(2100, 1, 1, tzinfo=UTC) - timedelta(days=number)
        text = await acts.issue_token("scim", f"t{number}", (f"made-{number}",), expires)
        await acts.revoke_token(UUID(text.split("_")[2]))

    return work


@asynccontextmanager
async def busy(ledger: Ledger, app_url: str) -> AsyncIterator[Busy]:
    """Run the writers during the block."""
    working = Busy()
    async with administration(app_url, KEK) as acts:
        works = [provisioning(ledger, n, id_of(await ledger.create_group(f"group {n}"))) for n in range(3)]
        writers = [asyncio.create_task(working.repeat(work)) for work in (*works, administering(acts))]
        try:
            yield working
        finally:
            working.end()
            await asyncio.gather(*writers)


@pytest.mark.long
def test_verify_reports_nothing_false_during_writes(app_url: str, owner_url: str) -> None:
    """Twenty runs: users, groups, tokens and whole directories are made and ended meanwhile, and no difference is reported."""

    async def run() -> None:
        async with opened(app_url, kek=KEK) as ledger, busy(ledger, app_url) as working:
            for _ in range(20):
                working.go_on(10)
                assert await verified(ledger, owner_url) == []
            assert working.rounds > 100, "nobody wrote meanwhile"

    asyncio.run(run())


def test_a_token_that_is_revoked_between_the_reads_of_its_row_and_its_events_is_no_finding(
    app_url: str, owner_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows and events of tokens are read by different statements, so both must read one snapshot."""

    async def run() -> None:
        async with opened(app_url, kek=KEK) as ledger, administration(app_url, KEK) as acts:
            text = await acts.issue_token("scim", "idp", ("acme",), datetime(2100, 1, 1, tzinfo=UTC))
            read = verify.find_all

            async def revoked_meanwhile(conn: Connection) -> list[TokenRow]:
                rows = await read(conn)
                await acts.revoke_token(UUID(text.split("_")[2]))
                return rows

            monkeypatch.setattr(verify, "find_all", revoked_meanwhile)
            assert await verified(ledger, owner_url) == []

    asyncio.run(run())


async def rebuilt(owner_url: str, waits: Callable[[str], None]) -> Result:
    return await rebuild(owner_url, KEK, unheard, waits)


class Waiting:
    """Collects what a rebuild prints, so that a test can wait for it."""

    def __init__(self) -> None:
        self.said = list[str]()
        self._more = asyncio.Event()

    def __call__(self, text: str) -> None:
        self.said.append(text)
        self._more.set()

    async def again(self) -> None:
        self._more.clear()
        await self._more.wait()


DUMP = "lock table ledger.users, ledger.groups, ledger.memberships, ledger.states, ledger.directory_states in access share mode"


@pytest.mark.parametrize(
    "begin",
    [
        pytest.param(("begin isolation level repeatable read", "select 1", DUMP), id="a dump under way"),
        pytest.param(("begin isolation level repeatable read", "select 1"), id="a dump that has its snapshot and no lock yet"),
        pytest.param(("begin", "select count(*) from ledger.users"), id="a session that was left in its transaction"),
    ],
)
def test_a_rebuild_waits_for_a_long_reader_and_nobody_waits_for_the_rebuild(
    app_url: str, superuser_url: str, owner_url: str, begin: tuple[str, ...]
) -> None:
    """The reader still sees the old tables; writes are answered all the time; the rebuild says for whom it waits, then ends."""

    async def run() -> None:
        async with opened(app_url, kek=KEK) as ledger:
            for number in range(3):
                await ledger.create_user(f"before{number}")
            waiting = Waiting()
            with psycopg.connect(superuser_url, application_name="dump", autocommit=True) as reader:
                for statement in begin:
                    reader.execute(statement)  # type: ignore[arg-type]
                rebuilding = asyncio.create_task(rebuilt(owner_url, waiting))
                for number in range(3):
                    await waiting.again()
                    async with asyncio.timeout(2):
                        await ledger.create_user(f"meanwhile{number}")
                assert f"pid {reader.info.backend_pid} (postgres, dump)" in waiting.said[-1]
                seen = reader.execute("select count(*) from ledger.users").fetchone()
                assert seen == (3,) if "repeatable" in begin[0] else seen == (6,)
                reader.execute("commit")
            assert (await rebuilding).drifted == ()
            await ledger.create_user("after")
            assert await verified(ledger, owner_url) == []

    asyncio.run(run())


def test_dumps_verifications_rebuilds_and_writes_run_at_the_same_time(app_url: str, superuser_url: str, owner_url: str) -> None:
    """A dump that is taken while tables are swapped has exactly the users that its own events made."""

    async def dump() -> None:
        for _ in range(3):
            done = await asyncio.to_thread(
                subprocess.run, [PG_DUMP, "--schema=ledger", superuser_url], capture_output=True, text=True
            )
            assert done.returncode == 0, done.stderr
            types = [row.split("\t")[2] for row in rows_of(done.stdout, "events")]
            made, gone = types.count(str(USER_CREATED.number)), types.count(str(USER_DELETED.number))
            assert len(rows_of(done.stdout, "users")) == made - gone

    async def run() -> None:
        async with opened(app_url, kek=KEK) as ledger, busy(ledger, app_url) as working:
            for _ in range(3):
                working.go_on(10)
                result, found, _ = await asyncio.gather(
                    rebuilt(owner_url, lambda _text: None), verified(ledger, owner_url), dump()
                )
                assert (result.drifted, found) == ((), [])
            assert await verified(ledger, owner_url) == []

    asyncio.run(run())


def rows_of(dump: str, table: str) -> list[str]:
    """The rows of a table in the text of a dump."""
    return dump.partition(f"COPY ledger.{table} (")[2].partition("\n")[2].partition("\\.\n")[0].splitlines()


async def indexes_of_users(owner_url: str) -> set[str]:
    text = "select indexname::text from pg_indexes where schemaname = 'ledger' and tablename = 'users'"
    async with await connect_owner(owner_url) as conn:
        return {name for (name,) in await (await conn.execute(text)).fetchall()}


async def change_indexes(owner_url: str) -> None:
    """Change indexes as a migration of a newer release does, while everything else goes on."""
    async with await connect_owner(owner_url) as conn:
        await conn.execute("create index concurrently users_by_change on ledger.users (directory, updated_at)")
        await conn.execute("drop index concurrently ledger.users_listed")


@pytest.mark.parametrize("moment", ["_differing_tables", "_swap"])
def test_a_migration_changes_indexes_during_a_rebuild(
    app_url: str, owner_url: str, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    """The tables that are swapped in have the index that the migration made, and lack the one that it dropped."""
    step = getattr(rebuilding, moment)

    async def migrated(*args: Any) -> Any:
        await change_indexes(owner_url)
        return await step(*args)

    async def run() -> None:
        async with opened(app_url, kek=KEK) as ledger:
            await ledger.create_user("u")
            before = await indexes_of_users(owner_url)
            monkeypatch.setattr(rebuilding, moment, migrated)
            await rebuild(owner_url, KEK, unheard, lambda _: None)
            assert await indexes_of_users(owner_url) == before - {"users_listed"} | {"users_by_change"}

    asyncio.run(run())


def test_a_migration_changes_indexes_while_a_rebuild_is_interrupted(
    app_url: str, owner_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def interrupted(*_: Any) -> float:
        raise InterruptedError

    async def run() -> None:
        async with opened(app_url, kek=KEK) as ledger:
            await ledger.create_user("u")
            before = await indexes_of_users(owner_url)
            with monkeypatch.context() as patch:
                patch.setattr(rebuilding, "_swap", interrupted)
                with pytest.raises(InterruptedError):
                    await rebuild(owner_url, KEK, unheard, lambda _: None)
            await change_indexes(owner_url)
            await rebuild(owner_url, KEK, unheard, lambda _: None)
            assert await indexes_of_users(owner_url) == before - {"users_listed"} | {"users_by_change"}

    asyncio.run(run())
