"""One scrape has the figures of all processes of a service: of those that serve, and of those that deliver."""

import os
import random
import signal
import subprocess
import time
from collections.abc import Callable, Iterator

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.acceptance.conftest import Service, copied, free_port, until
from tests.acceptance.receiver import Answer, Receiver, receiver
from tests.acceptance.test_silence import members_of
from tests.debian import program

USER = "urn:ietf:params:scim:schemas:core:2.0:User"
ALL = {"serve-1", "serve-2", "deliver-1"}


@pytest.fixture(scope="module")
def several(tmp_path_factory: pytest.TempPathFactory, first_started) -> Iterator[Service]:
    """A service of three processes, which these tests stop and kill."""
    place = copied(first_started, tmp_path_factory.mktemp("several") / "ledger")
    environment = {"LEDGER_WORKERS": "2", "LEDGER_WEBHOOK_ALLOW": "127.0.0.0/8", "LEDGER_METRICS_PORT": str(free_port())}
    running = Service(place, **environment).start()
    running.note_address()
    until(lambda: running.log.read_text().count('"event":"worker_started"') >= len(ALL), 60)
    yield running
    assert running.stop() == 0
    assert not list(place.glob("figures-*"))


@pytest.fixture
def hook() -> Iterator[Receiver]:
    with receiver() as running:
        yield running


class Scrape:
    """What Prometheus gets, from whichever serving process accepts the connection."""

    def __init__(self, service: Service) -> None:
        port = service.environment["LEDGER_METRICS_PORT"]
        began = time.monotonic()
        self.text = httpx.get(f"http://127.0.0.1:{port}/metrics", trust_env=False, timeout=10).text
        self.seconds = time.monotonic() - began
        self.samples = [found for family in text_string_to_metric_families(self.text) for found in family.samples]

    def total(self, name: str, **labels: str) -> float:
        """The sum of the samples of that name with these labels."""
        return sum(found.value for found in self.samples if found.name == name and labels.items() <= found.labels.items())

    @property
    def up(self) -> dict[str, float]:
        return {found.labels["process"]: found.value for found in self.samples if found.name == "ledger_process_up"}


def scraped(service: Service, holds: Callable[[Scrape], bool], seconds: float = 30) -> Scrape:
    """The first scrape of which a condition holds. Each serving process keeps its text for three seconds, so one may be older than the last."""
    found = Scrape(service)

    def held() -> bool:
        nonlocal found
        return holds(found := Scrape(service))

    until(held, seconds)
    return found


def consumer(service: Service, url: str) -> str:
    name = f"c{random.randrange(10**9)}"
    with service.client("operator") as operator:
        body = {"mode": "webhook", "url": url, "start": "now", "directories": ["acme"]}
        assert operator.put(f"{service.base}/v1/consumers/{name}", json=body).status_code == 201
    return name


def make_users(service: Service, count: int) -> None:
    """Make users, each through a new connection, which any serving process may accept."""
    for _ in range(count):
        with service.client("scim") as client:
            made = client.post(f"{service.scim}/Users", json={"schemas": [USER], "userName": f"u{random.random()}"})
            assert made.status_code == 201


def test_one_scrape_has_the_requests_and_the_deliveries_of_all_processes(several: Service, hook: Receiver) -> None:
    name, operation = consumer(several, hook.url), "GET /Schemas"  # which no other test here asks for
    make_users(several, 12)
    for _ in range(12):
        with several.client("scim") as client:
            assert client.get(f"{several.scim}/Schemas").status_code == 200
    hook.wait(lambda: len(hook.accepted) == 12)
    scrape = scraped(
        several,
        lambda s: (
            s.total("ledger_delivered_events_total", consumer=name)
            == s.total("ledger_scim_requests_total", operation=operation)
            == 12
        ),
    )
    assert scrape.up == dict.fromkeys(ALL, 1.0)
    assert scrape.total("ledger_build_info") == len(ALL)
    requests = len(hook.deliveries)
    assert scrape.total("ledger_deliveries_total", consumer=name) == requests
    assert scrape.total("ledger_deliveries_total", consumer=name, outcome="accepted", process="deliver-1") == requests
    assert scrape.total("ledger_delivery_answer_seconds_count", consumer=name) == requests
    assert scrape.total("ledger_delivery_latency_seconds_count", consumer=name) == 12
    assert 0 < scrape.total("ledger_delivery_latency_seconds_sum", consumer=name) < 12 * 60
    checked = subprocess.run(
        [program("promtool", "prometheus"), "check", "metrics"], input=scrape.text, capture_output=True, text=True, timeout=60
    )
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", "")
    nameless = httpx.get(several.base + "/metrics", trust_env=False).text
    assert [process for process in sorted(ALL) if f'ledger_process_up{{process="{process}"}} 1.0' in nameless] == sorted(ALL)
    assert (name in nameless, "acme" in nameless, "ledger_deliver" in nameless) == (False, False, False)


def test_refused_deliveries_are_counted_by_outcome(several: Service, hook: Receiver) -> None:
    answers = iter([Answer(503), Answer(404), Answer(302), Answer(cut=True), Answer(700)])
    hook.behave = lambda _: next(answers, Answer())
    name, nobody = consumer(several, hook.url), consumer(several, f"http://127.0.0.1:{free_port()}/")
    make_users(several, 5)
    hook.wait(lambda: len(hook.accepted) >= 5)
    expected = dict.fromkeys(["http_5xx", "http_4xx", "redirect", "connection_broken", "other"], 1.0) | {"accepted": 5.0}
    scrape = scraped(several, lambda s: s.total("ledger_deliveries_total", consumer=name) == 10)
    assert {word: scrape.total("ledger_deliveries_total", consumer=name, outcome=word) for word in expected} == expected
    assert scrape.total("ledger_deliveries_total", consumer=nobody, outcome="connection_refused") >= 1
    assert scrape.total("ledger_deliveries_total", consumer=nobody, outcome="accepted") == 0


def test_a_stopped_process_is_down_and_one_that_replaces_it_is_up(several: Service, hook: Receiver) -> None:
    scraped(several, lambda s: s.up == dict.fromkeys(ALL, 1.0))
    deliverer = members_of(several)[-1]
    os.kill(deliverer, signal.SIGSTOP)
    seconds = list[float]()

    def down(scrape: Scrape) -> bool:
        seconds.append(scrape.seconds)
        return scrape.up == {"serve-1": 1.0, "serve-2": 1.0, "deliver-1": 0.0}

    scraped(several, down, 10)
    assert max(seconds) < 2
    os.kill(deliverer, signal.SIGKILL)
    until(lambda: len(members_of(several)) == len(ALL) and deliverer not in members_of(several), 60)
    name = consumer(several, hook.url)
    make_users(several, 1)
    scrape = scraped(several, lambda s: s.total("ledger_delivered_events_total", consumer=name) == 1, 60)
    assert scrape.up == dict.fromkeys(ALL, 1.0)
