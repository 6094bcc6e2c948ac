"""With Debian's pgbouncer: session mode works without configuration, transaction mode with a direct address, and without one it
is refused.
"""

import asyncio
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import psycopg
import pytest

from database import connections
from database.deadlines import Deadline
from runtime import embedded
from runtime.exits import USAGE
from tests.acceptance.conftest import Service, free_port
from tests.acceptance.network import network
from tests.debian import program

USER = "urn:ietf:params:scim:schemas:core:2.0:User"


@pytest.fixture(scope="module")
def pgbouncer() -> str:
    return program("pgbouncer", "pgbouncer")


@contextmanager
def pooling(pgbouncer: str, cluster: embedded.Cluster, mode: str) -> Iterator[int]:
    """pgbouncer in front of the test's cluster; returns its port.

    It does not run as root, so it gets its own directory and its own login.
    """
    port = free_port()
    with network(cluster) as way, tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        (place / "users").write_text('"ledger_app" ""\n"ledger_owner" ""\n')
        (place / "pgbouncer.ini").write_text(
            f"[databases]\n* = host=127.0.0.1 port={way.port}\n"
            f"[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nauth_type = trust\nauth_file = {place}/users\n"
            f"pool_mode = {mode}\nunix_socket_dir =\nmax_client_conn = 200\ndefault_pool_size = 60\nlogfile = {place}/log\n"
        )
        account = "nobody" if os.geteuid() == 0 else None
        if account:
            for path in (place, *place.iterdir()):
                shutil.chown(path, account)
        process = subprocess.Popen([pgbouncer, "-q", str(place / "pgbouncer.ini")], user=account, stderr=subprocess.DEVNULL)
        try:
            yield _listening(port)
        finally:
            process.kill()
            process.wait()


def _listening(port: int) -> int:
    until = time.monotonic() + 10
    while True:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
        except ConnectionRefusedError:
            assert time.monotonic() < until
        else:
            return port


def urls(port: int, app_url: str) -> dict[str, str]:
    name = psycopg.conninfo.conninfo_to_dict(app_url)["dbname"]
    return {
        "LEDGER_DATABASE_URL": f"postgresql://ledger_app@127.0.0.1:{port}/{name}",
        "LEDGER_MIGRATE_URL": f"postgresql://ledger_owner@127.0.0.1:{port}/{name}",
    }


def works(service: Service) -> None:
    """Write, read your own write, and read through every kind of connection."""
    with service.client("scim") as scim, service.client("consumer") as reader:
        made = [scim.post(service.scim + "/Users", json={"schemas": [USER], "userName": f"u{n}"}) for n in range(20)]
        assert {answer.status_code for answer in made} == {201}
        assert scim.get(service.scim + '/Users?filter=userName eq "U7"').json()["totalResults"] == 1
        assert scim.get(service.scim + "/Users?sortBy=userName&count=5").json()["totalResults"] == 20
        group = {"schemas": [USER.replace("User", "Group")], "displayName": "g", "members": [{"value": made[0].json()["id"]}]}
        assert scim.post(service.scim + "/Groups", json=group).status_code == 201
        assert scim.delete(made[0].headers["Location"]).status_code == 204
        events = reader.get(service.base + "/v1/events?directory=acme&limit=1000").json()["data"]
        assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
    with service.client("admin") as admin:
        assert admin.put(service.base + "/v1/consumers/hr", json={"start": "beginning"}).status_code == 201
        page = admin.get(service.base + "/v1/consumers/hr/events?limit=5").json()
        assert (
            admin.post(service.base + "/v1/consumers/hr/ack", json={"through": page["list_metadata"]["after"]}).status_code == 200
        )
        assert admin.get(service.base + "/v1/audit/acme/population?as_of=seq:head").status_code == 200
    assert httpx.get(service.base + "/readyz").status_code == 200


def test_long_work_through_a_pooler(
    pgbouncer: str, cluster: embedded.Cluster, app_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The question whether a statement still runs is about the session of the server itself, not about the number that the pooler
    gave.
    """
    monkeypatch.setattr(connections, "LONG_LOOK", Deadline(0.1, "a look", "the end"))
    monkeypatch.setattr(connections, "PROBE", Deadline(0.1, "a look", "the end"))

    async def run(url: str) -> None:
        async with await connections.connect_owner(url) as conn:
            await conn.execute("select pg_sleep(1)")

    with pooling(pgbouncer, cluster, "session") as port:
        asyncio.run(run(urls(port, app_url)["LEDGER_MIGRATE_URL"]))


def test_session_mode(pgbouncer: str, cluster: embedded.Cluster, app_url: str, tmp_path: Path) -> None:
    with pooling(pgbouncer, cluster, "session") as port:
        service = Service(tmp_path / "ledger", **urls(port, app_url)).start()
        try:
            works(service)
        finally:
            assert service.stop() == 0


def test_transaction_mode_with_a_direct_address(pgbouncer: str, cluster: embedded.Cluster, app_url: str, tmp_path: Path) -> None:
    owner_url = psycopg.conninfo.make_conninfo(app_url, user="ledger_owner")
    with pooling(pgbouncer, cluster, "transaction") as port:
        past = {"LEDGER_DIRECT_URL": app_url, "LEDGER_MIGRATE_URL": owner_url}
        service = Service(tmp_path / "ledger", **urls(port, app_url) | past).start()
        try:
            works(service)
        finally:
            assert service.stop() == 0


def test_transaction_mode_alone_is_refused(pgbouncer: str, cluster: embedded.Cluster, app_url: str, tmp_path: Path) -> None:
    with pooling(pgbouncer, cluster, "transaction") as port:
        service = Service(tmp_path / "ledger", **urls(port, app_url))
        with pytest.raises(AssertionError, match=f"ended with {USAGE}"):
            service.start()
    assert "LEDGER_DIRECT_URL" in service.log.read_text()
    assert "Traceback" not in service.log.read_text()
