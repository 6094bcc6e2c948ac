"""Rows 13 and 14: how a storm in one directory affects another, and the cost of the journal of requests."""

import itertools

from bench.dataset import OTHER
from bench.environment import Service, Stage, patch_body
from bench.figures import Figure, Sizes, count, interleaved, median, ms, percentile
from bench.load import Job, Result, Running, drive
from bench.rows_create import REQUESTS_PER_SECOND

STEADY_PER_SECOND = 40.0
STEADY_CONNECTIONS = 8
STORM_CONNECTIONS = 64
CROWD = 1_200  # connections: more than a directory's queue holds, so that there are 429s
MINUTE_RATE = 20_000 / 60
PATCHED_USERS = 1_000
_titles = itertools.count(1)  # unique, because the same title again would make no event
WITHOUT_JOURNAL = "from api.journal import Journal; Journal.add = lambda self, entry: None"


class _Two:
    """Two directories: one writes steadily, the other may be in a storm."""

    def __init__(self, stage: Stage, sizes: Sizes) -> None:
        self._service, self._sizes = stage.service(), sizes
        self._service.directory(OTHER)
        self._users = self._service.make_users(PATCHED_USERS)
        self.quiet: list[float] = []
        self.rest()  # plans made, modules loaded
        self.quiet.clear()

    def _steady(self, seconds: float) -> Job:
        requests = self._service.creates(int(STEADY_PER_SECOND * seconds) + STEADY_CONNECTIONS, directory=OTHER)
        return Job(self._service.port, requests, STEADY_CONNECTIONS, seconds, rate=STEADY_PER_SECOND)

    def rest(self) -> None:
        """Measure the steady directory alone."""
        self.quiet += drive(self._steady(self._sizes.seconds * 2)).latencies

    def storm(self, changes: int, connections: int, rate: float = 0.0) -> tuple[list[float], Result]:
        """A storm of half creates, half PATCHes in one directory. Returns the latencies of the other one, and the result of the storm."""
        created = self._service.creates(changes // 2)
        patched = [
            self._service.request(
                "PATCH", f"Users/{self._users[n % PATCHED_USERS]}", patch_body("replace", "title", f"Title {next(_titles)}")
            )
            for n in range(changes // 2)
        ]
        requests = [one for pair in zip(created, patched, strict=True) for one in pair]
        before = self._service.events()
        steady = Running(self._steady(300.0))
        result = drive(Job(self._service.port, requests, connections, 240.0, rate=rate, retry=True))
        calm = steady.stop()
        stored, answered = self._service.events() - before, len(result.latencies) + len(calm.latencies)
        if not stored == answered == len(requests) + len(calm.latencies):
            raise RuntimeError(
                f"{len(requests)} changes sent in the storm, {answered} writes acknowledged in all, {stored} stored"
            )
        return calm.during(result), result


def storm(stage: Stage, sizes: Sizes) -> list[Figure]:
    """Row 13."""
    stage.say("a storm in one directory beside another that writes steadily")
    two = _Two(stage, sizes)
    flood, spread, crowd = list[float](), list[float](), list[float]()
    floods, crowds = list[Result](), list[Result]()
    for taken, results, changes, connections, rate in (
        (flood, floods, sizes.burst, STORM_CONNECTIONS, 0.0),
        (spread, [], sizes.burst // 2, STORM_CONNECTIONS, MINUTE_RATE),
        (crowd, crowds, sizes.burst, CROWD, 0.0),
        (flood, floods, sizes.burst, STORM_CONNECTIONS, 0.0),
    ):
        two.rest()
        latencies, result = two.storm(changes, connections, rate)
        taken.extend(latencies)
        results.append(result)
    two.rest()
    speed = median([result.rate for result in floods])
    refused, hasty = (sum(getattr(result, name) for result in (*floods, *crowds)) for name in ("refused", "hasty"))
    work = f"a create while another directory sends {count(sizes.burst)} changes by {STORM_CONNECTIONS} connections, p99"
    minute = f"   the same at {count(MINUTE_RATE)}/s, {count(20_000)} in a minute"
    waited = f"   the same by {count(CROWD)} connections, which fill its queue"
    return [
        _beside(work, flood, two.quiet, 5.0),
        _beside(minute, spread, two.quiet, 5.0),
        _beside(waited, crowd, two.quiet, None),
        Figure(13, "   the storm itself", f"{count(speed)}/s", f"by {count(CROWD)} connections: {count(crowds[0].rate)}/s", bar="≥ 334/s",
               passed=speed >= MINUTE_RATE, raw={"per_second": speed, "crowd_per_second": crowds[0].rate}),
        Figure(13, "   answered 429, all stored when sent again", count(refused), f"without Retry-After: {hasty}", bar="0 without",
               passed=hasty == 0, raw={"refused": refused, "hasty": hasty}),
    ]  # fmt: skip


def _beside(work: str, taken: list[float], quiet: list[float], bar: float | None) -> Figure:
    p99, before = percentile(taken, 0.99), percentile(quiet, 0.99)
    peer = f"in quiet: {ms(before)} (p50 {ms(percentile(quiet, 0.5))})"
    raw = {"p50_ms": percentile(taken, 0.5), "p99_ms": p99, "max_ms": max(taken), "writes": len(taken),
           "quiet_p50_ms": percentile(quiet, 0.5), "quiet_p99_ms": before}  # fmt: skip
    shown = f"{ms(p99)} (p50 {ms(raw['p50_ms'])})"
    passed = None if bar is None else p99 < bar * before
    return Figure(13, work, shown, peer, f"{p99 / before:.1f} ×", f"< {bar:.0f} ×" if bar else "", passed, raw)


def journal(stage: Stage, sizes: Sizes) -> list[Figure]:
    """Row 14."""
    stage.say("creates with and without the journal")
    services = {"with": stage.service(), "without": stage.service(WITHOUT_JOURNAL)}

    def one(service: Service, seconds: float) -> float:
        return service.drive(service.creates(int(REQUESTS_PER_SECOND * seconds)), seconds=seconds).rate

    for service in services.values():
        one(service, 1.0)  # plans made, modules loaded
    measures = {name: lambda service=service: one(service, sizes.seconds) for name, service in services.items()}
    rates = interleaved(2 * sizes.rounds, measures)
    a, b = median(rates["with"]), median(rates["without"])
    return [Figure(14, "creates with the journal, 32 connections", f"{count(a)}/s", f"without it {count(b)}/s", f"{a / b:.2f} ×", "≥ 0.9 ×",
                   a >= 0.9 * b, {"with": a, "without": b})]  # fmt: skip
