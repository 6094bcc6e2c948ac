"""`make drills`: faults strike while all clients and readers work, and every answer is compared with the log (docs/reliability.md).

make drills                                   30 rounds of a random seed
make drills ARGS="--rounds 1000 --seed 7"     takes an evening
make drills ARGS="--rounds 50 --faults cut,black_hole --hold 12"
"""

import argparse
import asyncio
import secrets
import signal
import sys
from collections.abc import Container, Iterable
from pathlib import Path

from tests.drills.faults import FAULTS, SLOW
from tests.drills.history import History, Violation
from tests.drills.play import Drill, Plan, Report

ROOT = Path(__file__).parents[2]


def main() -> int:
    """Exits with 0 if every promise was kept, and with 1 if one was broken; then it prints the seed, the file of the history and
    its end.
    """
    plan = _plan()
    history = History(plan.work.with_suffix(".jsonl"))
    drill = Drill(plan, history, lambda rounds, what: print(f"{rounds} of {plan.rounds} rounds: {what}", flush=True))
    try:
        report = asyncio.run(_played(drill))
    except (Violation, AssertionError) as broken:
        history.tell("violation", why=str(broken))
        print(f"{history.end()}\n\nA promise was broken in round {history.round} of seed {plan.seed}: {broken}")
        print(f"Whole history: {history.path}; logs of the services beside it in {plan.work}.")
        only = "" if set(plan.faults) == set(FAULTS) else f" --faults {','.join(plan.faults)}"
        print(f'Again: make drills ARGS="--rounds {plan.rounds} --seed {plan.seed} --hold {plan.hold_s}{only}"')
        return 1
    finally:
        history.close()
    show(plan, report)
    return 0


async def _played(drill: Drill) -> Report:
    """SIGTERM ends it as Ctrl-C does: no process that it started is left."""
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    return await drill.run()


def _plan() -> Plan:
    parser = argparse.ArgumentParser(prog="make drills")
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--seed", type=int, default=secrets.randbelow(1_000_000))
    parser.add_argument("--hold", type=float, default=2.0, help="the longest that a fault lasts, in seconds")
    parser.add_argument("--faults", default="", help=f"only these, with commas: {', '.join(FAULTS)}")
    parser.add_argument(
        "--quick", action="store_true", help="without the faults that take long to heal: services and deliveries killed, standbys"
    )
    parser.add_argument("--work", type=Path, default=ROOT / "var" / "drills", help="where the database, logs and the history go")
    asked = parser.parse_args()
    faults = tuple(asked.faults.split(",")) if asked.faults else tuple(set_aside(FAULTS, SLOW) if asked.quick else FAULTS)
    if unknown := set(faults) - set(FAULTS):
        parser.error(f"there is no fault {', '.join(sorted(unknown))}")
    return Plan(asked.rounds, asked.seed, asked.hold, asked.work / f"seed-{asked.seed}", faults)


def set_aside(names: Iterable[str], without: Container[str]) -> list[str]:
    return [name for name in names if name not in without]


def show(plan: Plan, report: Report) -> None:
    """Print the figures of a run in which every promise was kept."""
    print(
        f"{sum(report.rounds.values())} rounds of seed {plan.seed} in {report.seconds:.0f} s: nothing lost, twice, out of order or skipped."
    )
    print(
        f"  {report.acknowledged} acknowledged changes and acts, {report.unsure} without an answer, {report.events} events, {report.repeated} pushed again"
    )
    print(f"  {'fault':18} {'rounds':>6} {'writes again':>13} {'read again':>11} {'slowest answer':>15}")
    for name, rounds in sorted(report.rounds.items()):
        figures = (report.back_s[name], report.caught_up_s[name], report.answer_s[name])
        print(f"  {name:18} {rounds:6} {figures[0]:11.2f} s {figures[1]:9.2f} s {figures[2]:13.2f} s")
    for statement, count in report.cuts.most_common():
        print(f"  cut {count:3} times at {statement}")
    for line in report.skipped:
        print(f"  skipped: {line}")


if __name__ == "__main__":
    sys.exit(main())
