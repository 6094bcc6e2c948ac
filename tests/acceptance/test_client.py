"""The client in Python (clients/python) against the running service, and without anything of the server."""

import ast
import importlib.metadata
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
from eventsourcing.application import Application
from eventsourcing.persistence import OperationalError, PersistenceError, ProgrammingError
from scim_ledger_client import (
    Delivery,
    ForbiddenError,
    IncompleteSnapshotError,
    Ledger,
    MissingError,
    PlaceMovedError,
    Retries,
    SignatureError,
    UnauthorizedError,
    UnreachableError,
    Webhook,
)
from scim_ledger_client.access import access_of, apply
from scim_ledger_client.recorder import HttpLedgerRecorder, LedgerEvent

from tests.acceptance.conftest import ROOT, Service, free_port
from tests.acceptance.test_consumers import Operator, operator, pushing
from tests.event_checks import check

__all__ = ["operator", "pushing"]

CLIENT = ROOT / "clients" / "python"
MODULES = sorted((CLIENT / "scim_ledger_client").glob("*.py"))


@pytest.fixture
def ledger(pushing: Service) -> Iterator[Ledger]:
    with reading(pushing) as client:
        yield client


def reading(service: Service, role: str = "consumer", **options: Any) -> Ledger:
    return Ledger(service.base, service.first_run["tokens"][role], transport=httpx.HTTPTransport(), **options)


def effective(operator: Operator, group: str) -> set[str]:
    """The members of a group with access, as the audit answers."""
    with operator.service.client("auditor") as auditor:
        url = f"{operator.service.base}/v1/audit/acme/groups/{group}/members?as_of=seq:head&effective=true"
        return {member["id"] for member in auditor.get(url).json()["data"]}


def test_a_consumer_processes_each_event_and_its_place_moves(operator: Operator, ledger: Ledger) -> None:
    name = operator.consumer(types=["user.*"])
    users = [operator.user() for _ in range(5)]
    seen: list[str] = []
    consumer = ledger.consumer(name)
    consumer.process(lambda events: seen.extend(event["subject"]["id"] for event in events), limit=2, once=True)
    assert seen == users
    assert operator.when(name, lambda status: status["lag_events"] == 0)
    operator.deactivate(users[0])
    page = consumer.pull()
    assert [event["type"] for event in page.events] == ["user.deactivated"]
    for event in page.events:
        check(dict(event))
        if event["type"] == "user.deactivated" and "object" in event["data"]:
            assert event["data"]["object"]["active"] is False
    operator.post(f"consumers/{name}/seek", to="now", reason="to see that the page is refused")
    with pytest.raises(PlaceMovedError):
        consumer.acknowledge(page)
    consumer.acknowledge(consumer.pull())


def test_the_feed_is_followed_from_a_snapshot_without_a_gap(operator: Operator, ledger: Ledger) -> None:
    leaver, rehired, stays = (operator.user() for _ in range(3))
    group = operator.group(leaver, rehired, stays)
    operator.deactivate(rehired)
    with ledger.snapshot("acme") as snapshot:
        lines = list(snapshot)
    access = access_of(snapshot.directory, lines)
    assert {member for _, of, member in access if of == group} == {leaver, stays}
    assert {line["id"] for line in lines if line["object"] == "user"} >= {leaver, rehired, stays}
    operator.deactivate(leaver)
    operator.patch("Users", rehired, {"op": "replace", "value": {"active": True}})
    ended = operator.group(stays)
    assert operator.idp.delete(f"{operator.service.scim}/Groups/{ended}").status_code == 204
    seqs = [snapshot.seq]
    for page in ledger.pages(snapshot.after, directory="acme"):
        for event in page.events:
            check(dict(event))
            seqs.append(event["seq"])
            apply(access, event)
            apply(access, event)  # a duplicate
    assert seqs == list(range(snapshot.seq, seqs[-1] + 1)), "without a gap"
    assert {member for _, of, member in access if of == group} == {rehired, stays} == effective(operator, group)
    assert not [edge for edge in access if edge[1] == ended]
    assert ledger.event(event["id"]) == event


def test_membership_events_carry_names_on_request(operator: Operator, ledger: Ledger) -> None:
    name = operator.consumer(types=["group.member_added"])
    cursor = ledger.page(start="now", directory="acme").after
    group = operator.group(operator.user(externalId="00u1"))
    (event,) = ledger.consumer(name).pull(expand=["member", "group"]).events
    assert event["type"] == "group.member_added"
    assert (event["data"]["group"]["id"], event["data"]["member"].get("external_id")) == (group, "00u1")
    assert event["data"]["group"].get("display_name", "").startswith("g")
    ways = [
        [one for page in ledger.pages(cursor, directory="acme", expand=["member"]) for one in page.events][-1],
        ledger.event(event["id"], expand=["member"]),
        next(
            one.event
            for one in ledger.stream(cursor, directory="acme", types=["group.member_added"], expand=["member"])
            if one.event
        ),
    ]
    for found in ways:
        assert found["type"] == "group.member_added"
        assert (found["data"]["member"].get("external_id"), found["data"]["group"].get("display_name")) == ("00u1", None)


def test_an_incomplete_snapshot_is_noticed(operator: Operator, ledger: Ledger) -> None:
    operator.user()
    with ledger.snapshot("acme") as snapshot:
        whole = snapshot._lines
        snapshot._lines = iter(list(whole)[:-1])
        with pytest.raises(IncompleteSnapshotError):
            list(snapshot)


def test_following_waits_for_events(operator: Operator, ledger: Ledger) -> None:
    now = ledger.page(start="now", directory="acme", types=["user.created"])
    following = ledger.follow(now.after, directory="acme", types=["user.created"])
    first: list[str] = []
    arrived = threading.Event()

    def read() -> None:
        for page in following:
            first.extend(event["subject"]["id"] for event in page.events)
            if first:
                arrived.set()
                return

    reader = threading.Thread(target=read)
    reader.start()
    user = operator.user()
    assert arrived.wait(30)
    reader.join()
    assert first == [user]


def test_a_stream_resumes_after_a_restart_without_a_gap_or_repetition(make_service) -> None:
    own = make_service()
    with own.client("scim") as idp, reading(own, retries=Retries(attempts=100, longest_s=1.0)) as client:

        def create(number: int) -> None:
            body = {"schemas": ["urn:ietf:params:scim:schemas:core:2.0:User"], "userName": f"streamed \u2028 {number}"}
            assert idp.post(own.scim + "/Users", json=body).status_code == 201

        stream = client.stream(directory="acme", types=["user.*"])
        create(0)
        found = [next(one for one in stream if one.event is not None)]
        assert own.stop() == 0
        own.start()
        for number in range(1, 4):
            create(number)
        while len(found) < 4:
            one = next(stream)
            if one.event is not None:
                check(dict(one.event))
                found.append(one)
        names = [one.event["data"]["object"]["userName"] for one in found]
        assert names == [f"streamed \u2028 {number}" for number in range(4)]
        with own.client("admin") as admin:
            mine = next(token for token in admin.get(own.base + "/v1/tokens?role=consumer").json()["data"])
            assert admin.request("DELETE", f"{own.base}/v1/tokens/{mine['id']}", json={"reason": "a test"}).is_success
        with pytest.raises(UnauthorizedError):
            list(stream)


class _Hook(HTTPServer):
    """An application that receives webhooks with the client."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Requests)
        self.webhook: Webhook | None = None
        self.deliveries: list[Delivery] = []
        self.refused = 0
        self.changed = threading.Condition()

    def wait(self, count: int) -> None:
        with self.changed:
            assert self.changed.wait_for(lambda: len(self.deliveries) >= count, 60)


class _Requests(BaseHTTPRequestHandler):
    server: _Hook

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        assert self.server.webhook is not None
        status = 204
        with self.server.changed:
            try:
                self.server.deliveries.append(self.server.webhook.receive(self.headers, body))
            except SignatureError:
                status = 401
                self.server.refused += 1
            self.server.changed.notify_all()
        self.send_response(status)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


def test_a_webhook_is_verified_also_while_its_secret_is_rotated(operator: Operator) -> None:
    hook = _Hook()
    thread = threading.Thread(target=hook.serve_forever)
    thread.start()
    try:
        name = operator.consumer(
            mode="webhook", url=f"http://127.0.0.1:{hook.server_port}/", types=["user.created"], retry_schedule=[0] * 50
        )
        old = operator.secret
        hook.webhook = Webhook(old)
        assert operator.post(f"consumers/{name}/ping").json()["ok"]
        user = operator.user()
        hook.wait(2)
        ping, delivery = hook.deliveries
        assert (ping.events, delivery.attempt, delivery.replay) == ([], 1, None)
        assert [event["subject"]["id"] for event in delivery.events] == [user]
        assert delivery.id == delivery.events[0]["id"]
        new = operator.post(f"consumers/{name}/rotate-secret", overlap_seconds=3600).json()["secret"]
        for secrets in ((old,), (old, new), (new,)):  # both sign, so each state of the receiver accepts
            hook.webhook = Webhook(*secrets)
            before = len(hook.deliveries)
            operator.when(name, lambda status: status["lag_events"] == 0)
            operator.user()
            hook.wait(before + 1)
    finally:
        hook.shutdown()
        thread.join()
        hook.server_close()


def test_errors_of_the_service_have_classes(operator: Operator, ledger: Ledger, pushing: Service) -> None:
    with pytest.raises(MissingError):
        ledger.consumer("nobody").pull()
    with pytest.raises(ForbiddenError), ledger.snapshot("elsewhere"):
        pass
    with Ledger(pushing.base, "sl_consumer_0_x", transport=httpx.HTTPTransport()) as stranger, pytest.raises(UnauthorizedError):
        stranger.page()
    waits: list[float] = []
    gone = Ledger(
        f"http://127.0.0.1:{free_port()}", "x", transport=httpx.HTTPTransport(), retries=Retries(attempts=3), sleep=waits.append
    )
    with gone, pytest.raises(UnreachableError):
        gone.page()
    assert len(waits) == 2


# -- the eventsourcing library ----------------------------------------------


def recorder_of(service: Service) -> HttpLedgerRecorder:
    return HttpLedgerRecorder(service.base, service.first_run["tokens"]["consumer"])


def test_the_recorder_reads_as_the_feed_does(operator: Operator, pushing: Service, ledger: Ledger) -> None:
    user = operator.user()
    operator.title(user, "first")
    operator.deactivate(user)
    recorder = recorder_of(pushing)
    try:
        every = [event for page in ledger.pages() for event in page.events]
        found = recorder.select_notifications(None, 10_000)
        assert [(n.id, str(n.originator_id), n.originator_version, n.topic) for n in found] == [
            (event["position"], event["subject"]["id"], event["rv"], event["type"]) for event in every
        ]
        assert [json.loads(n.state) for n in found] == every
        last = found[-1].id
        assert [n.id for n in recorder.select_notifications(last, 5)] == [last]
        assert recorder.select_notifications(last, 5, inclusive_of_start=False) == []
        assert recorder.select_notifications(last + 1_000_000, 5) == []
        assert [n.id for n in recorder.select_notifications(1, 3)] == [n.id for n in found[:3]]
        some = recorder.select_notifications(1, 10_000, stop=last - 1, topics=["user.created", "user.deactivated"])
        assert [n.id for n in some] == [n.id for n in found if n.id < last and n.topic in {"user.created", "user.deactivated"}]
        head = recorder.max_notification_id()
        assert head is not None
        assert head >= last
        stream = recorder.select_events(user)
        assert [(e.originator_version, e.topic) for e in stream] == [
            (1, "user.created"),
            (2, "user.updated"),
            (3, "user.deactivated"),
        ]
        assert [e.originator_version for e in recorder.select_events(user, gt=1, desc=True, limit=1)] == [3]
        assert [e.originator_version for e in recorder.select_events(user, lte=2)] == [1, 2]
        with pytest.raises(ProgrammingError, match="SCIM request"):
            recorder.insert_events(stream)
        with pytest.raises(PersistenceError, match="invalid_types"):
            recorder.select_notifications(1, 5, topics=["user.renamed"])
    finally:
        recorder.close()


def test_a_repository_and_a_notification_log_of_the_library_read_over_http(operator: Operator, pushing: Service) -> None:
    operator.user()

    class Remote(Application):
        name = "Ledger"
        env = {  # noqa: RUF012  # the library's own convention
            "PERSISTENCE_MODULE": "scim_ledger_client.recorder", "LEDGER_URL": pushing.base, "LEDGER_TOKEN": pushing.first_run["tokens"]["consumer"],
        }  # fmt: skip

    app = Remote()
    first = app.notification_log.select(start=1, limit=5)
    event = app.mapper.to_domain_event(first[-1])
    assert isinstance(event, LedgerEvent)
    assert (event.event["position"], event.originator_version) == (first[-1].id, event.event["rv"])
    for key in ("LEDGER_URL", "LEDGER_TOKEN"):
        with pytest.raises(OSError, match="LEDGER_TOKEN"):
            Remote(env={key: ""})
    app.close()


def test_a_subscription_goes_on_after_an_outage_and_stops_soon(make_service) -> None:
    own = make_service()
    recorder = recorder_of(own)
    with own.client("scim") as idp:

        def create(number: int) -> None:
            body = {"schemas": ["urn:ietf:params:scim:schemas:core:2.0:User"], "userName": f"subscribed{number}"}
            assert idp.post(own.scim + "/Users", json=body).status_code == 201

        create(0)
        with recorder.subscribe(gt=0, topics=["user.created"]) as subscription:
            found = [next(subscription)]
            assert own.stop() == 0
            hasty = recorder_of(own)
            hasty._ledger.close()
            hasty._ledger = reading(own, retries=Retries(attempts=1))
            with pytest.raises(OperationalError):
                hasty.max_notification_id()
            hasty.close()
            later: list[Any] = []
            reader = threading.Thread(target=lambda: later.append(next(subscription)))
            reader.start()
            own.start()
            create(1)
            reader.join(60)
            assert [json.loads(n.state)["data"]["object"]["userName"] for n in (*found, *later)] == ["subscribed0", "subscribed1"]
            waiting = threading.Thread(target=lambda: later.append(next(subscription, None)))
            waiting.start()
            subscription.stop()
            waiting.join(20)
            assert later[-1] is None
    recorder.close()


# -- alone ------------------------------------------------------------------


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_a_module_imports_the_standard_library_and_what_its_project_declares(path: Path) -> None:
    allowed = {*sys.stdlib_module_names, "scim_ledger_client", "httpx"} | (
        {"eventsourcing"} if path.stem == "recorder" else set()
    )
    for node in ast.walk(ast.parse(path.read_text())):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        assert {name.split(".")[0] for name in names} <= allowed


ALONE = """
import sys
sys.path[:0] = sys.argv[1:3]
import importlib.util
assert not [name for name in ("ledger", "api", "scim", "runtime", "proofs") if importlib.util.find_spec(name)], sys.path
from scim_ledger_client import Ledger
seen = []
with Ledger(sys.argv[3], sys.argv[4]) as ledger:
    ledger.consumer(sys.argv[5]).process(lambda events: seen.extend(events), once=True)
print(len(seen), seen[-1]["type"])
"""


def test_the_client_works_where_nothing_of_the_server_is_installed(operator: Operator, pushing: Service, tmp_path: Path) -> None:
    """A Python without site packages, so also without the server, which stands there by a path file."""
    name = operator.consumer(types=["user.created"])
    operator.user()
    packages = str(Path(httpx.__file__).parents[1])
    token = pushing.first_run["tokens"]["consumer"]
    command = [sys.executable, "-I", "-S", "-c", ALONE, packages, str(CLIENT), pushing.base, token, name]
    env = {"no_proxy": "*"}
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["1", "user.created"]


def test_the_project_of_the_client_needs_httpx_only() -> None:
    needs = importlib.metadata.requires("scim-ledger-client") or []
    assert [need for need in needs if "extra" not in need] == ["httpx>=0.28"]
    assert [need.split(";")[0].strip() for need in needs if "extra" in need] == ["eventsourcing<9.6,>=9.5"]


def test_ids_are_looked_up_by_id_and_by_the_words_of_the_idp(ledger: Ledger, operator: Operator) -> None:
    user = operator.user(externalId="ext-of-look-up")
    group = operator.group(user)
    assert "acme" in [directory["slug"] for directory in ledger.directories()]
    found = ledger.user("acme", user)
    assert (found["id"], found["active"]) == (user, True)
    assert [one["id"] for one in ledger.users("acme", external_id="ext-of-look-up")] == [user]
    assert user in [one["id"] for one in ledger.users("acme")]
    assert ledger.group("acme", group)["id"] == group
    assert group in [one["id"] for one in ledger.groups("acme")]
    assert list(ledger.groups("acme", display_name="nobody has this name")) == []
    with pytest.raises(MissingError):
        ledger.user("acme", group)
