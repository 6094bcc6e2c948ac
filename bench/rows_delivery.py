"""Rows 12 and 16: how soon consumers hear of a commit, and how fast many of them catch up."""

import contextlib
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx

from bench.environment import Service, Stage
from bench.figures import Figure, Sizes, count, percentile
from bench.load import Job, drive

DIRECTORIES = 8
EVENTS_PER_S = 500
CONSUMERS = 50
BACKLOG = 20_000  # events, for each of them
WARM_S = 3.0
ALLOW = {"LEDGER_WEBHOOK_ALLOW": "127.0.0.0/8"}


class Listeners:
    """The receiving side, in a process of its own."""

    def __init__(self, service: Service) -> None:
        command = [sys.executable, str(Path(__file__).with_name("listeners.py")), str(service.port), service.tokens["consumer"]]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        self.port = int(self._process.stdout.readline())
        self._http = httpx.Client(base_url=f"http://127.0.0.1:{self.port}", timeout=60, trust_env=False)

    def figures(self) -> dict[str, Any]:
        return self._http.get("/figures").json()

    def stop(self) -> None:
        self._http.close()
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(timeout=30)
        assert self._process.stdout is not None
        self._process.stdout.close()


@contextlib.contextmanager
def listeners(service: Service) -> Iterator[Listeners]:
    running = Listeners(service)
    try:
        yield running
    finally:
        running.stop()


def put_consumer(service: Service, name: str, **definition: Any) -> None:
    answer = service.http.put(f"/v1/consumers/{name}", json=definition, headers=service.role("operator"))
    answer.raise_for_status()


def latency(stage: Stage, sizes: Sizes) -> list[Figure]:
    """Row 12: 500 creates a second over 8 directories, heard by one webhook and one SSE client."""
    service = stage.service(**ALLOW)
    slugs = [f"d{number}" for number in range(DIRECTORIES)]
    for slug in slugs:
        service.directory(slug)
    seconds = max(4 * sizes.seconds, 4.0)
    with listeners(service) as heard:
        put_consumer(service, "hook", mode="webhook", url=f"http://127.0.0.1:{heard.port}/", start="now")
        stage.say(f"{EVENTS_PER_S} events/s over {DIRECTORIES} directories")
        per_directory = int(EVENTS_PER_S * (seconds + WARM_S) / DIRECTORIES) + 1
        requests = [
            one for turn in zip(*(service.creates(per_directory, directory=s) for s in slugs), strict=True) for one in turn
        ]
        warm = int(EVENTS_PER_S * WARM_S)
        drive(Job(service.port, requests[:warm], 32, rate=EVENTS_PER_S))
        time.sleep(1)
        heard.figures()
        sent = len(drive(Job(service.port, requests[warm:], 32, rate=EVENTS_PER_S)).latencies)
        time.sleep(1)
        found = heard.figures()
    figures: list[Figure] = []
    for name, who in (("stream", "SSE client"), ("hook", "webhook receiver")):
        values = found[name]
        p50, p99 = percentile(values, 0.5), percentile(values, 0.99)
        passed = p50 <= 20 and p99 <= 100 and len(values) == sent
        figures.append(Figure(12, f"commit to {who} at {EVENTS_PER_S} events/s over {DIRECTORIES} directories", f"p50 {p50:.1f} ms, p99 {p99:.1f} ms",
                              f"{count(len(values))} of {count(sent)}", bar="≤ 20, ≤ 100 ms", passed=passed, raw={"p50_ms": p50, "p99_ms": p99}))  # fmt: skip
    return figures


def catching_up(stage: Stage, sizes: Sizes) -> list[Figure]:
    """Row 16: fifty webhooks with a backlog each, unbatched and in batches, against one receiver."""
    service = stage.service(**ALLOW)
    stage.say(f"a log of {BACKLOG} events")
    service.make_users(BACKLOG)
    figures: list[Figure] = []
    for batch_max, bar, work in ((1, 1_000, "deliveries"), (100, 10_000, "events in batches of 100")):
        stage.say(f"{CONSUMERS} webhooks with a backlog of {BACKLOG}, {batch_max} at a time")
        with listeners(service) as heard:
            names = [f"c{batch_max}-{number}" for number in range(CONSUMERS)]
            for name in names:
                put_consumer(
                    service,
                    name,
                    mode="webhook",
                    url=f"http://127.0.0.1:{heard.port}/",
                    batch_max=batch_max,
                    directories=["acme"],
                )
            time.sleep(WARM_S)
            heard.figures()
            time.sleep(max(3 * sizes.seconds, 3.0))
            found = heard.figures()
            for name in names:
                service.http.delete(f"/v1/consumers/{name}", headers=service.role("operator")).raise_for_status()
        rate = found["events"] / found["seconds"]
        figures.append(Figure(16, f"{CONSUMERS} webhooks catching up: {work}", f"{count(rate)}/s in total", bar=f"≥ {count(bar)}/s",
                              passed=rate >= bar, raw={"per_s": rate}))  # fmt: skip
    return figures
