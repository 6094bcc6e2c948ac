"""The limit of a directory's SCIM requests: one for all processes, over restarts, by HTTP and by the command line."""

import json
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from tests.acceptance.conftest import Service, until

PATH = "/v1/directories/acme/rate-limit"
LOWEST = {"per_second": 25, "burst": 25}


def _ask(service: Service) -> int:
    """With a connection of its own, which any process may get."""
    headers = {"Authorization": f"Bearer {service.first_run['tokens']['scim']}"}
    return httpx.get(service.scim + "/Users?count=1", headers=headers, trust_env=False).status_code


def _limit(service: Service, **limit: int) -> dict[str, Any]:
    with service.client("admin") as admin:
        answer = admin.put(service.base + PATH, json=limit)
    assert answer.status_code == 200, answer.text
    return answer.json()


@pytest.mark.parametrize("workers", ["1", "3"])
def test_all_processes_together_admit_the_burst_and_the_rate_and_no_more(
    make_service: Callable[..., Service], workers: str
) -> None:
    service = make_service(LEDGER_WORKERS=workers)
    _limit(service, **LOWEST)
    until(lambda: 429 in {_ask(service) for _ in range(10)})  # every process knows of it, and the bucket is empty
    began, statuses = time.monotonic(), Counter[int]()
    with ThreadPoolExecutor(8) as pool:
        statuses.update(pool.map(lambda _: _ask(service), range(300)))
    seconds = time.monotonic() - began
    held = int(workers) * max(25 // 10, 8)  # what each process may have taken before, and not used
    assert set(statuses) == {200, 429}
    assert statuses[200] <= 25 * seconds + held + 1
    assert statuses[200] >= 25 * (seconds - 1) - held, "the whole rate is there, whoever gets the connections"


def test_a_limit_holds_over_a_restart_and_is_an_event(make_service: Callable[..., Service]) -> None:
    service = make_service()
    shown = _limit(service, per_second=25, burst=30)
    assert shown == {"object": "rate_limit", "directory": "acme", "per_second": 25, "burst": 30, "set_by": "operator"}
    assert _limit(service, per_second=25, burst=30) == shown, "the same again makes no event"
    assert service.stop() == 0
    service.start()
    statuses = [_ask(service) for _ in range(200)]
    assert 429 in statuses
    assert statuses.index(429) >= 30
    with service.client("admin") as admin:
        assert admin.get(service.base + PATH).json() == shown
        reset = admin.delete(service.base + PATH).json()
        assert reset == {"object": "rate_limit", "directory": "acme", "per_second": None, "burst": None, "set_by": "profile"}
        assert {_ask(service) for _ in range(60)} == {200}
        params = {"directory": "acme", "types": "directory.rate_limit_changed"}
        events = admin.get(service.base + "/v1/events", params=params).json()["data"]
    set_, back = (event["data"] for event in events)
    assert (set_["object"]["per_second"], set_["object"]["burst"]) == (25, 30)
    assert set_["changes"] == [{"path": "rate_limit", "from": None, "to": {"per_second": 25, "burst": 30}}]
    assert back["changes"] == [{"path": "rate_limit", "from": {"per_second": 25, "burst": 30}, "to": None}]
    assert "per_second" not in back["object"]


def test_strangers_use_up_nothing_and_a_refused_request_is_explained(make_service: Callable[..., Service]) -> None:
    service = make_service()
    _limit(service, **LOWEST)
    for _ in range(40):
        assert httpx.get(service.scim + "/Users", headers={"Authorization": "Bearer x"}).status_code in {401, 429}
    assert [_ask(service) for _ in range(25)] == [200] * 25
    assert 429 in {_ask(service) for _ in range(100)}

    def refusals() -> list[dict[str, Any]]:
        with service.client("operator") as operator:
            return operator.get(service.base + "/v1/requests", params={"directory": "acme", "status": 429}).json()["data"]

    until(lambda: bool(refusals()))
    entry = refusals()[0]
    assert entry["detail"].startswith("The IdP sends more requests than the limit of this directory (25 a second, 25 at once)")
    assert "rate-limit set" in entry["fix"]


def test_slowed_strangers_are_counted_for_the_directory_that_they_meant(make_service: Callable[..., Service]) -> None:
    service = make_service()
    statuses = [httpx.get(service.scim + "/Users").status_code for _ in range(40)]
    slowed = statuses.count(429)
    assert slowed >= 10

    def counted() -> int:
        with service.client("operator") as operator:
            health = operator.get(service.base + "/v1/directories/acme/health").json()
        return sum(found["count"] for found in health["mistakes"] if found["mistake"] == "no_token")

    until(lambda: counted() > 0)
    with service.client("operator") as operator:
        figures = operator.get(service.base + "/metrics").text
    line = next(line for line in figures.splitlines() if line.startswith("ledger_http_slowed_total"))
    assert float(line.rpartition(" ")[2]) == slowed


def test_the_command_line_shows_sets_and_resets_a_limit(service: Service) -> None:
    def told(*words: str) -> dict[str, Any]:
        ended = service.cli("directory", "rate-limit", *words, "--json")
        assert ended.returncode == 0, ended.stderr
        return json.loads(ended.stdout)

    assert told("show", "acme")["per_second"] is None
    assert told("set", "acme", "1000")["burst"] == 10_000
    assert told("set", "acme", "2000", "--burst", "2000")["burst"] == 2_000
    assert "2000" in service.cli("directory", "rate-limit", "show", "acme").stdout
    assert told("reset", "acme")["set_by"] == "profile"
    assert service.cli("directory", "rate-limit", "set", "acme", "24").returncode == 2
    assert service.cli("directory", "rate-limit", "set", "acme", "50", "--burst", "30").returncode == 2


def test_only_an_admin_sets_a_limit(service: Service) -> None:
    with service.client("operator") as operator:
        assert operator.get(service.base + PATH).status_code == 200
        assert operator.put(service.base + PATH, json=LOWEST).status_code == 403
        assert operator.delete(service.base + PATH).status_code == 403
