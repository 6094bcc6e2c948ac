"""Strict profiles: each strictness alone, and that nothing of it reaches a profile that does not list it."""

import tomllib
from typing import Any

import orjson
import pytest

from scim.apply import apply_patch
from scim.bulk import BULK_URN, read_bulk
from scim.discovery import OAuthTold, schemas, service_provider_config
from scim.dry_run import dry_run
from scim.errors import InvalidFilter, InvalidPath, InvalidSyntax, InvalidValue, NotFound
from scim.extension import read_extension
from scim.filter_parser import parse_filter
from scim.leniency import Leniency
from scim.normalise import normalise
from scim.patch import read_patch
from scim.profile import PROFILE_FOLDER, ProfileError, RateLimit, as_stored, own_profile, profile_of, read_profile, shipped
from scim.schema import ENTERPRISE, GROUP, USER, with_extension
from scim.strictness import INTEROPERABLE, Strictness, check_extension, is_other_spelling_of_id, refuse_undefined, strict_type

PATCH_OP = "urn:ietf:params:scim:api:messages:2.0:PatchOp"
EVERY = frozenset(Strictness)
STRICT_USER, STRICT_GROUP = strict_type(USER, EVERY), strict_type(GROUP, EVERY)
UPPER = "0B1EC700-0000-4000-8000-000000000002"


def _stored(*strictness: Strictness, **attributes: Any) -> dict[str, Any]:
    strict = frozenset(strictness)
    return normalise(
        strict_type(USER, strict), {"schemas": [USER.schema], "userName": "ada", **attributes}, Leniency(strict=strict)
    )


def _patched(before: dict[str, Any], *operations: dict[str, Any], strict: frozenset[Strictness]) -> dict[str, Any]:
    rt, leniency = strict_type(USER, strict), Leniency(strict=strict)
    patch = read_patch(rt, {"schemas": [PATCH_OP], "Operations": list(operations)}, leniency)
    return apply_patch(rt, {"schemas": [USER.schema], "userName": "ada", **before}, patch, leniency)


def test_only_ipsie_is_strict_and_the_types_of_all_others_are_the_very_same_objects() -> None:
    for text in shipped():
        profile = profile_of(text)
        assert bool(profile.strictness) is (profile.file.name == "ipsie")
        assert profile.is_interoperable is (profile.file.name == "ipsie")
        if not profile.strictness:
            assert strict_type(USER, profile.strictness) is USER
            assert profile.file.rate_limit is None


def test_equal_arguments_give_the_same_type_because_caches_are_keyed_by_it() -> None:
    assert strict_type(USER, frozenset(Strictness)) is STRICT_USER
    only = frozenset({Strictness.PATH_REQUIRED})
    assert strict_type(USER, only) is USER


@pytest.mark.parametrize("missing", sorted(INTEROPERABLE))
def test_a_profile_that_lacks_a_strictness_is_not_interoperable(missing: Strictness) -> None:
    document = tomllib.loads((PROFILE_FOLDER / "ipsie@1.toml").read_text(encoding="utf-8")) | {"name": "own"}
    document["strictness"] = [one for one in document["strictness"] if one != missing]
    assert not read_profile(orjson.dumps(document), json=True).is_interoperable
    document |= {"strictness": list(Strictness), "tolerances": ["op_case"]}
    assert not read_profile(orjson.dumps(document), json=True).is_interoperable


def test_the_stored_document_of_a_profile_that_is_not_strict_can_be_read_by_the_release_before() -> None:
    assert not {"strictness", "rate_limit"} & set(orjson.loads(as_stored(profile_of("okta").file)))
    strict = profile_of("ipsie")
    assert own_profile(as_stored(strict.file)).file == strict.file


def test_a_limit_lasts_a_second_and_is_not_under_25() -> None:
    assert RateLimit(per_second=25, burst=25).burst == 25
    document = tomllib.loads((PROFILE_FOLDER / "ipsie@1.toml").read_text(encoding="utf-8"))
    for wrong in ({"per_second": 24, "burst": 100}, {"per_second": 50, "burst": 49}):
        with pytest.raises(ProfileError, match="rate_limit"):
            read_profile(orjson.dumps(document | {"rate_limit": wrong}), json=True)


# ---- known_attributes --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "extra",
    [
        {"colour": "red"}, {"name": {"call": "x"}}, {"emails": [{"value": "a", "kind": "x"}]}, {"urn:x:y": {"a": 1}}, {"a.b": 1},
        {ENTERPRISE.urn: {"shoe": 1}}, {"colour": None}, {USER.schema: {"title": "x"}},
    ],
)  # fmt: skip
def test_what_no_schema_defines_is_refused_and_the_error_repeats_no_value(extra: dict[str, Any]) -> None:
    with pytest.raises(InvalidSyntax, match="not defined here"):
        _stored(Strictness.KNOWN_ATTRIBUTES, **extra)


def test_an_unknown_uri_in_schemas_is_invalid_syntax() -> None:
    with pytest.raises(InvalidSyntax, match="A URI that schemas lists is not defined"):
        _stored(Strictness.KNOWN_ATTRIBUTES, schemas=[USER.schema, "urn:x:y"])
    with pytest.raises(InvalidValue):
        _stored(schemas=[USER.schema, "urn:x:y"])


def test_what_is_read_only_is_defined_and_ignored() -> None:
    assert "id" not in _stored(*Strictness, id="x", meta={"version": "1"}, groups=[])


def test_members_have_no_other_attributes() -> None:
    known = Leniency(strict=EVERY)
    body = {
        "schemas": [GROUP.schema],
        "displayName": "g",
        "members": [{"Value": "1", "display": "x", "$ref": "y", "type": "User"}],
    }
    assert normalise(STRICT_GROUP, body, known)["members"] == [{"value": "1", "type": "User"}]
    with pytest.raises(InvalidSyntax, match=r'"since" in members\[0\]'):
        normalise(STRICT_GROUP, body | {"members": [{"value": "1", "since": "x"}]}, known)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("colour", "red"), ("name.call", "x"), ("urn:x:y:a", "x"), ("urn:x:y", {"a": 1}), (f"{ENTERPRISE.urn}:shoe", 1), (ENTERPRISE.urn, {"shoe": 1}),
        ("emails", [{"kind": "x"}]), ('urn:x:y:a[b eq "1"].c', 1), ("urn:ietf:params:scim:schemas:core:2.0:Device:a", 1), ("password", "x"),
    ],
)  # fmt: skip
def test_a_path_that_no_schema_defines_is_invalid_syntax(path: str, value: Any) -> None:
    with pytest.raises(InvalidSyntax):
        _patched({}, {"op": "add", "path": path, "value": value}, strict=EVERY)


@pytest.mark.parametrize(
    "path", ["title", f"{USER.schema}:title", f"{ENTERPRISE.urn}:division", f"{ENTERPRISE.urn.upper()}:division"]
)
def test_a_path_that_is_defined_is_read(path: str) -> None:
    assert _patched({}, {"op": "add", "path": path, "value": "x"}, strict=EVERY)


def test_a_path_that_cannot_be_read_stays_an_invalid_path() -> None:
    with pytest.raises(InvalidPath, match=r"Operations\[0\]"):
        _patched({}, {"op": "add", "path": 'emails[type eq "work"] value', "value": "x"}, strict=EVERY)
    with pytest.raises(InvalidPath):
        _patched({}, {"op": "add", "path": USER.schema, "value": {"title": "x"}}, strict=EVERY)


@pytest.mark.parametrize(
    "wanted", ['urn:x:y:a eq "1"', 'userName eq "a" or urn:x:y:a pr', "not (urn:x:y:a pr)", 'urn:x:y:a[b eq "1"]']
)
def test_a_filter_that_no_schema_defines_is_refused(wanted: str) -> None:
    with pytest.raises(InvalidFilter):
        refuse_undefined(parse_filter(wanted, STRICT_USER))


@pytest.mark.parametrize(
    "wanted",
    ['userName eq "a" and emails[type eq "work" and value eq "b"]', f'{ENTERPRISE.urn}:division eq "x"', "not (title pr)"],
)
def test_a_filter_on_what_is_defined_stands(wanted: str) -> None:
    refuse_undefined(parse_filter(wanted, STRICT_USER))


# ---- the others --------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "operation",
    [{"op": "replace", "value": {"active": False}}, {"op": "remove"}, {"op": "add", "path": "", "value": {"active": True}}],
)
def test_path_required(operation: dict[str, Any]) -> None:
    with pytest.raises(InvalidSyntax, match=r"Operations\[0\] has no path"):
        _patched({}, operation, strict=frozenset({Strictness.PATH_REQUIRED}))


def test_no_credentials() -> None:
    attributes = {a["name"] for a in schemas("https://x", [STRICT_USER])[0]["attributes"]}
    assert "password" not in attributes
    assert "password" in strict_type(USER, EVERY - {Strictness.NO_CREDENTIALS}).attributes
    with pytest.raises(InvalidSyntax):
        _stored(Strictness.NO_CREDENTIALS, Strictness.KNOWN_ATTRIBUTES, password="x")


@pytest.mark.parametrize(
    "name", ["passwordHash", "clientSecret", "private_key", "accessToken", "totpSeed", "pin", "recoveryCodes"]
)
def test_an_extension_with_credentials_is_refused(name: str) -> None:
    nested = {"name": "more", "type": "complex", "subAttributes": [{"name": name}]}
    for attribute in ({"name": name}, nested):
        extension = read_extension({"id": "urn:example:x", "attributes": [attribute]})
        check_extension(extension, frozenset())
        with pytest.raises(InvalidValue, match=name):
            check_extension(extension, EVERY)


@pytest.mark.parametrize("name", ["badge", "secretary", "pinCode1", "department"])
def test_an_extension_without_credentials_is_not_refused(name: str) -> None:
    check_extension(read_extension({"id": "urn:example:x", "attributes": [{"name": name}]}), EVERY)


def test_an_attribute_that_is_never_returned_is_a_credential() -> None:
    hidden = {"name": "a", "mutability": "writeOnly", "returned": "never"}
    with pytest.raises(InvalidValue):
        check_extension(read_extension({"id": "urn:example:x", "attributes": [hidden]}), EVERY)


def test_canonical_types_are_listed_and_demanded() -> None:
    for document in schemas("https://x", [STRICT_USER, STRICT_GROUP]):
        for attribute in document["attributes"]:
            subs = {sub["name"]: sub for sub in attribute.get("subAttributes", [])}
            assert not attribute["multiValued"] or "type" not in subs or subs["type"]["canonicalValues"]
    for values in ({"roles": [{"value": "x", "type": "odd"}]}, {"emails": [{"value": "x", "type": ""}]}):
        with pytest.raises(InvalidValue, match=r"\[0\].type must be one of work, home, other"):
            _stored(*Strictness, **values)
        _stored(**values)
    assert _stored(*Strictness, emails=[{"value": "x", "type": "WORK"}])["emails"] == [{"value": "x", "type": "WORK"}]


def test_the_types_of_an_extension_are_canonical_too() -> None:
    listed = {"name": "keys", "type": "complex", "multiValued": True, "subAttributes": [{"name": "type"}, {"name": "value"}]}
    rt = strict_type(with_extension(USER, read_extension({"id": "urn:example:x", "attributes": [listed]})), EVERY)
    assert rt.extensions["urn:example:x"].attributes["keys"].sub_attributes["type"].canonical_values == ("work", "home", "other")


def test_replace_whole_and_add_merges() -> None:
    before = {"name": {"givenName": "Ada", "familyName": "L"}, ENTERPRISE.urn: {"manager": {"value": "1", "$ref": "x"}}}
    whole = frozenset({Strictness.REPLACE_WHOLE})
    replaced = {"op": "replace", "path": "name", "value": {"familyName": "K"}}
    assert _patched(before, replaced, strict=whole)["name"] == {"familyName": "K"}
    assert _patched(before, replaced, strict=frozenset())["name"] == {"givenName": "Ada", "familyName": "K"}
    assert _patched(before, replaced | {"op": "add"}, strict=whole)["name"] == {"givenName": "Ada", "familyName": "K"}
    assert "name" not in _patched(before, replaced | {"value": {}}, strict=whole)
    assert _patched({}, replaced, strict=whole)["name"] == {"familyName": "K"}
    manager = {"op": "replace", "path": f"{ENTERPRISE.urn}:manager", "value": {"value": "2"}}
    assert _patched(before, manager, strict=whole)[ENTERPRISE.urn]["manager"] == {"value": "2"}


def test_exact_ids() -> None:
    assert is_other_spelling_of_id(UPPER)
    assert not is_other_spelling_of_id(UPPER.lower())
    assert not is_other_spelling_of_id("bulkId:" + "A" * 29), "as long as an id"
    assert STRICT_GROUP.attributes["members"].sub_attributes["value"].case_exact
    for operation in (
        {"op": "add", "path": "members", "value": [{"value": UPPER}]}, {"op": "remove", "path": f'members[value eq "{UPPER}"]'},
    ):  # fmt: skip
        message = {"schemas": [PATCH_OP], "Operations": [operation]}
        with pytest.raises(InvalidValue, match="compared exactly"):
            read_patch(STRICT_GROUP, message, Leniency(strict=EVERY))
        assert read_patch(GROUP, message, Leniency()).member_operations


def test_sub_attribute_targets() -> None:
    before, strict = {"emails": [{"value": "a", "type": "work"}]}, frozenset({Strictness.SUB_ATTRIBUTE_TARGETS})
    for op in ("add", "replace", "remove"):
        with pytest.raises(InvalidPath, match="needs a sub-attribute"):
            _patched(before, {"op": op, "path": 'emails[type eq "work"]', "value": {"value": "b"}}, strict=strict)
    message = {"schemas": [PATCH_OP], "Operations": [{"op": "remove", "path": f'members[value eq "{UPPER.lower()}"]'}]}
    assert read_patch(STRICT_GROUP, message, Leniency(strict=EVERY)).member_operations


def test_one_match() -> None:
    before = {"emails": [{"value": "a", "type": "work"}, {"value": "b", "type": "work"}]}
    operation = {"op": "replace", "path": 'emails[type eq "work"].display', "value": "x"}
    with pytest.raises(InvalidFilter, match="more than one"):
        _patched(before, operation, strict=frozenset({Strictness.ONE_MATCH}))
    assert all(item["display"] == "x" for item in _patched(before, operation, strict=frozenset())["emails"])


def test_what_is_stored_already_does_not_hold_up_a_deactivation() -> None:
    odd = {"colour": "red", "urn:x:y": {"a": 1}, "emails": [{"value": "a", "type": "odd"}]}
    after = _patched(odd, {"op": "replace", "path": "active", "value": False}, strict=EVERY)
    assert after["active"] is False
    assert after["colour"] == "red"


# ---- what is told of it ------------------------------------------------------------------------------------------------------------


def test_service_provider_config_tells_oauth_and_conformity() -> None:
    plain = service_provider_config("https://x")
    assert "interopProfileConformant" not in plain
    assert [scheme["type"] for scheme in plain["authenticationSchemes"]] == ["oauthbearertoken"]
    for primary in (True, False):
        told = service_provider_config("https://x", oauth=OAuthTold("https://x/t", "https://x/m", primary), interoperable=True)
        assert told["interopProfileConformant"] is True
        primaries = {scheme["type"]: scheme["primary"] for scheme in told["authenticationSchemes"]}
        assert primaries == {"oauth2": primary, "oauthbearertoken": not primary}
        assert told["authenticationSchemes"][0]["primary"]


@pytest.mark.parametrize(
    ("step", "scim_type"),
    [
        (
            {"method": "POST", "path": "/Users", "body": {"schemas": [USER.schema], "userName": "a", "password": "x"}},
            "invalidSyntax",
        ),
        (
            {"method": "PATCH", "path": "/Users/1", "body": {"schemas": [PATCH_OP], "Operations": [{"op": "remove"}]}},
            "invalidSyntax",
        ),
    ],
)
def test_a_dry_run_is_as_strict(step: dict[str, Any], scim_type: str) -> None:
    tried = dry_run(profile_of("ipsie"), step)
    assert tried["error"]["scimType"] == scim_type
    assert tried["fix"]
    assert "is not what SCIM expects" not in tried["fix"]


def test_bulk_of_a_strict_profile_compares_ids_exactly() -> None:
    operation = {"method": "DELETE", "path": f"/Users/{UPPER}"}
    message = {"schemas": [BULK_URN], "Operations": [operation]}
    (strict,) = read_bulk(message, Leniency(strict=EVERY)).operations
    assert isinstance(strict.fault, NotFound)
    (plain,) = read_bulk(message, Leniency()).operations
    assert plain.fault is None
