"""The history of a drill, line by line, so that a failure can be analysed: one JSON document for each request, fault and verdict."""

import json
import time
from collections import deque
from pathlib import Path
from typing import Any, Final

SHOWN: Final = 40  # the number of lines that a failure prints


class Violation(Exception):
    """A promise of the ledger was broken."""


class History:
    """The history is written as things happen; a failure prints its end."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self._file = path.open("w", encoding="utf-8", buffering=1)
        self._began = time.monotonic()
        self._last: deque[str] = deque(maxlen=SHOWN)
        self.round = 0

    def tell(self, what: str, **facts: Any) -> None:
        line = json.dumps(
            {"s": round(time.monotonic() - self._began, 3), "round": self.round, "what": what, **facts}, default=str
        )
        self._last.append(line)
        self._file.write(line + "\n")

    def end(self) -> str:
        return "\n".join(self._last)

    def close(self) -> None:
        self._file.close()
