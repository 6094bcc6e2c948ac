"""When a failed delivery is tried again: the default schedule (docs/consumers.md, "Push"), bounded jitter, and Retry-After."""

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from delivery.backoff import ATTEMPTS_MAX, DELAY_S_MAX, JITTER, SCHEDULE_S, delay_s, retry_after_s, whole_schedule

NOW = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
schedules = st.lists(st.integers(0, 7 * 86_400), min_size=1, max_size=12)


def test_the_default_schedule_is_the_documented_one() -> None:
    assert SCHEDULE_S[:7] == (0, 5, 30, 120, 600, 1_800, 3_600)
    assert set(SCHEDULE_S[7:]) == {3_600}
    assert 71 * 3_600 <= sum(SCHEDULE_S) <= 72.8 * 3_600, "hourly to 72 h"
    assert len(SCHEDULE_S) <= ATTEMPTS_MAX


@pytest.mark.parametrize(
    ("asked", "attempts"), [((), (0,)), ((0,), (0,)), ((5,), (0, 5)), ((0, 5, 30), (0, 5, 30)), ((5, 30), (0, 5, 30))]
)
def test_the_first_attempt_is_always_made_at_once(asked: tuple[int, ...], attempts: tuple[int, ...]) -> None:
    assert whole_schedule(asked) == attempts


@given(schedules, st.integers(0, 14), st.floats(0, 1, exclude_max=True))
def test_a_delay_follows_the_schedule_with_jitter_and_there_is_none_at_its_end(
    schedule: list[int], attempts: int, random: float
) -> None:
    delay = delay_s(schedule, attempts, random)
    if attempts >= len(schedule):
        assert delay is None
    else:
        assert delay is not None
        assert abs(delay - schedule[attempts]) <= schedule[attempts] * JITTER + 1e-9


@given(st.integers(0, 3), st.floats(0, 10**9))
def test_a_retry_after_is_waited_for_but_no_longer_than_a_day(attempts: int, asked: float) -> None:
    delay = delay_s((0, 5, 30, 120), attempts, 0.5, asked)
    assert delay == max((0, 5, 30, 120)[attempts], min(asked, DELAY_S_MAX))


def test_a_retry_after_does_not_lengthen_an_exhausted_schedule() -> None:
    assert delay_s((0, 5), 2, 0.5, 60.0) is None


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        (None, None), ("", None), ("soon", None), ("-5", None), ("1.5", None), ("٣", None),
        ("0", 0.0), ("120", 120.0), (" 7 ", 7.0), ("9" * 400, float(DELAY_S_MAX)),
        (format_datetime(NOW + timedelta(seconds=90), usegmt=True), 90.0),
        (format_datetime(NOW - timedelta(hours=1), usegmt=True), 0.0),
        (format_datetime(NOW + timedelta(days=400), usegmt=True), float(DELAY_S_MAX)),
        ("Tue, 24 Nov 2026 13:00:30 +0100", 30.0),
        ("Tue, 24 Nov 2026 12:00:30 -0000", 30.0),  # an unknown zone is taken as UTC
        ("Tue, 24 Nov 99999 12:00:30 GMT", None),
    ],
)  # fmt: skip
def test_a_retry_after_is_read_in_both_its_forms(header: str | None, seconds: float | None) -> None:
    assert retry_after_s(header, NOW) == seconds


dates = st.builds(
    "{}, {} {} {} {}:{}:{} {}{}".format,
    st.sampled_from(["Mon", "x", ""]), st.integers(0, 40), st.sampled_from(["Jan", "Feb", "Foo"]), st.integers(0, 10**6),
    st.integers(0, 30), st.integers(0, 70), st.integers(0, 70), st.sampled_from(["+", "-", "GMT", ""]), st.integers(0, 10**20),
)  # fmt: skip


@given(st.one_of(st.text(max_size=60), dates))
@example("Mon, 01 Jan 2024 00:00:00 +999999999999999")
def test_no_header_of_a_receiver_breaks_the_parser(header: str) -> None:
    """The receiver writes the header: whatever it contains, deliveries must go on."""
    found = retry_after_s(header, NOW)
    assert found is None or 0 <= found <= DELAY_S_MAX
