"""Which releases can run with which schema. Pure.

A release is identified by the number of its newest migration. The comment `-- serves: NNNN` of a migration names the oldest release
whose processes may go on after it is applied; without it, no older one may. So schema changes are made in two steps: add first, and
remove in a later release. The number is stored with the migration, so that an older process can read it of a newer migration.
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
        """The oldest release that may run with it."""
        said = _SERVES.search(self.sql)
        return int(said[1]) if said else self.number

    @property
    def one_by_one(self) -> bool:
        """Whether its statements run outside a transaction (concurrent index builds). Each must be repeatable."""
        return _ONE_BY_ONE.search(self.sql) is not None

    def __str__(self) -> str:
        return f"{self.number:04} {self.name}"


@dataclass(frozen=True, slots=True)
class Applied:
    """A migration in the database. `serves` is None if an old release applied it, which did not store it."""

    number: int
    checksum: str
    serves: int | None = None


class SchemaRelation(Enum):
    """The relation of a schema to a release."""

    SAME = "same"
    NEWER = "newer"  # newer, and this release may serve it
    OLDER = "older"  # migrations of this release are missing
    FOREIGN = "foreign"  # this release must not touch it


def schema_relation(ours: Sequence[Migration], applied: Iterable[Applied]) -> SchemaRelation:
    """Compare the migrations of a release with those of a database."""
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
