"""Rows 8 and 10: the cost of a long log: rebuild, verify, and writes."""

import contextlib
import itertools
import random
from collections.abc import Iterator

import psycopg

from bench.dataset import Dataset
from bench.environment import Service, Stage, patch_body
from bench.figures import Figure, Sizes, count, interleaved, median

HOT_USERS = 1_000
WRITES = 1_000  # writes in a measured round: half creates, half updates
WRITE_ROUNDS = 7


class Grown:
    """A service with a log of a given length. Updates always go to the same thousand users."""

    def __init__(self, stage: Stage, events: int) -> None:
        self.service = stage.service()
        self.users = self.service.make_users(events)
        self._hot = itertools.cycle(random.Random(10).sample(self.users, min(HOT_USERS, len(self.users))))
        self._titles = itertools.count(1)

    def updates(self, number: int) -> list[bytes]:
        return [
            self.service.request(
                "PATCH", f"Users/{next(self._hot)}", patch_body("replace", "title", f"Title {next(self._titles)}")
            )
            for _ in range(number)
        ]

    def write_cost(self) -> float:
        """µs per write at 32 connections."""
        requests = [
            one for pair in zip(self.service.creates(WRITES // 2), self.updates(WRITES // 2), strict=True) for one in pair
        ]
        return 1e6 / self.service.drive(requests).rate


def growth(stage: Stage, sizes: Sizes) -> tuple[list[Figure], Grown]:
    """Row 10. Returns the small log, for the rebuild."""
    stage.say(f"two logs of {sizes.small} and {sizes.grown} events")
    small, grown = Grown(stage, sizes.small), Grown(stage, sizes.grown)
    small.write_cost()
    grown.write_cost()
    figures = []
    for held in (False, True):
        with _snapshot(grown.service) if held else contextlib.nullcontext():
            if held:
                stage.say("writing under an old snapshot")
                grown.service.drive(grown.updates(10 * HOT_USERS))
            costs = interleaved(WRITE_ROUNDS, {"small": small.write_cost, "grown": grown.write_cost})
        a, b = median(costs["grown"]), median(costs["small"])
        work = f"a write at {count(sizes.grown)} events" + (
            f", snapshot held for {count(10 * HOT_USERS)}+ writes" if held else ""
        )
        figures.append(Figure(10, work, f"{a:.0f} µs", f"at {count(sizes.small)}: {b:.0f} µs", f"{a / b:.2f} ×", "≤ 1.3 ×", a <= 1.3 * b,
                              {"grown_us": a, "small_us": b}))  # fmt: skip
    return figures, small


@contextlib.contextmanager
def _snapshot(service: Service) -> Iterator[None]:
    """Hold a snapshot open, as a dump does: PostgreSQL cannot remove row versions that die after its start."""
    with psycopg.connect(service.owner_url()) as conn:
        conn.execute("set transaction isolation level repeatable read")
        conn.execute("select count(*) from ledger.users")
        yield
        conn.rollback()


def rebuild(data: Dataset, log: Grown) -> list[Figure]:
    """Row 8: the whole command as a process, for one state with a log that doubles, and for the large data set."""
    stage, sizes = data.stage, data.sizes
    found: list[tuple[int, float, float]] = []
    for events in (sizes.toggled, 2 * sizes.toggled):
        stage.say(f"rebuild of {events} events")
        missing = events - log.service.events()
        if missing > 0:
            log.service.drive(log.updates(missing))
        found.append(_rebuild(log.service))
    (fewer, earlier, before), (more, seconds, after) = found
    marginal = f"{count((more - fewer) / (seconds - earlier))}/s without the start" if seconds > earlier else ""
    figures = [
        Figure(8, f"rebuild, users only, {count(more)} events", f"{count(more / seconds)} events/s", marginal, bar="≥ 20 000/s",
               passed=more / seconds >= 20_000, raw={"events": more, "seconds": seconds}),
        Figure(8, f"   its memory at {count(more)} events, the same state", f"{after:.0f} MiB", f"at {count(fewer)}: {before:.0f} MiB",
               f"{after / before:.2f} ×", "≤ 1.1 ×", after <= 1.1 * before, {"mib": after, "mib_before": before}),
    ]  # fmt: skip
    assert data.large_group
    assert data.teams
    stage.say("rebuild of the large data set")
    events, seconds, peak = _rebuild(data.service)
    figures.append(Figure(8, f"rebuild, users and memberships, {count(events)} events", f"{count(events / seconds)} events/s", f"{peak:.0f} MiB",
                          bar="≥ 20 000/s, ≤ 200 MiB", passed=events / seconds >= 20_000 and peak <= 200,
                          raw={"events": events, "seconds": seconds, "mib": peak}))  # fmt: skip
    stage.say("verification of the large data set")
    return [*figures, _verify(data.service), _verify(log.service, ", users only")]


def _verify(service: Service, what: str = ", users and memberships") -> Figure:
    report, seconds, peak = service.measured_cli("replay", "verify")
    if report["findings"]:
        raise RuntimeError(f"the verification found {report['findings']}")
    rate = report["events"] / seconds
    return Figure(8, f"verify{what}, {count(report['events'])} events", f"{count(rate)} events/s", f"{peak:.0f} MiB", bar="≥ 25 000/s", passed=rate >= 25_000,
                  raw={"events": report["events"], "seconds": seconds, "mib": peak})  # fmt: skip


def _rebuild(service: Service) -> tuple[int, float, float]:
    report, seconds, peak = service.measured_cli("replay", "rebuild")
    if report["drifted"]:
        raise RuntimeError(f"the rebuild found drift in {report['drifted']}")
    return report["events"], seconds, peak
