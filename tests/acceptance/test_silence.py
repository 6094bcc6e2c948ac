"""Machines that stop answering instead of failing: each request is answered in time, and everything goes on by itself when the
machine does.
"""

import contextlib
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import httpx
import psycopg
import pytest
from psycopg import sql

from database.deadlines import ANSWER
from database.locks import DIRECTORY
from runtime import embedded
from runtime.exits import UNREACHABLE
from tests.acceptance.conftest import Service, until
from tests.acceptance.network import Network, network
from tests.warm import spawned

USER = "urn:ietf:params:scim:schemas:core:2.0:User"
BACK_S = 15.0
NEIGHBOUR_S = 12.0


def urls(way: Network, app_url: str) -> dict[str, str]:
    name = psycopg.conninfo.conninfo_to_dict(app_url)["dbname"]
    return {
        "LEDGER_DATABASE_URL": f"postgresql://ledger_app@127.0.0.1:{way.port}/{name}",
        "LEDGER_MIGRATE_URL": f"postgresql://ledger_owner@127.0.0.1:{way.port}/{name}",
    }


@contextmanager
def serving(way: Network, app_url: str, tmp_path: Path, name: str = "ledger", **environment: str) -> Iterator[Service]:
    service = Service(tmp_path / name, **urls(way, app_url), **environment).start()
    try:
        yield service
    finally:
        assert service.process is not None
        if service.process.poll() is None:
            way.restore()
            service.stop()


def create(client: httpx.Client, service: Service, name: str) -> httpx.Response:
    return client.post(service.scim + "/Users", json={"schemas": [USER], "userName": name})


def asked(service: Service) -> dict[str, Callable[[], httpx.Response]]:
    """Requests of every kind, each on its own connection."""

    def get(role: str, url: str) -> Callable[[], httpx.Response]:
        def ask() -> httpx.Response:
            with service.client(role) as client:
                return client.get(url)

        return ask

    def post(n: int) -> Callable[[], httpx.Response]:
        def ask() -> httpx.Response:
            with service.client("scim") as client:
                return create(client, service, f"silent{n}")

        return ask

    base = service.base
    return {
        **{f"create{n}": post(n) for n in range(8)},
        "list": get("scim", service.scim + "/Users"), "by name": get("scim", service.scim + '/Users?filter=userName eq "u"'),
        "feed": get("consumer", f"{base}/v1/events"), "poll": get("consumer", f"{base}/v1/events?wait=30"),
        "audit": get("auditor", f"{base}/v1/audit/acme/population?as_of=seq:head"), "consumers": get("operator", f"{base}/v1/consumers"),
        "ready": get("operator", f"{base}/readyz"),
    }  # fmt: skip


def timed(ask: Callable[[], httpx.Response]) -> tuple[httpx.Response, float]:
    began = time.monotonic()
    answer = ask()
    return answer, time.monotonic() - began


@pytest.mark.long
def test_a_network_that_falls_silent(cluster: embedded.Cluster, app_url: str, tmp_path: Path) -> None:
    """It acknowledges every byte, so no keepalive can notice it.

    It happens twice, which shows that the first one healed; at last a SIGTERM comes meanwhile.
    """
    with network(cluster) as way, serving(way, app_url, tmp_path) as service, service.client("scim") as client:
        assert create(client, service, "u").status_code == 201
        for round_ in range(2):
            way.silence()
            questions = asked(service)
            with ThreadPoolExecutor(len(questions)) as pool:
                answers = dict(zip(questions, pool.map(timed, questions.values()), strict=True))
            said = answers.pop("ready")  # it is cached for half a second, so it may be from before
            assert said[1] < ANSWER.seconds
            until(lambda: httpx.get(service.base + "/readyz", timeout=30).json().get("reason") == "no_answer", ANSWER.seconds)
            for what, (answer, seconds) in answers.items():
                assert answer.status_code == 503, (what, answer.text)
                assert seconds < ANSWER.seconds, what
                assert answer.headers["Retry-After"], what
            assert httpx.get(service.base + "/healthz").status_code == 200
            way.restore()
            until(lambda: httpx.get(service.base + "/readyz").status_code == 200, BACK_S)
            until(lambda n=round_: create(client, service, f"after{n}").status_code in {201, 409}, BACK_S)
        way.silence()
        began = time.monotonic()
        assert service.stop() == 0
        assert time.monotonic() - began < 20


def test_another_process_that_is_stopped_within_a_transaction(cluster: embedded.Cluster, app_url: str, tmp_path: Path) -> None:
    """It holds the lock of the directory: the other process ends its session and writes. When it continues, it does no harm."""
    with network(cluster) as way, network(cluster) as slow, serving(way, app_url, tmp_path) as service:
        kek = {"LEDGER_KEK_FILE": str(service.data_dir / "kek"), "LEDGER_DELIVERY_WORKERS": "0"}
        with serving(slow, app_url, tmp_path, "neighbour", **kek) as neighbour, service.client("scim") as client:
            assert create(client, service, "before").status_code == 201
            slow.lose_answers_to(b"pg_try_advisory_xact_lock")  # its writer prepares this statement with its first batch
            answers: list[httpx.Response] = []

            def write() -> None:
                url = f"{neighbour.base}/scim/acme/v2/Users"
                answers.append(client.post(url, json={"schemas": [USER], "userName": "late"}, timeout=60))

            writing = threading.Thread(target=write)
            writing.start()
            with psycopg.connect(app_url, autocommit=True) as watcher:
                held = f"select count(*) from pg_locks where locktype = 'advisory' and granted and classid = {DIRECTORY.number}"
                until(lambda: watcher.execute(held).fetchone() != (0,), 3)
            assert neighbour.process is not None
            os.kill(neighbour.process.pid, signal.SIGSTOP)
            with service.client("scim") as other:
                took = until(lambda: create(other, service, "meanwhile").status_code == 201, NEIGHBOUR_S)
                assert took > 1, "the lock was not held, so the test has tested nothing"
                until(
                    lambda: "frozen_session_ended" in service.log.read_text()
                )  # written when the end is known, after the lock is free
                slow.restore()
                os.kill(neighbour.process.pid, signal.SIGCONT)
                writing.join()
                found = other.get(service.scim + '/Users?filter=userName eq "late"').json()["totalResults"]
            assert (answers[0].status_code, found) in {(201, 1), (503, 0), (503, 1)}
            until(lambda: httpx.get(neighbour.base + "/readyz").status_code == 200, BACK_S)


def test_answers_that_get_lost_do_not_keep_a_client_waiting(cluster: embedded.Cluster, app_url: str, tmp_path: Path) -> None:
    """Each new connection works until it writes: all attempts together stay within the deadline."""
    with network(cluster) as way, serving(way, app_url, tmp_path) as service, service.client("scim") as client:
        way.lose_answers_to(b"pg_try_advisory_xact_lock")
        answer, seconds = timed(lambda: create(client, service, "lost"))
        assert answer.status_code == 503
        assert seconds < ANSWER.seconds
        way.restore()
        until(lambda: create(client, service, "found").status_code == 201, BACK_S)


@pytest.mark.long
def test_a_stopped_worker_is_replaced(cluster: embedded.Cluster, app_url: str, tmp_path: Path) -> None:
    """After SIGSTOP it keeps its sockets. New connections go to other workers meanwhile; its own end when it is replaced."""
    with (
        network(cluster) as way,
        serving(way, app_url, tmp_path, LEDGER_WORKERS="2") as service,
        service.client("scim") as client,
    ):
        assert create(client, service, "before").status_code == 201
        stopped = members_of(service)[0]
        # a worker that still starts has a longer deadline
        until(lambda: f'"pid":{stopped},"event":"worker_started"' in service.log.read_text())
        os.kill(stopped, signal.SIGSTOP)
        until(lambda: one_more(service), NEIGHBOUR_S)
        until(lambda: "worker_silent" in service.log.read_text(), 25)
        until(lambda: stopped not in members_of(service), 5)
        until(lambda: one_more(service), NEIGHBOUR_S)


def members_of(service: Service) -> list[int]:
    """The processes of a service in the order of their start: the serving ones come first."""
    assert service.process is not None
    return spawned(service.process.pid)


def one_more(service: Service) -> bool:
    """Send a write on a new connection."""
    with (
        service.client("scim") as client,
        contextlib.suppress(httpx.TimeoutException, httpx.NetworkError, httpx.RemoteProtocolError),
    ):
        return (
            client.post(service.scim + "/Users", json={"schemas": [USER], "userName": str(uuid4())}, timeout=3).status_code == 201
        )
    return False


@pytest.mark.parametrize("silent", [True, False])
def test_a_start_without_an_answer_of_the_database_ends_soon(tmp_path: Path, silent: bool) -> None:
    with socket.create_server(("127.0.0.1", 0)) as door:
        port = door.getsockname()[1]
        if not silent:
            door.close()
        service = Service(tmp_path / "ledger", LEDGER_DATABASE_URL=f"postgresql://app:secret@127.0.0.1:{port}/ledger")
        began = time.monotonic()
        with pytest.raises(AssertionError, match=f"ended with {UNREACHABLE}"):
            service.start()
        assert time.monotonic() - began < ANSWER.seconds
    said = service.log.read_text()
    assert f"127.0.0.1:{port}" in said
    assert ("no answer" if silent else "connection refused") in said
    assert "secret" not in said
    assert "Traceback" not in said


def test_a_start_waits_for_a_database_that_is_starting(cluster: embedded.Cluster, app_url: str, tmp_path: Path) -> None:
    with network(cluster) as way:
        way.silence()
        threading.Timer(1, way.restore).start()
        with serving(way, app_url, tmp_path, LEDGER_DATABASE_WAIT_S="30") as service:
            assert httpx.get(service.base + "/readyz").status_code == 200


def test_a_start_with_a_read_only_database_says_so(
    cluster: embedded.Cluster, superuser_url: str, app_url: str, tmp_path: Path
) -> None:
    with psycopg.connect(superuser_url, autocommit=True) as conn:
        name = sql.Identifier(conn.info.dbname)
        conn.execute(sql.SQL("alter database {} set default_transaction_read_only = on").format(name))
    with network(cluster) as way:
        service = Service(tmp_path / "ledger", **urls(way, app_url))
        with pytest.raises(AssertionError, match=f"ended with {UNREACHABLE}"):
            service.start()
        assert "read-only" in service.log.read_text()
        assert "Traceback" not in service.log.read_text()
