"""Writes the table of deadlines in docs/operations.md; `make docs`."""

from pathlib import Path

from database.deadlines import DEADLINES
from tests.docs.generated import with_table

PAGE = Path(__file__).parents[2] / "docs" / "operations.md"


def table() -> str:
    """Each wait, its deadline, and what happens then."""
    lines = ["| waits for | at most | then |", "|---|---|---|"]
    lines += [f"| {deadline.of} | {deadline.seconds:g} s | {deadline.then} |" for deadline in DEADLINES.values()]
    return "\n".join(lines) + "\n"


def generated(text: str) -> str:
    """The page with its current table."""
    return with_table(text, "deadlines", table())


if __name__ == "__main__":
    PAGE.write_text(generated(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
