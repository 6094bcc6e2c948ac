"""Names of unknown attributes are told, values and names that look like values are not."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scim.quality import OTHER, is_email, unknown_attributes
from scim.schema import GROUP, USER

ENTERPRISE = "urn:ietf:params:scim:schemas:extension:enterprise:2.0:User"


@pytest.mark.parametrize(
    ("document", "found"),
    [
        ({"schemas": [], "id": "1", "USERNAME": "x", "externalId": "x", "emails": [], "meta": {}}, []),
        ({"departement": "x"}, ["departement"]),
        ({"jane@example.org": 1}, [OTHER]),
        ({"x" * 101: 1}, [OTHER]),
        ({ENTERPRISE: {"Department": "x", "flor": "x"}}, [f"{ENTERPRISE}:flor"]),
        ({"urn:x:y": {"a": 1, "b c": 2}}, ["urn:x:y:a", OTHER]),
        (
            {"name": {"firstName": "x", "givenName": "x"}, "emails": [{"value": "x", "kind": 1}, {"kind": 2}, 3]},
            ["name.firstName", "emails.kind", "emails.kind"],
        ),
        ({ENTERPRISE: {"manager": {"value": "1", "mail": "x"}}}, [f"{ENTERPRISE}:manager.mail"]),
        ({"urn:x:y": "plain"}, ["urn:x:y"]),
    ],
)
def test_attributes_without_a_schema_are_named(document: dict[str, Any], found: list[str]) -> None:
    assert list(unknown_attributes(USER, document)) == found


@given(st.dictionaries(st.text(), st.text() | st.dictionaries(st.text(), st.text())))
def test_no_name_has_the_form_of_an_address(document: dict[str, Any]) -> None:
    assert not any("@" in name or " " in name for name in unknown_attributes(GROUP, document))


@pytest.mark.parametrize(
    ("user_name", "mail"),
    [
        ("jane@example.org", True),
        ("jane", False),
        ("@x", False),
        ("a b@x", False),
        ("x#EXT#@t.onmicrosoft.com", True),
        ("a@b@c", False),
    ],
)
def test_a_user_name_is_an_address_or_not(user_name: str, *, mail: bool) -> None:
    assert is_email(user_name) == mail
