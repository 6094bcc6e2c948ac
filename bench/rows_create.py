"""Rows 1 and 2: creates over HTTP, against the floor, against a server in memory, against a bare commit."""

import os
import time

import psycopg

from bench.environment import Stage
from bench.figures import Figure, Sizes, count, interleaved, median, ms, percentile
from bench.load import Job, drive

REQUESTS_PER_SECOND = 7_000  # more than anything here answers


def creates(stage: Stage, sizes: Sizes) -> list[Figure]:
    """Row 1."""
    systems = {"ours": stage.creating, "floor": stage.floor, "scim2": stage.scim2}

    def one(name: str, connections: int, seconds: float) -> float:
        system = systems[name]
        requests = system.creates(int(REQUESTS_PER_SECOND * seconds))
        return drive(Job(system.port, requests, connections, seconds)).rate

    for name in systems:
        one(name, 16, 1.0)  # plans made, modules loaded
    figures = []
    for connections in (32, 1, 16, 64):
        judged = connections == 32
        seconds = sizes.seconds if judged else sizes.seconds / 2
        stage.say(f"creates, {connections} connections")
        measures = {name: lambda name=name: one(name, connections, seconds) for name in systems}  # noqa: B023 - called before the next
        rates = interleaved(sizes.rounds, measures)
        ours, floor, scim2 = (median(rates[name]) for name in systems)
        raw = {"ours": ours, "floor": floor, "scim2_server": scim2, "connections": connections}
        work = f"durable user creates over HTTP, {connections} connection{'s' if connections > 1 else ''}"
        speed = f"{count(ours)}/s"
        figures += [
            Figure(1, work, speed, f"floor {count(floor)}/s", f"{ours / floor:.2f} ×", "≥ 0.6 ×" if judged else "",
                   ours >= 0.6 * floor if judged else None, raw),
            Figure(1, "   the same", speed, f"scim2-server {count(scim2)}/s", f"{ours / scim2:.1f} ×", "≥ 2.5 ×" if judged else "",
                   ours >= 2.5 * scim2 if judged else None),
        ]  # fmt: skip
    return figures


def one_connection(stage: Stage, sizes: Sizes) -> list[Figure]:
    """Row 2."""
    stage.say("one connection against a bare commit")
    ours: list[float] = []
    bare: list[float] = []
    with psycopg.connect(stage.cluster, autocommit=True, prepare_threshold=0) as conn:
        conn.execute("create table if not exists bare (id bigint generated always as identity primary key, body bytea not null)")
        for _ in range(2 * sizes.rounds + 1):
            ours += drive(Job(stage.creating.port, stage.creating.creates(200), 1)).latencies
            for _ in range(200):
                row = os.urandom(600)
                started = time.perf_counter()
                conn.execute("insert into bare (body) values (%b)", (row,))
                bare.append((time.perf_counter() - started) * 1000)
    a, b = percentile(ours, 0.5), percentile(bare, 0.5)
    return [Figure(2, "create at one connection, p50", ms(a), f"bare commit {ms(b)}", f"+ {ms(a - b)}", "≤ + 1.50 ms", a <= b + 1.5,
                   {"ours_ms": a, "bare_ms": b})]  # fmt: skip
