"""Twelve writers and a reader that follows the feed; every process is killed during writes, three times.

Nothing acknowledged may be lost or get another number, and the reader may never see a gap or a repetition.
"""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import httpx

from tests.acceptance.conftest import Service

WRITERS = 12
ROUNDS = 3
KILL_AFTER = 300  # acknowledged writes of a round

USER = "urn:ietf:params:scim:schemas:core:2.0:User"


class _Tail:
    """Reads the feed by cursor across restarts and asserts that each page begins where the last one ended."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self.seen: dict[int, str] = {}
        self.names: dict[str, int] = {}
        self.after: str | None = None

    def read_on(self, client: httpx.Client, wait: int = 0) -> bool:
        params = {"directory": "acme", "limit": 500, "wait": wait} | ({"after": self.after} if self.after else {})
        answer = client.get(self.service.base + "/v1/events", params=params)
        assert answer.status_code == 200, answer.text
        page = answer.json()
        for event in page["data"]:
            assert event["seq"] == len(self.seen) + 1, "no hole, no repeat"
            self.seen[event["seq"]] = event["id"]
            if event["type"] == "user.created":
                self.names[event["data"]["object"]["userName"]] = event["seq"]
        assert page["covered"]["to_position"] == len(self.seen)
        self.after = page["list_metadata"]["after"]
        return page["has_more"]


def test_sigkill_of_every_process_loses_nothing_and_changes_no_number(make_service: Callable[..., Service]) -> None:
    service = make_service()
    tail = _Tail(service)
    acknowledged: dict[str, int] = {}
    for round_ in range(ROUNDS):
        _one_round(service, tail, acknowledged, round_)
        service.start()
        with service.client("consumer") as client:
            while tail.read_on(client):
                pass
        assert acknowledged.items() <= tail.names.items(), "every acknowledged write is there, under its seq"
        assert len(acknowledged) >= KILL_AFTER * (round_ + 1)
    assert service.cli("replay", "verify").returncode == 0


def _one_round(service: Service, tail: _Tail, acknowledged: dict[str, int], round_: int) -> None:
    enough, over = threading.Event(), threading.Event()
    mine: dict[str, int] = {}
    failures: list[BaseException] = []

    def write(writer: int) -> None:
        with service.client("scim") as client:
            for n in range(100_000):
                if over.is_set():
                    return
                name = f"r{round_}w{writer}n{n}"
                try:
                    answer = client.post(service.scim + "/Users", json={"schemas": [USER], "userName": name})
                except httpx.HTTPError:
                    return  # killed: this write was not acknowledged
                if answer.status_code == 201:
                    mine[name] = int(answer.headers["Ledger-Seq"])
                    if len(mine) >= KILL_AFTER:
                        enough.set()
                elif answer.status_code < 500:
                    failures.append(AssertionError(answer.text))
                    enough.set()

    def follow() -> None:
        with service.client("consumer") as client:
            while not over.is_set():
                try:
                    tail.read_on(client, wait=1)
                except httpx.HTTPError:
                    return
                except AssertionError as broken:
                    failures.append(broken)
                    enough.set()
                    return

    with ThreadPoolExecutor(WRITERS + 1) as pool:
        for writer in range(WRITERS):
            pool.submit(write, writer)
        pool.submit(follow)
        assert enough.wait(timeout=60)
        service.kill_everything()
        over.set()
    assert not failures, failures
    acknowledged |= mine


def test_sigterm_answers_queued_writes_and_exits_with_zero(make_service: Callable[..., Service]) -> None:
    service = make_service()
    results: list[int] = []
    under_way = threading.Event()

    def write(writer: int) -> None:
        with service.client("scim") as client:
            for n in range(10_000):
                try:
                    answer = client.post(service.scim + "/Users", json={"schemas": [USER], "userName": f"w{writer}n{n}"})
                except httpx.ConnectError:
                    return  # it no longer listens: the write was not accepted
                except httpx.RemoteProtocolError:
                    return  # the idle connection was closed before the request
                results.append(answer.status_code)
                if len(results) > 100:
                    under_way.set()
                if answer.status_code == 503:
                    return

    with ThreadPoolExecutor(8) as pool:
        for writer in range(8):
            pool.submit(write, writer)
        assert under_way.wait(timeout=60)
        assert service.stop() == 0
    assert set(results) <= {201, 503}
    service.start()
    with service.client("scim") as client:
        total = client.get(service.scim + "/Users", params={"count": 0}).json()["totalResults"]
    assert total >= results.count(201)


def test_a_second_start_continues_with_the_same_data_and_the_same_tokens(make_service: Callable[..., Service]) -> None:
    service = make_service()
    tokens = service.first_run["tokens"]
    with service.client("scim") as client:
        made = client.post(service.scim + "/Users", json={"schemas": [USER], "userName": "stays"}).json()
    assert service.stop() == 0
    service.start()
    assert service.first_run["tokens"] == tokens
    with service.client("scim") as client:
        assert client.get(made["meta"]["location"]).json()["userName"] == "stays"


def test_a_missing_or_different_key_prevents_the_start_and_is_never_replaced(make_service: Callable[..., Service]) -> None:
    service = make_service()
    assert service.stop() == 0
    key = service.data_dir / "kek"
    right = key.read_text()
    key.unlink()
    refused = service.cli("serve")
    assert refused.returncode == 2
    assert "key-encryption key" in refused.stderr
    assert not key.exists(), "a fresh key would leave every stored body unreadable"
    key.write_text("00" * 32)
    assert "has id" in service.cli("serve").stderr
    key.write_text(right)
    service.start()


def test_several_serving_processes_keep_one_order(make_service: Callable[..., Service]) -> None:
    service = make_service(LEDGER_WORKERS="3")
    with ThreadPoolExecutor(8) as pool:

        def write(writer: int) -> list[int]:
            with service.client("scim") as client:
                users = ({"schemas": [USER], "userName": f"w{writer}n{n}"} for n in range(40))
                return [int(client.post(service.scim + "/Users", json=user).headers["Ledger-Seq"]) for user in users]

        seqs = [seq for found in pool.map(write, range(8)) for seq in found]
    assert sorted(seqs) == list(range(2, 322))
    assert service.stop() == 0
