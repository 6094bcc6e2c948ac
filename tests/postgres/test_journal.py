"""The journal while its database is away: its memory is bounded, dropped entries are counted, and only age prunes it."""

import asyncio
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import orjson
import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from api.journal import BATCH_MAX, DAYS_KEPT, PRUNE_BATCH, Entry, Journal
from api.metrics import serving_figures
from database.connections import Pool
from database.migrate import migrate
from ledger.sealing import Kek, NoteKind, open_note
from ledger.token_use import Use
from operations import journal
from operations.journal import directory_health
from proofs.keys import WrapError
from runtime import embedded, wiring
from tests.postgres.ledgers import opened
from tests.postgres.proxy import proxied

KEPT = BATCH_MAX + 5
KEK = Kek.of(bytes(range(32)))


@asynccontextmanager
async def pooled(url: str) -> AsyncIterator[Pool]:
    pool = Pool(url, size=1)
    await pool.open()
    yield pool
    await pool.close()


def entry(number: int) -> Entry:
    return Entry(
        1, 1_000_000, "POST", "/Users", None, 429, None, "Full.", "generic@1", ("op_case",), 0, 1, UUID(int=number), None
    )


def written(url: str) -> list[int]:
    with psycopg.connect(url) as conn:
        return [row[0].int for row in conn.execute("select request_id from ledger.requests order by id")]


def counted() -> float:
    lines = serving_figures("serve-1").nameless.decode().splitlines()
    return float(next(line.split()[1] for line in lines if line.startswith("ledger_journal_dropped_total{")))


def test_while_the_database_is_away_the_newest_entries_are_kept_and_the_others_counted(
    cluster: embedded.Cluster, app_url: str, tmp_path: Path
) -> None:
    """A storm of refusals must neither fill the memory nor be lost unnoticed."""

    async def run() -> None:
        async with proxied(str(cluster.socket_dir), tmp_path) as (proxy, through):
            async with pooled(make_conninfo(app_url, host=through)) as pool:
                journal = Journal(pool, KEK, os.urandom, kept_max=KEPT)
                journal.add(entry(0))
                await journal.flush()
                async with pool.connection():  # the pool has only this one: the flush waits for it, and has taken its first batch
                    await proxy.vanish()
                    for number in range(1, KEPT + 1):
                        journal.add(entry(number))
                    flushing = asyncio.create_task(journal.flush())
                    while len(journal) == KEPT:
                        await asyncio.wait([flushing], timeout=0)
                    for number in range(KEPT + 1, KEPT + 8):
                        journal.add(entry(number))
                await flushing
                await proxy.listen()
                await journal.flush()

    before = counted()
    asyncio.run(run())
    assert written(app_url) == [0, *range(8, KEPT + 8)], "the oldest go first"
    assert counted() - before == 7


@asynccontextmanager
async def refusing(superuser_url: str, table: str, sqlstate: str) -> AsyncIterator[None]:
    """Let the server refuse each write to a table with this SQLSTATE."""
    async with await psycopg.AsyncConnection.connect(superuser_url, autocommit=True) as conn:
        await conn.execute(
            "create function public.refuse() returns trigger language plpgsql as "
            f"$$ begin raise exception 'no' using errcode = '{sqlstate}'; end $$".encode()
        )
        await conn.execute(
            f"create trigger refuses before insert or update on {table} for each statement execute function public.refuse()".encode()
        )
        yield
        await conn.execute("drop function public.refuse cascade")


@pytest.mark.parametrize(
    ("sqlstate", "kept"), [("25006", True), ("42501", True), ("53100", True), ("XX001", True), ("22021", False)]
)
def test_entries_are_dropped_only_for_a_fault_of_their_own(
    app_url: str, superuser_url: str, sqlstate: str, *, kept: bool
) -> None:
    """Earlier, a read-only database lost every entry of that time: a batch was dropped for any error except a lost connection."""

    async def run() -> None:
        async with pooled(app_url) as pool:
            journal = Journal(pool, KEK, os.urandom)
            journal.add(entry(1))
            async with refusing(superuser_url, "ledger.requests", sqlstate):
                await journal.flush()
            await journal.flush()

    before = counted()
    asyncio.run(run())
    assert (written(app_url), counted() - before) == (([1], 0) if kept else ([], 1))


def test_the_last_use_of_tokens_is_stored_once_the_database_accepts_writes_again(app_url: str, superuser_url: str) -> None:
    async def run() -> tuple[set[UUID], dict[UUID, Use]]:
        async with opened(app_url, kek=KEK) as ledger:
            ledger.services.authentication.used = {UUID(int=1): Use("GET /v1/events", "203.0.113.9")}
            async with refusing(superuser_url, "ledger.tokens", "25006"):
                await wiring._touch_used(ledger.services)
            waiting = set(ledger.services.authentication.used)
            await wiring._touch_used(ledger.services)
            return waiting, ledger.services.authentication.used

    assert asyncio.run(run()) == ({UUID(int=1)}, {})


def test_a_batch_does_not_wait_for_a_synchronous_standby(app_url: str, superuser_url: str) -> None:
    """If a synchronous standby hangs, each batch that is given up and tried again would leave a session in the server."""
    with psycopg.connect(superuser_url, autocommit=True) as conn:
        conn.execute("create table public.waits (how text)")
        conn.execute("grant insert on public.waits to ledger_app")
        conn.execute(
            "create function public.tell() returns trigger language plpgsql as "
            "$$ begin insert into public.waits values (current_setting('synchronous_commit')); return null; end $$"
        )
        conn.execute("create trigger tells after insert on ledger.requests for each statement execute function public.tell()")

        async def run() -> None:
            async with pooled(app_url) as pool:
                journal = Journal(pool, KEK, os.urandom)
                journal.add(entry(1))
                await journal.flush()

        asyncio.run(run())
        assert conn.execute("select how from public.waits").fetchall() == [("local",)]


def test_a_flush_that_is_cancelled_loses_nothing(app_url: str) -> None:
    """At the end of the process the background flush is cancelled, and a last flush writes the remaining entries."""

    async def run() -> None:
        async with pooled(app_url) as pool:
            journal = Journal(pool, KEK, os.urandom)
            for number in range(3):
                journal.add(entry(number))
            async with pool.connection():  # the pool has only this one: the flush waits for it
                flushing = asyncio.create_task(journal.flush())
                while len(journal):
                    await asyncio.wait([flushing], timeout=0)
                flushing.cancel()
                await asyncio.wait([flushing])
            await journal.flush()

    asyncio.run(run())
    assert written(app_url) == [0, 1, 2]


def test_pruning_deletes_by_age_alone_until_nothing_old_is_left(app_url: str) -> None:
    old = PRUNE_BATCH + 1
    with psycopg.connect(app_url) as conn:
        conn.execute(
            "insert into ledger.requests (directory, at, method, route, status, profile, tolerances, events, duration_us, request_id) "
            "select 1, now() - make_interval(days => %s + case when n <= %s then 1 else -1 end), 'GET', '/', 200, 'generic@1', '{}', 0, 1, "
            "lpad(to_hex(n), 32, '0')::uuid from generate_series(1, %s) n",
            (DAYS_KEPT, old, old + 2),
        )

    async def run() -> None:
        async with pooled(app_url) as pool:
            await Journal(pool, KEK, os.urandom).prune()

    asyncio.run(run())
    assert written(app_url) == [old + 1, old + 2]


def _refused(number: int, detail: str, shape: str | None = None) -> Entry:
    return entry(number)._replace(at=time.time_ns() // 1_000, status=400, scim_type="invalidValue", detail=detail, shape=shape)


def test_messages_and_filters_are_sealed_for_their_request(app_url: str) -> None:
    """A sealed message cannot be opened as a filter, nor for another request; equal messages in other directories look different."""
    first = _refused(1, 'members: no user has the id "Quetzalcoatlus"', "urn:x:Quetzalcoatlus:nick eq ?")
    second = first._replace(directory=2, request_id=UUID(int=2))

    async def run() -> None:
        async with pooled(app_url) as pool:
            journal = Journal(pool, KEK, os.urandom)
            for each in (first, second):
                journal.add(each)
            await journal.flush()

    asyncio.run(run())
    with psycopg.connect(app_url) as conn:
        rows = conn.execute(
            "select detail, shape, reason, request_id, requests::text from ledger.requests order by id"
        ).fetchall()
    (detail, shape, reason, request, _), other = rows
    assert not any("uetzal" in row[-1] or b"uetzal".hex() in row[-1] for row in rows)
    assert open_note(KEK, detail, kind="refusal", owner=request) == first.detail
    assert open_note(KEK, shape, kind="filter", owner=request) == first.shape
    others: list[tuple[bytes, NoteKind, UUID]] = [
        (detail, "filter", request),
        (shape, "refusal", request),
        (detail, "refusal", other[3]),
        (detail, "secret", request),
    ]
    for sealed, kind, owner in others:
        with pytest.raises(WrapError):
            open_note(KEK, sealed, kind=kind, owner=owner)
    assert reason != other[2]


def test_the_doctor_counts_equal_messages(app_url: str) -> None:
    entries = [_refused(n, "schemas: missing") for n in range(3)] + [
        _refused(9, 'the id "a" is none'),
        _refused(10, 'the id "b" is none'),
    ]

    async def run() -> list[tuple[str, int]]:
        async with opened(app_url, kek=KEK) as ledger:
            async with ledger.services.ledger.connection() as conn:
                for each in entries:
                    ledger.services.journal.add(each._replace(directory=ledger.directory.id))
                await ledger.services.journal.flush()
                report = await directory_health(conn, KEK, ledger.directory, 24)
        return [(row["detail"], row["count"]) for row in report["refusals"]]

    found = asyncio.run(run())
    assert found[0] == ("schemas: missing", 3)
    assert sorted(found[1:]) == [('the id "a" is none', 1), ('the id "b" is none', 1)]


def test_the_doctor_of_a_busy_directory_uses_a_limited_number_of_requests_and_says_since_when(
    app_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Earlier, counting the whole journal took longer than a statement may, and the answer was 503."""
    monkeypatch.setattr(journal, "LOOKED_MAX", 10)

    async def run() -> tuple[dict[str, Any], dict[str, Any]]:
        async with opened(app_url, kek=KEK) as ledger, ledger.services.ledger.connection() as conn:
            await conn.execute(
                "insert into requests (directory, at, method, route, status, profile, tolerances, events, duration_us, request_id) "
                "select $1, now() - make_interval(secs => 30 - n), 'GET', '/', 400, 'generic@1', array['some'], 0, 1, gen_random_uuid() "
                "from generate_series(1, $2) n", (ledger.directory.id, 25),
            )  # fmt: skip
            of_ten = await directory_health(conn, KEK, ledger.directory, 24)
            monkeypatch.setattr(journal, "LOOKED_MAX", 26)
            return of_ten, await directory_health(conn, KEK, ledger.directory, 24)

    of_ten, of_all = asyncio.run(run())
    for report, count in ((of_ten, 10), (of_all, 25)):
        assert [row["requests"] for row in report["operations"]] == [count]
        assert ([row["count"] for row in report["refusals"]], report["tolerances"][0]["requests"]) == ([count], count)
        assert sum(row["count"] for row in report["retry_storms"]) == (count if count >= 20 else 0)
    assert (of_all["since"], of_ten["last_request"]) == (None, of_all["last_request"])
    assert of_ten["since"] > of_ten["last_request"] - timedelta(seconds=10)


def test_the_last_change_is_known_however_long_ago_it_was(app_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """An IdP that compares all of its users every hour may change nothing for days: earlier, the report said that it had never
    changed anything.
    """
    monkeypatch.setattr(journal, "LOOKED_MAX", 10)

    async def run() -> None:
        async with opened(app_url, kek=KEK) as ledger, ledger.services.ledger.connection() as conn:
            assert (await directory_health(conn, KEK, ledger.directory, 24))["last_change"] is None
            await ledger.create_user("u")
            (event,) = (await ledger.page(directories=frozenset({ledger.directory.id}))).events[1:]
            await conn.execute(
                "insert into requests (directory, at, method, route, status, profile, tolerances, events, duration_us, request_id) "
                "select $1, now(), 'GET', '/', 200, 'generic@1', '{}', 0, 1, gen_random_uuid() from generate_series(1, 11)",
                (ledger.directory.id,),
            )
            found = (await directory_health(conn, KEK, ledger.directory, 24))["last_change"]
            assert found == datetime.fromisoformat(orjson.loads(event.json)["time"])

    asyncio.run(run())


def test_plaintext_is_gone_after_the_migration(owner_url: str, superuser_url: str) -> None:
    """It is gone from the rows, and also from the disk, because the table gets a new file."""
    with psycopg.connect(superuser_url, autocommit=True) as conn:
        conn.execute("set search_path to ledger")
        conn.execute("alter table requests drop reason, alter detail type text using null, alter shape type text using null")
        conn.execute("delete from migrations where number = 9")
        conn.execute(
            "insert into requests (directory, at, method, route, shape, status, detail, profile, tolerances, events, duration_us, request_id) "
            "values (1, now(), 'GET', '/', 'Quetzalcoatlus', 400, 'Quetzalcoatlus', 'generic@1', '{}', 0, 1, gen_random_uuid())"
        )
        before = conn.execute("select pg_relation_filenode('requests')").fetchone()
        assert migrate(owner_url) == ["0009 sealed_journal"]
        assert conn.execute("select pg_relation_filenode('requests')").fetchone() != before
        assert conn.execute("select status, detail, shape, reason from requests").fetchall() == [(400, None, None, None)]
