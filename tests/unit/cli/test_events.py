"""`events list` goes on through pages that a filter leaves empty, and stops at its limit."""

import pytest

from runtime.cli.events import _up_to

PAGES = [
    {"data": [1, 2], "has_more": True},
    {"data": [], "has_more": True},
    {"data": [3], "has_more": True},
    {"data": [4, 5], "has_more": False},
    {"data": [6], "has_more": True},
]


@pytest.mark.parametrize(("limit", "found"), [(1, [1]), (2, [1, 2]), (3, [1, 2, 3]), (4, [1, 2, 3, 4]), (100, [1, 2, 3, 4, 5])])
def test_events_of_as_many_pages_as_are_needed(limit: int, found: list[int]) -> None:
    assert list(_up_to(limit, iter(PAGES))) == found
