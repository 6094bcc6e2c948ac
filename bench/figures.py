"""A measured figure, the sizes of a run, and small statistics."""

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Sizes:
    """How much data a run makes and how long it measures."""

    users: int  # in the large data set, all of them in one large group
    groups_of_all: int  # further groups with everyone in them
    grown: int  # events of the grown log
    small: int  # events of the small log
    rounds: int
    seconds: float  # of a round
    burst: int  # changes of a storm
    toggled: int  # events of the rebuild of an unchanging state; then twice as many


QUICK = Sizes(users=10_000, groups_of_all=9, grown=20_000, small=5_000, rounds=2, seconds=1.0, burst=4_000, toggled=15_000)
DEFAULT = Sizes(users=100_000, groups_of_all=0, grown=100_000, small=10_000, rounds=3, seconds=3.0, burst=20_000, toggled=30_000)
FULL = Sizes(users=100_000, groups_of_all=9, grown=1_000_000, small=10_000, rounds=5, seconds=3.0, burst=20_000, toggled=100_000)


@dataclass(frozen=True)
class Figure:
    """One line of the table. `passed` is None without a bar."""

    row: int
    work: str
    ours: str
    peer: str = ""
    ratio: str = ""
    bar: str = ""
    passed: bool | None = None
    raw: dict[str, float] = field(default_factory=dict)

    @property
    def verdict(self) -> str:
        return {True: "PASS", False: "MISS", None: ""}[self.passed]


def median(values: Sequence[float]) -> float:
    return statistics.median(values)


def percentile(values: Sequence[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


def interleaved(rounds: int, measures: dict[str, Callable[[], float]]) -> dict[str, list[float]]:
    """Take the measures in turn, round after round, each time starting with another one, so that none is always first."""
    names = list(measures)
    found: dict[str, list[float]] = {name: [] for name in names}
    for number in range(rounds):
        turn = number % len(names)
        for name in names[turn:] + names[:turn]:
            found[name].append(measures[name]())
    return found


def count(value: float) -> str:
    return f"{value:,.0f}".replace(",", " ")


def ms(value: float) -> str:
    return f"{value:.2f} ms" if value < 10 else f"{value:.0f} ms"
