"""Consumers over HTTP: pull, push, stuck deliveries, and acts of operators (docs/consumers.md)."""

import json
import random
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from tests.acceptance.conftest import Service, until, wait_briefly
from tests.acceptance.receiver import Answer, Receiver, receiver

USER = "urn:ietf:params:scim:schemas:core:2.0:User"
GROUP = "urn:ietf:params:scim:schemas:core:2.0:Group"
PATCH = "urn:ietf:params:scim:api:messages:2.0:PatchOp"


@pytest.fixture(scope="module")
def pushing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service that may push to loopback, with a timeout that is short, but long enough for a busy machine."""
    environment = {"LEDGER_WEBHOOK_ALLOW": "127.0.0.0/8", "LEDGER_WEBHOOK_TIMEOUT_S": "3"}
    running = Service(tmp_path_factory.mktemp("pushing") / "ledger", **environment).start()
    yield running
    assert running.stop() == 0


@pytest.fixture
def hook() -> Iterator[Receiver]:
    with receiver() as running:
        yield running


class Operator:
    """Requests of an operator and of an IdP, as short calls."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self.http = service.client("operator")
        self.idp = service.client("scim")
        self.app = service.client("consumer")
        self.admin = service.client("admin")
        self.clients = [self.http, self.idp, self.app, self.admin]
        self.made: list[str] = []

    def with_token(self, text: str) -> httpx.Client:
        client = httpx.Client(headers={"Authorization": f"Bearer {text}"}, trust_env=False)
        self.clients.append(client)
        return client

    def consumer(self, name: str = "", **definition: Any) -> str:
        name = name or f"c{random.randrange(10**9)}"
        answer = self.http.put(
            f"{self.service.base}/v1/consumers/{name}", json={"start": "now", "directories": ["acme"], **definition}
        )
        assert answer.status_code == 201, answer.text
        self.secret = answer.json().get("secret")
        self.made.append(name)
        return name

    def post(self, path: str, **body: Any) -> httpx.Response:
        return self.http.post(f"{self.service.base}/v1/{path}", json=body)

    def status(self, name: str) -> dict[str, Any]:
        return self.http.get(f"{self.service.base}/v1/consumers/{name}").json()

    def when(self, name: str, holds: Callable[[dict[str, Any]], bool], seconds: float = 40) -> dict[str, Any]:
        """The status once it fulfils a condition; asked again and again, because only the service knows it."""
        deadline = time.monotonic() + seconds
        while True:
            found = self.status(name)
            if holds(found):
                return found
            if time.monotonic() >= deadline:
                raise AssertionError(json.dumps({key: value for key, value in found.items() if key != "retry_schedule"}))
            wait_briefly()

    def when_run(self, number: str, state: str, seconds: float = 60, *, done: int = 0) -> dict[str, Any]:
        """A run once it has a state and this number of recorded deliveries."""
        deadline = time.monotonic() + seconds
        while True:
            found = self.http.get(f"{self.service.base}/v1/replays/{number}").json()
            if found["status"] == state and found["done"] >= done:
                return found
            if time.monotonic() >= deadline:
                raise AssertionError(json.dumps({key: value for key, value in found.items() if key != "retry_schedule"}))
            wait_briefly()

    def user(self, **attributes: Any) -> str:
        made = self.idp.post(
            f"{self.service.scim}/Users", json={"schemas": [USER], "userName": f"u{random.random()}", **attributes}
        )
        assert made.status_code == 201, made.text
        return made.json()["id"]

    def group(self, *members: str) -> str:
        body = {"schemas": [GROUP], "displayName": f"g{random.random()}", "members": [{"value": m} for m in members]}
        return self.idp.post(f"{self.service.scim}/Groups", json=body).json()["id"]

    def patch(self, kind: str, number: str, *operations: dict[str, Any]) -> int:
        answer = self.idp.patch(f"{self.service.scim}/{kind}/{number}", json={"schemas": [PATCH], "Operations": list(operations)})
        assert answer.status_code in {200, 204}, answer.text
        return int(answer.headers.get("Ledger-Seq", 0))  # 0: nothing changed

    def deactivate(self, user: str) -> int:
        return self.patch("Users", user, {"op": "replace", "value": {"active": False}})

    def title(self, user: str, text: str) -> int:
        return self.patch("Users", user, {"op": "replace", "path": "title", "value": text})


@pytest.fixture
def operator(pushing: Service) -> Iterator[Operator]:
    found = Operator(pushing)
    yield found
    for name in found.made:
        found.http.delete(f"{pushing.base}/v1/consumers/{name}")
    for client in found.clients:
        client.close()


def test_the_ledger_stores_the_place_of_a_pull_consumer(operator: Operator, pushing: Service) -> None:
    name = operator.consumer()
    base = f"{pushing.base}/v1/consumers/{name}"
    users = [operator.user() for _ in range(3)]
    first = operator.app.get(f"{base}/events", params={"limit": 2}).json()
    again = operator.app.get(f"{base}/events", params={"limit": 2}).json()
    assert first["data"] == again["data"], "reading does not move the place"
    assert operator.app.post(f"{base}/ack", json={"through": first["list_metadata"]["after"]}).json()["changed"]
    rest = operator.app.get(f"{base}/events").json()
    assert [e["subject"]["id"] for e in first["data"] + rest["data"]] == users
    found = operator.status(name)
    assert (found["lag_events"], found["oldest_unacked_at"]) == (1, rest["data"][0]["time"])
    through = {"through": rest["data"][-1]["id"]}
    assert operator.app.post(f"{base}/ack", json=through).json()["changed"]
    assert not operator.app.post(f"{base}/ack", json=through).json()["changed"], "idempotent"
    assert not operator.app.post(f"{base}/ack", json={"through": first["list_metadata"]["after"]}).json()["changed"], (
        "the place never moves back"
    )
    found = operator.status(name)
    assert (found["lag_events"], found["lag_seconds"], found["state"]) == (0, 0.0, "active")


def test_the_time_until_a_leaver_lost_access_is_known_for_each_consumer(operator: Operator, pushing: Service) -> None:
    name = operator.consumer(types=["user.deactivated"])
    base = f"{pushing.base}/v1/consumers/{name}"
    operator.deactivate(operator.user())
    page = operator.app.get(f"{base}/events").json()
    assert [e["type"] for e in page["data"]] == ["user.deactivated"]
    assert operator.status(name)["revocation_seconds"] is None
    operator.app.post(f"{base}/ack", json={"through": page["list_metadata"]["after"]})
    seconds = operator.status(name)["revocation_seconds"]
    assert 0 < seconds["p50"] <= seconds["p99"] < 60
    line = f'ledger_revocation_seconds_count{{consumer="{name}"}} 1.0'
    until(lambda: line in operator.admin.get(f"{pushing.base}/metrics").text, 20)


def test_a_dry_run_of_a_seek_says_what_the_seek_does(operator: Operator, pushing: Service) -> None:
    name = operator.consumer()
    base = f"{pushing.base}/v1/consumers/{name}"
    users = [operator.user() for _ in range(4)]
    page = operator.app.get(f"{base}/events").json()
    operator.app.post(f"{base}/ack", json={"through": page["list_metadata"]["after"]})
    to = {"to": page["data"][1]["id"], "reason": "two were lost in a crash"}
    planned = operator.post(f"consumers/{name}/seek", **to, dry_run=True).json()
    assert (planned["direction"], planned["delivered_again"]) == ("back", 2)
    assert operator.app.get(f"{base}/events").json()["data"] == []
    assert operator.post(f"consumers/{name}/seek", **to).json()["delivered_again"] == 2
    again = operator.app.get(f"{base}/events").json()
    assert [e["subject"]["id"] for e in again["data"]] == users[2:]
    stale = operator.app.post(f"{base}/ack", json={"through": page["data"][0]["id"]}).json()
    assert not stale["changed"]


def test_events_that_a_seek_passes_over_are_holes_that_the_audit_names(operator: Operator, pushing: Service) -> None:
    name = operator.consumer()
    for _ in range(3):
        operator.user()
    assert operator.http.get(f"{pushing.base}/v1/consumers/{name}/audit").json()["holes"] == []
    assert operator.post(f"consumers/{name}/seek", to="now", reason="a fresh start").json()["passed_over"] == 3
    found = operator.http.get(f"{pushing.base}/v1/consumers/{name}/audit").json()
    assert [(hole["why"], hole["count"]) for hole in found["holes"]] == [("sought_over", 3)]
    told = pushing.cli("consumer", "audit", name)
    assert told.returncode == 1
    assert "sought_over" in told.stdout


def test_a_webhook_is_signed_numbered_and_in_order(operator: Operator, hook: Receiver) -> None:
    operator.consumer(mode="webhook", url=hook.url, ordering="directory")
    hook.secrets = [operator.secret]
    seqs = [operator.title(operator.user(), "one"), operator.title(operator.user(), "two")]
    hook.wait(lambda: len(hook.accepted) == 4)
    assert hook.unsigned == 0
    assert [e["seq"] for e in hook.accepted] == list(range(seqs[0] - 1, seqs[1] + 1))
    for delivery, before in zip(hook.deliveries, [None, *hook.deliveries], strict=False):
        event = delivery.events[0]
        assert delivery.headers["webhook-id"] == event["id"]
        assert delivery.headers["ledger-seq"] == str(event["seq"])
        assert delivery.headers["ledger-attempt"] == "1"
        message = json.loads(delivery.body)
        assert (message["type"], message["timestamp"]) == (event["type"], event["time"])
        if before is not None:
            assert delivery.headers["ledger-previous-seq"] == str(before.events[0]["seq"])


def test_batches_keep_the_order_and_have_many_events(operator: Operator, hook: Receiver) -> None:
    name = operator.consumer(mode="webhook", url=hook.url, batch_max=50)
    operator.post(f"consumers/{name}/pause")
    operator.when(name, lambda s: s["state"] == "paused")
    user = operator.user()
    last = [operator.title(user, f"t{n}") for n in range(30)][-1]
    operator.post(f"consumers/{name}/resume")
    hook.wait(lambda: len(hook.accepted) == 31)
    assert [e["seq"] for e in hook.accepted][-1] == last
    assert [e["rv"] for e in hook.accepted] == list(range(1, 32))
    assert len(hook.deliveries) <= 3, "one subject's events share a request"
    assert json.loads(hook.deliveries[0].body)["type"] == "batch"


def test_a_blocked_delivery_is_shown_and_holds_back_only_its_subject(
    operator: Operator, hook: Receiver, pushing: Service
) -> None:
    name = operator.consumer(mode="webhook", url=hook.url, retry_schedule=[0, 0])
    bad = {"nickName": "poison"}  # recognised by its content, because its first delivery may arrive before the test knows its id
    hook.behave = lambda d: Answer(500, b"cannot read this") if bad.items() <= d.events[0]["data"]["object"].items() else Answer()
    poison = operator.user(**bad)
    operator.title(poison, "waits")
    others = [operator.user() for _ in range(5)]
    hook.wait(lambda: {e["subject"]["id"] for e in hook.accepted} >= set(others))
    found = operator.when(name, lambda s: s["state"] == "blocked")
    assert found["blocked_on"]["attempts"] == 2
    assert found["blocked_on"]["last_error"] == "http_500"
    assert found["blocked_on"]["last_answer"] == "cannot read this"
    assert poison not in {e["subject"]["id"] for e in hook.accepted}
    event_id = found["blocked_on"]["event_id"]
    listed = operator.http.get(f"{pushing.base}/v1/consumers/{name}/blocked").json()["data"]
    assert [row["event_id"] for row in listed] == [event_id]
    hook.behave = lambda _: Answer()
    assert operator.post(f"consumers/{name}/blocked/{event_id}/retry", reason="mended").status_code == 200
    hook.wait(lambda: [e["type"] for e in hook.accepted if e["subject"]["id"] == poison] == ["user.created", "user.updated"])
    operator.when(name, lambda s: s["state"] == "active" and s["lag_events"] == 0)
    system = operator.admin.get(f"{pushing.base}/v1/events", params={"directory": "_system", "limit": 1000}).json()["data"]
    told = [e["type"] for e in system if e["data"].get("object", {}).get("event_id") == event_id]
    assert told == ["delivery.blocked", "delivery.retried"]


def test_each_delivery_that_is_refused_and_each_that_is_blocked_has_a_line_in_the_log(
    operator: Operator, hook: Receiver, pushing: Service
) -> None:
    name = operator.consumer(mode="webhook", url=hook.url, retry_schedule=[0, 0])
    hook.behave = lambda _: Answer(422, b"ada@example.com is unknown here")
    operator.user(nickName="ada")
    blocked = operator.when(name, lambda s: s["state"] == "blocked")["blocked_on"]

    def lines() -> list[dict[str, Any]]:
        return [json.loads(line) for line in pushing.log.read_text().splitlines() if f'"{name}"' in line and "delivery_" in line]

    until(lambda: len(lines()) == 3)
    first, second, last = lines()
    assert [(line["event_id"], line["attempt"], line["error"]) for line in (first, second)] == [
        (blocked["event_id"], attempt, "http_422") for attempt in (1, 2)
    ]
    assert (last["event"], last["event_id"], last["error"]) == ("delivery_blocked", blocked["event_id"], "http_422")
    assert "ada" not in json.dumps(lines()), "what the receiver said is not in the log"


def test_a_parked_delivery_stays_listed_and_a_skipped_one_is_a_hole_with_a_reason(
    operator: Operator, hook: Receiver, pushing: Service
) -> None:
    name = operator.consumer(mode="webhook", url=hook.url, retry_schedule=[0])
    hook.behave = lambda d: Answer(500) if d.events[0]["type"] == "user.created" else Answer()
    first, second = operator.user(), operator.user()
    rows = operator.when(name, lambda s: s["blocked"] == 2)
    assert rows["state"] == "blocked"
    listed = operator.http.get(f"{pushing.base}/v1/consumers/{name}/blocked").json()["data"]
    ids = {row["subject"]["id"]: row["event_id"] for row in listed}
    assert operator.post(f"consumers/{name}/blocked/{ids[first]}/park", reason="ask the team").status_code == 200
    assert operator.post(f"consumers/{name}/blocked/{ids[second]}/skip", reason="a test account").status_code == 200
    parked = operator.http.get(f"{pushing.base}/v1/consumers/{name}/parked").json()["data"]
    assert [(row["event_id"], row["reason"]) for row in parked] == [(ids[first], "ask the team")]
    operator.title(first, "goes on")
    hook.wait(lambda: [e["type"] for e in hook.accepted] == ["user.updated"])
    operator.when(name, lambda s: s["acked_events"] == 1)  # neither what is parked nor what was skipped
    holes = operator.http.get(f"{pushing.base}/v1/consumers/{name}/audit").json()["holes"]
    assert [(hole["why"], hole["reason"]) for hole in holes] == [("parked", "ask the team"), ("skipped", "a test account")]
    hook.behave = lambda _: Answer()
    assert operator.post(f"consumers/{name}/parked/{ids[first]}/retry", reason="the team has mended it").status_code == 200
    hook.wait(lambda: ids[first] in hook.ids)
    operator.when(name, lambda s: s["parked"] == 0 and s["lag_events"] == 0)
    assert operator.post(f"consumers/{name}/parked/{ids[first]}/retry", reason="again").status_code == 404


def test_with_order_by_directory_a_receiver_gets_missing_events_again(operator: Operator, hook: Receiver) -> None:
    operator.consumer(mode="webhook", url=hook.url, ordering="directory")
    user = operator.user()
    seqs = [operator.title(user, f"t{n}") for n in range(5)]
    hook.wait(lambda: len(hook.accepted) == 6)
    lost = seqs[2]
    asked: list[int] = []

    def behave(delivery: Any) -> Answer:
        if not asked and delivery.events[0]["seq"] > seqs[-1]:
            asked.append(delivery.events[0]["seq"])
            return Answer(409, json.dumps({"expected_previous_seq": lost}).encode())
        return Answer()

    hook.behave = behave
    last = operator.title(user, "after the restore")
    hook.wait(lambda: len(hook.accepted) == 9)
    assert [e["seq"] for e in hook.accepted[6:]] == [seqs[3], seqs[4], last]
    assert hook.deliveries[-3].headers["ledger-previous-seq"] == str(lost)


def test_a_receiver_that_answers_410_gets_nothing_until_an_operator_resumes(operator: Operator, hook: Receiver) -> None:
    name = operator.consumer(mode="webhook", url=hook.url)
    hook.behave = lambda _: Answer(410)
    user = operator.user()
    operator.when(name, lambda s: s["state"] == "disabled")
    hook.behave = lambda _: Answer()
    assert operator.post(f"consumers/{name}/resume").json()["state"] == "active"
    hook.wait(lambda: [e["subject"]["id"] for e in hook.accepted] == [user])


def test_during_the_rotation_of_a_secret_both_secrets_sign(operator: Operator, hook: Receiver) -> None:
    name = operator.consumer(mode="webhook", url=hook.url)
    old = operator.secret
    new = operator.post(f"consumers/{name}/rotate-secret", overlap_seconds=3600).json()["secret"]
    assert new != old
    for secrets in ([old], [new]):
        hook.secrets = secrets
        operator.user()
    hook.wait(lambda: len(hook.accepted) == 2)
    assert hook.unsigned == 0
    gone = operator.post(f"consumers/{name}/rotate-secret", overlap_seconds=0).json()["secret"]
    hook.secrets = [old, new, gone]

    def signatures(_: dict[str, Any]) -> int:
        operator.user()
        return len(hook.deliveries[-1].headers["webhook-signature"].split())

    operator.when(name, lambda status: signatures(status) == 1)
    hook.secrets, hook.unsigned, before = [gone], 0, len(hook.deliveries)
    operator.user()
    hook.wait(lambda: len(hook.deliveries) > before)
    assert hook.unsigned == 0


def test_a_ping_shows_the_answer_of_the_receiver(operator: Operator, hook: Receiver, pushing: Service) -> None:
    name = operator.consumer(mode="webhook", url=hook.url)
    hook.secrets = [operator.secret]
    assert operator.post(f"consumers/{name}/ping").json()["ok"]
    assert hook.unsigned == 0
    told = pushing.cli("consumer", "ping", name)
    assert (told.returncode, "answered 204" in told.stdout) == (0, True)
    hook.behave = lambda _: Answer(500, b"no")
    assert pushing.cli("consumer", "ping", name).returncode == 1


@pytest.mark.parametrize(
    ("definition", "code"),
    [
        ({"directories": ["nowhere"]}, "refused"),
        ({"types": ["user.born"]}, "invalid_types"),
        ({"mode": "webhook"}, "refused"),
        ({"mode": "webhook", "url": "ftp://example.com/"}, "refused"),
        ({"mode": "webhook", "url": "http://example.com/"}, "refused"),
        ({"mode": "webhook", "url": "https://10.0.0.1/"}, "refused"),
        ({"mode": "webhook", "url": "https://[::1]/"}, "refused"),
        ({"mode": "webhook", "url": "https://user:secret@example.com/"}, "refused"),
        ({"url": "https://example.com/"}, "refused"),
        ({"batch_max": 101}, "invalid_parameters"),
        ({"retry_schedule": [-1]}, "refused"),
        ({"ordering": "none"}, "invalid_parameters"),
        ({"start": "yesterday"}, "invalid_place"),
        ({"start": "2026-11-24"}, "invalid_place"),
        ({"start": "seq:1", "directories": ["*"]}, "invalid_place"),
        ({"unknown": 1}, "invalid_parameters"),
    ],
)
def test_a_definition_that_cannot_be_delivered_is_refused(
    operator: Operator, pushing: Service, definition: dict, code: str
) -> None:
    answer = operator.http.put(f"{pushing.base}/v1/consumers/never", json=definition)
    assert (answer.status_code, answer.json()["code"]) == (400, code), answer.text
    assert "user:secret" not in answer.text
    assert operator.http.get(f"{pushing.base}/v1/consumers/never").status_code == 404


def test_a_token_can_be_narrowed_to_named_consumers_types_and_directories(operator: Operator, pushing: Service) -> None:
    name, other = operator.consumer(types=["user.*"]), operator.consumer()
    narrow = json.loads(
        pushing.cli("token", "issue", "consumer", "--types", "user.*", "--consumer", name, "--no-bodies", "--json").stdout
    )
    client = operator.with_token(narrow["token"])
    user = operator.user()
    events = client.get(f"{pushing.base}/v1/consumers/{name}/events").json()["data"]
    assert [(e["subject"]["id"], e["data"]) for e in events] == [(user, {"withheld": True})]
    assert client.get(f"{pushing.base}/v1/consumers/{other}/events").status_code == 404
    wide = operator.consumer(types=["*"])
    reach = json.loads(pushing.cli("token", "issue", "consumer", "--types", "user.*", "--json").stdout)["token"]
    client = operator.with_token(reach)
    answer = client.get(f"{pushing.base}/v1/consumers/{wide}/events")
    assert (answer.status_code, answer.json()["code"]) == (404, "not_found"), (
        "a token must not acknowledge events that it does not reach"
    )
    assert operator.idp.get(f"{pushing.base}/v1/consumers/{name}").status_code == 403
    assert client.put(f"{pushing.base}/v1/consumers/mine", json={}).status_code == 403


def test_a_surge_is_reported_and_held_if_configured_until_it_is_released(
    operator: Operator, hook: Receiver, pushing: Service
) -> None:
    slug = f"surge{random.randrange(10**9)}"
    assert pushing.cli("directory", "create", slug).returncode == 0
    token = json.loads(pushing.cli("token", "issue", "scim", "--directory", slug, "--json").stdout)["token"]
    idp = operator.with_token(token)
    scim = f"{pushing.base}/scim/{slug}/v2"
    users = [idp.post(f"{scim}/Users", json={"schemas": [USER], "userName": f"s{n}"}).json()["id"] for n in range(6)]
    limit = operator.http.put(f"{pushing.base}/v1/directories/{slug}/surge", json={"per_hour": 2, "action": "hold"})
    assert limit.json()["surging"] is False
    name = operator.consumer(mode="webhook", url=hook.url, directories=[slug], types=["user.deactivated"])
    puller = operator.consumer(directories=[slug], types=["user.deactivated"])
    off = {"schemas": [PATCH], "Operations": [{"op": "replace", "value": {"active": False}}]}
    for user in users:
        assert idp.patch(f"{scim}/Users/{user}", json=off).status_code == 200
    operator.when(name, lambda s: s["held"] == 4)
    assert {e["subject"]["id"] for e in hook.accepted} == set(users[:2]), "events of two users go in parallel"
    pulled = operator.app.get(f"{pushing.base}/v1/consumers/{puller}/events").json()["data"]
    assert [e.get("held", False) for e in pulled] == [False, False, True, True, True, True]
    assert operator.http.get(f"{pushing.base}/v1/directories/{slug}/surge").json()["surging"] is True
    params = {"directory": "_system", "types": "directory.surge_detected", "limit": 1000}
    deadline = time.monotonic() + 30
    while not (
        told := [
            e
            for e in operator.admin.get(f"{pushing.base}/v1/events", params=params).json()["data"]
            if e["data"]["object"]["directory"] == slug
        ]
    ):
        assert time.monotonic() < deadline
        wait_briefly()
    assert told[0]["data"]["object"]["per_hour"] == 2
    until(lambda: f'ledger_directory_surge{{directory="{slug}"}} 1.0' in operator.admin.get(f"{pushing.base}/metrics").text)
    answer = operator.post(f"directories/{slug}/surge/release", reason="the office in Lisbon closed")
    assert answer.status_code == 200
    hook.wait(lambda: len(hook.accepted) == 6)
    assert {e["subject"]["id"] for e in hook.accepted[:2]} == set(users[:2])
    assert operator.when(name, lambda s: s["lag_events"] == 0)["held"] == 0


def test_the_plan_of_a_replay_says_that_a_resting_consumer_keeps_it_waiting(operator: Operator, pushing: Service) -> None:
    name = operator.consumer(mode="webhook", url="http://127.0.0.1:9/", start="now")
    body = {"name": "again", "consumer": name, "from": "beginning", "reason": "test", "dry_run": True}

    def warned() -> list[str]:
        return operator.http.post(f"{pushing.base}/v1/replays", json=body).json().get("warnings", [])

    assert warned() == []
    operator.post(f"consumers/{name}/pause")
    (said,) = warned()
    assert said.startswith("The consumer is paused, so the run waits.")
    assert "`scim-ledger consumer resume`" in pushing.cli("replay", "plan", name, "--from", "beginning").stdout
    operator.post(f"consumers/{name}/resume")
    assert warned() == []
