"""Files that are named on the command line."""

import json
import os
from pathlib import Path
from typing import Any, Final

from runtime.exits import USAGE, CommandError

PRIVATE: Final = 0o600


def read_file(path: Path) -> bytes:
    """The bytes of a file. Raises CommandError if it cannot be read."""
    try:
        return path.read_bytes()
    except OSError as wrong:
        raise CommandError(f"{path} cannot be read: {wrong.strerror}.", USAGE) from wrong


def json_file(path: Path) -> Any:
    """The JSON in a file. Raises CommandError, which says what is wrong."""
    try:
        return json.loads(read_file(path))
    except ValueError as wrong:
        raise CommandError(f"{path} is not JSON: {wrong}", USAGE) from wrong


def reserve_private(path: Path) -> int:
    """Create the file for a secret before the secret exists, so that none is lost if that fails. Returns its descriptor."""
    try:
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, PRIVATE)
    except FileExistsError as taken:
        raise CommandError(f"{path} exists already. Name a new file, or remove that one first.", USAGE) from taken
    except OSError as wrong:
        raise CommandError(f"{path} cannot be made: {wrong.strerror}.", USAGE) from wrong
