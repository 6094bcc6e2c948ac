"""Answers of /v1: how values are written."""

import json
from datetime import UTC, datetime, timedelta, timezone
from uuid import UUID

from api.answers import Json, listed


def test_every_time_is_in_utc_with_microseconds_even_on_a_whole_second() -> None:
    """RFC 3339, UTC, with microseconds (docs/events.md, "One event"): programs compare times as text, and only a single form
    sorts correctly.
    """
    east = timezone(timedelta(hours=2))
    body = {"at": datetime(2026, 10, 1, 2, 0, tzinfo=east), "rows": [{"at": datetime(2026, 10, 1, 0, 0, 1, 5, tzinfo=UTC)}]}
    assert json.loads(Json(body).body) == {
        "at": "2026-10-01T00:00:00.000000Z",
        "rows": [{"at": "2026-10-01T00:00:01.000005Z"}],
    }


def test_ids_are_text_and_a_list_has_the_cursor_of_the_next_page() -> None:
    assert json.loads(listed([UUID(int=1)], after=None).body) == {
        "object": "list", "data": ["00000000-0000-0000-0000-000000000001"], "list_metadata": {"after": None}, "has_more": False,
    }  # fmt: skip
    assert json.loads(listed([], after=7).body)["has_more"] is True
