"""The database goes away while the service runs: 503 with Retry-After, nothing lost, and everything goes on without a restart."""

import os
import signal
import threading
from collections.abc import Callable

import httpx

from tests.acceptance.conftest import Service

USER = "urn:ietf:params:scim:schemas:core:2.0:User"


def _create(client: httpx.Client, service: Service, name: str) -> httpx.Response:
    return client.post(service.scim + "/Users", json={"schemas": [USER], "userName": name})


def _until_served(client: httpx.Client, service: Service) -> None:
    """Wait for the probe: /readyz answers 503 until every part works again."""
    for _ in range(100_000):
        if client.get(service.base + "/readyz").status_code == 200:
            return
    raise AssertionError("never ready again")


def test_after_a_kill_postgresql_is_started_again_and_nothing_acknowledged_is_lost(make_service: Callable[..., Service]) -> None:
    service = make_service()
    acknowledged: list[str] = []
    statuses: set[int] = set()
    enough, over = threading.Event(), threading.Event()

    def write() -> None:
        with service.client("scim") as client:
            for n in range(100_000):
                if over.is_set():
                    return
                answer = _create(client, service, f"u{n}")
                statuses.add(answer.status_code)
                if answer.status_code == 201:
                    acknowledged.append(f"u{n}")
                else:
                    assert answer.headers["Retry-After"]
                    assert answer.json()["detail"]
                if len(acknowledged) > 50:
                    enough.set()

    writer = threading.Thread(target=write)
    writer.start()
    assert enough.wait(timeout=60)
    os.kill(service.postmaster(), signal.SIGKILL)
    with service.client("scim") as client:
        _until_served(client, service)
        over.set()
        writer.join()
        assert _create(client, service, "after").status_code == 201
    assert {*acknowledged, "after"} <= service.user_names()
    assert statuses <= {201, 503, 409}, "409: a write that was answered 503 was stored, so its repetition is a conflict"


def test_reads_and_the_feed_answer_503_while_the_database_is_stopped(make_service: Callable[..., Service]) -> None:
    service = make_service()
    postmaster = service.postmaster()
    with service.client("scim") as client, service.client("consumer") as reader, service.client("auditor") as auditor:
        assert _create(client, service, "before").status_code == 201
        # A stopped process keeps its sockets and answers nothing: the hardest case. Killing it afterwards ends the waiting
        # connections.
        threading.Timer(1, os.kill, (postmaster, signal.SIGKILL)).start()
        asked = (
            (client, service.scim + "/Users"), (client, service.scim + '/Users?filter=userName eq "before"'),
            (reader, service.base + "/v1/events"), (auditor, service.base + "/v1/audit/acme/population"),
        )  # fmt: skip
        seen: set[int] = set()
        while 503 not in seen:
            for who, url in asked:
                seen.add(who.get(url).status_code)
        assert seen <= {200, 503}
        assert reader.get(service.base + "/healthz").status_code == 200
        _until_served(client, service)
        assert client.get(service.scim + "/Users").json()["totalResults"] == 1
