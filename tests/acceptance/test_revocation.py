"""A token that is revoked or expires gets nothing more: this also ends waiting requests, streams and snapshots."""

import json
import random
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import psycopg
import pytest

from runtime import embedded
from tests.acceptance.conftest import Service, until
from tests.acceptance.test_consumers import Operator

MADE_UP = "00000000"


@pytest.fixture
def people(service: Service) -> Iterator[Operator]:
    found = Operator(service)
    yield found
    for client in found.clients:
        client.close()


@pytest.fixture
def issue(service: Service, people: Operator) -> Callable[..., tuple[str, httpx.Client]]:
    """Issue a token; returns its id and a client with it."""

    def issued(role: str = "consumer", **scope: Any) -> tuple[str, httpx.Client]:
        body = {"role": role, "name": f"t{random.randrange(10**9)}", **scope}
        answer = people.admin.post(f"{service.base}/v1/tokens", json=body)
        assert answer.status_code == 201, answer.text
        client = people.with_token(answer.json()["token"])
        client.timeout = httpx.Timeout(40)
        return answer.json()["id"], client

    return issued


def revoke(people: Operator, number: str) -> None:
    assert people.admin.delete(f"{people.service.base}/v1/tokens/{number}").status_code in {200, 204}


def expire(people: Operator, number: str, client: httpx.Client) -> None:
    """Let a token expire: it is rotated with an overlap of a second. Returns when it is refused."""
    answer = people.admin.post(f"{people.service.base}/v1/tokens/{number}/rotate", json={"overlap_seconds": 1})
    assert answer.status_code == 201, answer.text
    until(lambda: client.get(f"{people.service.base}/v1/events", params={"limit": 1}).status_code != 200, 20)


def ended(people: Operator, how: str, number: str, client: httpx.Client) -> None:
    if how == "revoked":
        revoke(people, number)
    else:
        expire(people, number, client)


@pytest.mark.parametrize("how", ["revoked", "expired"])
@pytest.mark.parametrize("path", ["/v1/events", "/v1/consumers/{name}/events"])
def test_a_waiting_reader_gets_no_event_from_after_the_end_of_its_token(
    service: Service, people: Operator, issue: Callable[..., Any], how: str, path: str
) -> None:
    number, client = issue()
    name = people.consumer()
    head = client.get(f"{service.base}/v1/events", params={"directory": "acme", "limit": 1000, "from": "now"}).json()
    params: dict[str, Any] = {"wait": 30}
    if "consumers" not in path:
        params |= {"directory": "acme", "after": head["list_metadata"]["after"]}
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(client.get, service.base + path.format(name=name), params=params)
        ended(people, how, number, people.with_token(client.headers["Authorization"].split()[1]))
        people.user()
        answer = waiting.result(timeout=35)
    assert (answer.status_code, answer.json()["code"]) == (401, "unauthorized")


@pytest.mark.parametrize("how", ["revoked", "expired"])
def test_no_event_committed_after_the_end_of_a_token_is_sent_in_its_stream(
    service: Service, people: Operator, issue: Callable[..., Any], how: str
) -> None:
    """Writers write all the time, so some event is always being sent when the token ends."""
    number, client = issue()
    over = threading.Event()
    seen: list[int] = []
    flowing, closed = threading.Event(), threading.Event()

    def write() -> None:
        with service.client("scim") as idp:
            while not over.is_set():
                body = {"schemas": ["urn:ietf:params:scim:schemas:core:2.0:User"], "userName": f"flow{random.random()}"}
                idp.post(f"{service.scim}/Users", json=body).raise_for_status()

    def read() -> None:
        with client.stream("GET", f"{service.base}/v1/events/stream", params={"directory": "acme"}) as response:
            for line in response.iter_lines():
                if line.startswith('data: {"object"'):
                    seen.append(json.loads(line[6:])["seq"])
                    flowing.set()
        closed.set()

    writers = [threading.Thread(target=write) for _ in range(3)]
    reader = threading.Thread(target=read)
    for thread in (*writers, reader):
        thread.start()
    try:
        assert flowing.wait(20)
        ended(people, how, number, people.with_token(client.headers["Authorization"].split()[1]))
        head = people.app.get(f"{service.base}/v1/events", params={"directory": "acme", "from": "now"}).json()["head_position"]
        assert closed.wait(10), "the stream ends by itself within the deadline"
    finally:
        over.set()
        for thread in (*writers, reader):
            thread.join(20)
    assert seen == list(range(1, len(seen) + 1))
    assert seen[-1] <= head, "no event from after the answer to the revocation"


def test_a_snapshot_ends_early_when_its_token_is_revoked(make_service: Any) -> None:
    """The snapshot is much larger than the buffers of the connection: parts that were not sent before the revocation are not sent
    after it.
    """
    service = make_service("snapshot")
    people = Operator(service)
    for _ in range(48):
        people.user(title=random.randbytes(450_000).hex())
    answer = people.admin.post(f"{service.base}/v1/tokens", json={"role": "consumer", "name": "snapshot"}).json()
    client = people.with_token(answer["token"])
    with client.stream("GET", f"{service.base}/v1/directories/acme/snapshot") as response:
        lines = response.iter_lines()
        assert json.loads(next(lines))["object"] == "snapshot"
        revoke(people, answer["id"])
        rest = [json.loads(line)["object"] for line in lines]
    assert "end" not in rest
    assert len(rest) < 48
    for client in people.clients:
        client.close()


def test_an_event_of_a_type_that_a_token_may_not_read_is_answered_like_a_missing_one(
    service: Service, people: Operator, issue: Callable[..., Any]
) -> None:
    _, narrow = issue(types=["user.*"])
    user = people.user()
    group = people.group(user)
    events = people.app.get(f"{service.base}/v1/events", params={"directory": "acme", "from": "now", "limit": 1}).json()
    whole = people.app.get(f"{service.base}/v1/events", params={"directory": "acme", "subject": group, "limit": 1000})
    assert events["data"] == []
    pages = [whole.json()]
    while pages[-1]["has_more"]:
        after = pages[-1]["list_metadata"]["after"]
        pages.append(
            people.app.get(f"{service.base}/v1/events", params={"directory": "acme", "subject": group, "after": after}).json()
        )
    hidden = next(event for page in pages for event in page["data"] if event["type"] == "group.created")
    made_up = f"evt_acme_{hidden['seq']}_{MADE_UP}"
    assert people.app.get(f"{service.base}/v1/events/{hidden['id']}").json() == hidden

    def told(path: str, method: str = "GET", **request: Any) -> tuple[int, dict[str, Any]]:
        answer = narrow.request(method, service.base + path, **request)
        return answer.status_code, {k: v for k, v in answer.json().items() if k != "request_id"}

    assert told(f"/v1/events/{hidden['id']}") == told(f"/v1/events/{made_up}")
    assert told(f"/v1/events/{hidden['id']}")[0] == 404
    for name in ("after", "from"):
        for path in ("/v1/events", "/v1/events/stream")[: 2 if name == "after" else 1]:
            for scope in ({}, {"directory": "acme"}):
                asked = [told(path, params={name: text, **scope}) for text in (hidden["id"], made_up)]
                assert asked[0] == asked[1], (name, path, scope)
                assert asked[0][0] == 409
    name = people.consumer(types=["user.*"])
    asked = [told(f"/v1/consumers/{name}/ack", "POST", json={"through": text}) for text in (hidden["id"], made_up)]
    assert asked[0] == asked[1]
    assert asked[0][0] == 409


def test_a_damaged_body_is_shown_as_unreadable_everywhere(make_service: Any) -> None:
    """Feed, stream, pull, snapshot, audit and SCIM never answer 500, and verify names the damaged body and the others."""
    service = make_service("damaged")
    people = Operator(service)
    users = [people.user(externalId=f"x{n}") for n in range(3)]
    people.group(*users)
    name = people.consumer(start="beginning")
    running = embedded.running(service.data_dir / "postgres")
    assert running is not None
    with psycopg.connect(running.url("postgres", "ledger"), autocommit=True) as conn:
        conn.execute("set search_path to ledger")
        conn.execute("alter table bodies disable trigger all")
        for user in users[:2]:
            place = "(directory, seq) in (select directory, seq from events where obj = %s)"
            conn.execute(f"update bodies set ct = set_byte(ct, 60, get_byte(ct, 60) # 1) where {place}", (user,))
    gone = {"unreadable": True}
    for path in ("/v1/events?directory=acme", f"/v1/consumers/{name}/events"):
        page = people.app.get(service.base + path)
        assert page.status_code == 200, page.text
        shown = {e["subject"]["id"]: e["data"] for e in page.json()["data"] if e["type"] == "user.created"}
        assert [shown[user] == gone for user in users] == [True, True, False]
    lines = [json.loads(line) for line in people.app.get(f"{service.base}/v1/directories/acme/snapshot").text.splitlines()]
    assert [line["data"] == gone for user in users for line in lines if line.get("id") == user] == [True, True, False]
    assert lines[-1]["object"] == "end"
    with service.client("auditor") as auditor:
        rows = auditor.get(f"{service.base}/v1/audit/acme/population").json()["data"]
        assert [row.get("unreadable", False) for user in users for row in rows if row["id"] == user] == [True, True, False]
        assert auditor.get(f"{service.base}/v1/audit/acme/users/{users[0]}").json()["data"] == gone
    listed = people.idp.get(f"{service.scim}/Users").json()["Resources"]
    assert {user["id"] for user in listed} == set(users), "no user looks deleted"
    assert people.idp.get(f"{service.scim}/Users/{users[0]}").json()["userName"] == f"(unreadable) {users[0]}"
    found = service.cli("replay", "verify")
    assert found.returncode == 1
    assert found.stdout.count("the sealed body is not the one the leaf commits to") == 2, found.stdout
    log = service.log.read_text()
    assert log.count("body_unreadable") == 2
    for client in people.clients:
        client.close()
