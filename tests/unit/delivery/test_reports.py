"""Stored places and exceptions: to which reading a place belongs, and times that were stored by another clock."""

from datetime import UTC, datetime
from uuid import UUID

from delivery.backoff import DELAY_S_MAX, JITTER
from delivery.reports import RETRYING, Exceptional, Place

HERE = Place(3, 10, 10, start=5, began=datetime.fromtimestamp(1_000, UTC))
CONSUMER = UUID(int=1)


def test_each_epoch_of_each_consumer_is_another_reading() -> None:
    later = datetime.fromtimestamp(1_001, UTC)
    others = [
        Place(4, 10, 10, start=5, began=HERE.began),
        Place(3, 10, 10, start=6, began=HERE.began),
        Place(3, 10, 10, start=5, began=later),
    ]
    assert len({HERE.reading(CONSUMER), HERE.reading(UUID(int=2)), *(place.reading(CONSUMER) for place in others)}) == 5


def test_a_consumer_continues_in_the_same_reading() -> None:
    assert HERE.reading(CONSUMER) == Place(3, 70, 80, (71,), start=5, began=HERE.began).reading(CONSUMER)


def test_a_retry_stored_by_a_clock_that_was_ahead_waits_no_longer_than_its_schedule_says() -> None:
    row = Exceptional(1, 1, 1, RETRYING, tried_at=5_000.0, next_at=5_030.0)
    row.read_at(1_000.0)
    assert (row.tried_at, row.next_at) == (1_000.0, 1_030.0)


def test_no_stored_wait_is_longer_than_the_longest_allowed() -> None:
    row = Exceptional(1, 1, 1, RETRYING, tried_at=900.0, next_at=1e12)
    row.read_at(1_000.0)
    assert row.next_at == 1_000.0 + DELAY_S_MAX * (1 + JITTER)


def test_an_exception_that_waits_for_no_time_is_unchanged() -> None:
    row = Exceptional(1, 1, 1, RETRYING)
    row.read_at(1_000.0)
    row.set_back(10.0)
    assert (row.tried_at, row.next_at, row.not_before) == (None, None, 0.0)
