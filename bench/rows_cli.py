"""Row 17: the time of a command, against importing the two libraries that it uses."""

import sys

from bench.environment import Stage
from bench.figures import Figure, Sizes, interleaved, median, ms

BASE = "import typer, httpx"
HELP_MAX, LIST_MAX = 1.5, 3.0


def command_line(stage: Stage, sizes: Sizes) -> list[Figure]:
    """`--help`, which sends no request, and `token list`, which asks the running service."""
    stage.say("the command line")
    service = stage.creating
    measures = {
        "base": lambda: service.seconds_of([sys.executable, "-c", BASE]),
        "help": lambda: service.seconds_of(service.command("--help")),
        "list": lambda: service.seconds_of(service.command("token", "list")),
    }
    for measure in measures.values():
        measure()  # warm up: bytecode is compiled and on disk
    found = {name: median(seconds) for name, seconds in interleaved(3 * sizes.rounds, measures).items()}
    return [
        _figure("scim-ledger --help", found["help"], found["base"], HELP_MAX),
        _figure("scim-ledger token list, beside the service", found["list"], found["base"], LIST_MAX),
    ]


def _figure(work: str, ours: float, base: float, bar: float) -> Figure:
    peer = f'python -c "{BASE}" {ms(base * 1000)}'
    raw = {"ours_s": ours, "base_s": base}
    return Figure(17, work, ms(ours * 1000), peer, f"{ours / base:.2f} ×", f"≤ {bar:g} ×", ours <= bar * base, raw)
