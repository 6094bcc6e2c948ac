"""When a clock is trusted, and which time an event gets; pure."""

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ledger.clocks import (
    APART_MAX_US,
    CLOCK_BEHIND,
    CLOCK_RETRY_S,
    CLOCKS_DISAGREE,
    ClockError,
    DirectoryTail,
    apart,
    microseconds,
)

NOON = 1_700_000_000_000_000


@pytest.mark.parametrize(("off", "doubted"), [(0, False), (APART_MAX_US, False), (-APART_MAX_US, False), (APART_MAX_US + 1, True), (-APART_MAX_US - 1, True)])  # fmt: skip
def test_clocks_disagree_beyond_a_minute(off: int, doubted: bool) -> None:
    assert apart(NOON, NOON + off, NOON) is doubted


def test_a_reading_that_took_long_proves_nothing() -> None:
    """Behind a giant commit the database's clock is read a minute after the question was sent."""
    assert not apart(NOON, NOON + 2 * APART_MAX_US, NOON + 2 * APART_MAX_US)
    assert not apart(NOON, NOON, NOON + 2 * APART_MAX_US)


@pytest.mark.parametrize(
    ("ahead", "accepted", "state", "trouble"),
    [
        (0, False, "running", None),
        (APART_MAX_US, False, "running", None),
        (APART_MAX_US + 1, False, "behind", CLOCK_BEHIND),
        (APART_MAX_US + 1, True, "frozen", None),
        (APART_MAX_US, True, "running", None),
    ],
)
def test_the_meaning_of_a_last_event_that_is_ahead_of_the_clock(
    ahead: int, accepted: bool, state: str, trouble: str | None
) -> None:
    tail = DirectoryTail(1, NOON + ahead, NOON, accepted)
    tail.compare(NOON, NOON)
    assert (tail.state, tail.trouble, tail.now) == (state, trouble, NOON + ahead)


@pytest.mark.parametrize("off", [-2 * APART_MAX_US, 2 * APART_MAX_US])
def test_with_two_clocks_that_disagree_acts_get_the_earlier_time_but_time_never_decreases(off: int) -> None:
    tail = DirectoryTail(1, NOON - 5, NOON + off)
    tail.compare(NOON, NOON)
    assert (tail.trouble, tail.now) == (CLOCKS_DISAGREE, max(NOON - 5, min(NOON, NOON + off)))


@example(2**50, 23)
@given(st.integers(2**50, 2**31 * 10**6), st.integers(-23, 23))  # from 2005 to 2038
def test_an_instant_in_microseconds_is_that_of_any_zone_and_of_earlier_releases(micros: int, hours: int) -> None:
    """Earlier releases multiplied the seconds, and the result is part of what tells one epoch of a consumer from another.

    Outside of these years a product of floating-point numbers can be a microsecond less.
    """
    moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=micros)
    elsewhere = moment.astimezone(timezone(timedelta(hours=hours)))
    assert micros == microseconds(moment) == microseconds(elsewhere) == int(moment.timestamp() * 1_000_000)


@pytest.mark.parametrize("code", [CLOCKS_DISAGREE, CLOCK_BEHIND])
def test_a_refusal_for_the_clock_says_which_trouble_it_is_and_when_to_come_again(code: str) -> None:
    refusal = ClockError(code)
    assert (refusal.code, refusal.retry_after) == (code, CLOCK_RETRY_S)
    assert "clock" in str(refusal)
