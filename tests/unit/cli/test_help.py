"""Each command's help has an example, and the example is a valid command line."""

import contextlib
import shlex
from collections.abc import Iterator
from typing import Any

import pytest
import typer

from runtime.cli import app
from tests.unit.cli.walk import walked

COMMANDS = {words: command for words, command in walked(app) if not command.hidden}


def examples(text: str) -> list[str]:
    return [line.strip().removeprefix("Example: ") for line in text.splitlines() if line.strip().startswith("Example: ")]


@contextlib.contextmanager
def parsed(words: tuple[str, ...], command: Any, rest: list[str]) -> Iterator[Any]:
    with command.make_context(" ".join(words), rest) as context:
        yield context


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_the_help_of_a_command_has_an_example_that_parses(words: tuple[str, ...]) -> None:
    command = COMMANDS[words]
    with command.make_context(" ".join(words), [], resilient_parsing=True) as context:
        context.terminal_width = 80
        found = examples(command.get_help(context))
    assert len(found) == 1, "one example, on a line of its own that 80 columns do not break"
    typed = shlex.split(found[0].partition(" > ")[0])
    assert tuple(typed[: len(words) + 1]) == ("scim-ledger", *words)
    with parsed(words, command, typed[len(words) + 1 :]) as context:
        assert context.params is not None


def groups(command: Any, words: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Each group of commands with its words; the program is the first."""
    yield words, command
    for name in command.list_commands(None):
        inner = command.get_command(None, name)
        if hasattr(inner, "list_commands"):
            yield from groups(inner, (*words, name))


GROUPS = dict(groups(typer.main.get_command(app)))


@pytest.mark.parametrize("words", GROUPS, ids=" ".join)
def test_the_help_of_a_group_has_each_command_on_one_line_of_80_columns(words: tuple[str, ...]) -> None:
    """Otherwise the sentence is cut, and whoever looks for a command has to open each."""
    group = GROUPS[words]
    with group.make_context(" ".join(words), ["list"], resilient_parsing=True) as context:
        context.terminal_width = 80
        text = group.get_help(context)
    listed = text.partition("Commands:\n")[2].splitlines()
    shown = [name for name in group.list_commands(None) if not group.get_command(None, name).hidden]
    assert [line.split()[0] for line in listed] == shown
    assert all(len(line) <= 80 and line.endswith(".") and "..." not in line for line in listed)


def test_an_example_that_does_not_parse_is_noticed() -> None:
    words = ("consumer", "delete")
    with pytest.raises(Exception, match="No such option"), parsed(words, COMMANDS[words], ["door", "--force"]):
        pass


def test_the_help_of_every_argument_and_option_is_readable() -> None:
    """Python's words for values do not stand in help: None, True, [], or a type in brackets."""
    for words, command in COMMANDS.items():
        with command.make_context(" ".join(words), [], resilient_parsing=True) as context:
            text = command.get_help(context)
        for python in ("default: None", "default: True", "default: False", "default: []", "(None)"):
            assert python not in text, (words, python)
