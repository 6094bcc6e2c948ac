"""Values that could be mistaken for something else: empty values, silent no-ops, a dot after a URN, values under their own name.

Each kind is tried with every profile, every form of a PATCH, registered and unregistered extensions, and the core schema.
"""

import copy
from typing import Any

import pytest

from scim.apply import apply_patch
from scim.attribute_map import read_path
from scim.diff import in_order_of, same_values
from scim.errors import InvalidFilter, InvalidPath, InvalidSyntax, InvalidValue, NoTarget, ScimError
from scim.filter_parser import parse_filter
from scim.filters import matches
from scim.leniency import Leniency, Tolerance
from scim.normalise import normalise, schemas_of
from scim.patch import PATCH_URN, read_patch
from scim.profile import profile_of, shipped
from scim.projection import project, read_projection
from scim.respelling import endpoint_in, respelt_filter
from scim.schema import ENTERPRISE, USER, Attribute, Extension, with_extension
from scim.sorting import sort_key

GENERIC = profile_of("generic@1").tolerances
STRICT: frozenset[Tolerance] = frozenset()
E, X, Y = ENTERPRISE.urn, "urn:x:hr:2.0:User", "urn:acme:hr:2.0:User"
PARTS = {"value": Attribute("value", "string"), "kind": Attribute("kind", "string")}
TABLE = {
    "lead": Attribute("lead", "complex", sub_attributes=PARTS), "seats": Attribute("seats", "complex", multi_valued=True, sub_attributes=PARTS),
    "tags": Attribute("tags", "string", multi_valued=True), "nums": Attribute("nums", "integer", multi_valued=True),
    "flags": Attribute("flags", "boolean", multi_valued=True), "since": Attribute("since", "dateTime"),
    "site": Attribute("site", "reference"), "badge": Attribute("badge", "string"), "n": Attribute("n", "integer"),
    "group": Attribute("group", "complex", sub_attributes={"group": Attribute("group", "string"), "value": Attribute("value", "string")}),
}  # fmt: skip
RT = with_extension(USER, Extension(X, TABLE))
# Profiles with the same tolerances are one case.
TOLERANCES = {t: name for name, t in reversed([("strict", STRICT), *((text, profile_of(text).tolerances) for text in shipped())])}
everywhere = pytest.mark.parametrize("tolerances", list(TOLERANCES), ids=list(TOLERANCES.values()))

BEFORE: dict[str, Any] = {
    "schemas": [USER.schema, E, X, Y], "id": "1", "userName": "ann", "active": True, "title": "T", "name": {"givenName": "G", "familyName": "F"},
    "emails": [{"value": "old", "type": "work"}], "roles": [{"value": "admin"}], "addresses": [{"type": "work", "locality": "L"}],
    E: {"department": "D", "manager": {"value": "26"}}, X: {"lead": {"value": "l"}, "seats": [{"value": "s"}], "tags": ["a"], "badge": "b"},
    Y: {"grade": "g1", "desk": {"floor": "3", "seat": "12"}, "tags": ["a"], "seats": [{"value": "1"}]},
}  # fmt: skip


def patched(tolerances: frozenset[Tolerance], *operations: dict[str, Any], before: dict[str, Any] = BEFORE) -> dict[str, Any]:
    untouched, leniency = copy.deepcopy(before), Leniency(tolerances)
    try:
        patch = read_patch(RT, {"schemas": [PATCH_URN], "Operations": list(operations)}, leniency)
        return apply_patch(RT, before, patch, leniency)
    finally:
        assert before == untouched


def forms(op: str, name: str, value: Any, urn: str | None = None) -> list[dict[str, Any]]:
    """The same change with a path, without one, and for the extension as a whole."""
    if urn is None:
        return [
            {"op": op, "path": name, "value": value},
            {"op": op, "value": {name: value}},
            {"op": op, "path": f"{USER.schema}:{name}", "value": value},
        ]
    return [
        {"op": op, "path": f"{urn}:{name}", "value": value},
        {"op": op, "path": urn, "value": {name: value}},
        {"op": op, "value": {urn: {name: value}}},
    ]


def refused(tolerances: frozenset[Tolerance], operation: dict[str, Any], before: dict[str, Any] = BEFORE) -> bool:
    try:
        patched(tolerances, operation, before=before)
    except ScimError as error:
        _expect_400(error)
        return True
    return False


def _expect_400(error: ScimError) -> None:
    assert error.status == 400, error.detail


# ---- an empty value never removes ------------------------------------------------------------------------------------------------

COMPLEX = [("name", None), ("manager", E), ("lead", X), ("desk", Y)]


@everywhere
@pytest.mark.parametrize(("name", "urn"), COMPLEX)
def test_replace_by_an_empty_object_keeps_the_sub_attributes(
    tolerances: frozenset[Tolerance], name: str, urn: str | None
) -> None:
    """RFC 7644 §3.5.2.3: sub-attributes that are not specified stay."""
    for op in ("add", "replace"):
        for operation in forms(op, name, {}, urn):
            assert patched(tolerances, operation) == BEFORE
    for urn_alone in (E, X, Y):
        assert patched(tolerances, {"op": "replace", "path": urn_alone, "value": {}}) == BEFORE
        assert patched(tolerances, {"op": "replace", "value": {urn_alone: {}, "title": "T"}}) == BEFORE
    for wrapped in ([{}], []):
        for operation in forms("replace", name, wrapped, urn):
            assert refused(tolerances, operation) or patched(tolerances, operation) == BEFORE


@everywhere
def test_an_extension_that_is_replaced_by_a_malformed_value_stays_unchanged(tolerances: frozenset[Tolerance]) -> None:
    for urn in (E, X, Y):
        for value in ([], [None], 0, False, "x", [[]]):
            assert refused(tolerances, {"op": "replace", "path": urn, "value": value})
        assert refused(tolerances, {"op": "remove", "path": urn, "value": {}})
        assert urn not in patched(tolerances, {"op": "replace", "path": urn, "value": None})
        assert urn not in patched(tolerances, {"op": "remove", "path": urn})


ATTRIBUTES = [
    ("title", None), ("name", None), ("emails", None), ("roles", None), ("department", E), ("manager", E), ("badge", X), ("lead", X),
    ("seats", X), ("tags", X), ("grade", Y), ("desk", Y), ("tags", Y), ("seats", Y), ("new", Y),
]  # fmt: skip


@everywhere
@pytest.mark.parametrize(("name", "urn"), ATTRIBUTES)
def test_add_of_an_empty_value_removes_nothing(tolerances: frozenset[Tolerance], name: str, urn: str | None) -> None:
    for value in (None, [], {}, [None], [{}]):
        for operation in forms("add", name, value, urn):
            assert refused(tolerances, operation) or patched(tolerances, operation) == BEFORE
    for operation in forms("add", name, None, urn):
        assert patched(tolerances, operation) == BEFORE


@everywhere
def test_add_of_an_empty_part_removes_nothing(tolerances: frozenset[Tolerance]) -> None:
    for operation in [
        *forms("add", "name", {"givenName": None}), *forms("add", "manager", {"value": None}, E), *forms("add", "lead", {"value": None}, X),
        *forms("add", "desk", {"seat": None, "floor": [], "new": {}}, Y), {"op": "add", "path": "name.givenName", "value": None},
        {"op": "add", "path": f"{Y}:desk.seat", "value": None}, {"op": "add", "path": f"{Y}:desk.seat", "value": {}},
        {"op": "add", "path": 'emails[type eq "work"]', "value": {"value": None}},
        {"op": "add", "path": 'emails[type eq "work"].value', "value": None},
        {"op": "add", "path": f'{Y}:seats[value eq "1"]', "value": {"value": None}},
    ]:  # fmt: skip
        assert patched(tolerances, operation) == BEFORE


@everywhere
@pytest.mark.parametrize(("name", "urn"), [("emails", None), ("roles", None), ("seats", X), ("tags", X)])
def test_a_list_is_not_emptied_by_an_object(tolerances: frozenset[Tolerance], name: str, urn: str | None) -> None:
    for operation in forms("replace", name, {}, urn):
        assert refused(tolerances, operation)
    for op in ("replace", "remove"):
        for value in ({}, [{}], [None]):
            operation = {"op": op, "path": name if urn is None else f"{urn}:{name}", "value": value}
            kept = None if refused(tolerances, operation) else patched(tolerances, operation)
            assert kept is None or (op == "replace" and kept != BEFORE)


@everywhere
def test_without_a_schema_the_stored_value_decides_what_is_empty(tolerances: frozenset[Tolerance]) -> None:
    for name in ("grade", "tags", "seats"):
        for operation in forms("replace", name, {}, Y):
            assert refused(tolerances, operation)
    for name in ("grade", "desk"):
        for operation in forms("replace", name, [], Y):
            assert refused(tolerances, operation)
    for operation in forms("replace", "tags", [], Y):
        assert "tags" not in patched(tolerances, operation)[Y]
    for operation in (*forms("replace", "desk", {"seat": {}}, Y), {"op": "replace", "path": f"{Y}:desk.seat", "value": {}}):
        assert refused(tolerances, operation)
    for operation in forms("replace", "desk", {"seat": "14", "new": {}}, Y):
        assert patched(tolerances, operation)[Y]["desk"] == {"floor": "3", "seat": "14"}
    for name in ("tags", "desk", "grade"):
        path = f"{Y}:{name}"
        assert refused(tolerances, {"op": "remove", "path": path, "value": {}})
        kept = {"op": "remove", "path": path, "value": []}
        assert refused(tolerances, kept) or patched(tolerances, kept) == BEFORE


@everywhere
def test_a_selected_value_is_not_removed_by_an_empty_object(tolerances: frozenset[Tolerance]) -> None:
    for path in ('emails[type eq "work"]', f'{X}:seats[value eq "s"]', f'{Y}:seats[value eq "1"]', 'name[givenName eq "G"]'):
        assert patched(tolerances, {"op": "replace", "path": path, "value": {}}) == BEFORE
        assert refused(tolerances, {"op": "replace", "path": path, "value": [None]})
        assert refused(tolerances, {"op": "replace", "path": path, "value": [""]}) or Tolerance.SINGLE_FOR_MULTI in tolerances
    for path in ('emails[type eq "none"]', f'{Y}:seats[value eq "9"]'):
        assert refused(tolerances, {"op": "replace", "path": path, "value": {}})
    for path in (f'{X}:tags[value eq "a"]', f'{Y}:tags[value eq "a"]'):
        assert refused(tolerances, {"op": "replace", "path": path, "value": {}})


# ---- no acknowledged no-op -------------------------------------------------------------------------------------------------------


@everywhere
@pytest.mark.parametrize(
    ("name", "urn", "blanks"),
    [
        ("roles", None, [[""], [{}], [None], [{"value": None}], [None, {}]]), ("emails", None, [[""], [{}], [{"value": None, "type": None}]]),
        ("addresses", None, [[{"locality": None, "region": None}], [{}]]), ("seats", X, [[{}], [{"value": None}], [None]]),
        ("tags", X, [[None]]),
    ],
)  # fmt: skip
def test_replace_by_empty_values_removes_as_put_does_or_is_refused(
    tolerances: frozenset[Tolerance], name: str, urn: str | None, blanks: list[Any]
) -> None:
    for blank in blanks:
        for operation in forms("replace", name, blank, urn):
            if not refused(tolerances, operation):
                kept = patched(tolerances, operation)
                assert name not in (kept if urn is None else kept[urn]), (
                    "200 with the old value would mean that it stays for ever"
                )
        whole = {"schemas": [USER.schema], "userName": "ann", **({name: blank} if urn is None else {urn: {name: blank}})}
        try:
            put = normalise(RT, whole, Leniency(tolerances))
        except ScimError:
            assert refused(tolerances, forms("replace", name, blank, urn)[0])
        else:
            assert name not in (put if urn is None else put.get(urn, {}))


ONELOGIN = profile_of("onelogin").tolerances


@pytest.mark.parametrize(
    ("operation", "gone"),
    [
        *((operation, ("title",)) for value in ("", [""], {"value": ""}, [{"value": ""}], {"title": ""}) for operation in forms("replace", "title", value)),
        *((operation, ("emails",)) for value in ("", [""], [{"value": ""}], [{"value": "", "type": "work"}]) for operation in forms("replace", "emails", value)),
        *((operation, ("roles",)) for value in ("", [""], [{"value": ""}, ""]) for operation in forms("replace", "roles", value)),
        *((operation, ("name", "givenName")) for operation in forms("replace", "name", {"givenName": ""})),
        *((operation, (E, "department")) for operation in forms("replace", "department", "", E)),
        *((operation, (E, "manager")) for value in ("", {"value": ""}, [{"value": ""}]) for operation in forms("replace", "manager", value, E)),
        *((operation, (X, "badge")) for operation in forms("replace", "badge", "", X)),
        *((operation, (X, "tags")) for value in ("", [""]) for operation in forms("replace", "tags", value, X)),
        *((operation, (Y, "grade")) for operation in forms("replace", "grade", "", Y)),
        *((operation, (Y, "desk", "seat")) for operation in forms("replace", "desk", {"seat": ""}, Y)),
        ({"op": "replace", "path": f"{Y}:desk.seat", "value": ""}, (Y, "desk", "seat")),
        ({"op": "replace", "path": 'emails[type eq "work"].value', "value": ""}, ("emails", "value")),
        ({"op": "replace", "path": 'roles[value eq "admin"]', "value": ""}, ("roles",)),
    ],
    ids=str,
)  # fmt: skip
def test_a_value_that_counts_as_absent_in_the_profile_removes_the_attribute(
    operation: dict[str, Any], gone: tuple[str, ...]
) -> None:
    """Nothing else is removed, and an `add` of such a value removes nothing."""
    kept: Any = patched(ONELOGIN, operation)
    rest = {key: value for key, value in kept.items() if key not in (gone[0], "schemas")}
    assert rest == {key: value for key, value in BEFORE.items() if key not in (gone[0], "schemas")}
    for step in gone[:-1]:
        kept = kept[step]
    assert gone[-1] not in (kept[0] if isinstance(kept, list) else kept)
    assert refused(ONELOGIN, {**operation, "op": "add"}) or patched(ONELOGIN, {**operation, "op": "add"}) == BEFORE


def test_an_empty_string_in_an_extension_without_a_schema_is_absent_if_the_profile_says_so() -> None:
    sent = {"schemas": [USER.schema], "userName": "ann", Y: {"grade": "", "site": "n"}, "odd": ""}
    assert normalise(RT, sent, Leniency(ONELOGIN))[Y] == {"site": "n"}
    assert normalise(RT, sent, Leniency(GENERIC))[Y] == {"grade": "", "site": "n"}
    assert Y not in normalise(RT, {**sent, Y: {"grade": ""}}, Leniency(ONELOGIN))


# ---- a dot after the URN ---------------------------------------------------------------------------------------------------------

CUSTOM = "urn:ietf:params:scim:schemas:extension:CustomExtensionName:2.0:User"
LUCKY = "urn:mem:params:scim:schemas:extension:LuckyNumberExtension"
URNS = [
    Y,
    CUSTOM,
    LUCKY,
    "urn:acme:hr",
    "urn:acme:scim:1.0",
    "urn:okta:app:1.0:user:custom",
    "urn:acme:hr:v2.1:Employee",
    "urn:a:b:2.0.1",
]
SPELLINGS = ["{urn}.grade", "{urn}.desk.floor", "{urn}.desk:floor", "{upper}.grade"]


def with_stored(urn: str, inner: dict[str, Any]) -> dict[str, Any]:
    found = {"id": "1", "userName": "ann", "active": True, urn: inner}
    return {"schemas": schemas_of(RT, found), **found}


def spelt(spelling: str, urn: str) -> str:
    return spelling.format(urn=urn, upper=urn.upper())


@everywhere
@pytest.mark.parametrize("urn", URNS)
@pytest.mark.parametrize("spelling", SPELLINGS)
def test_a_dot_after_the_urn_of_a_stored_extension_is_understood_or_refused(
    tolerances: frozenset[Tolerance], urn: str, spelling: str
) -> None:
    before, path = with_stored(urn, {"grade": "g1", "desk": {"floor": "3"}}), spelt(spelling, urn)
    understood: dict[str, Any] = (
        {"grade": "g2", "desk": {"floor": "3"}} if "grade" in spelling else {"grade": "g1", "desk": {"floor": "g2"}}
    )
    without = {"desk": {"floor": "3"}} if "grade" in spelling else {"grade": "g1"}
    for operation, after in (
        ({"op": "replace", "path": path, "value": "g2"}, understood), ({"op": "add", "path": path, "value": "g2"}, understood),
        ({"op": "replace", "value": {path: "g2"}}, understood), ({"op": "remove", "path": path}, without),
    ):  # fmt: skip
        if Tolerance.PATH_SPELLING in tolerances:
            assert patched(tolerances, operation, before=before) == {**before, urn: after}
        else:
            assert refused(tolerances, operation, before)


@everywhere
@pytest.mark.parametrize("urn", URNS)
@pytest.mark.parametrize("value", ["g2", {"a": "1"}, ["x"]], ids=str)
def test_if_nothing_is_stored_no_extension_with_another_name_is_created(
    tolerances: frozenset[Tolerance], urn: str, value: Any
) -> None:
    for spelling in SPELLINGS:
        _no_other_extension(tolerances, urn, spelling, value)


def _no_other_extension(tolerances: frozenset[Tolerance], urn: str, spelling: str, value: Any) -> None:
    before, path = with_stored(E, {"department": "D"}), spelt(spelling, urn)
    for operation in (
        {"op": "replace", "path": path, "value": value}, {"op": "add", "value": {path: value}}, {"op": "remove", "path": path},
    ):  # fmt: skip
        if not refused(tolerances, operation, before):
            after = patched(tolerances, operation, before=before)
            assert {key.casefold() for key in after} - {key.casefold() for key in before} <= {urn.casefold()}
    try:
        kept = normalise(RT, {"schemas": [USER.schema], "userName": "ann", path: value}, Leniency(tolerances))
    except ScimError as error:
        _expect_400(error)
    else:
        assert {key.casefold() for key in kept} <= {"schemas", "username", urn.casefold()}


@pytest.mark.parametrize("profile", ["entra", "generic", "onelogin"])
def test_the_spellings_of_microsofts_own_pages_are_understood(profile: str) -> None:
    """`URN:attribute`, `URN.attribute:value` and, in jobs of 2018, `URN.attribute` (Microsoft's pages on custom attributes)."""
    tolerances = profile_of(profile).tolerances
    before = with_stored(E, {"department": "D"})
    for path, expected in (
        (f"{CUSTOM}:tag", {CUSTOM: {"tag": "v"}}), (f"{CUSTOM}.CustomAttributeName", {CUSTOM: {"CustomAttributeName": "v"}}),
        (f"{CUSTOM}.CustomAttributeName:value", {CUSTOM: {"CustomAttributeName": {"value": "v"}}}),
        ("urn:ietf:params:scim:schemas:extension:2.0:CustomExtensionName:CustomAttribute",
         {"urn:ietf:params:scim:schemas:extension:2.0:CustomExtensionName": {"CustomAttribute": "v"}}),
        (f"{E}.department", {E: {"department": "v"}}), (f"{E}.manager:value", {E: {"department": "D", "manager": {"value": "v"}}}),
        (f"{E}.manager.value", {E: {"department": "D", "manager": {"value": "v"}}}),
    ):  # fmt: skip
        for operation in ({"op": "Add", "path": path, "value": "v"}, {"op": "Replace", "value": {path: "v"}}):
            after = patched(tolerances, operation, before=before)
            assert after == {**before, **expected, "schemas": after["schemas"]}
        if path != f"{CUSTOM}:tag" and "CustomExtensionName:CustomAttribute" not in path:
            (urn,) = expected
            kept = normalise(RT, {"schemas": [USER.schema], "userName": "ann", path: "v"}, Leniency(tolerances))
            assert kept[urn].items() <= expected[urn].items()


@everywhere
@pytest.mark.parametrize(
    "spelling", ["{urn}.department", "{urn}.manager.value", "{urn}.manager:value", "{upper}.Department", "{urn}/department"]
)
def test_a_dot_after_a_registered_urn_is_understood_or_refused(tolerances: frozenset[Tolerance], spelling: str) -> None:
    path = spelt(spelling, E)
    for operation in (
        {"op": "replace", "path": path, "value": "new"}, {"op": "replace", "value": {path: "new"}}, {"op": "remove", "path": path},
        {"op": "replace", "path": path, "value": {"value": "new"}}, {"op": "replace", "value": {path: {"value": "new"}}},
    ):  # fmt: skip
        if not refused(tolerances, operation):
            after = patched(tolerances, operation)
            assert Tolerance.PATH_SPELLING in tolerances
            assert after.keys() == BEFORE.keys()
            assert after[E] != BEFORE[E]
    for value in ("new", {"value": "new"}):
        try:
            kept = normalise(RT, {"schemas": [USER.schema, path], "userName": "ann", path: value}, Leniency(tolerances))
        except ScimError as error:
            _expect_400(error)
        else:
            assert set(kept) <= {"schemas", "userName", E}


def test_the_stored_document_decides_between_the_colon_and_the_dot() -> None:
    colon, dot = "urn:acme:hr", "urn:acme:hr:desk"
    path = f"{dot}.floor"
    assert patched(GENERIC, {"op": "replace", "path": path, "value": "4"}, before=with_stored(colon, {"desk": {"floor": "3"}}))[
        colon
    ] == {"desk": {"floor": "4"}}
    assert patched(STRICT, {"op": "add", "path": path, "value": "4"}, before=with_stored(colon, {"a": 1}))[colon] == {
        "a": 1, "desk": {"floor": "4"},
    }  # fmt: skip
    both = with_stored(colon, {"desk": {"floor": "3"}}) | {dot: {"floor": "5"}}
    assert patched(GENERIC, {"op": "remove", "path": path}, before=both)[dot] == {"floor": "5"}
    listed = with_stored(dot, {"seats": [{"value": "1"}]})
    after = patched(GENERIC, {"op": "replace", "path": f'{dot}.seats[value eq "1"].value', "value": "2"}, before=listed)
    assert after[dot] == {"seats": [{"value": "2"}]}
    with pytest.raises(InvalidPath, match="may end at its last colon or at a dot"):
        patched(GENERIC, {"op": "add", "path": path, "value": "4"})
    with pytest.raises(InvalidPath, match="may end at its last colon or at a dot"):
        patched(GENERIC, {"op": "remove", "path": f'{dot}.seats[value eq "1"]'})


def test_an_extension_whose_urn_has_a_dot_is_recognised_if_schemas_lists_it() -> None:
    """RFC 7643 §3.1: `schemas` lists the URNs. So such a URN is distinguished from a misspelt one."""
    urn = "urn:acme:app.hr"
    sent = {"schemas": [USER.schema, urn.upper()], "userName": "ann", urn: {"a": "1"}}
    kept = normalise(RT, sent, Leniency(GENERIC))
    assert kept[urn] == {"a": "1"}
    assert normalise(RT, kept, Leniency(STRICT)) == kept
    for tolerances in (GENERIC, STRICT):
        for operation in (
            {"op": "replace", "path": f"{urn}:a", "value": "2"}, {"op": "replace", "value": {urn: {"a": "2"}}},
            {"op": "replace", "path": urn, "value": {"a": "2"}},
        ):  # fmt: skip
            assert patched(tolerances, operation, before=with_stored(urn, {"a": "1"}))[urn] == {"a": "2"}
    with pytest.raises(InvalidSyntax, match="has a dot after a URN"):
        normalise(RT, {**sent, "schemas": [USER.schema]}, Leniency(GENERIC))
    with pytest.raises(InvalidSyntax, match="has a dot after a URN"):
        normalise(RT, {**sent, "schemas": USER.schema}, Leniency(GENERIC))
    with pytest.raises(InvalidPath):
        patched(STRICT, {"op": "add", "value": {urn: {"a": "1"}}})


@pytest.mark.parametrize(
    "path", [f"{Y}.", f"{Y}..x", f"{Y}.a.b.c", f"{Y}.1", f"{Y}:a.b.c", f"{Y}:desk.", f"{Y}/grade", "urn:a:b:1.0.", f"{Y}.a.b:c"]
)
@pytest.mark.parametrize("tolerances", [STRICT, GENERIC])
def test_an_invalid_name_after_a_urn_is_refused(tolerances: frozenset[Tolerance], path: str) -> None:
    for before in (BEFORE, with_stored(E, {"department": "D"})):
        for operation in (
            {"op": "add", "path": path, "value": "v"},
            {"op": "remove", "path": path},
            {"op": "add", "value": {path: "v"}},
        ):
            assert refused(tolerances, operation, before)


@pytest.mark.parametrize("value", ["v", 1, ["v"], True])
def test_a_urn_that_ends_in_its_version_is_an_extension_and_not_an_attribute(value: Any) -> None:
    with pytest.raises(InvalidValue, match="must be an object"):
        patched(GENERIC, {"op": "add", "path": "urn:acme:scim:1.0", "value": value})
    with pytest.raises(InvalidPath, match="name an attribute"):
        patched(GENERIC, {"op": "remove", "path": 'urn:acme:scim:1.0[a eq "1"]'})


FOUND = [
    ("{urn}.grade", "g1"), ("{urn}.desk.floor", "3"), ("{urn}.desk:floor", "3"), ("{upper}.GRADE", "g1"), ("{urn}:grade", "g1"),
    ("{urn}:desk.floor", "3"),
]  # fmt: skip


@everywhere
@pytest.mark.parametrize("urn", URNS)
def test_a_filter_and_a_sort_key_with_a_dot_after_the_urn_are_understood_or_refused(
    tolerances: frozenset[Tolerance], urn: str
) -> None:
    for spelling, value in FOUND:
        _finds_or_is_refused(tolerances, urn, spelling, value)


def _finds_or_is_refused(tolerances: frozenset[Tolerance], urn: str, spelling: str, value: str) -> None:
    stored, name = with_stored(urn, {"grade": "g1", "desk": {"floor": "3"}}), spelt(spelling, urn)
    text = respelt_filter(f'{name} eq "{value}"', RT, Leniency(tolerances))
    try:
        found = parse_filter(text, RT)
    except InvalidFilter:
        assert Tolerance.PATH_SPELLING not in tolerances
        return
    assert matches(found, stored)
    assert not matches(found, with_stored(urn, {"grade": "other"}))
    assert not matches(found, with_stored(E, {"department": "D"}))
    assert sort_key(text.split(" ", maxsplit=1)[0], RT)(stored)[0] == 0


@everywhere
@pytest.mark.parametrize("urn", URNS)
def test_requested_names_with_a_dot_after_the_urn_are_shown(tolerances: frozenset[Tolerance], urn: str) -> None:
    for spelling, value in FOUND:
        _shows_and_hides(tolerances, urn, spelling, value)


def _shows_and_hides(tolerances: frozenset[Tolerance], urn: str, spelling: str, value: str) -> None:
    stored, name = with_stored(urn, {"grade": "g1", "desk": {"floor": "3"}}), spelt(spelling, urn)
    one = {"grade": "g1"} if value == "g1" else {"desk": {"floor": "3"}}
    shown = project(read_projection(RT, name, None, Leniency(tolerances)), stored)
    assert shown == {"schemas": stored["schemas"], "id": "1", urn: one}
    hidden = project(read_projection(RT, None, name, Leniency(tolerances)), stored)
    assert hidden[urn] == {key: inner for key, inner in stored[urn].items() if key not in one}


@everywhere
def test_a_known_urn_with_a_dot_in_filters_and_names_is_understood_or_refused(tolerances: frozenset[Tolerance]) -> None:
    for name, value in (
        (f"{E}.department", "D"),
        (f"{E}.manager.value", "26"),
        (f"{E}.manager:value", "26"),
        (f"{USER.schema}.title", "T"),
    ):
        text = respelt_filter(f'{name} eq "{value}"', RT, Leniency(tolerances))
        if Tolerance.PATH_SPELLING not in tolerances:
            with pytest.raises(InvalidFilter, match=r"dot before the attribute|SCIM itself"):
                parse_filter(text, RT)
            with pytest.raises(InvalidValue, match="dot after the URN"):
                read_projection(RT, name, None, Leniency(tolerances))
            continue
        assert matches(parse_filter(text, RT), BEFORE)
        assert len(project(read_projection(RT, name, None, Leniency(tolerances)), BEFORE)) == 3
    with pytest.raises(InvalidFilter, match="name no attribute"):
        parse_filter(f'{Y}.a.b.c eq "1"', RT)


def test_older_urns_with_a_dot_are_understood_in_the_same_way() -> None:
    old = "urn:scim:schemas:extension:enterprise:1.0"
    assert patched(GENERIC, {"op": "replace", "path": f"{old}.department", "value": "new"})[E]["department"] == "new"
    assert patched(GENERIC, {"op": "replace", "value": {f"{old}.department": "new"}})[E]["department"] == "new"
    assert patched(GENERIC, {"op": "replace", "path": "urn:scim:schemas:core:1.0.title", "value": "new"})["title"] == "new"
    assert matches(parse_filter(respelt_filter(f'{old}.department eq "D"', RT, Leniency(GENERIC)), RT), BEFORE)


# ---- a value under its own name --------------------------------------------------------------------------------------------------

OWN: list[tuple[str, str | None, Any]] = [
    ("title", None, "new"), ("active", None, False), ("profileUrl", None, "https://x"), ("name", None, {"givenName": "V"}),
    ("emails", None, [{"value": "new", "type": "work"}]), ("roles", None, [{"value": "r"}]), ("department", E, "new"),
    ("manager", E, {"value": "7"}), ("badge", X, "new"), ("n", X, 7), ("since", X, "2008-01-23T04:56:22Z"), ("site", X, "https://x"),
    ("lead", X, {"value": "new"}), ("seats", X, [{"value": "new"}]), ("tags", X, ["new"]), ("nums", X, [7]), ("flags", X, [True]),
    ("grade", Y, "g2"), ("desk", Y, {"seat": "14"}), ("tags", Y, ["new"]), ("new", Y, "v"),
]  # fmt: skip


@everywhere
@pytest.mark.parametrize("op", ["add", "replace"])
@pytest.mark.parametrize(("name", "urn", "value"), OWN, ids=lambda value: str(value)[-12:])
def test_a_value_under_its_own_name_is_unwrapped_or_refused_for_every_attribute(
    tolerances: frozenset[Tolerance], op: str, name: str, urn: str | None, value: Any
) -> None:
    for key in (name, name.upper()):
        for operation, plain in zip(forms(op, name, {key: value}, urn), forms(op, name, value, urn), strict=True):
            if Tolerance.WRAPPED_VALUES in tolerances:
                assert patched(tolerances, operation) == patched(tolerances, plain)
            else:
                assert refused(tolerances, operation)
        for operation in forms(op, name, {key: value, "other": "x"}, urn):
            assert urn == Y or refused(tolerances, operation), "with other names beside it, it is always refused"
    if urn == Y:
        return
    for nested in ({name: value}, {name: {name: value}}):
        whole: dict[str, Any] = {"schemas": [USER.schema], "userName": "ann"}
        try:
            kept = normalise(RT, {**whole, **({name: nested} if urn is None else {urn: {name: nested}})}, Leniency(tolerances))
        except ScimError as error:
            _expect_400(error)
        else:
            assert Tolerance.WRAPPED_VALUES in tolerances
            assert kept == normalise(
                RT, {**whole, **({name: value} if urn is None else {urn: {name: value}})}, Leniency(tolerances)
            )


@everywhere
@pytest.mark.parametrize("urn", [E, X, Y])
def test_an_extension_under_its_own_urn_is_unwrapped_or_refused(tolerances: frozenset[Tolerance], urn: str) -> None:
    inner = {E: {"department": "new"}, X: {"badge": "new"}, Y: {"grade": "new"}}[urn]
    nested = {urn.upper(): inner}
    for operation in ({"op": "replace", "path": urn, "value": nested}, {"op": "replace", "value": {urn: nested}}):
        if Tolerance.WRAPPED_VALUES in tolerances:
            assert patched(tolerances, operation)[urn] == {**BEFORE[urn], **inner}
        else:
            assert refused(tolerances, operation)
    assert refused(tolerances, {"op": "replace", "path": urn, "value": {**nested, **inner}})
    for sent in (nested, {**nested, **inner}):
        try:
            kept = normalise(RT, {"schemas": [USER.schema], "userName": "ann", urn: sent}, Leniency(tolerances))
        except ScimError as error:
            _expect_400(error)
        else:
            assert Tolerance.WRAPPED_VALUES in tolerances
            assert kept[urn] == inner


def test_a_sub_attribute_with_the_name_of_its_attribute_is_kept_if_the_schema_has_it() -> None:
    for operation in forms("replace", "group", {"group": "g"}, X):
        assert patched(GENERIC, operation)[X]["group"] == {"group": "g"}


def test_a_selected_value_and_a_sub_attribute_under_their_own_names_are_unwrapped_too() -> None:
    for path, value, place in (
        ('emails[type eq "work"]', {"emails": {"value": "new"}}, "emails"), ('emails[type eq "work"].value', {"value": "new"}, "emails"),
        ("name.givenName", {"givenName": "new"}, "name"), (f'{Y}:seats[value eq "1"]', {"seats": {"value": "new"}}, Y),
    ):  # fmt: skip
        assert '"new"' in str(patched(GENERIC, {"op": "replace", "path": path, "value": value})[place]).replace("'", '"')
    assert refused(STRICT, {"op": "replace", "path": 'emails[type eq "work"]', "value": {"emails": {"value": "new"}}})
    assert refused(GENERIC, {"op": "replace", "path": "name", "value": {"name": {"name": {"name": "x"}}}})


# ---- one plain value in place of a list of plain values
# --------------------------------------------------------------------------


@everywhere
@pytest.mark.parametrize(("name", "value"), [("tags", "new"), ("nums", 7), ("flags", True)])
def test_one_plain_value_becomes_a_list_with_this_value(tolerances: frozenset[Tolerance], name: str, value: Any) -> None:
    whole = {"schemas": [USER.schema, X], "userName": "ann", X: {name: value}}
    if Tolerance.SINGLE_FOR_MULTI not in tolerances:
        with pytest.raises(InvalidValue, match="a list"):
            normalise(RT, whole, Leniency(tolerances))
        return
    assert normalise(RT, whole, Leniency(tolerances))[X] == {name: [value]}
    held = BEFORE[X].get(name, [])
    for operation in forms("replace", name, value, X):
        assert patched(tolerances, operation)[X][name] == [value]
    for operation in forms("add", name, value, X):
        assert patched(tolerances, operation)[X][name] == [*held, value]
    taken = {"op": "remove", "path": f"{X}:tags", "value": "a"}
    assert "tags" not in patched(tolerances, taken)[X]
    for wrong in ({X: {"nums": "x"}}, {X: {"tags": 5}}, {"emails": "a@b"}, {"roles": 5}):
        with pytest.raises(InvalidValue):
            normalise(RT, {**whole, **wrong}, Leniency(tolerances))


# ---- the order of values ---------------------------------------------------------------------------------------------------------


def test_a_list_keeps_its_order_if_only_the_order_differs() -> None:
    before = {"a": [1, 2], "b": {"c": ["x", "y"], "d": 1}, "e": [{"f": [1, 2]}, True], "g": [1]}
    after = {"a": [2, 1], "b": {"c": ["y", "x"], "d": 2}, "e": [True, {"f": [2, 1]}], "g": [True], "h": [3]}
    untouched = copy.deepcopy((before, after))
    assert in_order_of(before, after) == {**before, "b": {"c": ["x", "y"], "d": 2}, "g": [True], "h": [3]}
    assert in_order_of(before, after)["g"] == [True]
    assert (before, after) == untouched
    assert in_order_of(before, before) is before
    assert not same_values([1, 1], [1])
    assert not same_values([1, 1, 2], [1, 2, 2])
    assert same_values({"a": None}, {"a": None})


def test_an_immutable_list_in_another_order_counts_as_unchanged() -> None:
    rt = with_extension(USER, Extension("urn:x:i", {"l": Attribute("l", "string", multi_valued=True, mutability="immutable")}))
    before = with_stored("urn:x:i", {"l": ["a", "b"]})
    leniency = Leniency()
    patch = read_patch(
        rt, {"schemas": [PATCH_URN], "Operations": [{"op": "replace", "path": "urn:x:i:l", "value": ["b", "a"]}]}, leniency
    )
    assert apply_patch(rt, before, patch, leniency)["urn:x:i"] == {"l": ["b", "a"]}


def test_a_profile_cannot_have_a_path_whose_urn_may_end_at_a_dot() -> None:

    assert read_path(f"{Y}:desk.floor").sub is not None
    for path in (f"{Y}.grade", "urn:acme:hr:desk.floor"):
        with pytest.raises(InvalidPath, match="dot"):
            read_path(path)


def test_a_value_that_selects_nothing_is_refused_before_it_is_created() -> None:
    with pytest.raises(NoTarget):
        patched(GENERIC, {"op": "add", "path": 'phoneNumbers[type eq "work"]', "value": {}})


OKTA = "urn:okta:app:1.0:user:custom"


def test_an_extension_whose_urn_looks_like_an_attribute_is_emptied_like_any_other() -> None:
    before = with_stored(OKTA, {"a": "1", "l": ["x"], "o": {"l": ["x"]}})
    assert OKTA not in patched(GENERIC, {"op": "replace", "path": OKTA, "value": ""}, before=before)
    assert patched(GENERIC, {"op": "replace", "path": OKTA, "value": {"schemas": ["x"], "l": []}}, before=before)[OKTA] == {
        "a": "1", "o": {"l": ["x"]},
    }  # fmt: skip
    assert patched(GENERIC, {"op": "replace", "path": f"{OKTA}:o", "value": {"l": [], "n": 1}}, before=before)[OKTA]["o"] == {
        "n": 1
    }
    assert refused(GENERIC, {"op": "replace", "path": f"{OKTA}:o", "value": {"l": {}}}, before)


def test_an_invalid_name_after_a_dot_makes_no_extension() -> None:
    assert refused(GENERIC, {"op": "add", "value": {"urn:acme:hr.1x": {"a": "1"}}})
    assert refused(STRICT, {"op": "add", "value": {"urn:acme:hr.1x": {"a": "1"}}})
    kept = with_stored("urn:acme:hr.1x", {"a": "1"})
    assert patched(STRICT, {"op": "add", "value": {"urn:acme:hr.1x": {"a": "2"}}}, before=kept)["urn:acme:hr.1x"] == {"a": "2"}


def test_a_removal_from_an_extension_removes_what_its_value_names() -> None:
    """Earlier, it removed the whole extension, whatever the value named."""
    named = {"op": "remove", "path": E, "value": {"department": "D"}}
    assert patched(GENERIC, named)[E] == {"manager": {"value": "26"}}
    assert refused(STRICT, named)
    for value in ([], {}):
        assert refused(GENERIC, {"op": "remove", "path": "name", "value": value})
    kept = patched(GENERIC, {"op": "remove", "path": 'emails[type eq "work"]', "value": [{"value": "old"}]})
    assert "emails" not in kept


def test_text_that_looks_like_a_list_is_text() -> None:
    assert same_values(["[a]", "b"], ["b", "[a]"])
    assert not same_values(["[a]"], ["[b]"])


def test_an_endpoint_in_another_letter_case_is_recognised_if_the_profile_says_so() -> None:
    strict, leniency = Leniency(), Leniency(GENERIC)
    assert endpoint_in("Users", strict) == "Users"
    assert endpoint_in("users", strict) is None
    assert endpoint_in("Schemas", leniency) is None
    assert not strict.used | leniency.used
    assert endpoint_in("GROUPS", leniency) == "Groups"
    assert leniency.used == {"endpoint_case"}
