import copy

import pytest

from scim.diff import changes, same
from scim.discovery import list_response, resource_types, schemas, service_provider_config
from scim.errors import InvalidValue
from scim.leniency import Leniency
from scim.profile import profile_of
from scim.projection import needs, parse_projection, project, read_projection, shows_whole
from scim.schema import ENTERPRISE, GROUP, USER, Attribute, Extension, with_extension

GENERIC = profile_of("generic@1").tolerances
E = ENTERPRISE.urn
DOC = {
    "schemas": [USER.schema, E],
    "id": "1",
    "userName": "u",
    "password": "never",
    "title": "t",
    "name": {"familyName": "F", "givenName": "G"},
    "emails": [{"value": "x", "type": "work"}, {"type": "home"}],
    "odd": {"a": 1, "b": [1]},
    E: {"department": "D", "manager": {"value": "m", "$ref": "r"}},
    "groups": [{"value": "g"}],
}
ALWAYS = {"schemas": DOC["schemas"], "id": "1"}


def shown(attributes=None, excluded=None, rt=USER, document=DOC):
    before = copy.deepcopy(document)
    found = project(parse_projection(rt, attributes, excluded), document)
    assert document == before
    return found


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        ("userName", {"userName": "u"}),
        ("USERNAME, name.familyName", {"userName": "u", "name": {"familyName": "F"}}),
        (f"{USER.schema}:title", {"title": "t"}),
        ("name.familyName,name", {"name": DOC["name"]}),
        ("name,name.familyName", {"name": DOC["name"]}),
        ("emails.value", {"emails": [{"value": "x"}]}),
        ("phoneNumbers.value,foo", {}),
        ("emails.display", {}),
        ("userName.x", {"userName": "u"}),
        ("odd.b", {"odd": {"b": [1]}}),
        (E, {E: DOC[E]}),
        (f"{E}:department", {E: {"department": "D"}}),
        (f"{E}:manager.value", {E: {"manager": {"value": "m"}}}),
        ("password,userName", {"userName": "u"}),
        ("urn:un:known:x", {}),
    ],
)
def test_requested_attributes_come_with_id_and_schemas_and_nothing_else(attributes, expected):
    assert shown(attributes) == {**ALWAYS, **expected}


@pytest.mark.parametrize("excluded", ["id", "schemas", "", None, "nope", "name.nope"])
def test_an_attribute_that_is_always_returned_cannot_be_excluded(excluded):
    assert shown(None, excluded) == {key: value for key, value in DOC.items() if key != "password"}


def test_excluded_attributes_and_sub_attributes_are_left_out():
    found = shown(None, f"title,emails.type,name.familyName,{E}:department,groups")
    assert found == {
        **ALWAYS,
        "userName": "u",
        "name": {"givenName": "G"},
        "emails": [{"value": "x"}],
        "odd": DOC["odd"],
        E: {"manager": DOC[E]["manager"]},
    }


def test_attributes_and_excluded_attributes_together_are_refused():
    with pytest.raises(InvalidValue, match="exclude each other"):
        parse_projection(USER, "a", "b")


def test_the_needs_of_a_projection_say_what_need_not_be_loaded():
    assert needs(parse_projection(GROUP, None, None), "members")
    assert not needs(parse_projection(GROUP, None, "Members"), "members")
    assert needs(parse_projection(GROUP, None, "members.display"), "members")
    assert needs(parse_projection(USER, "groups.value", None), "groups")
    assert not needs(parse_projection(USER, "userName", None), "groups")
    assert needs(parse_projection(USER, "userName", None), "id")
    assert needs(parse_projection(USER, None, "id"), "id")


def test_an_attribute_of_which_all_is_asked_for_is_shown_whole() -> None:
    for attributes, excluded in ((None, None), ("groups", None), (None, "userName")):
        assert shows_whole(parse_projection(USER, attributes, excluded), "groups")
    for attributes, excluded in (("groups.value", None), (None, "groups.display"), (None, "groups"), ("userName", None)):
        assert not shows_whole(parse_projection(USER, attributes, excluded), "groups")


def test_the_returned_characteristic_of_extension_attributes_is_honoured():
    table = {
        "hidden": Attribute("hidden", "string", returned="never"),
        "asked": Attribute("asked", "string", returned="request"),
        "x": Attribute("x", "string"),
    }
    rt = with_extension(USER, Extension("urn:x:e", table))
    document = {**ALWAYS, "urn:x:e": {"hidden": "h", "asked": "a", "x": "x"}}
    assert shown(rt=rt, document=document) == {**ALWAYS, "urn:x:e": {"x": "x"}}
    assert shown("urn:x:e:asked", rt=rt, document=document) == {**ALWAYS, "urn:x:e": {"asked": "a"}}
    assert shown("urn:x:e", rt=rt, document=document) == {**ALWAYS, "urn:x:e": {"x": "x"}}


def test_differences_are_sorted_and_a_missing_side_has_no_key():
    before = {
        "id": "1",
        "schemas": ["a"],
        "title": "t",
        "name": {"familyName": "F", "givenName": "G"},
        "emails": [{"value": "x"}],
        E: {"department": "D"},
        "urn:a:b": {"x": 1},
    }
    after = {
        "id": "2",
        "schemas": ["b"],
        "active": False,
        "name": {"familyName": "F2"},
        "emails": [{"value": "y"}],
        E: {"department": "D", "manager": {"value": "m"}},
    }
    assert changes(before, after) == [
        {"path": "active", "to": False},
        {"path": "emails", "from": [{"value": "x"}], "to": [{"value": "y"}]},
        {"path": "name.familyName", "from": "F", "to": "F2"},
        {"path": "name.givenName", "from": "G"},
        {"path": "title", "from": "t"},
        {"path": "urn:a:b:x", "from": 1},
        {"path": f"{E}:manager.value", "to": "m"},
    ]
    assert changes(before, copy.deepcopy(before)) == []


def test_a_value_that_changes_its_kind_is_reported_as_a_whole():
    assert changes({"x": {"a": 1}}, {"x": "s"}) == [{"path": "x", "from": {"a": 1}, "to": "s"}]
    assert changes({"x": "s"}, {"x": {"a": {"b": 1}}}) == [{"path": "x", "from": "s", "to": {"a": {"b": 1}}}]
    assert changes({"x": {"a": {"b": 1}}}, {"x": {"a": {"b": 2}}}) == [{"path": "x.a", "from": {"b": 1}, "to": {"b": 2}}]


def test_json_equality_distinguishes_true_from_one_and_one_from_one_point_zero():
    assert not same(True, 1)
    assert not same([1], [1.0])
    assert not same([1], [1, 2])
    assert not same({"a": 1}, {"b": 1})
    assert same({"a": [1, {"b": None}]}, {"a": [1, {"b": None}]})


def test_discovery_documents_agree_with_the_tables():
    config = service_provider_config("http://h", bulk_supported=True, sort_supported=True)
    assert config["patch"] == config["etag"] == config["sort"] == {"supported": True}
    assert config["bulk"]["supported"] is True
    assert service_provider_config("http://h")["bulk"] == {"supported": False, "maxOperations": 0, "maxPayloadSize": 0}
    found = {document["id"]: document for document in schemas("http://h")}
    assert list(found) == [USER.schema, GROUP.schema, E]
    attributes = {attribute["name"]: attribute for attribute in found[USER.schema]["attributes"]}
    assert attributes["userName"].items() >= {"required": True, "uniqueness": "server", "caseExact": False}.items()
    assert attributes["password"]["returned"] == "never"
    assert attributes["groups"]["mutability"] == "readOnly"
    assert "id" not in attributes
    assert found[E]["meta"] == {"resourceType": "Schema", "location": f"http://h/Schemas/{E}"}


def test_resource_types_name_their_extensions():
    users, groups = resource_types("http://h")
    assert users["schemaExtensions"] == [{"schema": E, "required": False}]
    assert users["meta"]["location"] == "http://h/ResourceTypes/User"
    assert "schemaExtensions" not in groups
    assert groups["endpoint"] == "/Groups"


def test_pages_use_indexes_unless_the_request_has_a_cursor():
    assert service_provider_config("http://h", results_max=7)["pagination"] == {
        "cursor": True,
        "index": True,
        "defaultPaginationMethod": "index",
        "defaultPageSize": 7,
        "maxPageSize": 7,
    }
    by_cursor = list_response([{"id": "1"}], 5, None, "abc")
    assert by_cursor["nextCursor"] == "abc"
    assert "startIndex" not in by_cursor
    assert "nextCursor" not in list_response([], 5, 1)


def test_a_list_response_has_the_number_of_resources_in_its_page():
    assert list_response([{"id": "1"}], 5, 3).items() >= {"totalResults": 5, "startIndex": 3, "itemsPerPage": 1}.items()


def test_an_extension_without_a_schema_is_included_or_excluded_as_a_whole_or_by_attribute():
    document = {**ALWAYS, "userName": "a", "urn:x:ext:2.0:User": {"A": "1", "b": "2"}}
    assert shown("urn:x:ext:2.0:user", document=document) == {**ALWAYS, "urn:x:ext:2.0:User": {"A": "1", "b": "2"}}
    assert shown("urn:x:ext:2.0:User:a", document=document) == {**ALWAYS, "urn:x:ext:2.0:User": {"A": "1"}}
    assert shown(excluded="urn:x:ext:2.0:User", document=document) == {**ALWAYS, "userName": "a"}
    assert shown(excluded="urn:x:ext:2.0:User:a", document=document) == {**document, "urn:x:ext:2.0:User": {"b": "2"}}


def test_requested_names_are_bounded_and_long_ones_are_not_cached():
    long = ",".join(f"urn:x:y:a{n}" for n in range(400))
    assert parse_projection(USER, long, None) is not parse_projection(USER, long, None)
    assert parse_projection(USER, "userName", None) is parse_projection(USER, "userName", None)
    assert project(read_projection(USER, None, None, Leniency(GENERIC)), {"userName": "a"}) == {"userName": "a"}
    for given in ((long * 2, None), (None, long * 2)):
        with pytest.raises(InvalidValue, match="Name fewer attributes"):
            read_projection(USER, *given, Leniency(GENERIC))


def test_an_attribute_without_a_value_is_not_shown() -> None:
    """RFC 7643 §2.5: unassigned and null are the same, and an answer leaves both out."""
    document = {
        "schemas": ["urn:ietf:params:scim:schemas:core:2.0:User"],
        "id": "1",
        "userName": "u",
        "title": None,
        "name": None,
    }
    assert project(parse_projection(USER, None, None), document).keys() == {"schemas", "id", "userName"}
