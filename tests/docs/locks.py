"""Writes the table of advisory locks in docs/architecture.md; `make docs`."""

from pathlib import Path

from database.locks import LOCKS, AdvisoryLock
from tests.docs.generated import with_table

PAGE = Path(__file__).parents[2] / "docs" / "architecture.md"


def table() -> str:
    """Keys, what the lock guards, who takes it and until when, in the order in which locks are taken."""
    lines = ["| lock | keys | guards | taken shared by | taken exclusively by | until |", "|---|---|---|---|---|---|"]
    lines += [
        f"| {name.lower()} | {_keys(lock)} | {lock.guards} | {lock.shared or '–'} | {lock.exclusive or '–'} | {lock.held.value} |"
        for name, lock in LOCKS.items()
    ]
    return "\n".join(lines) + "\n"


def _keys(lock: AdvisoryLock) -> str:
    return f"`{lock.number}`, {lock.of}"


def generated(text: str) -> str:
    """The page with its current table."""
    return with_table(text, "locks", table())


if __name__ == "__main__":
    PAGE.write_text(generated(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
