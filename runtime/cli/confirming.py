"""Confirmation of commands that take away what no other command brings back."""

import sys
from typing import Annotated, TypeAlias

import typer

from runtime.cli.printing import plain
from runtime.exits import USAGE, CommandError

Yes: TypeAlias = Annotated[bool, typer.Option("--yes", help="Do not ask. Without a terminal it is required.")]


def confirm(yes: bool, effect: str) -> None:
    """Ask whether to go on, after a sentence that says the effect. Raises CommandError unless the answer is yes."""
    if not yes and _answered(f"{effect} Go on? [y/N] ", "--yes") not in {"y", "yes"}:
        raise CommandError("Nothing was done.", USAGE)


def confirm_name(given: str | None, name: str, effect: str) -> str:
    """The name that was repeated as an option, or else is typed on the terminal. The service compares it."""
    return given if given is not None else _answered(f"{effect} Type its name to go on: ", f"--confirm {name}")


def _answered(question: str, option: str) -> str:
    """A line from the terminal. Raises CommandError without one: a script must not wait for an answer."""
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        effect = question.split(". ", maxsplit=1)[0]
        raise CommandError(plain(f"{effect}. Nothing was done, because nobody can be asked here: add {option}."), USAGE)
    print(plain(question), end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower()
