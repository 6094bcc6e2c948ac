"""Cursors of lists (RFC 9865)."""

import base64
import re
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scim.cursors import ANCHORS, AfterAnchors, AfterCreation, decode, encode, query_digest
from scim.errors import InvalidCursor

A, B = UUID(int=1), UUID(int=2**127)
DIGEST = query_digest(b"key", ["User", 'userName sw "jane"', None])
PLACES = st.one_of(
    st.builds(AfterCreation, st.integers(0, 253_402_300_799_999_999), st.uuids()),
    st.builds(
        AfterAnchors,
        st.lists(st.tuples(st.uuids(), st.integers(1, 2**32 - 1)), min_size=1, max_size=ANCHORS).map(tuple),
    ),
)


@given(PLACES, st.integers(1, 200))
def test_a_cursor_needs_no_escaping_in_a_url(place, count):
    text = encode(place, DIGEST, count)
    assert re.fullmatch(r"[A-Za-z0-9_-]+", text)
    assert decode(text, DIGEST) == (place, count)


@given(st.text() | st.binary(max_size=80).map(lambda raw: base64.urlsafe_b64encode(raw).decode().rstrip("=")))
def test_a_text_that_is_not_a_cursor_of_the_service_is_refused(text):
    with pytest.raises(InvalidCursor):
        decode(text, DIGEST)


def test_a_cursor_belongs_to_one_query_of_one_directory():
    text = encode(AfterCreation(5, A), DIGEST, 10)
    for key, parts in (
        (b"key", ["User", 'userName sw "john"', None]),
        (b"key", ["User", 'userName sw "jane"', ""]),
        (b"key", ["Group", 'userName sw "jane"', None]),
        (b"other", ["User", 'userName sw "jane"', None]),
    ):
        with pytest.raises(InvalidCursor, match="another query"):
            decode(text, query_digest(key, parts))


def test_each_place_has_exactly_one_cursor():
    text = encode(AfterAnchors(((A, 1), (B, 2))), DIGEST, 10)
    raw = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    for changed in (raw[:-1], raw + raw[-20:] * ANCHORS, raw[:11], b"\x03" + raw[1:], b"\x01" + raw[1:]):
        with pytest.raises(InvalidCursor):
            decode(base64.urlsafe_b64encode(changed).decode().rstrip("="), DIGEST)
    text = encode(AfterCreation(5, A), DIGEST, 10)
    for padded in (text + "=", text[:-1] + chr(ord(text[-1]) + 1)):
        with pytest.raises(InvalidCursor):
            decode(padded, DIGEST)


def test_times_beyond_the_calendar_are_refused():
    for at in (-1, 2**62):
        with pytest.raises(InvalidCursor):
            decode(encode(AfterCreation(at, A), DIGEST, 10), DIGEST)


def test_only_the_last_anchors_are_kept():
    anchors = tuple((UUID(int=n), n) for n in range(1, 20))
    assert decode(encode(AfterAnchors(anchors), DIGEST, 1), DIGEST)[0] == AfterAnchors(anchors[-ANCHORS:])
