"""The surge brake gives the same result as a simple count: for each commit, the users who lost access in the hour that ends with
it.
"""

import re
from pathlib import Path
from uuid import UUID

from hypothesis import example, given
from hypothesis import strategies as st

from database.queries import load_queries
from delivery.reports import REVOCATIONS
from delivery.surge_policy import HOUR_US, PER_HOUR, REVOKING, Limit, Loss, excess
from ledger import events as e

PROJECT = Path(__file__).parents[3]
FILES = (*sorted((PROJECT / "delivery").glob("*.sql")), PROJECT / "replay" / "redeliver.sql")
SQL = {name: text for file in FILES for name, text in load_queries(str(file)).items()}
USERS = [UUID(int=n) for n in range(5)]
gaps = st.sampled_from([0, 1, HOUR_US // 3, HOUR_US // 2, HOUR_US - 1, HOUR_US])
steps = st.lists(st.tuples(gaps, st.frozensets(st.sampled_from(USERS), max_size=3)), max_size=40)
Steps = list[tuple[int, frozenset[UUID]]]


def history(steps: Steps) -> list[Loss]:
    found, at = [], 10 * HOUR_US
    for number, (step, users) in enumerate(steps, 1):
        at += step
        found.append(Loss(number * 3, at, users))
    return found


def naive(losses: list[Loss], limit: Limit) -> list[int]:
    over = []
    for n, loss in enumerate(losses):
        users = {user for before in losses[: n + 1] if loss.at - HOUR_US < before.at <= loss.at for user in before.users}
        if len(users) > limit.per_hour and loss.seq > limit.released:
            over.append(loss.seq)
    return over


@example([(0, frozenset(USERS[:2])), (HOUR_US, frozenset(USERS[2:3]))], 1, 0)
@given(steps, st.integers(0, 4), st.integers(0, 60))
def test_the_commits_over_the_limit_are_those_of_a_simple_count_of_users(steps: Steps, per_hour: int, released: int) -> None:
    losses, limit = history(steps), Limit(per_hour, "hold", released)
    assert excess(losses, limit) == naive(losses, limit)


@given(steps, st.integers(0, 4), st.integers(0, 40))
def test_the_answer_does_not_depend_on_how_much_older_history_was_read(steps: Steps, per_hour: int, first: int) -> None:
    """Each reader reads only the hour before a commit, and all must agree on which commits are held."""
    losses, limit = history(steps), Limit(per_hour)
    for loss in losses[first:]:
        hour = [other for other in losses if loss.at - HOUR_US < other.at <= loss.at]
        assert (loss.seq in excess(hour, limit)) == (loss.seq in naive(losses, limit))


@example(1, [1, 1])
@given(st.integers(0, 4), st.lists(st.integers(1, 3 * HOUR_US // 4), min_size=1, max_size=12))
def test_while_the_clock_is_frozen_a_day_does_not_count_as_an_hour(per_hour: int, gaps: list[int]) -> None:
    """Three users lost access while the clocks were a day ahead.

    Then the clocks were corrected, and each commit counts by the time when it was made.
    """
    began, day = 100 * HOUR_US, 24 * HOUR_US
    ahead = [Loss(n, began + day + n, [USERS[n]]) for n in range(3)]
    made = [began + 10 + sum(gaps[: n + 1]) for n in range(len(gaps))]
    after = [Loss(10 + n, at, [UUID(int=100 + n)]) for n, at in enumerate(made)]
    true = [Loss(loss.seq, made[0], loss.users) for loss in ahead]
    late = {loss.seq for loss in after}
    assert late.intersection(excess([*ahead, *after], Limit(per_hour))) == late.intersection(
        naive([*true, *after], Limit(per_hour))
    )


def one_each(count: int) -> list[Loss]:
    return [Loss(n, n, [UUID(int=n)]) for n in range(1, count + 1)]


def test_by_default_more_than_a_hundred_an_hour_raise_an_alarm() -> None:
    assert excess(one_each(PER_HOUR), Limit()) == []
    assert excess([*one_each(PER_HOUR), Loss(500, 500, [UUID(int=500)])], Limit()) == [500]
    assert excess([*one_each(PER_HOUR), Loss(500, 500, [UUID(int=1)])], Limit()) == [], "the same user once more"
    assert Limit().action == "alarm", "holding is on request"


def test_the_bits_in_sql_are_the_event_types_that_end_a_users_access() -> None:
    """An index needs constants in its condition; whoever changes the numbers of event types is told by this test."""
    ends = e.USER_DEACTIVATED.bit | e.USER_DELETED.bit
    assert REVOKING == ends | e.MEMBER_REMOVED.bit | e.ACCESS_REVOKED.bit
    migrations = "".join(p.read_text(encoding="utf-8") for p in (PROJECT / "database" / "migrations").glob("*.sql"))
    literals = re.findall(r"types & (\d+) <> 0", "".join(SQL.values()) + migrations)
    assert len(literals) >= 4
    assert {int(number) for number in literals} == {REVOKING, REVOCATIONS, ends}, "the last in the index of an earlier release"
    assert REVOCATIONS == ends | e.DIRECTORY_CLOSED.bit
    kinds = (e.USER_DEACTIVATED, e.USER_DELETED, e.MEMBER_REMOVED, e.ACCESS_REVOKED)
    assert f"e.type in ({', '.join(str(kind.number) for kind in kinds)})" in SQL["losses_between"]
    for words in (b'"mt":"Group"', b'"eff":true'):
        assert words.hex() in SQL["losses_between"]
    assert re.search(r"types & (\d+) <> 0", SQL["ack_revocations"])[1] == str(REVOCATIONS)  # pyright: ignore[reportOptionalSubscript]


def test_nothing_of_a_closed_directory_is_held() -> None:
    """This covers the events of the clean-up, and the events that were held when the directory was closed."""
    storm = one_each(9)
    assert excess(storm, Limit(2, "hold")) == [3, 4, 5, 6, 7, 8, 9]
    assert excess(storm, Limit(2, "hold", closed=True)) == []


def test_the_field_in_sql_that_marks_a_grant_is_that_of_a_leaf() -> None:
    for words in (b'"active":true', b'"eff":true'):
        assert words.hex() in SQL["drop_superseded"]
