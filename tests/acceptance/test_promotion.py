"""A standby that lagged is promoted under a running service: the end of the log is lost, and every reader is told."""

import time
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import httpx

from tests.acceptance.conftest import Service, until
from tests.acceptance.network import Network
from tests.acceptance.receiver import Receiver, receiver
from tests.acceptance.test_consumers import Operator
from tests.acceptance.test_stream import Stream
from tests.drills.database import Database

LOST, NEW = 10, 15
TOLD_S = 5.0


def ready(service: Service) -> bool:
    return httpx.get(service.base + "/readyz").status_code == 200


def test_an_asynchronous_standby_is_promoted(tmp_path: Path) -> None:
    database = Database(tmp_path / "database")
    database.start()
    with ExitStack() as stack:
        stack.callback(database.stop)
        wire = stack.enter_context(closing(Network(database.socket)))
        database.stand_by(wire.port)
        urls = {
            "LEDGER_DATABASE_URL": database.url_of_both("ledger_app"),
            "LEDGER_MIGRATE_URL": database.url_of_both("ledger_owner"),
        }
        service = Service(tmp_path / "ledger", LEDGER_WEBHOOK_ALLOW="127.0.0.0/8", **urls).start()
        stack.callback(service.stop)
        hook = stack.enter_context(receiver())
        people = Operator(service)
        for client in people.clients:
            stack.callback(client.close)
        stream = Stream(service)
        stack.callback(stream.close)
        _promoted(database, wire, service, people, hook, stream)


def _promoted(database: Database, wire: Network, service: Service, people: Operator, hook: Receiver, stream: Stream) -> None:
    pushed = people.consumer("pushed", mode="webhook", url=hook.url, types=["user.*"], ordering="directory")
    pulled = people.consumer("pulled", types=["user.*"])
    for _ in range(5):
        people.user()
    hook.wait(lambda: len(hook.ids) == 5)
    database.wait_for_nobody()
    wire.silence()
    lost = [people.user() for _ in range(LOST)]
    hook.wait(lambda: len(hook.ids) == 5 + LOST)
    stream.wait(lambda: {e["subject"]["id"] for e in stream.events} >= set(lost))
    page = people.app.get(f"{service.base}/v1/consumers/{pulled}/events").json()
    cursor = page["list_metadata"]["after"]
    assert people.app.post(f"{service.base}/v1/consumers/{pulled}/ack", json={"through": cursor}).status_code == 200
    feed = people.app.get(f"{service.base}/v1/events", params={"limit": 1000}).json()["list_metadata"]["after"]
    gone = hook.ids[5:]

    database.fail_over()
    until(lambda: ready(service), 15)
    back = time.monotonic()
    new = [_created(people) for _ in range(NEW)]
    hook.wait(lambda: [e["subject"]["id"] for e in hook.accepted[-NEW:]] == new, 60)
    stream.wait(lambda: stream.ended, TOLD_S)
    event, problem = stream.blocks[-1][1:]
    assert event == "error"
    assert problem["code"] in {"cursor_ahead", "cursor_forked"}
    for answer in (
        people.app.get(f"{service.base}/v1/events", params={"after": feed}),
        people.app.post(f"{service.base}/v1/consumers/{pulled}/ack", json={"through": cursor}),
    ):
        assert answer.status_code == 409, answer.text
        assert answer.json()["code"] in {"cursor_ahead", "cursor_forked", "place_moved"}
    status = _status(people, pushed)
    until(lambda: _status(people, pushed)["forked"] is not None and _status(people, pulled)["forked"] is not None, TOLD_S)
    assert time.monotonic() - back < 60
    status = _status(people, pushed)
    assert status["forked"]["gone"] == gone
    assert status["forked"]["gone_count"] == LOST
    audit = people.http.get(f"{service.base}/v1/consumers/{pushed}/audit").json()
    assert set(gone) <= set(str(audit).replace("'", " ").split()), "the audit lists the acknowledged events that are lost"
    told = people.admin.get(f"{service.base}/v1/events", params={"types": "consumer.forked", "directory": "_system"}).json()[
        "data"
    ]
    assert {event["data"]["object"]["name"] for event in told} == {pushed, pulled}


def _created(people: Operator) -> str:
    """Create a user, as soon as the service accepts writes again."""
    made: list[str] = []

    def tried() -> bool:
        try:
            made.append(people.user())
        except AssertionError:
            return False
        return True

    until(tried, 15)
    return made[0]


def _status(people: Operator, name: str) -> dict[str, Any]:
    return people.http.get(f"{people.service.base}/v1/consumers/{name}").json()
