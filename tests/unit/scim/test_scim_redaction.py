"""A redacted filter never shows a value."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scim.filter_parser import TEXT_BYTES_MAX
from scim.redaction import _redacted, redacted_filter
from scim.schema import USER


@pytest.mark.parametrize(
    ("text", "redacted"),
    [
        ('userName eq "bob@x"', "userName eq ?"),
        (
            'emails[type eq "work" and value co "@x"] or not (title eq "a \\" b")',
            "emails[type eq ? and value co ?] or not (title eq ?)",
        ),
        ("active eq true and title pr", "active eq true and title pr"),
        ("urn:x:y:shoe gt 42", "urn:x:y:shoe gt ?"),
        ("nonsense secret", "(unreadable)"),
    ],
)
def test_values_become_question_marks(text: str, redacted: str) -> None:
    assert redacted_filter(text, USER) == redacted


def test_a_filter_that_is_too_long_is_not_cached() -> None:
    """The body of a search may have a megabyte: a thousand of them would fill the memory."""
    kept = _redacted.cache_info().currsize
    assert redacted_filter(f'title eq "{"x" * TEXT_BYTES_MAX}"', USER) == "(unreadable)"
    assert _redacted.cache_info().currsize == kept


@given(st.text(st.characters(categories=["L", "N"]), min_size=4, max_size=30))
def test_a_value_is_not_in_the_redacted_filter(value: str) -> None:
    import json

    assert f"zq{value}qz" not in redacted_filter(f"userName eq {json.dumps('zq' + value + 'qz')} and title pr", USER)
