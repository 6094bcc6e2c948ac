"""The server is lost for good and its synchronous standby takes over; the URL names both: nothing acknowledged is lost."""

import threading
import time
from contextlib import closing
from pathlib import Path

import httpx

from tests.acceptance.conftest import Service, until
from tests.acceptance.network import Network
from tests.drills.database import Database

USER = "urn:ietf:params:scim:schemas:core:2.0:User"
WRITERS = 6
BACK_S = 15.0


def test_acknowledged_writes_survive_a_failover(tmp_path: Path) -> None:
    database = Database(tmp_path / "database")
    database.start()
    with closing(Network(database.socket)) as wire:
        database.stand_by(wire.port)
        urls = {
            "LEDGER_DATABASE_URL": database.url_of_both("ledger_app"),
            "LEDGER_MIGRATE_URL": database.url_of_both("ledger_owner"),
        }
        service = Service(tmp_path / "ledger", LEDGER_DELIVERY_WORKERS="0", **urls).start()
        try:
            _fail_over(database, service)
        finally:
            assert service.stop() == 0
            database.stop()


def _fail_over(database: Database, service: Service) -> None:
    acknowledged: list[tuple[float, str]] = []
    statuses: set[int] = set()
    over = threading.Event()

    def write(writer: int) -> None:
        with service.client("scim") as client:
            for n in range(100_000):
                if over.is_set():
                    return
                name = f"w{writer}-{n}"
                answer = client.post(service.scim + "/Users", json={"schemas": [USER], "userName": name})
                statuses.add(answer.status_code)
                if answer.status_code == 201:
                    acknowledged.append((time.monotonic(), name))

    writers = [threading.Thread(target=write, args=(writer,)) for writer in range(WRITERS)]
    for each in writers:
        each.start()
    until(lambda: len(acknowledged) > 100, BACK_S)
    killed = time.monotonic()
    database.fail_over()
    until(lambda: acknowledged[-1][0] > killed + 1, BACK_S)
    over.set()
    for each in writers:
        each.join()
    assert statuses <= {201, 503}
    assert {name for _, name in acknowledged} <= service.user_names()
    until(lambda: httpx.get(service.base + "/readyz").status_code == 200, BACK_S)
