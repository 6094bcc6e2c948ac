"""The list of advisory locks agrees with the SQL statements."""

import re
from collections import defaultdict
from pathlib import Path

import pytest

from database.locks import LEDGER, LOCKS, MIGRATION, AdvisoryLock, Held

PROJECT = Path(__file__).parents[3]
PACKAGES = ("runtime", "api", "operations", "replay", "projections", "delivery", "ledger", "scim", "proofs", "database")
FILES = sorted(path for package in PACKAGES for path in (PROJECT / package).rglob("*.sql"))
CODE = sorted(path for package in PACKAGES for path in (PROJECT / package).rglob("*.py"))
TAKEN = re.compile(r"pg_(?:try_)?advisory_(xact_)?(un)?lock(_shared)?\(([^(),]+)(?:,([^(),]+))?\)")
LOOKED_FOR = re.compile(r"\bclassid = (\d+)")


def locks_of(first: str, second: str | None) -> list[AdvisoryLock]:
    """The locks of the list that the two keys of a statement may mean; the second key is often a parameter or a column."""
    single = second is None
    found = [lock for lock in LOCKS.values() if str(lock.number) == first.strip() and (lock is MIGRATION) == single]
    key = (second or "").strip()
    return [lock for lock in found if single or (str(lock.key) == key if key.isdecimal() else lock.key is None)]


def statements() -> dict[str, set[str]]:
    """For each name of a lock, how statements take it."""
    ways = defaultdict[str, set[str]](set)
    names = {lock: name for name, lock in LOCKS.items()}
    for path in FILES:
        for xact, _, shared, first, second in TAKEN.findall(path.read_text(encoding="utf-8")):
            found = locks_of(first, second or None)
            assert len(found) == 1, f"{path.name}: ({first}, {second}) is no lock, or no one lock, of database/locks.py"
            ways[names[found[0]]] |= {"shared" if shared else "exclusive", (Held.TRANSACTION if xact else Held.SESSION).name}
    return ways


def test_every_statement_takes_a_listed_lock_as_the_list_says() -> None:
    expected = {
        name: {lock.held.name} | {way for way, who in (("shared", lock.shared), ("exclusive", lock.exclusive)) if who}
        for name, lock in LOCKS.items()
    }
    assert statements() == expected


def test_the_pattern_finds_every_call() -> None:
    """A call that is written in another way would not be compared."""
    for path in FILES:
        text = path.read_text(encoding="utf-8")
        assert len(re.findall(r"advisory_\w*lock", text)) == len(TAKEN.findall(text)), path


@pytest.mark.parametrize("path", CODE, ids=lambda path: str(path.relative_to(PROJECT)))
def test_locks_are_taken_in_sql_files_only(path: Path) -> None:
    """A statement in a string of the code would not be compared with the list."""
    assert "advisory_lock(" not in path.read_text(encoding="utf-8").replace("xact_", "").replace("_shared", "")


def test_statements_that_read_locks_name_classes_of_the_list() -> None:
    named = {int(number) for path in FILES for number in LOOKED_FOR.findall(path.read_text(encoding="utf-8"))}
    assert named
    assert named <= {lock.number for lock in LOCKS.values()} - {MIGRATION.number}


def test_no_two_locks_of_the_list_have_the_same_keys() -> None:
    """Class 3 is used for two locks: that of a consumer, whose number is never 0, and that of a rebuild, with 0."""
    keys = [(lock.number, lock.key) for lock in LOCKS.values()]
    assert len(set(keys)) == len(keys)
    assert {lock.number for lock in LOCKS.values()} == {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 7302001}


def test_the_lock_of_the_ledger_is_the_last() -> None:
    """While a session holds it, all writes of the ledger wait, so a session that holds it must not wait for another lock."""
    assert list(LOCKS.values())[-1] is LEDGER
