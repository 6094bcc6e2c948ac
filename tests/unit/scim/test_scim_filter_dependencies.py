"""A filter gives the same result on all members and on those that it names, so the others need not be loaded."""

from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from scim.errors import InvalidFilter
from scim.filter_dependencies import NO_VALUES, compared_members, refers_to, values_needed, with_member_ids
from scim.filter_parser import parse_filter
from scim.filters import matches
from scim.schema import GROUP, USER

A, B, C = ("00000000-0000-4000-8000-00000000000" + digit for digit in "abc")

_edge = st.sampled_from([
    f'members.value eq "{A}"', f'members eq "{B}"', f'members[value eq "{C}" and type eq "User"]',
    f'members[value eq "{A}" or value eq "{B}"]', 'members[type eq "Group"]', f'members.value ne "{A}"', "members pr",
    f'members[not (value eq "{A}")]', f'members.value co "{A[:8]}"', "members[value eq null]", f'members[value eq "{A}" or type eq "Group"]',
])  # fmt: skip
_atom = st.one_of(_edge, st.sampled_from(['displayName eq "x"', 'displayName sw "y"', "externalId pr"]))
_filter = st.recursive(
    _atom,
    lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from(["and", "or"]), inner).map(lambda t: f"({t[0]}) {t[1]} ({t[2]})"),
        inner.map(lambda f: f"not ({f})"),
    ),
    max_leaves=6,
)
_member = st.fixed_dictionaries({"value": st.sampled_from([A, B, C]), "type": st.sampled_from(["User", "Group"])})


@given(_filter, st.lists(_member, unique_by=lambda m: m["value"]), st.sampled_from(["x", "yz", "other"]))
def test_the_named_values_decide(text: str, members: list[dict[str, Any]], name: str) -> None:
    wanted = parse_filter(text, GROUP)
    values = values_needed(wanted, "members")
    kept = members if values is None else [member for member in members if member["value"] in values]
    whole, part = ({"displayName": name, **({"members": some} if some else {})} for some in (members, kept))
    assert matches(wanted, whole) is matches(wanted, part)


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ('displayName eq "x"', NO_VALUES),
        ("externalId pr", NO_VALUES),
        (f'members.value eq "{A}"', {A}),
        (f'displayName eq "x" and not (members.value eq "{A}")', {A}),
        (f'members[value eq "{A}" or value eq "{B}"]', {A, B}),
        (f'members[value eq "{A}" and type eq "User"] or members.value eq "{B}"', {A, B}),
        ("members pr", None),
        (f'members.value ne "{A}" or members.value eq "{B}"', None),
    ],
)
def test_one_member_of_a_large_group_is_looked_up_alone(text: str, values: set[str] | None) -> None:
    assert values_needed(parse_filter(text, GROUP), "members") == values


def test_an_attribute_of_an_extension_with_the_same_name_is_another_one() -> None:
    assert not refers_to(parse_filter("urn:x:y:groups pr", USER), "groups")
    assert refers_to(parse_filter("groups pr", USER), "groups")
    assert not refers_to(parse_filter('emails[value eq "a"]', USER), "groups")


_KEYS = {A: "ann", B: "bob", C: "cleo"}


@example(f'not (members.value eq "{A}") and members[not (value ne "{B}") or type pr and value eq "{A}"]', [{"value": A}])
@given(_filter.filter(lambda text: " co " not in text), st.lists(_member, unique_by=lambda m: m["value"]))
def test_a_filter_by_another_key_selects_the_same_members_as_one_by_ids(text: str, members: list[dict[str, Any]]) -> None:
    by_key = text
    for obj, key in _KEYS.items():
        by_key = by_key.replace(obj, key)
    ids = {key: obj for obj, key in _KEYS.items()}
    wanted = parse_filter(by_key, GROUP)
    assert compared_members(wanted) <= set(ids)
    document = {"displayName": "x", "members": members}
    assert matches(with_member_ids(wanted, ids), document) is matches(parse_filter(text, GROUP), document)


@pytest.mark.parametrize("operator", ["sw", "ew", "co", "gt", "le"])
@pytest.mark.parametrize("shape", ['members.value {} "k"', 'members[not (value {} "k")]'])
def test_a_filter_by_a_part_of_another_key_is_refused(operator: str, shape: str) -> None:
    with pytest.raises(InvalidFilter, match="eq or ne"):
        compared_members(parse_filter(shape.format(operator), GROUP))


def test_only_members_can_be_named_by_another_key() -> None:
    for text in (
        'displayName eq "ann"',
        'externalId eq "ann"',
        'members[type eq "ann"]',
        "members.value eq null",
        "members.value pr",
    ):
        wanted = parse_filter(text, GROUP)
        assert compared_members(wanted) == NO_VALUES
        assert with_member_ids(wanted, {"ann": A}) == wanted
    emails = parse_filter('emails[value eq "ann"]', USER)
    assert compared_members(emails) == NO_VALUES
    assert with_member_ids(emails, {"ann": A}) == emails
