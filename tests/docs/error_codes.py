"""Writes the table of error codes in docs/events.md; `make docs`."""

from pathlib import Path

from api.error_codes import CODES
from tests.docs.generated import with_table

PAGE = Path(__file__).parents[2] / "docs" / "events.md"


def table() -> str:
    """Each code with its status and meaning."""
    lines = ["| status | code | meaning |", "|---|---|---|"]
    lines += [f"| {status} | `{code}` | {meaning} |" for status, code, meaning in CODES]
    return "\n".join(lines) + "\n"


def generated(text: str) -> str:
    """The page with its current table."""
    return with_table(text, "error codes", table())


if __name__ == "__main__":
    PAGE.write_text(generated(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
