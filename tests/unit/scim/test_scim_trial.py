"""Trying a profile: what a recorded request would store."""

from typing import Any

import pytest

from scim.extension import read_extension
from scim.profile import profile_of
from scim.schema import GROUP, with_extension
from scim.schema import USER as USER_TYPE
from scim.trial import try_request
from tests.unit.scim.test_scim_extension import SCHEMA, URN

CORE = "urn:ietf:params:scim:schemas:core:2.0:"
PATCH = "urn:ietf:params:scim:api:messages:2.0:PatchOp"
USER: dict[str, Any] = {"schemas": [CORE + "User"], "userName": "scim-test@corp", "title": "Countess"}


def tried(profile: str, method: str, path: str, body: Any = None, **more: Any) -> dict[str, Any]:
    found = try_request(profile_of(profile), {"method": method, "path": path, "body": body, **more})
    assert (found["profile"], found["method"], found["path"]) == (f"{profile}@1", method, path)
    return {key: value for key, value in found.items() if key not in {"profile", "method", "path"}}


def test_a_create_shows_the_document_and_the_mapped_user() -> None:
    user = {"user_name": "scim-test@corp", "active": True, "title": "Countess"}
    assert tried("okta", "POST", "/scim/acme/v2/Users", USER) == {"document": USER, "user": user, "tolerances": []}
    assert tried("jumpcloud", "POST", "/Users", USER)["test_object"] is True


def test_a_patch_shows_its_operations_and_is_applied_to_what_was_before() -> None:
    body = {"schemas": [PATCH], "Operations": [{"op": "Replace", "path": "active", "value": "False"}]}
    operations = [{"op": "replace", "path": "active", "value": False}]
    used = ["op_case", "string_booleans"]
    assert tried("entra", "PATCH", "/Users/1?x=y", body) == {"operations": operations, "tolerances": used}
    after = tried("entra", "PATCH", "/Users/1", body, before=USER)
    assert after == {
        "operations": operations, "document": {**USER, "active": False}, "tolerances": used,
        "user": {"user_name": "scim-test@corp", "active": False, "title": "Countess"},
    }  # fmt: skip


def test_a_group_shows_its_members() -> None:
    body = {"schemas": [PATCH], "Operations": [{"op": "Remove", "path": "members", "value": [{"value": "7"}]}]}
    assert tried("entra", "PATCH", "/Groups/1", body) == {
        "members": [{"op": "remove", "ids": ["7"]}], "tolerances": ["op_case", "remove_value_list"],
    }  # fmt: skip
    group = {"schemas": [CORE + "Group"], "displayName": "g", "members": [{"value": "7"}]}
    assert tried("entra", "PUT", "/Groups/1", group) == {"document": group, "tolerances": []}


def test_a_step_of_a_dialogue_has_do_instead_of_method() -> None:
    assert try_request(profile_of("okta"), {"do": "get", "path": "/Users"})["stores"].startswith("nothing")
    assert tried("okta", "DELETE", "/Users/1")["stores"].startswith("the end")


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("PATCH", "/Users/1", {"schemas": [PATCH], "Operations": [{"op": "Replace", "path": "active", "value": True}]}, "400"),
        ("POST", "/Users", None, "400"),
        ("POST", "/Elsewhere", {}, "404"),
    ],
)
def test_what_would_be_refused_says_so(method: str, path: str, body: Any, status: str) -> None:
    assert tried("okta", method, path, body)["error"]["status"] == status


def test_the_types_of_a_directory_decide_where_they_are_given() -> None:
    types = {"Users": with_extension(USER_TYPE, read_extension(SCHEMA)), "Groups": GROUP}
    request = {"method": "POST", "path": "/Users", "body": {**USER, URN: {"number": "A", "floor": "three"}}}
    assert "error" not in try_request(profile_of("okta"), request)
    refused = try_request(profile_of("okta"), request, types)
    assert refused["error"]["scimType"] == "invalidValue"
    assert "another type" in refused["fix"]
    kept = {**request, "body": {**USER, URN: {"number": "A", "floor": 3}}}
    assert try_request(profile_of("okta"), kept, types)["user"]["user_name"] == "scim-test@corp"
