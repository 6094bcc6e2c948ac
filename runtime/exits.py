"""How a command ends: the exit codes, and the one exception that carries a sentence and a code to the entry point."""

from collections.abc import Mapping
from typing import Any, Final

FINDING: Final = 1  # verify failed, drift, something to do
USAGE: Final = 2  # words that the command line or the service does not understand
UNREACHABLE: Final = 3  # the database or the service
REFUSED: Final = 4  # not found, not allowed, a conflict


class CommandError(Exception):
    """A command that ends here. `text` is for a person; `problem` is what the service answered, for a program that asked for JSON."""

    def __init__(self, text: str, code: int, problem: Mapping[str, Any] | None = None) -> None:
        super().__init__(text)
        self.text, self.code, self.problem = text, code, problem
