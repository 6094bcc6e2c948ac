"""`make bench`: the figures of docs/bench.md, each measured beside its peer in the same run, as one table.

make bench ARGS="--quick"                 small sizes, two minutes
make bench ARGS="--only 1,2 --json f.json"
make bench ARGS="--full"                  a million events and memberships; an hour on a small machine
"""

import argparse
import json
import os
import platform
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

import psycopg
from rich.console import Console
from rich.table import Table

from bench import (
    rows_cli,
    rows_create,
    rows_delivery,
    rows_erasure,
    rows_groups,
    rows_keys,
    rows_log,
    rows_members,
    rows_reads,
    rows_storm,
    rows_surge,
    rows_thinning,
)
from bench.dataset import Dataset
from bench.environment import ROOT, Stage
from bench.figures import DEFAULT, FULL, QUICK, Figure, Sizes

ROWS = tuple(range(1, 23))


def measure(stage: Stage, sizes: Sizes, wanted: set[int], failed: Callable[[int, Exception], None]) -> list[Figure]:
    """The rows in an order that lets them share data; 11 comes last because it deletes the large group."""
    data = Dataset(stage, sizes)
    logs: list[rows_log.Grown] = []

    def growth() -> list[Figure]:
        figures, small = rows_log.growth(stage, sizes)
        logs.append(small)
        return figures

    plan: list[tuple[int, Callable[[], list[Figure]]]] = [
        (1, lambda: rows_create.creates(stage, sizes)),
        (2, lambda: rows_create.one_connection(stage, sizes)),
        (17, lambda: rows_cli.command_line(stage, sizes)),
        (12, lambda: rows_delivery.latency(stage, sizes)),
        (16, lambda: rows_delivery.catching_up(stage, sizes)),
        (18, lambda: rows_thinning.year(stage, sizes)),
        (19, lambda: rows_surge.surge(stage, sizes)),
        (13, lambda: rows_storm.storm(stage, sizes)),
        (14, lambda: rows_storm.journal(stage, sizes)),
        (21, lambda: rows_keys.rewrapping(stage, sizes)),
        (22, lambda: rows_erasure.erasing(stage, sizes)),
        (10, growth),
        (3, lambda: rows_groups.one_member(data)),
        (4, lambda: rows_groups.one_group(data)),
        (5, lambda: rows_groups.put(data)),
        (6, lambda: rows_reads.single(data)),
        (20, lambda: rows_reads.pages(data)),
        (7, lambda: rows_reads.feed(data)),
        (9, lambda: rows_reads.as_of(data)),
        (8, lambda: rows_log.rebuild(data, logs[0] if logs else rows_log.Grown(stage, sizes.small))),
        (15, lambda: rows_members.large_group(data)),
        (11, lambda: rows_groups.leaver(data)),
    ]
    figures: list[Figure] = []
    for row, act in plan:
        if row not in wanted:
            continue
        try:
            found = act()
            figures += found
            for figure in found:
                stage.say("  ".join(filter(None, (figure.work, figure.ours, figure.peer, figure.ratio, figure.verdict))))
        except Exception as broken:  # the other rows can still be measured
            failed(row, broken)
            figures.append(Figure(row, "could not be measured", str(broken)[:60], passed=False))
    return sorted(figures, key=lambda figure: figure.row)


def machine(stage: Stage) -> dict[str, str]:
    with psycopg.connect(stage.cluster) as conn:
        postgres = conn.info.parameter_status("server_version")
    found = subprocess.run(["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True)
    return {
        "cores": str(len(os.sched_getaffinity(0))),
        "machine": platform.machine(),
        "python": platform.python_version(),
        "postgresql": str(postgres),
        "scim2-server": metadata.version("scim2-server"),
        "commit": found.stdout.strip() or "unknown",
        "date": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        "load": f"{os.getloadavg()[0]:.1f}",
    }


def table(figures: list[Figure], about: dict[str, str], size: str) -> Table:
    title = (
        f"{about['cores']} cores {about['machine']} · Python {about['python']} · PostgreSQL {about['postgresql']}, fsync on · "
        f"commit {about['commit']} · {about['date']} · load before {about['load']} · {size}"
    )
    shown = Table(title=title, title_justify="left")
    shown.add_column("", justify="right")
    shown.add_column("work", min_width=30)
    for name in ("ours", "beside it", "ratio", "bar"):
        shown.add_column(name, justify="right")
    shown.add_column("")
    last = 0
    for figure in figures:
        if last and figure.row != last:
            shown.add_section()
        number = str(figure.row) if figure.row != last else ""
        last = figure.row
        verdict = {"PASS": "[green]PASS[/]", "MISS": "[bold red]MISS[/]"}.get(figure.verdict, "")
        shown.add_row(number, figure.work, figure.ours, figure.peer, figure.ratio, figure.bar, verdict)
    return shown


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="make bench ARGS=...", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", help="rows to measure, such as 1,2,6")
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--quick", action="store_true", help="smaller data, shorter rounds")
    size.add_argument("--full", action="store_true", help="a million events and memberships")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to a file, too")
    return parser.parse_args()


def main() -> int:
    options = arguments()
    try:
        wanted = {int(word) for word in options.only.split(",")} if options.only else set(ROWS)
    except ValueError:
        wanted = set()
    if not wanted or not wanted <= set(ROWS):
        print(f"--only takes rows separated by commas, of {', '.join(map(str, ROWS))}.", file=sys.stderr)
        return 2
    sizes, size = (QUICK, "quick") if options.quick else (FULL, "full") if options.full else (DEFAULT, "default sizes")
    console = Console(width=None if sys.stdout.isatty() else 200)
    notes = Console(stderr=True)
    started = time.monotonic()

    def say(text: str) -> None:
        notes.print(f"[dim]{time.monotonic() - started:5.0f} s  {text}[/]", highlight=False, soft_wrap=True)

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # on exit the stage stops all its processes
    with Stage(say) as stage:
        about = machine(stage)
        figures = measure(stage, sizes, wanted, lambda row, broken: say(f"row {row} could not be measured: {broken}"))
    console.print(table(figures, about, f"{size}, {time.monotonic() - started:.0f} s"))
    if options.json:
        rows = [{**vars(figure), "verdict": figure.verdict} for figure in figures]
        options.json.write_text(json.dumps({"about": about, "size": size, "figures": rows}, indent=1, ensure_ascii=False))
    return int(any(figure.passed is False for figure in figures))


if __name__ == "__main__":
    sys.exit(main())
