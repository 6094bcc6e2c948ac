"""A progress bar with ETA on a terminal, and none elsewhere. What it waits for is printed in both cases."""

import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager


class Shown:
    """Call it with (done, total) to move the bar. `waits` prints what it waits for, once for each text."""

    def __init__(self, move: Callable[[int, int], None], tell: Callable[[str], None]) -> None:
        self._move, self._tell, self._told = move, tell, ""

    def __call__(self, done: int, total: int) -> None:
        self._move(done, total)

    def waits(self, text: str) -> None:
        if text != self._told:
            self._told = text
            self._tell(text)


@contextmanager
def progress_bar(what: str) -> Generator[Shown]:
    """A bar for the time of the block."""
    if not sys.stderr.isatty():
        yield Shown(lambda _done, _total: None, lambda text: print(f"{what}: {text}", file=sys.stderr, flush=True))
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=None)

        def move(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total)

        yield Shown(move, lambda text: bar.print(f"{what}: {text}", markup=False))
