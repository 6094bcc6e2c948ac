"""Trying a profile: what a recorded request would store."""

from typing import Any

import pytest

from scim.dry_run import dry_run
from scim.extension import read_extension
from scim.profile import profile_of
from scim.schema import GROUP, with_extension
from scim.schema import USER as USER_TYPE
from tests.unit.scim.test_scim_extension import SCHEMA, URN

CORE = "urn:ietf:params:scim:schemas:core:2.0:"
PATCH = "urn:ietf:params:scim:api:messages:2.0:PatchOp"
USER: dict[str, Any] = {"schemas": [CORE + "User"], "userName": "scim-test@corp", "title": "Countess"}
GROUP_BEFORE: dict[str, Any] = {"schemas": [CORE + "Group"], "displayName": "g"}


def tried(profile: str, method: str, path: str, body: Any = None, **more: Any) -> dict[str, Any]:
    found = dry_run(profile_of(profile), {"method": method, "path": path, "body": body, **more})
    assert (found["profile"], found["method"], found["path"]) == (f"{profile}@1", method, path)
    return {key: value for key, value in found.items() if key not in {"profile", "method", "path"}}


def test_a_create_shows_the_document_and_the_mapped_user() -> None:
    user = {"user_name": "scim-test@corp", "active": True, "title": "Countess"}
    assert tried("okta", "POST", "/scim/acme/v2/Users", USER) == {"document": USER, "user": user, "tolerances": []}
    assert tried("jumpcloud", "POST", "/Users", USER)["test_object"] is True


def test_a_patch_shows_its_operations_and_is_applied_to_the_resource_before() -> None:
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


@pytest.mark.parametrize("before", [{**GROUP_BEFORE, "id": "abc"}, GROUP_BEFORE])
def test_a_patch_may_repeat_the_id_of_its_resource(before: dict[str, Any]) -> None:
    """Okta sends the id with every push; if `before` has no id, the path names the resource."""
    body = {"schemas": [PATCH], "Operations": [{"op": "replace", "value": {"id": "abc", "displayName": "x"}}]}
    found = tried("okta", "PATCH", "/Groups/abc/", body, before=before)
    assert (found["document"], found["tolerances"]) == ({**before, "displayName": "x"}, ["id_in_value"])
    refused = tried("okta", "PATCH", "/Groups/abd", body, before={**before, "id": "abd"})
    assert refused["error"]["scimType"] == "mutability"


def test_a_patch_of_a_user_may_repeat_its_id_and_the_mapped_user_has_it() -> None:
    body = {"schemas": [PATCH], "Operations": [{"op": "replace", "value": {"id": "abc", "title": "Lady"}}]}
    found = tried("okta", "PATCH", "/Users/abc", body, before={**USER, "id": "abc"})
    assert found["document"] == {**USER, "title": "Lady", "id": "abc"}
    assert found["user"] == {"id": "abc", "user_name": "scim-test@corp", "active": True, "title": "Lady"}


def test_the_resource_before_is_a_stored_one_and_needs_no_schemas() -> None:
    body = {"schemas": [PATCH], "Operations": [{"op": "replace", "path": "displayName", "value": "x"}]}
    found = tried("okta", "PATCH", "/Groups/1", body, before={"displayName": "g"})
    assert (found["document"]["displayName"], found["tolerances"]) == ("x", [])
    assert "error" not in tried("okta", "POST", "/Users", USER, before={"userName": 5})
    also = {**USER, "members": ["of an attribute without a schema"]}
    title = {"schemas": [PATCH], "Operations": [{"op": "replace", "path": "title", "value": "Lady"}]}
    assert tried("okta", "PATCH", "/Users/1", title, before=also)["document"] == {**also, "title": "Lady"}


@pytest.mark.parametrize(
    ("operations", "members"),
    [
        ([{"op": "remove", "path": 'members[value eq "a"]'}], ["B", "c"]),
        ([{"op": "add", "path": "members", "value": [{"value": "d", "type": "Group"}, {"value": "a"}]}], ["a", "B", "c", "d"]),
        ([{"op": "replace", "path": "members", "value": [{"value": "d"}]}], ["d"]),
        ([{"op": "remove", "path": "members"}], None),
        ([{"op": "remove", "path": 'members[type eq "Group"]'}], ["a", "B"]),
        ([{"op": "replace", "path": 'members[value eq "b"]', "value": {"value": "d"}}], ["a", "c", "d"]),
        (
            [
                {"op": "add", "path": "members", "value": [{"value": "d", "type": "Group"}]},
                {"op": "remove", "path": 'members[type eq "Group"]'},
            ],
            ["a", "B"],
        ),
    ],
)
def test_a_patch_changes_the_existing_members(operations: list[dict[str, Any]], members: list[str] | None) -> None:
    """The order is kept, and the letter case of an id is ignored, because it is a UUID."""
    before = {**GROUP_BEFORE, "members": [{"value": "a"}, {"value": "B", "type": "User"}, {"value": "c", "type": "Group"}]}
    found = tried("generic", "PATCH", "/Groups/1", {"schemas": [PATCH], "Operations": operations}, before=before)
    assert [m["value"] for m in found["document"].get("members", ())] == (members or [])
    assert ("members" in found["document"]) is (members is not None)


def test_an_added_member_shows_its_type_if_it_was_sent() -> None:
    value = [{"value": "a", "type": "Group"}, {"value": "b"}]
    body = {"schemas": [PATCH], "Operations": [{"op": "add", "path": "members", "value": value}]}
    assert tried("okta", "PATCH", "/Groups/1", body, before=GROUP_BEFORE)["document"]["members"] == value


def test_a_filter_that_selects_no_member_is_refused() -> None:
    body = {"schemas": [PATCH], "Operations": [{"op": "replace", "path": 'members[value eq "b"]', "value": {"value": "c"}}]}
    refused = tried("generic", "PATCH", "/Groups/1", body, before={**GROUP_BEFORE, "members": [{"value": "a"}]})
    assert refused["error"]["scimType"] == "noTarget"
    assert "let it add the member" in refused["fix"]


def test_a_put_without_active_keeps_it() -> None:
    """The kept value is in `before`; without it the value is unknown, and the result has none."""
    leaver = {**USER, "active": False}
    found = tried("onelogin", "PUT", "/Users/1", USER, before=leaver)
    assert (found["document"], found["user"]["active"]) == (leaver, False)
    assert tried("onelogin", "PUT", "/Users/1", {**USER, "active": True}, before=leaver)["user"]["active"] is True
    assert tried("onelogin", "PUT", "/Users/1", USER, before=USER)["user"]["active"] is True
    assert "active" not in tried("onelogin", "PUT", "/Users/1", USER)["user"]
    group = {"schemas": [CORE + "Group"], "displayName": "x"}
    assert tried("onelogin", "PUT", "/Groups/1", group, before=GROUP_BEFORE)["document"] == group


def test_a_put_cannot_change_an_immutable_value() -> None:
    types = {"Users": with_extension(USER_TYPE, read_extension(SCHEMA)), "Groups": GROUP}
    request = {
        "method": "PUT",
        "path": "/Users/1",
        "body": {**USER, URN: {"number": "B"}},
        "before": {**USER, URN: {"number": "A"}},
    }
    assert dry_run(profile_of("okta"), request, types)["error"]["scimType"] == "mutability"


def test_a_step_of_a_recorded_dialogue_has_do_instead_of_method() -> None:
    assert dry_run(profile_of("okta"), {"do": "get", "path": "/Users"})["stores"].startswith("nothing")
    assert tried("okta", "DELETE", "/Users/1")["stores"].startswith("the end")


@pytest.mark.parametrize("path", ["/.search", "/Users/.search", "/scim/acme/v2/Groups/.search/"])
def test_a_search_only_reads(path: str) -> None:
    body = {"schemas": ["urn:ietf:params:scim:api:messages:2.0:SearchRequest"], "filter": "title pr"}
    assert tried("okta", "POST", path, body) == {"stores": "nothing: this request only reads", "tolerances": []}


def test_discovery_only_reads() -> None:
    assert tried("okta", "GET", "/ServiceProviderConfig")["stores"] == "nothing: this request only reads"


def test_the_operations_of_a_bulk_request_are_tried_each_by_itself() -> None:
    found = tried("okta", "POST", "/scim/acme/v2/Bulk", {"schemas": [], "Operations": []})
    assert found.keys() == {"stores", "tolerances"}
    assert "one by one" in found["stores"]


def test_an_unknown_path_is_reported_as_a_wrong_address() -> None:
    assert "The address is wrong" in tried("okta", "POST", "/Elsewhere", {})["fix"]


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("PATCH", "/Users/1", {"schemas": [PATCH], "Operations": [{"op": "Replace", "path": "active", "value": True}]}, "400"),
        ("POST", "/Users", None, "400"),
        ("POST", "/Elsewhere", {}, "404"),
    ],
)
def test_a_request_that_would_be_refused_is_reported_with_the_refusal(method: str, path: str, body: Any, status: str) -> None:
    assert tried("okta", method, path, body)["error"]["status"] == status


def test_the_extension_schemas_of_a_directory_are_used_if_given() -> None:
    types = {"Users": with_extension(USER_TYPE, read_extension(SCHEMA)), "Groups": GROUP}
    request = {"method": "POST", "path": "/Users", "body": {**USER, URN: {"number": "A", "floor": "three"}}}
    assert "error" not in dry_run(profile_of("okta"), request)
    refused = dry_run(profile_of("okta"), request, types)
    assert refused["error"]["scimType"] == "invalidValue"
    assert "another type" in refused["fix"]
    kept = {**request, "body": {**USER, URN: {"number": "A", "floor": 3}}}
    assert dry_run(profile_of("okta"), kept, types)["user"]["user_name"] == "scim-test@corp"
