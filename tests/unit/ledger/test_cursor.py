"""Cursors and event ids: those that the service gave out are accepted, and everything else is refused with the same error."""

import base64
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.cursor import BEGINNING, Cursor, EventId, InvalidCursorError, decode_cursor, parse_event_id

marks = st.binary(min_size=4, max_size=4)
keyed = st.binary(min_size=8, max_size=8)
numbers = st.integers(0, 2**63 - 1)
cursors = st.builds(Cursor, number=numbers, mark=marks | keyed, directory=st.integers(0, 2**31 - 1)) | st.builds(
    Cursor, number=numbers, mark=keyed, generation=keyed
)
slugs = st.just("_system") | st.from_regex(r"[a-z0-9][a-z0-9-]{0,62}", fullmatch=True)
event_ids = st.builds(EventId, slug=slugs, seq=st.integers(1, 10**18 - 1), mark=marks)


def packed(kind: int, directory: int, number: int, mark: int = 4) -> str:
    return "c_" + base64.urlsafe_b64encode(struct.pack(f"!BIq{mark}s", kind, directory, number, bytes(mark))).decode().rstrip("=")


@given(cursors)
def test_a_cursor_survives_the_round_trip(cursor: Cursor) -> None:
    """A consumer keeps the text for months and comes back with it."""
    assert decode_cursor(cursor.encode()) == cursor


@given(cursors)
def test_a_cursor_needs_no_escaping_in_a_url(cursor: Cursor) -> None:
    """It is copied into query strings by hand."""
    assert set(cursor.encode()) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_")


def test_the_beginning_is_a_cursor() -> None:
    """An empty feed has a place, too."""
    assert decode_cursor(Cursor(0, BEGINNING).encode()) == Cursor(0, BEGINNING)


def test_a_cursor_of_an_earlier_release_is_accepted() -> None:
    """Clients keep cursors for months, so these are texts from an earlier release, not made by this code."""
    assert decode_cursor("c_AQAAAAAAAAAAAAAEtF8MmnM") == Cursor(1204, bytes.fromhex("5f0c9a73"))
    assert decode_cursor("c_AgAAAAcAAAAAAAAAYV8MmnM") == Cursor(97, bytes.fromhex("5f0c9a73"), 7)


@given(st.text(max_size=80) | st.text(max_size=70).map("c_".__add__))
def test_any_text_is_a_cursor_or_refused(text: str) -> None:
    """The text comes from outside: it must not cause any other error than InvalidCursorError."""
    try:
        cursor = decode_cursor(text)
    except InvalidCursorError:
        return
    assert cursor.number >= 0


@pytest.mark.parametrize(
    "text",
    [
        "",
        "c_",
        "evt_acme_1_00000000",
        packed(3, 0, 1),
        packed(5, 0, 1, 8),
        packed(6, 0, 1, 8),
        packed(5, 0, -1, 16),
        packed(5, 7, 1, 16),
        packed(3, 7, 1, 8),
        packed(4, 0, 1, 8),
        packed(3, 0, -1, 8),
        packed(1, 0, 1, 8),
        packed(0, 0, 1),
        packed(1, 7, 1),
        packed(2, 0, 1),
        packed(1, 0, -1),
        packed(1, 0, 1) + "AA",
    ],
)
def test_a_malformed_cursor_is_refused(text: str) -> None:
    """An unknown kind, a ledger cursor with a directory, a directory cursor without one, a negative number, too long."""
    with pytest.raises(InvalidCursorError):
        decode_cursor(text)


@given(event_ids)
def test_an_event_id_survives_the_round_trip(event_id: EventId) -> None:
    """Slugs contain hyphens, and `_system` an underscore; so the id is parsed from its end."""
    assert parse_event_id(str(event_id)) == event_id


@given(st.text(max_size=140) | st.text(max_size=130).map("evt_".__add__))
def test_any_text_is_an_event_id_or_none(text: str) -> None:
    """The text comes from a URL."""
    found = parse_event_id(text)
    assert found is None or found.seq >= 0


@pytest.mark.parametrize(
    "text",
    ["evt_acme_1", "evt_acme_1_0000", "evt_acme_1_0000000g", "evt_acme_1_ABCDEF01", "evt_acme_-1_00000000", "evt_acme_\u0661_00000000",
     "evt_acme_1234567890123456789_00000000", "acme_1_00000000", "evt_" + "a" * 130 + "_1_00000000"],
)  # fmt: skip
def test_a_malformed_event_id_is_none(text: str) -> None:
    """An event has only one id: a text with other digits, another case or another length is not that id."""
    assert parse_event_id(text) is None
