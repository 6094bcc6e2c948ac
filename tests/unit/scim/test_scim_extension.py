"""Extension schemas that operators register (RFC 7643 §7)."""

import pytest

from scim.apply import apply_patch
from scim.discovery import resource_types, schemas
from scim.errors import InvalidFilter, InvalidPath, InvalidValue, Mutability
from scim.extension import ATTRIBUTES_MAX, check_immutable, read_extension
from scim.filter_parser import either, parse_filter
from scim.filters import matches
from scim.leniency import Leniency
from scim.normalise import normalise
from scim.patch import read_patch
from scim.profile import profile_of
from scim.projection import after_write, parse_projection, project
from scim.schema import ENTERPRISE, GROUP, USER, Attribute, Extension, with_extension
from scim.sorting import sort_key

GENERIC = profile_of("generic@1").tolerances
URN = "urn:example:scim:schemas:badge:2.0:User"
SCHEMA = {
    "schemas": ["urn:ietf:params:scim:schemas:core:2.0:Schema"],
    "id": URN,
    "name": "Badge",
    "description": "Door badges",
    "attributes": [
        {"name": "number", "type": "string", "required": True, "caseExact": True, "mutability": "immutable"},
        {"name": "floor", "type": "integer"},
        {"name": "issuer", "mutability": "readOnly"},
        {"name": "note", "returned": "request"},
        {"name": "colour", "returned": "always", "canonicalValues": ["red"]},
        {"name": "pin", "mutability": "writeOnly", "returned": "never", "required": True},
        {
            "name": "doors",
            "type": "complex",
            "multiValued": True,
            "subAttributes": [
                {"name": "value", "required": True},
                {"name": "$ref", "type": "reference", "referenceTypes": ["uri"]},
            ],
        },
    ],
}
BADGE = read_extension(SCHEMA)
RT = with_extension(USER, BADGE)
CORE = {"schemas": [USER.schema, URN], "userName": "u"}


def made(inner):
    return normalise(RT, {**CORE, URN: inner}, Leniency(GENERIC))


def patched(before, *operations):
    body = {"schemas": ["urn:ietf:params:scim:api:messages:2.0:PatchOp"], "Operations": list(operations)}
    return apply_patch(RT, before, read_patch(RT, body, Leniency(GENERIC)), Leniency(GENERIC))


def test_a_registered_schema_is_listed_as_it_was_described():
    found = {document["id"]: document for document in schemas("http://h", (RT, GROUP))}
    assert list(found) == [USER.schema, GROUP.schema, ENTERPRISE.urn, URN]
    assert (found[URN]["name"], found[URN]["description"]) == ("Badge", "Door badges")
    listed = {attribute["name"]: attribute for attribute in found[URN]["attributes"]}
    for given in SCHEMA["attributes"]:
        assert listed[given["name"]].items() >= {k: v for k, v in given.items() if k != "subAttributes"}.items()
    users, groups = resource_types("http://h", (RT, GROUP))
    assert {"schema": URN, "required": False} in users["schemaExtensions"]
    assert "schemaExtensions" not in groups
    assert read_extension({**SCHEMA, "name": ""}).name == URN


def with_attribute(**attribute):
    return {**SCHEMA, "attributes": [{"name": "x", **attribute}]}


@pytest.mark.parametrize(
    "document",
    [
        {**SCHEMA, "id": None},
        {**SCHEMA, "id": "https://example.com/schema"},
        {**SCHEMA, "id": "urn:example:" + "x" * 300},
        {**SCHEMA, "id": USER.schema},
        {**SCHEMA, "id": ENTERPRISE.urn.upper()},
        {**SCHEMA, "attributes": []},
        {**SCHEMA, "attributes": {}},
        {**SCHEMA, "attributes": ["x"]},
        {**SCHEMA, "attributes": [{"name": "x"}, {"name": "X"}]},
        {**SCHEMA, "attributes": [{"name": f"a{n}"} for n in range(ATTRIBUTES_MAX + 1)]},
        {**SCHEMA, "name": 5},
        {**SCHEMA, "description": 5},
        with_attribute(name=None),
        with_attribute(name="1st"),
        with_attribute(name="a.b"),
        with_attribute(name="schemas"),
        with_attribute(type="text"),
        with_attribute(type=["string"]),
        with_attribute(multiValued="true"),
        with_attribute(required=1),
        with_attribute(mutability="sometimes"),
        with_attribute(returned="sometimes"),
        with_attribute(uniqueness="server"),
        with_attribute(uniqueness="local"),
        with_attribute(mutability="writeOnly"),
        with_attribute(returned="never"),
        with_attribute(mutability="readOnly", required=True),
        with_attribute(canonicalValues="a"),
        with_attribute(referenceTypes=[1]),
        with_attribute(description=[]),
        with_attribute(subAttributes=[{"name": "y"}]),
        with_attribute(type="complex"),
        with_attribute(type="complex", subAttributes={}),
        with_attribute(type="complex", subAttributes=[{"name": "y", "type": "complex", "subAttributes": [{"name": "z"}]}]),
        with_attribute(type="complex", subAttributes=[{"name": "y", "mutability": "immutable"}]),
    ],
)
def test_a_schema_that_could_not_be_enforced_is_refused(document):
    with pytest.raises(InvalidValue):
        read_extension(document)


def test_writes_are_checked_against_it():
    kept = made({"NUMBER": "A1", "floor": 3, "issuer": "me", "pin": "1234", "doors": [{"value": "d"}], "other": "kept"})
    assert kept[URN] == {"number": "A1", "floor": 3, "doors": [{"value": "d"}], "other": "kept"}
    for wrong in ({"floor": 3}, {"number": "A", "floor": "3"}, {"number": "A", "doors": [{"$ref": "r"}]}):
        with pytest.raises(InvalidValue):
            made(wrong)
    assert URN not in normalise(RT, {"schemas": [USER.schema], "userName": "u"}, Leniency(GENERIC))


def test_patches_are_checked_against_it():
    before = made({"number": "A1"})
    assert patched(before, {"op": "add", "path": f"{URN}:floor", "value": 4})[URN] == {"number": "A1", "floor": 4}
    assert patched(before, {"op": "add", "path": f"{URN}:pin", "value": "1"})[URN] == {"number": "A1"}
    for wrong, error in (
        ({"op": "add", "path": f"{URN}:floor", "value": "four"}, InvalidValue),
        ({"op": "replace", "path": f"{URN}:number", "value": "A2"}, Mutability),
        ({"op": "remove", "path": URN}, Mutability),
        ({"op": "add", "path": f"{URN}:nothing", "value": 1}, InvalidPath),
    ):
        with pytest.raises(error):
            patched(before, wrong)


def test_values_stored_before_the_registration_stay_unchanged():
    before = {**CORE, URN: {"floor": "third"}}
    assert patched(before, {"op": "add", "path": "title", "value": "t"})[URN] == {"floor": "third"}
    with pytest.raises(InvalidValue, match="number"):
        patched(before, {"op": "add", "path": f"{URN}:floor", "value": 4})


def test_an_immutable_value_cannot_change():
    before = made({"number": "A1"})
    check_immutable(RT, before, before)
    check_immutable(RT, CORE, before)
    for after in (CORE, made({"number": "a1"})):
        with pytest.raises(Mutability, match="number"):
            check_immutable(RT, before, after)


@pytest.mark.parametrize(
    ("attributes", "excluded", "sent", "shown"),
    [
        (None, None, None, {"number": "A1", "note": "n", "colour": "red"}),
        (None, None, frozenset({(URN.casefold(), "note")}), {"number": "A1", "note": "n", "colour": "red"}),
        (None, None, frozenset({(URN.casefold(), "number")}), {"number": "A1", "colour": "red"}),
        (None, f"{URN}:note", None, {"number": "A1", "colour": "red"}),
        (None, URN, None, {"colour": "red"}),
        (None, f"{URN}:note.part", None, {"number": "A1", "note": "n", "colour": "red"}),
        (f"{URN}:number", None, None, {"number": "A1", "colour": "red"}),
    ],
)
def test_a_value_returned_on_request_is_shown_to_the_client_that_sent_it(attributes, excluded, sent, shown):
    """RFC 7643 §7, `returned`: such a value is in the answer to a write that specified it, but not in other answers."""
    document = {**CORE, URN: {"number": "A1", "note": "n", "colour": "red"}}
    assert project(after_write(parse_projection(RT, attributes, excluded), sent), document)[URN] == shown
    plain = parse_projection(USER, attributes, excluded)
    assert after_write(plain, sent) is plain


def test_a_sub_attribute_returned_on_request_is_shown_to_the_client_that_sent_it():
    lock = Attribute("lock", "complex", sub_attributes={"code": Attribute("code", "string", returned="request")})
    rt = with_extension(USER, Extension(URN, {"lock": lock}))
    document = {**CORE, URN: {"lock": {"code": "c", "kind": "k"}}}
    projection = parse_projection(rt, None, None)
    assert project(projection, document)[URN] == {"lock": {"kind": "k"}}
    assert project(after_write(projection, None), document)[URN] == {"lock": {"code": "c", "kind": "k"}}
    assert project(parse_projection(rt, f"{URN}:lock.code", None), document)[URN] == {"lock": {"code": "c"}}


def test_filters_sorting_and_projection_know_it():
    document = {**CORE, "id": "1", URN: {"number": "A1", "floor": 3, "note": "n", "colour": "red"}}
    for kind in (RT, either(RT, GROUP)):
        assert matches(parse_filter(f'{URN}:number eq "A1" and {URN}:floor gt 2', kind), document)
        assert not matches(parse_filter(f'{URN}:number eq "a1"', kind), document)
    for unreadable in (f"{URN}:pin pr", f"{URN}:nothing pr"):
        with pytest.raises(InvalidFilter):
            parse_filter(unreadable, RT)
    assert sort_key(f"{URN}:floor", RT)(document) < sort_key(f"{URN}:floor", RT)({**CORE, URN: {"floor": 10}})
    always = {"colour": "red"}
    for attributes, excluded, shown in (
        (None, None, {"number": "A1", "floor": 3, "colour": "red"}),
        (f"{URN}:note", None, {"note": "n", **always}),
        ("userName", None, always),
        (None, URN, always),
        (None, f"{URN}:floor", {"number": "A1", **always}),
    ):
        assert project(parse_projection(RT, attributes, excluded), document)[URN] == shown
    odd = {**document, URN: "stored before"}
    assert URN not in project(parse_projection(RT, "userName", None), odd)
    assert URN not in project(parse_projection(RT, "userName", None), {**document, URN: {"floor": 1}})
