"""After any PATCH, a client can send the resource back as it read it: this PUT is accepted and changes nothing."""

import copy
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scim.apply import apply_patch
from scim.errors import ScimError
from scim.leniency import Leniency, Tolerance
from scim.normalise import normalise, schemas_of
from scim.patch import PATCH_URN, read_patch
from scim.profile import profile_of
from scim.schema import ENTERPRISE, GROUP, USER, Attribute, Extension, with_extension
from tests.conftest import examples

GENERIC = profile_of("generic@1").tolerances
STRICT: frozenset[Tolerance] = frozenset()
E, X, KEPT, VERSIONED, OKTA = (
    ENTERPRISE.urn, "urn:x:hr:2.0:User", "urn:y:kept:2.0:User", "urn:acme:scim:1.0", "urn:okta:app:1.0:user:custom",
)  # fmt: skip
_PARTS = {
    "value": Attribute("value", "string", required=True), "kind": Attribute("kind", "string"), "n": Attribute("n", "integer"),
    "ro": Attribute("ro", "string", mutability="readOnly"),
    "hidden": Attribute("hidden", "string", mutability="writeOnly", returned="never"),
}  # fmt: skip
_TABLE = {
    "badge": Attribute("badge", "string", required=True), "tags": Attribute("tags", "string", multi_valued=True),
    "contacts": Attribute("contacts", "complex", multi_valued=True, sub_attributes=_PARTS),
    "lead": Attribute("lead", "complex", sub_attributes=_PARTS), "when": Attribute("when", "dateTime"),
}  # fmt: skip
STAFF = with_extension(USER, Extension(X, _TABLE))

_names = st.sampled_from([
    "userName", "title", "active", "name", "name.givenName", "NAME.familyname", "emails", "emails.value", "addresses.country", "roles",
    "x509Certificates", "externalId", "password", "id", "meta", "groups", "schemas", "department", f"{USER.schema}:title", USER.schema,
    GROUP.schema, E, f"{E}:manager", f"{E}:manager.value", f"{E}:department", X, f"{X}:badge", f"{X}:tags", f"{X}:contacts",
    f"{X}:contacts.kind", f"{X}:lead", f"{X}:lead.value", f"{X}:lead.hidden", f"{X}:lead.ro", f"{X}:when", KEPT, f"{KEPT}:Tags",
    f"{KEPT}:seats", f"{KEPT}:badge.NO", f"{KEPT}:new.sub", VERSIONED, f"{VERSIONED}:role", f"{VERSIONED}:l", OKTA, f"{OKTA}:a",
    "urn:acme:hr", "urn:acme:hr:x", "urn:scim:schemas:core:1.0", "urn:scim:schemas:core:1.0:active", "/name/givenName", "a b",
])  # fmt: skip
_filters = st.sampled_from([
    'value eq "1"', 'type eq "work"', 'value eq "1" and type eq "work"', "primary eq true", "value pr", 'not (value eq "1")',
    'kind eq "k"', 'ro eq "1" and value eq "v"', "value eq null", 'value co "1" or type sw "w"',
])  # fmt: skip
_paths = st.one_of(
    _names,
    st.tuples(_names, _filters, st.sampled_from(["", ".value", ".Kind", ".type", ".primary", ".x"])).map(
        lambda t: f"{t[0]}[{t[1]}]{t[2]}"
    ),
)
_keys = st.one_of(
    _names, st.sampled_from(["value", "Value", "type", "primary", "kind", "display", "a", "no", "NO", "hidden", "ro", "n"])
)
_values = st.recursive(
    st.sampled_from([None, "", True, False, "False", 0, 2.5, "1", "v", "work", "2008-01-23T04:56:22Z"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_keys, inner, max_size=3),
    max_leaves=6,
)
_operations = st.lists(
    st.fixed_dictionaries(
        {"op": st.sampled_from(["add", "remove", "replace", "Replace"])}, optional={"path": _paths, "value": _values}
    ),
    min_size=1,
    max_size=3,
)
_extensions = st.fixed_dictionaries({}, optional={
    X: st.just({"badge": "7", "contacts": [{"value": "1", "kind": "k"}], "lead": {"value": "l"}, "tags": ["a", "1"]}),
    KEPT: st.just({"tags": ["a", "1"], "seats": [{"value": "1"}], "badge": {"no": "7"}}),
    VERSIONED: st.just({"role": "1", "l": [{"value": "1"}, "1"]}), OKTA: st.just({"a": "1"}),
    E: st.just({"department": "D", "manager": {"value": "m"}}),
})  # fmt: skip


@pytest.mark.parametrize("tolerances", [GENERIC, STRICT, *(profile_of(name).tolerances for name in ("entra", "onelogin"))])
@settings(max_examples=examples(300))
@given(_operations, _extensions)
def test_the_echo_of_any_patched_resource_changes_nothing(
    tolerances: frozenset[Tolerance], operations: list[dict[str, Any]], extensions: dict[str, Any]
) -> None:
    emails = [{"type": "work", "value": "1", "primary": True}, {"type": "home", "value": "2"}]
    before = {"id": "1", "userName": "a", "active": True, "name": {"familyName": "F"}, "emails": emails, **extensions}
    before["schemas"] = schemas_of(STAFF, before)
    untouched, leniency = copy.deepcopy(before), Leniency(tolerances)
    try:
        patch = read_patch(STAFF, {"schemas": [PATCH_URN], "Operations": operations}, leniency)
        after = apply_patch(STAFF, before, patch, leniency)
    except ScimError:
        return
    finally:
        assert before == untouched
    assert normalise(STAFF, copy.deepcopy(after), Leniency(STRICT)) == {
        name: value for name, value in after.items() if name != "id"
    }
