"""Which releases go on beside which schema. Pure.

A release is known by the number of its newest migration. Each migration says in a comment `-- serves: NNNN` the oldest release whose
processes may go on once it is applied: what it changes is expanded first, and contracted when no such release runs any more. Without
that line none older than itself may. The number is stored with the migration, so that an older process reads it of one it does not know.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Final, LiteralString

_SERVES: Final = re.compile(r"^-- serves: (\d{4})$", re.MULTILINE)
_ONE_BY_ONE: Final = re.compile(r"^-- one by one$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Migration:
    """One numbered SQL file; never edited once shipped (its checksum is stored)."""

    number: int
    name: str
    sql: LiteralString
    checksum: str

    @property
    def serves(self) -> int:
        """The oldest release that goes on beside it."""
        said = _SERVES.search(self.sql)
        return int(said[1]) if said else self.number

    @property
    def one_by_one(self) -> bool:
        """Whether its statements run outside a transaction (indexes made concurrently); each can be run again."""
        return _ONE_BY_ONE.search(self.sql) is not None

    def __str__(self) -> str:
        return f"{self.number:04} {self.name}"


@dataclass(frozen=True, slots=True)
class Applied:
    """A migration as the database has it. `serves` is None where the release that applied it did not say."""

    number: int
    checksum: str
    serves: int | None = None


class SchemaRelation(Enum):
    """What a schema is to a release."""

    SAME = "same"
    NEWER = "newer"  # and this release goes on beside it
    OLDER = "older"  # migrations of this release are missing
    FOREIGN = "foreign"  # this release must not touch it


def schema_relation(ours: Sequence[Migration], applied: Iterable[Applied]) -> SchemaRelation:
    """Hold the migrations of a release against those of a database."""
    there = {found.number: found for found in applied}
    if refusal(ours, there) is not None:
        return SchemaRelation.FOREIGN
    if any(migration.number not in there for migration in ours):
        return SchemaRelation.OLDER
    return SchemaRelation.NEWER if len(there) > len(ours) else SchemaRelation.SAME


def refusal(ours: Sequence[Migration], applied: Mapping[int, Applied]) -> str | None:
    """Why a release must not touch a schema, or None."""
    known = {migration.number: migration for migration in ours}
    release = max(known)
    for number, found in sorted(applied.items()):
        if number in known:
            if known[number].checksum != found.checksum:
                return (
                    f"Migration {known[number]} was applied with other content than this release ships. "
                    "Restore the file, never edit a shipped migration; add a new one."
                )
        elif found.serves is None or found.serves > release:
            return (
                f"The database has migration {number:04}, which this release does not know. Run the newer release: "
                "this one cannot go on beside it."
            )
        elif missing := sorted(known.keys() - applied.keys()):
            return (
                f"The database is that of a newer release and lacks migration {missing[0]:04} of this one. Run the newer release."
            )
    return None
