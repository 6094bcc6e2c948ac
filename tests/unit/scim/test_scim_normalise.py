import copy

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from scim2_models import Context, EnterpriseUser
from scim2_models import User as OracleUser

from scim.errors import InvalidSyntax, InvalidValue, MethodNotAllowed, ScimError, TooManyRequests
from scim.leniency import Leniency, Tolerance
from scim.normalise import normalise
from scim.profile import profile_of
from scim.schema import ENTERPRISE, GROUP, RESOURCE_TYPES, USER, Attribute, Extension, with_extension
from tests.conftest import examples

GENERIC = profile_of("generic@1").tolerances
STRICT: frozenset[Tolerance] = frozenset()
E = ENTERPRISE.urn
ENTRA_GROUP = "http://schemas.microsoft.com/2006/11/ResourceManagement/ADSCIM/2.0/Group"


def user(**more):
    return {"schemas": [USER.schema], "userName": "a", **more}


def group(**more):
    return {"schemas": [GROUP.schema], "displayName": "g", **more}


def read(rt, document, tolerances=GENERIC):
    leniency = Leniency(tolerances)
    return normalise(rt, document, leniency), leniency.used


def test_names_get_the_spelling_of_the_schema_and_values_stay_as_sent():
    kept, used = read(
        USER,
        {
            "SCHEMAS": [USER.schema.upper()],
            "USERNAME": "Ünï",
            "NAME": {"FAMILYNAME": "O'C"},
            "Emails": [{"TYPE": "work", "VALUE": "x"}],
        },
    )
    assert kept == user(userName="Ünï", name={"familyName": "O'C"}, emails=[{"type": "work", "value": "x"}])
    assert used == set()


def test_null_empty_list_and_empty_object_count_as_absent():
    sent = user(title=None, emails=[], name={}, phoneNumbers=[None, {}], foo=None, bar=[], **{E: {"department": None, "x": None}})
    assert read(USER, sent, STRICT)[0] == user()
    assert read(USER, user(**{E: None}))[0] == user()


def test_read_only_attributes_and_the_password_are_dropped():
    sent = user(
        id="x",
        meta={"created": "x"},
        groups=[{"value": "g"}],
        password="s3cret",
        **{E: {"manager": {"value": "m", "displayName": "M"}}},
    )
    kept, _ = read(USER, sent)
    assert kept == {**user(), "schemas": [USER.schema, E], E: {"manager": {"value": "m"}}}


def test_unknown_attributes_and_extensions_are_kept_verbatim():
    sent = user(
        favourite={"Colour": [1, 1.5, None]}, name={"pet": "x", "none": None}, **{"urn:Custom:X": {"a": [True]}, E: {"y": 1}}
    )
    kept, _ = read(USER, sent)
    assert kept["favourite"] == {"Colour": [1, 1.5, None]}
    assert kept["name"] == {"pet": "x"}
    assert kept["schemas"] == [USER.schema, "urn:Custom:X", E]
    assert kept["urn:Custom:X"] == {"a": [True]}
    assert kept[E] == {"y": 1}


def test_the_input_is_never_changed():
    sent = user(emails=[{"value": "x", "primary": "True"}], **{E.upper(): {"manager": "m"}})
    before = copy.deepcopy(sent)
    kept, used = read(USER, sent)
    assert sent == before
    assert kept[E] == {"manager": {"value": "m"}}
    assert kept["emails"] == [{"value": "x", "primary": True}]
    assert used == {"string_booleans", "manager_string"}


@pytest.mark.parametrize(
    ("change", "error", "said"),
    [
        ({"userName": None}, InvalidValue, "userName is required"),
        ({"userName": "  "}, InvalidValue, "userName is required"),
        ({"userName": 5}, InvalidValue, "userName must be a string"),
        ({"active": "perhaps"}, InvalidValue, "active must be true or false"),
        ({"active": 2}, InvalidValue, "active must be true or false"),
        ({"password": 1}, InvalidValue, "password must be a string"),
        ({"name": "x"}, InvalidValue, "name must be an object"),
        ({"name": {"familyName": []}}, InvalidValue, "name.familyName must be a string"),
        ({"emails": [{"value": 1}]}, InvalidValue, r"emails\[0\].value must be a string"),
        ({"emails": [1]}, InvalidValue, r"emails\[0\] must be an object"),
        ({"emails": [{"primary": True}, {"value": "a", "primary": True}]}, InvalidValue, "emails has more than one primary"),
        ({"addresses": ["x"]}, InvalidValue, r"addresses\[0\] must be an object"),
        ({"profileUrl": 1}, InvalidValue, "profileUrl must be a string with a URI"),
        ({"x509Certificates": [{"value": "*"}]}, InvalidValue, "base64"),
        ({"x509Certificates": [{"value": "é"}]}, InvalidValue, "base64"),
        ({E: "x"}, InvalidValue, "must be an object"),
        ({"urn:x:y": 1}, InvalidValue, "URN of an extension"),
        ({"n" * 129: 1}, InvalidSyntax, "longer than 128"),
        ({"ä": 1}, InvalidSyntax, "not ASCII"),
        ({"a": [{"ä": 1}]}, InvalidSyntax, "not ASCII"),
        ({"name": {"ä": 1}}, InvalidSyntax, "not ASCII"),
        ({"schemas": None}, InvalidSyntax, "schemas is missing"),
        ({"schemas": [1]}, InvalidSyntax, "list of URIs"),
        ({"schemas": {"a": 1}}, InvalidSyntax, "list of URIs"),
        ({"schemas": [E]}, InvalidSyntax, "schemas must list"),
    ],
)
def test_an_invalid_document_is_refused_with_the_name_of_the_attribute(change, error, said):
    with pytest.raises(error, match=said):
        read(USER, user(**change))


def test_used_tolerances_are_noted_and_their_deviations_refused_without_them():
    cases = [
        (USER, user(active="FALSE"), "string_booleans"),
        (USER, user(**{E: {"manager": "m"}}), "manager_string"),
        (USER, user(emails={"value": "x"}), "single_for_multi"),
        (USER, user(roles=["admin"]), "bare_values"),
        (GROUP, group(members=["id"]), "bare_values"),
        (GROUP, group(schemas=[GROUP.schema, ENTRA_GROUP]), "unknown_schema_uris"),
        (USER, user(schemas=USER.schema), "single_for_multi"),
    ]
    for rt, sent, name in cases:
        assert read(rt, sent)[1] == {name}
        with pytest.raises(ScimError):
            read(rt, sent, STRICT)
    sent = {"userName": "a"}
    assert read(USER, sent, STRICT | {Tolerance.MISSING_SCHEMAS}) == (user(), {"missing_schemas"})


def test_an_empty_bare_value_counts_as_absent():
    assert read(USER, user(**{E: {"manager": ""}}))[0] == user()


def test_members_are_ids_with_a_type_without_duplicates():
    sent = [
        {"value": "a", "display": "A", "$ref": "x"},
        {"Value": "b", "TYPE": "user"},
        {"value": "a", "type": "User"},
        {"value": "c"},
    ]
    kept, _ = read(GROUP, group(members=sent))
    assert kept["members"] == [{"value": "a"}, {"value": "b", "type": "User"}, {"value": "c"}]
    assert "members" not in read(GROUP, group(members=[]))[0]


@pytest.mark.parametrize(
    "member", [{}, {"value": ""}, {"value": 1}, {"value": "a", "type": "Robot"}, {"value": "a", "type": 1}, 5]
)
def test_a_member_without_a_usable_id_or_type_is_refused(member):
    with pytest.raises(InvalidValue, match=r"members\[0\]"):
        read(GROUP, group(members=[member]))


def test_every_type_of_a_registered_extension_is_checked():
    table = {
        name.casefold(): Attribute(name, kind, multi_valued=many, required=False)
        for name, kind, many in [
            ("count", "integer", False),
            ("ratio", "decimal", False),
            ("since", "dateTime", False),
            ("tags", "string", True),
            ("free", "any", False),
        ]
    }
    table["box"] = Attribute("box", "complex", sub_attributes={"size": Attribute("size", "integer", required=True)})
    table["secret"] = Attribute("secret", "string", returned="never")
    rt = with_extension(USER, Extension("urn:x:ext", table))
    good = {"count": 1, "ratio": 1.5, "since": "2020-01-01T00:00:00Z", "tags": ["a"], "free": {"a": 1}, "box": {"size": 1}}
    assert read(rt, user(**{"urn:x:ext": {**good, "secret": "x"}}))[0]["urn:x:ext"] == good
    assert read(rt, user(**{"urn:x:ext": {"free": []}}))[0] == user()
    for bad in [{"count": True}, {"ratio": "1"}, {"since": "today"}, {"since": 1}, {"tags": [1]}, {"box": {"other": 1}}]:
        with pytest.raises(InvalidValue, match="urn:x:ext:"):
            read(rt, user(**{"urn:x:ext": bad}))


def test_both_alphabets_of_base64_are_binary():
    for value in ("AQID", "-_-_", "AQ", "AQ=="):
        assert read(USER, user(x509Certificates=[{"value": value}]))[0]["x509Certificates"] == [{"value": value}]


def test_the_allowed_methods_of_a_405_are_kept():
    assert MethodNotAllowed("This endpoint takes GET.", allowed=("GET",)).allowed == ("GET",)


def test_an_error_has_the_body_of_rfc_7644_3_12():
    with pytest.raises(InvalidValue) as caught:
        read(USER, user(active="perhaps"))
    assert caught.value.document() == {
        "schemas": ["urn:ietf:params:scim:api:messages:2.0:Error"],
        "status": "400",
        "scimType": "invalidValue",
        "detail": "active must be true or false.",
    }
    busy = TooManyRequests(retry_after=7)
    assert busy.retry_after == 7
    assert "scimType" not in busy.document()
    assert RESOURCE_TYPES["Users"] is USER


TEXT = st.sampled_from(["x", "Long Name", "é"])
FIELDS = st.fixed_dictionaries(
    {"userName": TEXT},
    optional={
        "displayName": st.one_of(TEXT, st.integers(), st.lists(TEXT, min_size=1, max_size=1)),
        "active": st.one_of(st.booleans(), st.integers(2, 9)),
        "title": st.one_of(TEXT, st.none()),
        "name": st.one_of(st.dictionaries(st.sampled_from(["givenName", "familyName"]), TEXT, min_size=1), TEXT),
        "roles": st.lists(st.fixed_dictionaries({"value": TEXT}, optional={"primary": st.just(False)}), min_size=1, max_size=2),
        E: st.dictionaries(st.sampled_from(["department", "division"]), st.one_of(TEXT, st.integers()), min_size=1),
    },
)


@settings(max_examples=examples(120), deadline=None)
@given(FIELDS)
def test_accepted_resources_agree_with_scim2_models(fields):
    sent = {"schemas": [USER.schema, *([E] if E in fields else [])], **fields}
    try:
        expected = OracleUser[EnterpriseUser].model_validate(sent, scim_ctx=Context.RESOURCE_CREATION_REQUEST).model_dump()
    except ValidationError:
        with pytest.raises(ScimError):
            read(USER, sent, STRICT)
    else:
        assert read(USER, sent, STRICT)[0] == expected


@settings(max_examples=examples(100), deadline=None)
@given(FIELDS)
def test_normalising_twice_changes_nothing_more(fields):
    try:
        once = read(USER, user(**fields))[0]
    except InvalidValue:
        return
    assert read(USER, once, STRICT)[0] == once
