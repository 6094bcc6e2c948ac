"""Every command of the command line, the lazily imported ones included."""

from collections.abc import Iterator
from typing import Any, cast

import typer


def walked(app: typer.Typer) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yields each command with its words."""
    nobody = cast("Any", None)  # groups do not use the context that they are given

    def walk(command: Any, words: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
        if not hasattr(command, "list_commands"):
            yield words, command
            return
        for name in command.list_commands(nobody):
            yield from walk(command.get_command(nobody, name), (*words, name))

    yield from walk(typer.main.get_command(app), ())
