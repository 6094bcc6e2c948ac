"""The examples, run as a user runs them who has copied them."""

import os
import re
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from tests.acceptance.conftest import ROOT, Service, free_port
from tests.acceptance.test_consumers import Operator, operator, pushing

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
    assert len(lines) <= 60, "short enough to copy"


def test_the_documented_fold_of_events_is_the_access_that_the_ledger_answers(operator: Operator, pushing: Service) -> None:
    block = re.search(r"```python\n(def apply.*?)```", (ROOT / "docs" / "consumers.md").read_text(), re.DOTALL)
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


def test_the_walk_through_with_curl(service: Service) -> None:
    env = {**os.environ, "LEDGER_DATA_DIR": str(service.data_dir), "no_proxy": "127.0.0.1"}
    done = subprocess.run([ROOT / "examples" / "walkthrough.sh"], env=env, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    said = [line for line in done.stdout.splitlines() if not line.startswith("#")]
    four = ["user.created"] * 3 + ["user.deactivated"]
    assert said[1:] == [str(four), "True", "behind by 1", str(four[3:]), "True", "4 of 4, holes: []", "3", "back", str(four[1:])]


@pytest.mark.parametrize("path", sorted(filter(Path.is_file, (ROOT / "examples").iterdir())), ids=lambda path: path.name)
def test_each_example_is_run_by_a_test(path: Path) -> None:
    tests = "".join(found.read_text() for found in (ROOT / "tests").rglob("test_*.py"))
    assert path.name in tests or path.stem in tests
