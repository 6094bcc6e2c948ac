"""Profiles are data: the content of the files, what a file may say, and the mapped user."""

import tomllib
from typing import Any

import jsonschema_rs
import orjson
import pytest

from scim import profile as profiles
from scim.attribute_map import UserMap, read_path, values_at
from scim.leniency import LISTED, Tolerance
from scim.profile import (
    PROFILE_FOLDER,
    ProfileError,
    UnknownProfileError,
    format_schema,
    is_shipped,
    is_test_object,
    mapped_user,
    own_profile,
    profile_of,
    read_profile,
    shipped,
)

# Every tolerance whose deviation has only one possible meaning. A message without `schemas` may mean something else, and "" may
# be a real value.
GENERIC = frozenset(LISTED) - {Tolerance.MISSING_SCHEMAS, Tolerance.EMPTY_STRINGS, Tolerance.UNQUOTED_VALUES}
ENTERPRISE = "urn:ietf:params:scim:schemas:extension:enterprise:2.0:User"
EXTENSION = "urn:ietf:params:scim:schemas:extension:CustomExtensionName:2.0:User"
ADA: dict[str, Any] = {
    "schemas": ["urn:ietf:params:scim:schemas:core:2.0:User"],
    "id": "1", "externalId": "00u1", "userName": "ada", "active": True, "displayName": "Ada", "title": "Countess",
    "name": {"givenName": "Ada", "familyName": "Byron"},
    "emails": [{"value": "home@x", "type": "home"}, {"value": "work@x", "type": "work"}],
    "roles": [{"value": "admin"}, {"value": "admin"}, {"value": '{"id": "7", "value": "auditor"}'}, {"display": "no value"}],
    ENTERPRISE: {"department": "Payroll", "employeeNumber": "7", "manager": {"value": "26"}},
    EXTENSION: {"extensionAttribute1": "x"},
}  # fmt: skip


@pytest.mark.parametrize("text", list(shipped()))
def test_each_file_is_a_profile_and_agrees_with_the_json_schema(text: str) -> None:
    raw = shipped()[text].read_bytes()
    assert read_profile(raw).text == text
    schema = orjson.loads((PROFILE_FOLDER / "schema.json").read_bytes())
    jsonschema_rs.validator_for(schema).validate(tomllib.loads(raw.decode()))


def test_there_is_one_for_each_kind_of_idp() -> None:
    kinds = {"entra", "okta", "google", "onelogin", "jumpcloud", "ping", "generic", "ipsie"}
    assert {text.partition("@")[0] for text in shipped()} == kinds | {"generic-externalid", "generic-username"}


@pytest.mark.parametrize(("name", "key"), [("generic-externalid", "externalId"), ("generic-username", "userName")])
def test_the_variants_of_generic_differ_only_in_how_they_understand_members(name: str, key: str) -> None:
    ours, generic = profile_of(name), profile_of("generic")
    assert (ours.unknown_member, ours.file.user) == (key, generic.file.user)
    assert ours.tolerances == generic.tolerances | {Tolerance.UNKNOWN_MEMBER}


def test_the_json_schema_is_current() -> None:
    """Regenerate with `make docs`."""
    assert (PROFILE_FOLDER / "schema.json").read_bytes() == format_schema()


def test_generic_1_has_the_content_that_stored_events_refer_to() -> None:
    assert profile_of("generic@1").tolerances == GENERIC
    assert profile_of("generic@1").unknown_member == "refuse"


def test_a_name_without_a_version_means_the_newest(monkeypatch: pytest.MonkeyPatch) -> None:
    files = {"okta@1": PROFILE_FOLDER / "okta@1.toml", "okta@10": PROFILE_FOLDER / "generic@1.toml"}
    profile_of.cache_clear()
    monkeypatch.setattr(profiles, "shipped", lambda: files)
    assert profile_of("okta").text == "generic@1", "the file of okta@10"
    profile_of.cache_clear()


def test_the_error_about_an_unknown_profile_lists_the_known_ones() -> None:
    with pytest.raises(UnknownProfileError, match=r"no profile okta@99 here.*okta@1"):
        profile_of("okta@99")


def test_a_profile_of_an_operator_is_read_from_its_stored_document() -> None:
    okta = profile_of("okta@1")
    assert own_profile(okta.file.model_dump_json()).file == okta.file
    assert (is_shipped("okta"), is_shipped("our-idp")) == (True, False)


def minimal(**changed: Any) -> bytes:
    document = tomllib.loads((PROFILE_FOLDER / "okta@1.toml").read_text())
    return orjson.dumps({key: value for key, value in {**document, **changed}.items() if value is not None})


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"tolerances": ["string_bools"]}, "tolerances.0: .*there is no tolerance string_bools; there are string_booleans"),
        ({"tolerance": []}, "tolerance: Extra inputs"),
        ({"title": None}, "title: Field required"),
        ({"unknown_member": "guess"}, "unknown_member: "),
        ({"version": 0}, "version: "),
        ({"user": {"email": ["mail"]}}, "user.email.0: .*mail is no path of a user"),
    ],
)
def test_the_error_about_an_invalid_file_names_the_places(changed: dict[str, Any], said: str) -> None:
    with pytest.raises(ProfileError, match=said):
        read_profile(minimal(**changed), json=True)


@pytest.mark.parametrize(("raw", "json"), [(b"= 1", False), (b"\xff", False), (b"{", True), (b"[]", True)])
def test_a_file_that_is_not_a_profile_at_all_is_reported(raw: bytes, json: bool) -> None:
    with pytest.raises(ProfileError):
        read_profile(raw, json=json)


def test_exactly_the_tolerances_of_a_file_are_switched_on() -> None:
    read = read_profile(minimal(tolerances=["op_case"]), json=True)
    assert read.tolerances == {"op_case"}
    with pytest.raises(ProfileError, match="there is no tolerance unknown_member"):
        read_profile(minimal(tolerances=["unknown_member"]), json=True)


def test_the_mapped_user_has_the_same_form_for_every_idp() -> None:
    expected = {
        "id": "1", "external_id": "00u1", "user_name": "ada", "active": True, "email": "work@x", "given_name": "Ada",
        "family_name": "Byron", "display_name": "Ada", "title": "Countess", "department": "Payroll", "manager_id": "26",
        "employee_number": "7", "roles": ["admin", "auditor"], "custom": {EXTENSION: {"extensionAttribute1": "x"}},
    }  # fmt: skip
    assert mapped_user(profile_of("entra@1"), ADA) == expected
    verbatim = ["admin", '{"id": "7", "value": "auditor"}']
    assert mapped_user(profile_of("okta@1"), ADA) == {**expected, "roles": verbatim}


@pytest.mark.parametrize("text", list(shipped()))
def test_absent_and_empty_values_are_left_out(text: str) -> None:
    document = {"id": "1", "userName": "ada", "title": "", "active": False, "emails": [{"type": "work"}]}
    assert mapped_user(profile_of(text), document) == {"id": "1", "user_name": "ada", "active": False}


def test_the_primary_email_is_taken_and_otherwise_any_other() -> None:
    profile = profile_of("generic@1")
    work, home = {"value": "w", "type": "work"}, {"value": "h", "type": "home"}
    assert mapped_user(profile, {"emails": [work, {**home, "primary": True}]})["email"] == "h"
    assert mapped_user(profile, {"emails": [home]})["email"] == "h"


def test_a_role_that_only_looks_like_json_is_unchanged() -> None:
    roles = [{"value": "{admin"}, {"value": '{"id": "1"}'}]
    assert mapped_user(profile_of("entra@1"), {"roles": roles}) == {"roles": ["{admin"]}


def test_custom_attributes_have_names_and_extensions_may_be_left_out() -> None:
    names = {"cost": [f"{ENTERPRISE}:costCenter"], "one": [f"{EXTENSION}:extensionattribute1"], "nick": ["nickName"]}
    mapping = UserMap({"roles": ["roles"]}, names, extensions=False, json_roles=False)
    assert mapping.of(ADA)["custom"] == {"one": "x"}


@pytest.mark.parametrize(
    ("path", "values"),
    [
        (ENTERPRISE, [ADA[ENTERPRISE]]),
        (EXTENSION, [ADA[EXTENSION]]),
        ("urn:none:2.0:User", []),
        ("urn:none:1.0:thing", []),
        ("name", [ADA["name"]]),
        ('emails[type eq "home"]', ["home@x"]),
        ("title", ["Countess"]),
        ("photos.value", []),
    ],
)
def test_values_at_a_path(path: str, values: list[Any]) -> None:
    assert values_at(read_path(path), ADA) == values


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("title", "Countess"),
        ("name", ADA["name"]),
        ("name.givenName", "Ada"),
        ("addresses.country", None),
        ("nickName", None),
        (f"{ENTERPRISE}:department", "Payroll"),
        (f"{ENTERPRISE}:manager", "26"),
        (f"{ENTERPRISE}:manager.value", "26"),
        (f"{ENTERPRISE}:manager.displayName", None),
        ('emails[type eq "work"].value', "work@x"),
        (EXTENSION, ADA[EXTENSION]),
    ],
)
def test_the_fast_path_readers_give_the_same_values_as_the_general_one(path: str, value: Any) -> None:
    mapping = UserMap({"roles": ["roles"], "it": [path]}, {}, extensions=False, json_roles=False)
    assert mapping.of(ADA).get("it") == value == next(iter(values_at(read_path(path), ADA)), None)


def test_a_value_of_another_shape_has_no_sub_attributes() -> None:
    assert values_at(read_path("emails.value"), {"emails": ["bare"]}) == []


@pytest.mark.parametrize(
    ("pattern", "name", "is_one"),
    [
        ("scim-test@*", "SCIM-test@corp.example", True),
        ("scim-test@*", "ada@corp.example", False),
        ("test", "test", True),
        ("test", "tests", False),
        ("*@a*b@*", "x@ab@y", True),
        ("*@a*b@*", "x@ay", False),
        ("*ab*ba", "xaba", False),
        ("*", "", True),
    ],
)
def test_objects_of_the_connection_test_are_recognised(pattern: str, name: str, is_one: bool) -> None:
    assert is_test_object(read_profile(minimal(test_objects=[pattern]), json=True), name) is is_one
