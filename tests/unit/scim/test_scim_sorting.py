"""sortBy and sortOrder (RFC 7644 §3.4.2.3)."""

from operator import itemgetter
from typing import Any

import pytest

from scim.errors import InvalidPath, InvalidValue
from scim.schema import GROUP, USER
from scim.sorting import RUN, check_order, in_runs, sort_key


def _sorted(sort_by: str, *documents: dict[str, Any], rt: Any = USER) -> list[int]:
    numbered = [{**document, "n": n} for n, document in enumerate(documents)]
    return [document["n"] for document in sorted(numbered, key=sort_key(sort_by, rt))]


@pytest.mark.parametrize(
    ("sort_by", "documents", "order"),
    [
        ("title", [{"title": "bravo"}, {"title": "Alpha"}, {}, {"title": "charlie"}], [1, 0, 3, 2]),
        ("externalId", [{"externalId": "b"}, {"externalId": "B"}, {"externalId": "a"}], [1, 2, 0]),
        ("name.familyName", [{"name": {"familyName": "b"}}, {"name": {"familyName": "A"}}, {"name": {}}], [1, 0, 2]),
        ("active", [{"active": True}, {"active": False}], [1, 0]),
        (
            "meta.created",
            [{"meta": {"created": "2026-01-02T00:00:00+02:00"}}, {"meta": {"created": "2026-01-01T21:59:00Z"}}],
            [1, 0],
        ),
        (
            "emails",
            [{"emails": [{"value": "c"}, {"value": "a", "primary": True}]}, {"emails": [{"value": "b"}]}, {"emails": []}],
            [0, 1, 2],
        ),
        ("emails.value", [{"emails": [{"value": "c"}]}, {"emails": [{"value": "b"}]}], [1, 0]),
        (
            "emails.type",
            [{"emails": [{"type": "z"}, {"type": "a", "primary": True}]}, {"emails": [{"type": "b"}]}],
            [0, 1],
        ),
        (
            "emails.display",
            [{"emails": [{"display": "a"}, {"value": "x", "primary": True}]}, {"emails": [{"display": "b"}]}],
            [1, 0],
        ),
        (
            "urn:example:x:shoe",
            [{"urn:example:x": {"shoe": 9}}, {"urn:example:x": {"shoe": "8"}}, {"urn:example:x": {"shoe": [1]}}, {}],
            [2, 0, 1, 3],
        ),
    ],
)
def test_values_are_ordered_as_the_schema_compares_them(sort_by: str, documents: list[dict[str, Any]], order: list[int]) -> None:
    assert _sorted(sort_by, *documents) == order


def test_resources_of_several_types_sort_together() -> None:
    assert _sorted("displayName", {"displayName": "b"}, {"displayName": "A"}, rt=None) == [1, 0]


@pytest.mark.parametrize("sort_by", ["", "colour", "name", "title eq", 'title eq "x" and nickName', "password"])
def test_a_sort_key_that_names_no_sortable_attribute_is_refused(sort_by: str) -> None:
    with pytest.raises(InvalidPath):
        sort_key(sort_by, USER)


def test_members_are_sorted_by_their_value() -> None:
    assert _sorted("members", {"members": [{"value": "b"}]}, {"members": [{"value": "a"}]}, rt=GROUP) == [1, 0]


@pytest.mark.parametrize(("order", "descending"), [(None, False), ("", False), ("ascending", False), ("Descending", True)])
def test_the_default_order_is_ascending(order: str | None, descending: bool) -> None:
    assert check_order(order) is descending


def test_an_unknown_order_is_refused() -> None:
    with pytest.raises(InvalidValue):
        check_order("sideways")


def test_a_list_longer_than_a_run_is_sorted_as_a_whole_and_stable() -> None:
    items = [(n * 7919 % 11, n) for n in range(RUN + 5)]
    assert in_runs(items, itemgetter(0)) == sorted(items, key=itemgetter(0))
    assert in_runs(items, itemgetter(0), reverse=True) == sorted(items, key=itemgetter(0), reverse=True)
