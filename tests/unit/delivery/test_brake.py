"""The surge brake equals a plain count: of each commit, how many came in the hour that ends with it."""

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from database.queries import load_queries
from delivery.brake import HOUR_US, PER_HOUR, REVOKING, Limit, excess
from delivery.progress import REVOCATIONS
from ledger import events as e

PROJECT = Path(__file__).parents[3]
SQL = load_queries(str(PROJECT / "delivery" / "queries.sql"))
steps = st.lists(st.sampled_from([0, 1, HOUR_US // 3, HOUR_US // 2, HOUR_US - 1, HOUR_US]), max_size=40)


def history(steps: list[int]) -> list[tuple[int, int]]:
    found, at = [], 10 * HOUR_US
    for number, step in enumerate(steps, 1):
        at += step
        found.append((number * 3, at))
    return found


def naive(revocations: list[tuple[int, int]], limit: Limit) -> list[int]:
    over = []
    for n, (seq, at) in enumerate(revocations):
        with_it = [t for _, t in revocations[: n + 1] if at - HOUR_US < t <= at]
        if len(with_it) > limit.per_hour and seq > limit.released:
            over.append(seq)
    return over


@given(steps, st.integers(0, 6), st.integers(0, 60))
def test_what_is_over_the_limit_is_what_a_plain_count_says(steps: list[int], per_hour: int, released: int) -> None:
    revocations, limit = history(steps), Limit(per_hour, "hold", released)
    assert excess(revocations, limit) == naive(revocations, limit)


@given(steps, st.integers(0, 6), st.integers(0, 40))
def test_an_answer_does_not_depend_on_how_much_older_history_was_read(steps: list[int], per_hour: int, first: int) -> None:
    """Whoever asks of a commit reads the hour before it, and no more: all must agree on what is held."""
    revocations, limit = history(steps), Limit(per_hour)
    for seq, at in revocations[first:]:
        hour = [r for r in revocations if at - HOUR_US < r[1] <= at]
        assert (seq in excess(hour, limit)) == (seq in naive(revocations, limit))


def test_an_ordinary_directory_is_told_of_above_a_hundred_an_hour() -> None:
    calm = [(n, n) for n in range(1, PER_HOUR + 1)]
    assert excess(calm, Limit()) == []
    assert excess([*calm, (500, 500)], Limit()) == [500]
    assert Limit().action == "alarm", "holding is on request"


def test_the_bits_in_sql_are_the_event_types_that_end_a_users_access() -> None:
    """An index needs a literal; the one who changes the numbers finds it here."""
    assert REVOKING == e.USER_DEACTIVATED.bit | e.USER_DELETED.bit
    migrations = "".join(p.read_text(encoding="utf-8") for p in (PROJECT / "database" / "migrations").glob("*.sql"))
    literals = re.findall(r"types & (\d+) <> 0", "".join(SQL.values()) + migrations)
    assert len(literals) >= 4
    assert {int(number) for number in literals} == {REVOKING, REVOCATIONS}
    assert REVOCATIONS == REVOKING | e.DIRECTORY_CLOSED.bit
    assert re.search(r"types & (\d+) <> 0", SQL["ack_revocations"])[1] == str(REVOCATIONS)  # pyright: ignore[reportOptionalSubscript]


def test_nothing_of_a_closed_directory_is_held() -> None:
    """Not what the clean-up does either, nor what was held when it was closed."""
    storm = [(n, n) for n in range(1, 10)]
    assert excess(storm, Limit(2, "hold")) == [3, 4, 5, 6, 7, 8, 9]
    assert excess(storm, Limit(2, "hold", closed=True)) == []


@pytest.mark.parametrize(
    ("where", "kinds"),
    [
        ("e.obj = k.o and e.type in", (e.MEMBER_REMOVED, e.ACCESS_REVOKED)),
        ("e.seq <= k.h and e.type in", (e.USER_DEACTIVATED, e.USER_DELETED, e.USER_ERASED)),
    ],
)
def test_the_numbers_in_sql_are_those_that_take_a_grant_back(where: str, kinds: tuple[e.EventType, ...]) -> None:
    found = re.search(re.escape(where) + r" \(([\d, ]+)\)", SQL["taken_back"])
    assert found is not None
    assert tuple(map(int, found.group(1).split(", "))) == tuple(kind.number for kind in kinds)
