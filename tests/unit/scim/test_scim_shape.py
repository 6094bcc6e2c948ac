"""The shape of a filter never shows a value."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scim.schema import USER
from scim.shape import filter_shape


@pytest.mark.parametrize(
    ("text", "shape"),
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
def test_values_become_question_marks(text: str, shape: str) -> None:
    assert filter_shape(text, USER) == shape


@given(st.text(st.characters(categories=["L", "N"]), min_size=4, max_size=30))
def test_a_value_is_not_in_the_shape(value: str) -> None:
    import json

    assert f"zq{value}qz" not in filter_shape(f"userName eq {json.dumps('zq' + value + 'qz')} and title pr", USER)
