"""Each command's help has an example, and the example is a valid command line."""

import contextlib
import shlex
from collections.abc import Iterator
from typing import Any

import pytest

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
