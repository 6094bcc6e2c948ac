"""The exit codes of commands, and the exception that carries a sentence and a code to the entry point."""

from collections.abc import Mapping
from typing import Any, Final

FINDING: Final = 1  # verify failed, drift, something to do
ERASED: Final = 10  # verified without a finding, but attributes of erased users or groups are gone
USAGE: Final = 2  # the command line or the service does not understand the request
UNREACHABLE: Final = 3  # the database or the service does not answer
REFUSED: Final = 4  # not found, not allowed, a conflict


class CommandError(Exception):
    """Ends a command. `text` is for people; `problem` is the service's answer, printed with --json."""

    def __init__(self, text: str, code: int, problem: Mapping[str, Any] | None = None) -> None:
        super().__init__(text)
        self.text, self.code, self.problem = text, code, problem
