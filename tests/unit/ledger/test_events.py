"""The facts of event types are the same in the code and in SQL."""

import re

import pytest

from ledger import events as e
from ledger.events import ERASURES, EVENT_TYPES, Effect, Fact, bits, numbers, type_mask
from tests.test_tidy import PACKAGES, PROJECT

# SQL files of every package that reads events; those of `database` are in the migrations, which never change.
FILES = [path for package in PACKAGES if package != "database" for path in sorted((PROJECT / package).rglob("*.sql"))]
QUERIES = "".join(path.read_text(encoding="utf-8") for path in FILES)
LISTS = [tuple(map(int, found.split(","))) for found in re.findall(r"\btype in \(([\d, ]+)\)", QUERIES)]
SINGLE = {int(found) for found in re.findall(r"\btype = (\d+)\b", QUERIES)}
SUSPENDED_OR_GONE = numbers(Fact.LIFECYCLE) & numbers(Fact.ENDS_ALL_ACCESS)
OUT_OF_A_GROUP = numbers(Fact.MEMBERSHIP) & numbers(Fact.ENDS_SOME_ACCESS)


def test_each_list_of_types_in_sql_equals_the_types_with_a_fact() -> None:
    """SQL has numbers, because the condition of an index needs constants: none of the lists may be out of date."""
    known = {
        tuple(sorted(some)) for some in (numbers(Fact.GRANTS_ACCESS), numbers(Fact.SURGE), SUSPENDED_OR_GONE, OUT_OF_A_GROUP)
    }
    assert set(LISTS) == known | {ERASURES}


def test_each_single_type_in_sql_is_the_intended_one() -> None:
    """These are the acceptance of a directory's clock, and the events of tokens and clients."""
    assert SINGLE == {e.DIRECTORY_CLOCK_ACCEPTED.number, e.TOKEN_ISSUED.number, e.CLIENT_CREATED.number, e.CLIENT_ROTATED.number}


def test_each_mask_of_types_in_sql_equals_the_types_with_a_fact() -> None:
    masks = {int(found) for found in re.findall(r"types & (\d+) <> 0", QUERIES)}
    assert masks == {bits(Fact.SURGE), bits(Fact.REVOCATION)}


def test_sql_looks_for_every_type_that_supersedes_a_grant() -> None:
    block = QUERIES.partition("-- taken_back --")[2].partition("\n\n")[0]
    found = {tuple(map(int, some.split(","))) for some in re.findall(r"\btype in \(([\d, ]+)\)", block)}
    assert found == {tuple(sorted(OUT_OF_A_GROUP)), tuple(sorted(SUSPENDED_OR_GONE))}


@pytest.mark.parametrize("kind", EVENT_TYPES, ids=lambda kind: kind.topic)
def test_facts_do_not_contradict_each_other(kind: e.EventType) -> None:
    facts = kind.facts
    assert not (Fact.GRANTS_ACCESS in facts and facts & (Fact.ENDS_ALL_ACCESS | Fact.ENDS_SOME_ACCESS))
    assert Fact.ENDS_ALL_ACCESS not in facts or Fact.ENDS_SOME_ACCESS not in facts
    assert Fact.DERIVED not in facts or (Fact.MEMBERSHIP in facts and kind.effect is Effect.NOTHING)
    assert Fact.ENDS_RESOURCE not in facts or Fact.LIFECYCLE in facts
    assert kind.effect is not Effect.ENDS or Fact.ENDS_RESOURCE in facts
    assert (kind.effect in {Effect.ADDS_MEMBER, Effect.REMOVES_MEMBER}) == (
        Fact.MEMBERSHIP in facts and Fact.DERIVED not in facts
    )
    assert (kind.bit, kind.membership) == (1 << kind.number, kind.number in numbers(Fact.MEMBERSHIP))


def test_every_defined_type_is_registered() -> None:
    """The definition is enough: no second list names the types."""
    defined = [value for value in vars(e).values() if isinstance(value, e.EventType)]
    assert sorted(defined, key=lambda kind: kind.number) == list(EVENT_TYPES)


def test_a_pattern_is_a_family_a_type_or_everything() -> None:
    assert type_mask(["*"]) == -1
    assert type_mask(["user.created", "group.member_added"]) == e.USER_CREATED.bit | e.MEMBER_ADDED.bit
    assert type_mask(["replay.*"]) == sum(kind.bit for kind in EVENT_TYPES if kind.subject == e.REPLAY)
    assert type_mask([]) == 0
    for nothing in ("user", "user.", "us*", "user.creat", ""):
        assert type_mask(["user.created", nothing]) is None
