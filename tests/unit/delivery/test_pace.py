"""What limits a consumer that is behind: it is derived from samples, and reported with advice."""

import pytest

from delivery.pace import (
    ANSWER_TIME,
    EXCEPTIONS,
    FAILURES,
    LOOKS,
    NAMES,
    ORDER,
    OURS,
    RATE,
    UNLIMITED,
    Finding,
    Moment,
    Pace,
    advice,
    limit_of,
)


def moment(**seen: int) -> Moment:
    usual = {"open": 0, "under_way": 0, "full": 0, "ready": 0, "doubt": 0, "retries": 0, "paced": 0, "unread": 0, "crowded": 0}
    return Moment(**{**usual, **seen})  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(
    ("seen", "limit"),
    [
        ({}, UNLIMITED),
        ({"open": 3, "under_way": 3}, UNLIMITED),
        ({"unread": 1}, OURS),
        ({"open": 3, "under_way": 3, "unread": 1}, OURS),
        ({"open": 900, "under_way": 1}, ORDER),
        ({"open": 900, "under_way": 1, "unread": 1}, ORDER),
        ({"open": 900, "under_way": 16, "full": 1, "ready": 1}, ANSWER_TIME),
        ({"open": 900, "under_way": 3, "ready": 1}, OURS),
        ({"open": 900, "under_way": 1, "paced": 1}, RATE),
        ({"open": 900, "paced": 1}, RATE),
        ({"open": 9, "retries": 1}, FAILURES),
        ({"open": 9, "retries": 1, "crowded": 1}, FAILURES),
        ({"open": 9, "retries": 1, "doubt": 1, "crowded": 1, "unread": 1}, EXCEPTIONS),
        ({"open": 900, "under_way": 8, "full": 1, "doubt": 1, "retries": 1}, FAILURES),
    ],
)
def test_a_sample_says_what_keeps_the_next_event_from_being_sent(seen: dict[str, int], limit: int) -> None:
    assert limit_of(moment(**seen)) == limit


def test_the_most_frequent_recent_finding_counts() -> None:
    pace, now = Pace(), 0.0
    for limit in (*[ANSWER_TIME] * LOOKS, *[ORDER] * (LOOKS // 2)):
        found, now = pace.look(limit, now), now + 1.0
        assert found.limit == ANSWER_TIME
    for _ in range(3):
        found, now = pace.look(ORDER, now), now + 1.0
    assert found.limit == ORDER


def test_figures_follow_the_deliveries() -> None:
    pace = Pace()
    pace.look(ORDER, 0.0)
    for second in range(1, 60):
        for _ in range(50):
            pace.answered(0.018)
            pace.recorded(0.002, 2)
        found = pace.look(ORDER, float(second))
    assert (round(found.answer_s, 6), round(found.record_s, 6)) == (0.018, 0.002)
    assert 99 < found.events_s <= 100
    assert "at most 50 events/s for each" in advice(found, ordering="directory", batch_max=1)
    assert "at most 5,000 events/s" in advice(found, ordering="directory", batch_max=100)


@pytest.mark.parametrize("limit", NAMES)
@pytest.mark.parametrize("ordering", ["directory", "subject"])
@pytest.mark.parametrize("batch_max", [1, 100])
def test_advice_names_only_settings_that_can_still_be_changed(limit: int, ordering: str, batch_max: int) -> None:
    says = advice(Finding(limit, 0.0, 0.0, 0.0), ordering=ordering, batch_max=batch_max)
    assert "What helps: " in says
    assert ("`batch_max`" in says) == (batch_max == 1 and limit not in {RATE, FAILURES, EXCEPTIONS})
    assert ("`ordering: subject`" in says) == (limit == ORDER and ordering == "directory")


FLOAT4_MIN = 1.2e-38  # PostgreSQL refuses what is nearer to zero in a column of type real ("value out of range: underflow")


def test_a_consumer_that_is_quiet_for_days_can_still_be_stored() -> None:
    """Its rate halves every three seconds; what was too small to store ended the renewal of all leases of the process."""
    pace, now = Pace(), 0.0
    pace.answered(0.02)
    pace.recorded(0.005, 3)
    rates = set[float]()
    for now in range(10_000):
        rates.add(pace.look(UNLIMITED, float(now)).events_s)
    assert 0.0 in rates
    assert min(rates - {0.0}) > FLOAT4_MIN
    assert pace.look(UNLIMITED, now + 1.0).events_s == 0.0
