"""Objects whose JSON is written in pieces."""

import orjson
from hypothesis import given
from hypothesis import strategies as st

from api.scim.resources import object_members

values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(document=st.dictionaries(st.text(), values))
def test_the_members_of_an_object_are_its_json_without_braces(document: dict[str, object]) -> None:
    """A client must not be able to tell an answer in pieces from one that was encoded whole."""
    assert b"{" + object_members(document) + b"}" == orjson.dumps(document)
