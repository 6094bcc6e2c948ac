"""Waits that add up: those of a bulk request, behind a long change, of reads that share a connection, and after a lost
connection.
"""

import asyncio
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import orjson
import psycopg
import pytest
from psycopg.conninfo import make_conninfo
from structlog.testing import capture_logs

from api.app import make_app
from api.scim.bulk import bulk
from api.scim.http import Call
from database import connections, patience
from database.connections import APPLICATION_NAME, Connection, Pool, connect, connect_owner
from database.deadlines import Deadline
from database.locks import DIRECTORY, LEDGER
from ledger import transaction, writer
from ledger.tokens import Token
from projections import current_state
from runtime import embedded, wiring
from runtime.identifiers import uuid7
from scim.errors import Unavailable
from tests.acceptance.network import network
from tests.postgres.ledgers import CORE_USER, Ledger, id_of, opened
from tests.postgres.machine import administration
from tests.postgres.proxy import proxied

BULK = "urn:ietf:params:scim:api:messages:2.0:BulkRequest"


def short_deadline(seconds: float) -> Deadline:
    return Deadline(seconds, "a test", "503")


@contextmanager
def holding(url: str, *lock: int, **options: str) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(make_conninfo(url, **options)) as conn:
        conn.execute("select pg_advisory_xact_lock(%s, %s)", lock)
        yield conn
        conn.rollback()


def call(body: Any) -> Call:
    messages = [{"type": "http.request", "body": orjson.dumps(body), "more_body": False}]

    async def receive() -> dict[str, Any]:
        return messages.pop() if messages else await asyncio.Future()  # the client stays connected

    return Call("POST", ["Bulk"], "acme", {b"content-type": b"application/json"}, {}, uuid7(), receive)


def test_a_bulk_request_waits_for_a_missing_answer_only_once(
    app_url: str, superuser_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second operation would wait as long as the first, and so would the thousandth: none of them is tried."""
    monkeypatch.setattr(wiring, "LOCK", short_deadline(0.1))
    operations = [
        {"method": "PUT", "path": f"/Users/{uuid4()}", "data": {"schemas": [CORE_USER], "userName": f"u{n}"}} for n in range(30)
    ]

    async def run() -> None:
        async with opened(app_url) as ledger, administration(app_url, ledger.services.ledger.kek) as acts:
            text = await acts.issue_token("scim", "t", ("acme",), datetime.now(UTC) + timedelta(days=1))
            token = await ledger.services.authentication.authenticate(f"Bearer {text}")
            with holding(superuser_url, DIRECTORY.number, ledger.directory.id), capture_logs() as logs:
                answer = await bulk(ledger.services, call({"schemas": [BULK], "Operations": operations}), ledger.directory, token)
            results = orjson.loads(answer.body)["Operations"]
            assert [result["status"] for result in results] == ["503"] * 30
            said = [result["response"]["detail"] for result in results]
            assert "holds a lock" in said[0]
            assert all("was not tried" in each for each in said[1:])
            assert len([entry for entry in logs if entry["event"] == "lock_in_the_way"]) < 5
            again = await bulk(ledger.services, call({"schemas": [BULK], "Operations": operations}), ledger.directory, token)
            assert {result["status"] for result in orjson.loads(again.body)["Operations"]} == {"404"}, "it is tried again"

    asyncio.run(run())


def test_a_write_behind_a_long_change_is_answered_in_time(app_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The wait is in the queue of its directory, for a lane, or for a lock that another writer of the service has; the write is
    never done later.
    """
    monkeypatch.setattr(writer, "WRITE_SETTLED", short_deadline(2.0))

    async def run() -> None:
        async with opened(app_url) as ledger:
            await ledger.create_user("before")
            with holding(app_url, DIRECTORY.number, ledger.directory.id, application_name=APPLICATION_NAME) as giant:
                began = time.monotonic()
                groups = [ledger.create_group(f"g{n}", tuple(str(uuid4()) for _ in range(1_100))) for n in range(3)]
                users = [ledger.create_user(f"u{n}") for n in range(100)]
                refused = await asyncio.gather(*groups, *users, return_exceptions=True)
                assert time.monotonic() - began < 5
                assert {type(error) for error in refused} == {Unavailable}
                assert all("take long" in str(error) for error in refused)
                assert all(error.retry_after > 1 for error in refused if isinstance(error, Unavailable))
                giant.rollback()
            page = await ledger.page(directories=frozenset({ledger.directory.id}))
            names = [orjson.loads(event.json)["data"]["object"].get("userName") for event in page.events[1:]]
            assert names == ["before"]
            assert (await ledger.create_user("after")).seq == 3

    asyncio.run(run())


def test_the_writers_answer_is_kept_if_the_token_cannot_be_looked_up(
    app_url: str, superuser_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only the writer knows whether something may be stored: earlier, a stored change was answered with "nothing was changed"."""
    monkeypatch.setattr(wiring, "LOCK", short_deadline(0.1))

    async def run() -> None:
        async with opened(app_url) as ledger, administration(app_url, ledger.services.ledger.kek) as acts:
            text = await acts.issue_token("scim", "t", ("acme",), datetime.now(UTC) + timedelta(days=1))
            found = ledger.services.authentication.authenticate

            async def away(*asked: Any, fresh: bool = False, **more: Any) -> Token:
                if fresh:
                    raise psycopg.OperationalError("no answer in time")
                return await found(*asked, fresh=fresh, **more)

            monkeypatch.setattr(ledger.services.authentication, "authenticate", away)
            transport = httpx.ASGITransport(make_app(ledger.services))
            async with httpx.AsyncClient(transport=transport, base_url="http://ledger.test") as http:
                with holding(superuser_url, DIRECTORY.number, ledger.directory.id):
                    body, headers = {"schemas": [CORE_USER], "userName": "u"}, {"Authorization": f"Bearer {text}"}
                    answer = await http.post("/scim/acme/v2/Users", json=body, headers=headers)
            assert (answer.status_code, answer.json()["detail"]) == (503, writer._HELD)

    asyncio.run(run())


def test_a_write_whose_time_is_over_does_not_refuse_others_of_its_batch(app_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each write has its own deadline; and a writer that works for long does not mean that the database is away."""
    monkeypatch.setattr(writer, "SWEEP_S", 60.0)

    async def late(ledger: Ledger) -> None:
        patience.begin(writer.BEGIN_S - 0.5)
        await ledger.create_user("late")

    async def run() -> None:
        async with opened(app_url) as ledger:
            await ledger.create_user("before")
            with holding(app_url, LEDGER.number, 0, application_name=APPLICATION_NAME) as giant:
                first = asyncio.create_task(late(ledger))
                await asyncio.sleep(0)
                others = [ledger.create_user(f"u{n}") for n in range(30)]
                with pytest.raises(Unavailable, match="take long"):
                    await first
                giant.rollback()
                assert {(await other).seq for other in others} == set(range(3, 33))
            assert await ledger.services.readiness.broken_part() is None

    asyncio.run(run())


def test_an_opening_that_failed_earlier_says_nothing_about_now(app_url: str) -> None:
    refusing = asyncio.Event()
    tries: list[None] = []

    async def opening() -> Connection:
        tries.append(None)
        if len(tries) > 1:
            return await connect(app_url)
        await refusing.wait()
        raise psycopg.OperationalError("no route")

    async def run() -> None:
        link = writer.Link(opening)
        asked = asyncio.create_task(link.get())
        while not tries:
            await asyncio.sleep(0)
        asked.cancel()
        refusing.set()
        await asyncio.wait([asked])
        assert link._opening is not None
        await asyncio.wait([link._opening])
        await (await link.get()).execute("select 1")
        await link.close()

    asyncio.run(run())


def test_a_lost_connection_refuses_only_its_own_write(
    cluster: embedded.Cluster, app_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is too late to try that write again, but it is looked up.

    The database answers, so the waiting writes are carried out.
    """
    monkeypatch.setattr(writer, "BEGIN_S", writer.WRITE_SETTLED.seconds - 0.0001)  # every write is late at once
    monkeypatch.setattr(writer, "SWEEP_S", 60.0, raising=False)

    async def run() -> None:
        async with (
            proxied(cluster.socket_dir, tmp_path) as (proxy, host),
            opened(app_url, serve_through=make_conninfo(app_url, host=host)) as ledger,
        ):
            await ledger.create_user("before")
            proxy.lose_request = 1
            lost = ledger.create_user("lost")
            while proxy.lose_request:
                await asyncio.sleep(0)
            behind = ledger.create_user("behind")
            with pytest.raises(Unavailable):
                await lost
            assert (await behind).seq == 3

    asyncio.run(run())


def test_a_slow_shared_read_fails_alone(app_url: str, superuser_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Readers of a table that somebody has locked must wait; this does not mean that the database is away."""
    monkeypatch.setattr(wiring, "SHARED_STATEMENT", short_deadline(0.2), raising=False)
    monkeypatch.setattr(wiring, "SHARED_READ", short_deadline(0.6))
    monkeypatch.setattr(connections, "AWAY_DEADLINE", short_deadline(0.3))

    async def run() -> None:
        async with opened(app_url) as ledger, administration(app_url, ledger.services.ledger.kek) as acts:
            text = await acts.issue_token("scim", "t", ("acme",), datetime.now(UTC) + timedelta(days=1))
            with psycopg.connect(superuser_url) as stranger:
                stranger.execute("lock table ledger.tokens in access exclusive mode")
                with pytest.raises(psycopg.errors.QueryCanceled):
                    await ledger.services.authentication.authenticate(f"Bearer {text}")
                async with ledger.services.ledger.connection() as conn:  # other requests are not refused
                    await conn.execute("select 1")
                stranger.rollback()
            await ledger.services.authentication.authenticate(f"Bearer {text}")

    asyncio.run(run())


def test_long_work_survives_one_unanswered_question(app_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "LONG_LOOK", short_deadline(0.05))
    monkeypatch.setattr(connections, "PROBE", short_deadline(0.05))
    asked: list[str] = []
    at_work = connections._at_work

    async def lost_once(url: str, pid: int) -> Any:
        asked.append(url)
        return await at_work("host=/nowhere" if len(asked) == 1 else url, pid)

    monkeypatch.setattr(connections, "_at_work", lost_once)

    async def run() -> None:
        async with await connect_owner(app_url) as conn:
            await conn.execute("select pg_sleep(0.5)")

    asyncio.run(run())
    assert len(asked) > 1


def test_long_work_on_one_host_survives_another_host_that_does_not_answer(app_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, seconds in {"LONG_LOOK": 0.05, "PROBE": 0.05, "LONG_ASK": 0.2}.items():
        monkeypatch.setattr(connections, name, short_deadline(seconds))

    async def run() -> None:
        async with await connect_owner(app_url) as conn:
            assert isinstance(conn, connections.Bounded)
            with socket.create_server(("127.0.0.1", 0)) as silent:
                hosts = {"host": f"127.0.0.1,{conn.info.host}", "port": f"{silent.getsockname()[1]},{conn.info.port}"}
                conn.long_work = psycopg.conninfo.make_conninfo(app_url, **hosts)
                await conn.execute("select pg_sleep(1)")

    asyncio.run(run())


def test_a_cancelled_request_does_not_wait_for_a_server_that_does_not_answer(cluster: embedded.Cluster, app_url: str) -> None:
    """psycopg would ask the server to cancel the statement, and wait five seconds, twice."""
    name = psycopg.conninfo.conninfo_to_dict(app_url)["dbname"]

    async def run(url: str, silence: Any) -> None:
        conn = await connect(url)
        silence()
        began = time.monotonic()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await conn.execute("select 1")
        assert time.monotonic() - began < 1
        assert conn.closed
        await conn.close()

    with network(cluster) as way:
        asyncio.run(run(f"postgresql://ledger_app@127.0.0.1:{way.port}/{name}", way.silence))


def test_a_transaction_that_computes_sends_signs_of_life(
    app_url: str, superuser_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It holds the lock of its directory: without them another process would take it for a stopped process."""
    monkeypatch.setattr(transaction, "SIGN", short_deadline(0.02))
    computes, goes_on = threading.Event(), threading.Event()

    def slow(events: Any) -> Any:
        if len(events) > 1_000:
            computes.set()
            assert goes_on.wait(10)
        return current_state.project(events)

    asked = f"""select a.state_change from pg_stat_activity a join pg_locks l on l.pid = a.pid
               where l.locktype = 'advisory' and l.classid = {DIRECTORY.number} and l.granted and a.application_name = %s"""

    async def run() -> None:
        async with opened(app_url) as ledger:
            some = [await asyncio.gather(*(ledger.create_user(f"u{k}-{n}") for n in range(550))) for k in range(2)]
            users = [str(id_of(wrote)) for wrote in (*some[0], *some[1])]
            object.__setattr__(ledger.services.ledger.submit.__self__._transaction, "project", slow)  # type: ignore[attr-defined]
            group = ledger.create_group("large", tuple(users))
            await asyncio.to_thread(computes.wait, 10)
            seen = set[Any]()
            with psycopg.connect(superuser_url, autocommit=True) as watcher:
                async with asyncio.timeout(10):
                    while len(seen) < 3:
                        seen |= {row[0] for row in watcher.execute(asked, (APPLICATION_NAME,)).fetchall()}
                        await asyncio.sleep(0)
            goes_on.set()
            assert (await group).events > 1_000

    try:
        asyncio.run(run())
    finally:
        goes_on.set()


@pytest.mark.parametrize(
    ("role", "path", "body"),
    [
        ("scim", "/scim/acme/v2/Users", {"schemas": [CORE_USER], "userName": "u"}),
        ("admin", "/v1/tokens", {"role": "auditor", "name": "n"}),
    ],
)
def test_a_write_that_is_cut_at_the_end_of_the_process_is_answered_that_it_may_be_stored(
    app_url: str, superuser_url: str, role: str, path: str, body: dict[str, Any]
) -> None:
    """uvicorn cancels running requests and would answer 500, but it is not known whether the write was stored."""
    sent: list[Any] = []

    async def run() -> None:
        async with opened(app_url) as ledger, administration(app_url, ledger.services.ledger.kek) as acts:
            text = await acts.issue_token(role, "t", ("acme" if role == "scim" else "*",), datetime.now(UTC) + timedelta(days=1))
            app = make_app(ledger.services)
            with holding(superuser_url, LEDGER.number, 0):
                async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://ledger.test") as http:
                    headers = {"Authorization": f"Bearer {text}"}
                    asking = asyncio.create_task(http.post(path, json=body, headers=headers))
                    with psycopg.connect(superuser_url, autocommit=True) as watcher:
                        async with asyncio.timeout(10):
                            while not watcher.execute(
                                f"select 1 from pg_locks where classid = {LEDGER.number} and not granted"
                            ).fetchone():
                                await asyncio.sleep(0)
                    asking.cancel()
                    sent.append(await asking)

    asyncio.run(run())
    assert sent[0].status_code == 503
    assert sent[0].headers["Retry-After"]
    assert "may or may not be stored" in sent[0].json()["detail"]


def test_a_request_whose_budget_is_used_up_does_not_wait_again(app_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Statements and connections of the pool share the budget: each wait has what the earlier ones have left."""
    monkeypatch.setattr(patience, "LEAST_S", 0.2)

    async def run() -> None:
        pool = Pool(app_url, size=1)
        await pool.open()
        patience.begin(0.6)
        began = time.monotonic()
        async with pool.connection() as conn:
            await conn.execute("select pg_sleep(0.4)")
            with pytest.raises(psycopg.OperationalError):
                await conn.execute("select pg_sleep(60)")
        with pytest.raises(psycopg.OperationalError):
            async with pool.connection() as conn:
                await conn.execute("select pg_sleep(60)")
        assert time.monotonic() - began < 2, "each wait alone would have had seconds"
        await pool.close()

    asyncio.run(run())


def test_the_time_of_a_lost_giant_commit_counts_from_the_last_sign_of_life_of_the_server(app_url: str) -> None:
    """The commit may have run for minutes: looking it up, or writing it again, has the full time."""

    async def run() -> None:
        now = asyncio.get_running_loop().time()
        for long_work in (True, False):
            link = writer.Link(partial(connect, app_url, long_work=long_work))
            await (await link.get()).execute("select 1")
            attempt = writer._Attempt(link, [], now - 60, wait_for_locks=True)
            attempt.begin_anew()
            assert attempt.late is not long_work
            await link.close()

    asyncio.run(run())


def test_a_connection_is_opened_to_the_end_for_the_next_request(app_url: str) -> None:
    """The first hosts of the URL do not answer: opening takes longer than any shared read may wait."""
    tries: list[Any] = []
    last_host = asyncio.Event()

    async def slowly() -> Any:
        tries.append(None)
        await last_host.wait()
        return await connect(app_url)

    async def run() -> None:
        link = writer.Link(slowly)
        for _ in range(3):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.02):
                    await link.get()
        last_host.set()
        conn = await link.get()
        assert len(tries) == 1
        await link.close()
        assert conn.closed
        last_host.clear()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.02):
                await link.get()
        await link.close()
        last_host.set()
        await (await link.get()).execute("select 1")
        assert len(tries) == 3, "a connection that was closed while it opened is opened again"
        await link.close()

    asyncio.run(run())
