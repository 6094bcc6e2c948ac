"""The feed as a stream, the snapshot to begin with, and what readers who had read further are told after a restore
(docs/events.md).
"""

import asyncio
import json
import os
import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from api.examples import MEDIA_EXAMPLES
from tests.acceptance.conftest import Service
from tests.acceptance.test_consumers import Operator


class Stream:
    """A client of Server-Sent Events in a thread: yields blocks as (id, event, data)."""

    def __init__(self, service: Service, role: str = "consumer", last: str | None = None, **params: str) -> None:
        self.blocks: list[tuple[str, str, Any]] = []
        self.ended = False
        self._changed = threading.Condition()
        self._client = service.client(role)
        self._client.timeout = httpx.Timeout(60)
        if last:
            self._client.headers["Last-Event-ID"] = last
        self._url, self._params = f"{service.base}/v1/events/stream", params
        self._response: httpx.Response | None = None
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        try:
            with self._client.stream("GET", self._url, params=self._params) as response:
                self._response = response
                assert response.headers["content-type"].startswith("text/event-stream")
                block: dict[str, str] = {}
                for line in response.iter_lines():
                    if line:
                        name, _, value = line.partition(": ")
                        block[name] = value
                        continue
                    if "data" in block:
                        with self._changed:
                            self.blocks.append((block.get("id", ""), block["event"], json.loads(block["data"])))
                            self._changed.notify_all()
                    block = {}
        except (httpx.HTTPError, OSError):
            pass
        with self._changed:
            self.ended = True
            self._changed.notify_all()

    @property
    def events(self) -> list[dict[str, Any]]:
        return [data for _, event, data in self.blocks if event != "covered"]

    @property
    def covered(self) -> list[tuple[int, int]]:
        return [(data["from_position"], data["to_position"]) for _, event, data in self.blocks if event == "covered"]

    def wait(self, until: Callable[[], bool], seconds: float = 30) -> None:
        with self._changed:
            assert self._changed.wait_for(until, seconds), (len(self.blocks), self.ended)

    def close(self) -> None:
        if self._response is not None and not self.ended:
            sock = self._response.extensions["network_stream"].get_extra_info("socket")
            sock.shutdown(socket.SHUT_RDWR)
        self._thread.join(20)
        self._client.close()


@contextmanager
def stream(service: Service, **params: Any) -> Iterator[Stream]:
    running = Stream(service, **params)
    try:
        yield running
    finally:
        running.close()


@pytest.fixture
def people(service: Service) -> Iterator[Operator]:
    found = Operator(service)
    yield found
    for client in found.clients:
        client.close()


def test_a_stream_begins_with_existing_events_and_continues_with_new_ones(service: Service, people: Operator) -> None:
    known = people.user()
    with stream(service, directory="acme") as feed:
        feed.wait(lambda: known in {e["subject"]["id"] for e in feed.events})
        fresh = [people.user() for _ in range(3)]
        feed.wait(lambda: [e["subject"]["id"] for e in feed.events][-3:] == fresh)
        seqs = [e["seq"] for e in feed.events]
        assert seqs == list(range(1, seqs[-1] + 1)), "from the beginning without gap or repetition, also between page and tail"
        assert [event for _, event, _ in feed.blocks if event != "covered"] == [e["type"] for e in feed.events]


def test_a_client_that_reconnects_continues_after_its_last_event(service: Service, people: Operator) -> None:
    first = people.user()
    with stream(service) as feed:
        feed.wait(lambda: first in {e["subject"]["id"] for e in feed.events})
        last = feed.blocks[-1]
    missed = people.user()
    with stream(service, last=last[0]) as feed:
        feed.wait(lambda: bool(feed.events))
        assert feed.events[0]["position"] == last[2]["position"] + 1
        feed.wait(lambda: missed in {e["subject"]["id"] for e in feed.events})


@pytest.mark.long
def test_with_a_filter_covered_ranges_have_no_gaps(service: Service, people: Operator) -> None:
    with stream(service, types="group.created", directory="acme") as feed:
        people.user()
        feed.wait(lambda: len(feed.covered) >= 1, 12)
        people.user()
        group = people.group()
        feed.wait(lambda: group in {e["subject"]["id"] for e in feed.events})
        feed.wait(lambda: feed.covered[-1][1] >= feed.events[-1]["seq"], 12)
        assert all(e["type"] == "group.created" for e in feed.events)
        ends = [0, *(last for _, last in feed.covered)]
        assert [first for first, _ in feed.covered] == [end + 1 for end in ends[:-1]]


def test_an_operator_gets_structure_without_attributes_in_a_stream(service: Service, people: Operator) -> None:
    with stream(service, role="operator") as feed:
        user = people.user(title="Dr")
        feed.wait(lambda: user in {e["subject"]["id"] for e in feed.events})
        shown = next(e for e in feed.events if e["subject"]["id"] == user)
        assert shown["data"] == {"withheld": True}
        assert all(e["directory"] != "_system" for e in feed.events)


def test_a_stream_ends_when_its_token_is_revoked_and_when_the_service_stops(make_service: Any) -> None:
    service = make_service("short")
    issued = json.loads(service.cli("token", "issue", "consumer", "--json").stdout)["token"]
    number = issued.split("_")[2]
    document = json.loads((service.data_dir / "first-run.json").read_text())
    document["tokens"]["consumer"] = issued
    (service.data_dir / "first-run.json").write_text(json.dumps(document))
    with stream(service, types="user.*") as feed:
        feed.wait(lambda: bool(feed.covered), 12)
        assert service.cli("token", "revoke", number, "--yes").returncode == 0
        feed.wait(lambda: feed.ended, 20)
    with stream(service, role="admin") as feed:
        feed.wait(lambda: bool(feed.blocks))
        before = time.monotonic()
        assert service.stop() == 0
        assert time.monotonic() - before < 30, "a stream does not delay the end of the service"
        feed.wait(lambda: feed.ended)


@pytest.mark.long
def test_a_thousand_idle_readers_cost_almost_nothing(make_service: Any) -> None:
    """The CPU time of the serving process while a thousand streams have no events; afterwards all of them get one.

    It is compared with the time that was needed to open them, on the same machine in the same minute.
    """
    service = make_service("idle", LEDGER_CONNECTIONS="1500")
    token = service.first_run["tokens"]["consumer"]
    request = f"GET /v1/events/stream?types=user.* HTTP/1.1\r\nHost: ledger\r\nAuthorization: Bearer {token}\r\n\r\n".encode()

    async def read() -> tuple[float, float, int]:
        pairs = []
        closed = cpu_seconds(service.process.pid)
        for _ in range(1_000):
            reader, writer = await asyncio.open_connection("127.0.0.1", service.port)
            writer.write(request)
            pairs.append((reader, writer))
        await asyncio.gather(*(reader.readuntil(b"event: covered") for reader, _ in pairs))
        before = cpu_seconds(service.process.pid)
        await asyncio.gather(*(reader.readuntil(b"event: covered") for reader, _ in pairs))  # it comes every five seconds
        idle = cpu_seconds(service.process.pid) - before
        people = Operator(service)
        user = await asyncio.to_thread(people.user)
        heard = await asyncio.wait_for(asyncio.gather(*(reader.readuntil(user.encode()) for reader, _ in pairs)), 60)
        for client in people.clients:
            client.close()
        for _, writer in pairs:
            writer.close()
        return before - closed, idle, len(heard)

    opening, idle, heard = asyncio.run(read())
    assert heard == 1_000
    assert idle < opening / 2, f"{idle} s of CPU in 5 s, {opening} s to open them"


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_a_snapshot_and_the_events_after_it_give_the_complete_state(service: Service, people: Operator) -> None:
    users = [people.user() for _ in range(6)]
    group = people.group(*users[:4])
    people.deactivate(users[1])
    lines = [json.loads(line) for line in people.app.get(f"{service.base}/v1/directories/acme/snapshot").text.splitlines()]
    head, end = lines[0], lines[-1]
    assert (head["object"], end["object"], head["seq"]) == ("snapshot", "end", end["seq"])
    of = {kind: [line for line in lines if line["object"] == kind] for kind in ("user", "group", "membership")}
    assert (end["users"], end["groups"], end["memberships"]) == tuple(len(of[kind]) for kind in ("user", "group", "membership"))
    mine = {line["id"]: line for line in of["user"] if line["id"] in users}
    assert len(mine) == 6
    assert mine[users[1]]["active"] is False
    assert mine[users[0]]["data"]["user"]["user_name"] == mine[users[0]]["data"]["object"]["userName"]
    edges = {line["member"]["id"]: line["effective"] for line in of["membership"] if line["group"]["id"] == group}
    assert edges == {users[0]: True, users[1]: False, users[2]: True, users[3]: True}
    documented = [json.loads(line) for line in MEDIA_EXAMPLES["application/x-ndjson"].splitlines()]
    sent = {line["object"]: line.keys() for line in lines}
    assert {line["object"]: line.keys() for line in documented} == sent, (
        "the example in the description has the fields of each line"
    )
    later = people.user()
    follow = {"directory": "acme", "after": head["after"], "limit": 1000}
    after = people.app.get(f"{service.base}/v1/events", params=follow).json()["data"]
    assert after[0]["seq"] == head["seq"] + 1
    assert later in {e["subject"]["id"] for e in after}
    withheld = people.http.get(f"{service.base}/v1/directories/acme/snapshot").text
    assert withheld.count('"withheld":true') == end["users"] + end["groups"] + 1
    assert "userName" not in withheld
    assert people.app.get(f"{service.base}/v1/directories/nowhere/snapshot").status_code == 403


def test_after_a_restore_from_backup_a_reader_who_has_read_further_is_told(make_service: Any) -> None:
    """A real restore: the data directory is replaced by a copy that was made while the service was stopped."""
    service = make_service("restored")
    people = Operator(service)
    for _ in range(3):
        people.user()
    name = "application"
    people.http.put(f"{service.base}/v1/consumers/{name}", json={})
    assert service.stop() == 0
    backup = service.data_dir.with_name("backup")
    shutil.copytree(service.data_dir, backup, symlinks=True)
    copy_owner(service.data_dir, backup)
    service.start()
    kept = people.user()
    read = people.app.get(f"{service.base}/v1/events", params={"limit": 1000}).json()
    cursor, event = read["list_metadata"]["after"], read["data"][-1]["id"]
    assert kept == read["data"][-1]["subject"]["id"]
    assert service.stop() == 0
    shutil.rmtree(service.data_dir)
    shutil.copytree(backup, service.data_dir, symlinks=True)
    copy_owner(backup, service.data_dir)
    service.start()
    for after in (cursor, event):
        answer = people.app.get(f"{service.base}/v1/events", params={"after": after})
        assert (answer.status_code, answer.json()["code"]) == (409, "cursor_ahead")
        assert answer.json()["head"] < answer.json()["cursor"]
        streamed = people.app.get(f"{service.base}/v1/events/stream", params={"after": after})
        assert (streamed.status_code, streamed.json()["code"]) == (409, "cursor_ahead")
        acked = people.app.post(f"{service.base}/v1/consumers/{name}/ack", json={"through": after})
        assert (acked.status_code, acked.json()["code"]) == (409, "cursor_ahead")
    other = people.user()
    for after in (cursor, event):
        answer = people.app.get(f"{service.base}/v1/events", params={"after": after})
        assert (answer.status_code, answer.json()["code"]) == (409, "cursor_forked")
    events = people.app.get(f"{service.base}/v1/events", params={"limit": 1000}).json()["data"]
    assert [e["id"] for e in events[:-1]] == [e["id"] for e in read["data"][:-1]], "the common part is the same"
    assert events[-1]["subject"]["id"] == other
    for client in people.clients:
        client.close()


def copy_owner(source: Path, target: Path) -> None:
    """copytree keeps modes but not owners, and the embedded PostgreSQL runs under another account."""
    for root, folders, files in os.walk(source):
        for name in (".", *folders, *files):
            found = Path(root) / name
            info = found.lstat()
            os.chown(target / found.relative_to(source), info.st_uid, info.st_gid, follow_symlinks=False)
