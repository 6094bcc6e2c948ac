"""The examples, run as a user runs them who has copied them."""

import json
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from eventsourcing.persistence import IntegrityError, Tracking
from scim_ledger_client.access import Edge, apply

from examples import client_access_list
from tests.acceptance.conftest import ROOT, Service, free_port
from tests.acceptance.test_consumers import Operator, operator, pushing
from tests.event_checks import check

__all__ = ["operator", "pushing"]


def rows(path: Path, question: str) -> list[tuple]:
    db = sqlite3.connect(path)
    try:
        return db.execute(question).fetchall()
    finally:
        db.close()


def test_the_pulling_consumer_is_killed_and_continues(operator: Operator, pushing: Service, tmp_path: Path) -> None:
    name = operator.consumer()
    users = [operator.user() for _ in range(4)]
    group = operator.group(*users)
    path = tmp_path / "door.sqlite"
    command = [sys.executable, str(ROOT / "examples" / "pull_consumer.py"), pushing.base, name, str(path)]
    env = {**os.environ, "LEDGER_TOKEN": pushing.first_run["tokens"]["consumer"], "no_proxy": "*"}
    waiting = subprocess.Popen(command, env=env)
    operator.when(name, lambda s: s["lag_events"] == 0)
    waiting.send_signal(signal.SIGKILL)
    waiting.wait()
    operator.deactivate(users[0])
    assert operator.idp.delete(f"{pushing.scim}/Users/{users[1]}").status_code == 204
    subprocess.run([*command, "--once"], env=env, check=True, timeout=60)
    assert {person for (person,) in rows(path, "select person from members")} == set(users[2:])
    assert rows(path, "select distinct grp from members") == [(group,)]
    assert set(rows(path, "select id, active from people")) == {(users[0], 0), (users[2], 1), (users[3], 1)}
    operator.post(f"consumers/{name}/seek", to="beginning", reason="again, to see that it does no harm")
    subprocess.run([*command, "--once"], env=env, check=True, timeout=60)
    assert {person for (person,) in rows(path, "select person from members")} == set(users[2:])
    operator.patch("Users", users[0], {"op": "replace", "value": {"active": True}})  # a rehire
    subprocess.run([*command, "--once"], env=env, check=True, timeout=60)
    assert {person for (person,) in rows(path, "select person from members")} == {users[0], *users[2:]}
    assert operator.idp.delete(f"{pushing.scim}/Groups/{group}").status_code == 204
    subprocess.run([*command, "--once"], env=env, check=True, timeout=60)
    assert rows(path, "select * from members") == []
    lines = [line for line in (ROOT / "examples" / "pull_consumer.py").read_text().splitlines() if line.strip()]
    assert len(lines) <= 70, "short enough to copy"


def test_the_documented_fold_of_events_is_the_access_that_the_ledger_answers(operator: Operator, pushing: Service) -> None:
    block = re.search(r"```python\n(def access_change.*?)```", (ROOT / "docs" / "consumers.md").read_text(), re.DOTALL)
    assert block is not None
    namespace: dict = {}
    exec(block[1], namespace)
    leaver, rehired, deleted, stays = (operator.user() for _ in range(4))
    groups = [operator.group(leaver, rehired, deleted, stays), operator.group(stays, leaver)]
    ended = operator.group(stays)
    operator.deactivate(leaver)
    operator.deactivate(rehired)
    operator.patch("Users", rehired, {"op": "replace", "value": {"active": True}})
    late = operator.group(leaver)  # stored for somebody who is inactive
    assert operator.idp.delete(f"{pushing.scim}/Users/{deleted}").status_code == 204
    assert operator.idp.delete(f"{pushing.scim}/Groups/{ended}").status_code == 204
    access: set[tuple[str, str, str]] = set()
    for _ in range(2):  # everything comes a second time
        after = ""
        while True:
            page = operator.http.get(f"{pushing.base}/v1/events?limit=1000&directory=acme{after}").json()
            for event in page["data"]:
                namespace["apply"](access, event)
            after = f"&after={page['list_metadata']['after']}"
            if not page["has_more"]:
                break
    assert {member for _, group, member in access if group == groups[0]} == {rehired, stays}
    with pushing.client("auditor") as auditor:
        for group in (*groups, late):
            members = auditor.get(f"{pushing.base}/v1/audit/acme/groups/{group}/members?as_of=seq:head&effective=true").json()[
                "data"
            ]
            assert {member["id"] for member in members} == {member for _, of, member in access if of == group}
    assert not [edge for edge in access if edge[1] == ended]


def test_the_webhook_receiver_verifies_and_asks_for_missing_events(operator: Operator, pushing: Service, tmp_path: Path) -> None:
    path = tmp_path / "inbox.sqlite"
    port = free_port()
    name = operator.consumer(mode="webhook", url=f"http://127.0.0.1:{port}/", ordering="directory", retry_schedule=[0] * 100)
    command = [sys.executable, str(ROOT / "examples" / "webhook_receiver.py"), str(port), str(path)]
    process = subprocess.Popen(command, env={**os.environ, "LEDGER_SECRET": operator.secret}, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert "listening" in process.stdout.readline()
        assert operator.post(f"consumers/{name}/ping").json()["ok"]
        user = operator.user()
        seqs = [operator.title(user, f"t{n}") for n in range(3)]
        operator.when(name, lambda s: s["lag_events"] == 0)
        assert [seq for (seq,) in rows(path, "select seq from inbox order by seq")] == [seqs[0] - 1, *seqs]
        db = sqlite3.connect(path)
        db.execute("delete from inbox where seq > ?", (seqs[0],))
        db.commit()
        db.close()
        last = operator.title(user, "after its disk was restored")
        operator.when(name, lambda s: s["lag_events"] == 0)
        assert [seq for (seq,) in rows(path, "select seq from inbox order by seq")] == [seqs[0] - 1, *seqs, last]
        operator.post(f"consumers/{name}/rotate-secret", overlap_seconds=0)
        # The delivery processes learn of the new secret within a moment; until then the old one signs.
        found = operator.when(name, lambda s: bool(operator.user()) and s["blocked_on"] is not None)
        assert found["blocked_on"]["last_error"] == "http_401"
    finally:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def story(operator: Operator) -> tuple[int, set[tuple[str, str]]]:
    """A leaver, a rehire, a group that ends, a duplicate. Returns the seq of the first event, and who is in which group in the end."""
    leaver, rehired, stays, deleted = (operator.user() for _ in range(4))
    group, ended = operator.group(leaver, rehired, stays, deleted), operator.group(stays, leaver)
    operator.deactivate(leaver)
    operator.deactivate(rehired)
    operator.patch("Users", rehired, {"op": "replace", "value": {"active": True}})
    late = operator.group(leaver, stays)  # for the leaver it is stored only
    assert operator.idp.delete(f"{operator.service.scim}/Users/{deleted}").status_code == 204
    again = operator.patch("Groups", group, {"op": "add", "path": "members", "value": [{"value": stays}]})
    assert again == 0, "a member who is there already is no event"
    assert operator.idp.delete(f"{operator.service.scim}/Groups/{ended}").status_code == 204
    first = operator.http.get(f"{operator.service.base}/v1/events", params={"directory": "acme", "subject": leaver, "limit": 1})
    return first.json()["data"][0]["seq"], {(group, rehired), (group, stays), (late, stays)}


def go_back(operator: Operator, name: str, seq: int) -> None:
    """Everything from a seq comes again: each event is a duplicate."""
    again = operator.post(f"consumers/{name}/seek", to=f"seq:{seq}", reason="so that each event comes again").json()
    assert again["delivered_again"] >= 10


@pytest.mark.parametrize("example", ["pull_consumer", "client_pull_consumer"])
def test_an_example_that_pulls_knows_who_may_enter(operator: Operator, pushing: Service, tmp_path: Path, example: str) -> None:
    name = operator.consumer()
    path = tmp_path / "door.sqlite"
    command = [sys.executable, str(ROOT / "examples" / f"{example}.py"), pushing.base, name, str(path), "--once"]
    env = {**os.environ, "LEDGER_TOKEN": pushing.first_run["tokens"]["consumer"], "no_proxy": "*"}
    first, access = story(operator)
    for _ in range(2):
        subprocess.run(command, env=env, check=True, timeout=60)
        assert set(rows(path, "select grp, person from members")) == access
        assert operator.status(name)["lag_events"] == 0
        go_back(operator, name, first)


@pytest.mark.parametrize("example", ["webhook_receiver", "client_webhook_receiver"])
def test_an_example_that_receives_has_each_event_once(operator: Operator, tmp_path: Path, example: str) -> None:
    path, port = tmp_path / "inbox.sqlite", free_port()
    name = operator.consumer(mode="webhook", url=f"http://127.0.0.1:{port}/", ordering="directory", retry_schedule=[0] * 100)
    command = [sys.executable, str(ROOT / "examples" / f"{example}.py"), str(port), str(path)]
    process = subprocess.Popen(command, env={**os.environ, "LEDGER_SECRET": operator.secret}, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert "listening" in process.stdout.readline()
        assert operator.post(f"consumers/{name}/ping").json()["ok"]
        first, expected = story(operator)
        for _ in range(2):
            operator.when(name, lambda status: status["lag_events"] == 0)
            events = [json.loads(text) for (text,) in rows(path, "select event from inbox order by seq")]
            seqs = [event["seq"] for event in events]
            assert seqs == list(range(first, first + len(seqs))), "each once, none is missing"
            access: set[Edge] = set()
            for event in events:
                check(event)
                apply(access, event)
            assert {edge[1:] for edge in access} == expected
            go_back(operator, name, first)
        stranger = httpx.post(f"http://127.0.0.1:{port}/", content=b"{}", trust_env=False)
        assert stranger.status_code == 401
    finally:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def test_the_projection_over_http_knows_who_may_enter(operator: Operator, pushing: Service) -> None:
    first, access = story(operator)
    groups = {group for group, _ in access}
    token = pushing.first_run["tokens"]["consumer"]
    with client_access_list.follow({"LEDGER_URL": pushing.base, "LEDGER_TOKEN": token}) as runner:

        def caught_up() -> None:
            last = runner.app.recorder.select_notifications(1, 10_000, topics=client_access_list.AccessList.topics)[-1]
            runner.wait(last.id, 30)

        caught_up()
        assert {edge[1:] for edge in runner.view.members if edge[1] in groups} == access
        with pytest.raises(IntegrityError):  # a duplicate: the library's tracking refuses it, and nothing changes
            runner.view.apply(page_from(operator, first)[-1], Tracking("Ledger", 1))
        assert {edge[1:] for edge in runner.view.members if edge[1] in groups} == access
        _, more = story(operator)
        caught_up()
        assert {edge[1:] for edge in runner.view.members if edge[1] in {group for group, _ in more}} == more
        runner.app.close()


def page_from(operator: Operator, seq: int) -> list:
    asked = {"directory": "acme", "from": f"seq:{seq}", "types": "group.member_added"}
    return operator.http.get(f"{operator.service.base}/v1/events", params=asked).json()["data"]


@pytest.mark.parametrize(("program", "example"), [(sys.executable, "client_stream.py"), (shutil.which("node"), "stream.mjs")])
def test_an_example_that_streams_knows_who_may_enter(
    operator: Operator, pushing: Service, program: str | None, example: str
) -> None:
    if program is None:
        pytest.skip("node is not installed")
    _, before = story(operator)
    command = [program, str(ROOT / "examples" / example), pushing.base, "acme"]
    env = {**os.environ, "LEDGER_TOKEN": pushing.first_run["tokens"]["consumer"], "no_proxy": "*"}
    process = subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True)
    deadline = threading.Timer(60, process.kill)
    deadline.start()
    access: set[tuple[str, str]] = set()

    def read_until(done: Callable[[], bool]) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            sign, group, member = line.split()
            (access.add if sign == "+" else access.remove)((group, member))  # no change is told twice
            if done():
                return
        raise AssertionError("it ended")

    try:
        read_until(lambda: before <= access)
        first, after = story(operator)
        last = operator.group(operator.user())
        read_until(lambda: any(group == last for group, _ in access))
        every = {event["data"]["group"]["id"] for event in page_from(operator, first)} - {last}
        assert {edge for edge in access if edge[0] in every} == after
        assert before <= access
    finally:
        deadline.cancel()
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def test_the_walk_through_with_curl(service: Service) -> None:
    env = {**os.environ, "LEDGER_DATA_DIR": str(service.data_dir), "no_proxy": "127.0.0.1"}
    done = subprocess.run([ROOT / "examples" / "walkthrough.sh"], env=env, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    said = [line for line in done.stdout.splitlines() if not line.startswith("#")]
    events = (
        3 + 2 * 4 + 3 + 3 + 3 + 4
    )  # users; groups with members; a leaver in two groups; the same and back; the end of a group with three members
    doors = "[('first', 1), ('first', 2)]"
    assert said[1:] == [
        f"{['user.created'] * 3} {events}", "True", f"behind by {events - 3}", str(events - 3), "True", doors,
        f"{events} of {events}, holes: []", str(events - 3), "back", doors,
    ]  # fmt: skip


@pytest.mark.parametrize("path", sorted(filter(Path.is_file, (ROOT / "examples").iterdir())), ids=lambda path: path.name)
def test_each_example_is_run_by_a_test(path: Path) -> None:
    tests = "".join(found.read_text() for found in (ROOT / "tests").rglob("test_*.py"))
    assert path.name in tests or path.stem in tests
