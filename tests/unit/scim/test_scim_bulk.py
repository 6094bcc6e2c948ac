"""Bulk requests: how they are read, and in which order operations are carried out (RFC 7644 §3.7)."""

import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scim import bulk
from scim.errors import InvalidSyntax, InvalidValue, PayloadTooLarge
from scim.leniency import Leniency
from scim.profile import profile_of

GENERIC = profile_of("generic@1").tolerances


def _message(*operations: Any, **more: Any) -> dict[str, Any]:
    return {"schemas": [bulk.BULK_URN], "Operations": list(operations), **more}


def read_strictly(message: dict[str, Any]) -> bulk.BulkRequest:
    return bulk.read_bulk(message, Leniency())


def _post(bulk_id: str, segment: str = "Users", **data: Any) -> dict[str, Any]:
    return {"method": "post", "path": f"/{segment}", "bulkId": bulk_id, "data": data}


def _group(bulk_id: str, *members: str) -> dict[str, Any]:
    return _post(bulk_id, "Groups", members=[{"value": f"bulkId:{member}"} for member in members])


@pytest.mark.parametrize(
    "broken",
    [
        {"Operations": [_post("a")]}, {"schemas": [bulk.BULK_URN]}, _message(), _message(_post("a"), _post("a")),
        _message(_post("a"), failOnErrors=0), _message(_post("a"), failOnErrors=True), _message(_post("a"), failOnErrors="1"),
    ],
)  # fmt: skip
def test_an_invalid_bulk_request_is_refused(broken: dict[str, Any]) -> None:
    with pytest.raises(InvalidSyntax):
        read_strictly(broken)


@pytest.mark.parametrize(
    ("broken", "status"),
    [
        ("x", 400), (None, 400), ({"method": "GET", "path": "/Users"}, 400), ({"path": "/Users"}, 400), ({"method": 5, "path": "/Users"}, 400),
        ({"method": "POST", "bulkId": "a"}, 400), ({"method": "POST", "path": "/Schemas", "bulkId": "a"}, 404),
        ({"method": "POST", "path": "/Users/1", "bulkId": "a"}, 400), ({"method": "DELETE", "path": "/Users"}, 400),
        ({"method": "POST", "path": "/Users"}, 400), ({"method": "POST", "path": "/Users", "bulkId": 5}, 400),
        ({"method": "PUT", "path": "/Users/1", "version": 5}, 400),
    ],
)  # fmt: skip
def test_an_invalid_operation_fails_alone(broken: Any, status: int) -> None:
    """RFC 7644 §3.7: as many changes as possible are made, disregarding partial failures."""
    read = read_strictly(_message(_post("a2"), broken, _post("b"))).operations
    assert [operation.fault and operation.fault.status for operation in read] == [None, status, None]
    assert read[1].fault is not None
    assert "Operations[1]" in read[1].fault.detail


def test_more_than_a_thousand_operations_are_too_large() -> None:
    with pytest.raises(PayloadTooLarge):
        read_strictly(_message(*(_post(str(n)) for n in range(1_001))))


def _order(*operations: dict[str, Any]) -> list[list[str | None]]:
    """The bulkIds in the order of execution, those of a circle together."""
    return [[o.bulk_id for o in together] for together in bulk.rounds(read_strictly(_message(*operations)).operations)]


def test_operations_keep_their_order_where_nothing_refers_forward() -> None:
    assert _order(_post("a"), _group("g", "a"), _post("b")) == [["a"], ["g"], ["b"]]


def test_an_operation_waits_for_what_it_refers_to() -> None:
    assert _order(_group("g", "a", "b"), _post("a"), _post("b")) == [["a"], ["b"], ["g"]]
    patch = {
        "method": "PATCH",
        "path": "/Groups/bulkId:g",
        "data": {"Operations": [{"op": "remove", "path": 'members[value eq "bulkId:a"]'}]},
    }
    assert _order(patch, _group("g"), _post("a")) == [["g"], ["a"], [None]]


def test_a_user_waits_for_its_manager_and_two_who_manage_each_other_are_a_circle() -> None:
    assert _order(_post("a", manager={"value": "bulkId:b"}), _post("b")) == [["b"], ["a"]]
    assert _order(_post("a", manager={"value": "bulkId:b"}), _post("b", manager="bulkId:a")) == [["a", "b"]]


def test_a_circle_is_carried_out_together_and_a_reference_to_itself_is_no_circle() -> None:
    assert _order(_group("g", "h"), _group("h", "g"), _group("own", "own")) == [["g", "h"], ["own"]]
    assert _order(_group("g", "h"), _post("u"), _group("h", "g"), _post("v")) == [["u"], ["g", "h"], ["v"]]
    assert _order(_group("g", "h"), _group("h", "g"), _post("u"), _group("i", "j", "g"), _group("j", "i")) == [
        ["g", "h"], ["u"], ["i", "j"],
    ]  # fmt: skip


def test_a_long_chain_is_carried_out_from_its_end() -> None:
    chain = [_group(str(n), str(n + 1)) for n in range(999)]
    assert _order(*chain, _post("999")) == [[str(n)] for n in range(999, -1, -1)]


def test_a_circle_waits_for_what_it_refers_to_and_operations_that_refer_to_it_wait_for_it() -> None:
    assert _order(_group("above", "g"), _group("g", "h"), _group("h", "g", "u"), _post("u"), _post("v")) == [
        ["u"], ["g", "h"], ["above"], ["v"],
    ]  # fmt: skip


def test_an_operation_without_references_does_not_wait() -> None:
    broken = {"method": "POST", "path": "/Nowhere", "bulkId": "x"}
    assert _order(_group("g", "ghost", "x"), broken, _post("a")) == [["g"], ["x"], ["a"]]


def test_references_become_ids_everywhere() -> None:
    data = {"members": [{"value": "bulkId:a"}], "note": ["bulkId:b", 5], "path": 'members[value eq "bulkId:a"]', "plain": "x"}
    assert bulk.resolve(data, {"a": "1", "b": "2"}) == {
        "members": [{"value": "1"}], "note": ["2", 5], "path": 'members[value eq "1"]', "plain": "x",
    }  # fmt: skip
    with pytest.raises(InvalidValue):
        bulk.resolve("bulkId:ghost", {}, refers=True)


@pytest.mark.parametrize("text", ["see bulkId:a", "bulkId", "xbulkId:a", 'say "x" bulkId:a', "bulkId: see note", "bulkId:b"])
def test_text_that_mentions_a_bulk_id_is_not_a_reference(text: str) -> None:
    data = {"title": text, "Operations": [{"op": "replace", "path": "title", "value": text}]}
    assert bulk.resolve(data, {"a": "1"}) == data


ENTERPRISE = "urn:ietf:params:scim:schemas:extension:enterprise:2.0:User"


@pytest.mark.parametrize(
    "data",
    [
        {"Members": [{"Value": "bulkId:b"}]}, {"members": ["bulkId:b"]}, {"members": [{"$ref": "https://x/Users/bulkId:b"}]},
        {ENTERPRISE: {"manager": {"value": "bulkId:b"}}}, {ENTERPRISE: {"manager": "bulkId:b"}}, {f"{ENTERPRISE}:manager.value": "bulkId:b"},
        {"Operations": [{"op": "add", "path": "members", "value": [{"value": "bulkId:b"}]}]},
        {"Operations": [{"op": "remove", "Path": 'members[value eq "bulkId:b"]'}]},
        {"Operations": [{"op": "replace", "value": {"members": ["bulkId:b"]}}]},
        {"Operations": [{"op": "add", "path": f"{ENTERPRISE}:manager", "value": "bulkId:b"}]},
    ],
)  # fmt: skip
def test_an_unknown_bulk_id_in_place_of_an_id_is_refused(data: dict[str, Any]) -> None:
    with pytest.raises(InvalidValue):
        bulk.resolve(data, {"a": "1"})


def test_a_reference_to_a_failed_creation_is_refused_anywhere() -> None:
    with pytest.raises(InvalidValue, match="whose creation failed"):
        bulk.resolve({"note": "bulkId:a"}, {"a": None})


def test_a_link_by_bulk_id_is_a_reference() -> None:
    assert bulk.resolve("https://x/v2/Users/bulkId:a", {"a": "1"}) == "https://x/v2/Users/1"


def test_members_of_a_circle_are_left_out_at_creation_and_nothing_else_is() -> None:
    data = {
        "displayName": "bulkId:c",
        "Members": [{"Value": "bulkId:a"}, {"value": "bulkId:b"}, "odd", "bulkId:a"],
        "other": [{"value": "bulkId:a"}],
    }
    assert bulk.without_members(data, frozenset({"a", "c"})) == (
        {"displayName": "bulkId:c", "Members": [{"value": "bulkId:b"}, "odd"], "other": [{"value": "bulkId:a"}]},
        frozenset({"a"}),
    )
    assert bulk.without_members({"members": {"value": "bulkId:a"}}, frozenset({"a"})) == ({"members": []}, frozenset({"a"}))
    assert bulk.without_members("odd", frozenset({"a"})) == ("odd", frozenset())


@given(st.lists(st.sets(st.integers(0, 6), max_size=3), min_size=1, max_size=7))
def test_each_operation_is_carried_out_once_after_those_it_refers_to_or_together_with_its_circle(plan: list[set[int]]) -> None:
    refers = {n: {m for m in refs if m < len(plan) and m != n} for n, refs in enumerate(plan)}
    order = _order(*(_group(str(n), *map(str, sorted(refs))) for n, refs in refers.items()))
    assert sorted(bulk_id or "" for together in order for bulk_id in together) == [str(n) for n in range(len(plan))]
    place = {int(bulk_id or ""): n for n, together in enumerate(order) for bulk_id in together}
    reaches = {n: _reached(refers, n) for n in refers}
    for n, m in itertools.permutations(refers, 2):
        if m in reaches[n]:
            assert place[m] <= place[n]
        assert (place[m] == place[n]) is (m in reaches[n] and n in reaches[m])


def _reached(graph: dict[int, set[int]], start: int) -> set[int]:
    found: set[int] = set()
    ahead = [start]
    while ahead:
        new = graph[ahead.pop()] - found
        found |= new
        ahead += new
    return found


def test_only_creations_have_a_bulk_id_of_their_own() -> None:
    again = {"method": "PATCH", "path": "/Users/bulkId:a", "bulkId": "a", "data": {}}
    assert len(read_strictly(_message(_post("a"), again)).operations) == 2


@pytest.mark.parametrize("bulk_id", ["a]b", "a b", "a:b", "ä", "a/b"])
def test_a_bulk_id_may_be_any_text(bulk_id: str) -> None:
    assert bulk.resolve({"members": [{"value": f"bulkId:{bulk_id}"}]}, {bulk_id: "1"}) == {"members": [{"value": "1"}]}
    path = f'members[value eq "bulkId:{bulk_id}"]'
    assert bulk.resolve({"path": path}, {bulk_id: "1"}) == {"path": 'members[value eq "1"]'}
    for written in (bulk_id.replace("/", "%2F"), bulk_id.replace(" ", "%20").replace("/", "%2F")):
        read = read_strictly(_message(_post(bulk_id), {"method": "DELETE", "path": f"/Users/bulkId:{written}"})).operations[1]
        assert (read.resource, read.needs) == (f"bulkId:{bulk_id}", {bulk_id})


def test_members_under_the_urn_of_their_schema_are_members() -> None:
    core = "urn:ietf:params:scim:schemas:core:2.0:Group"
    data = {core: {"displayName": "g", "members": [{"value": "bulkId:a"}]}}
    assert bulk.without_members(data, frozenset({"a"})) == ({core: {"displayName": "g", "members": []}}, frozenset({"a"}))


def test_a_reference_in_a_link_within_a_filter_is_one() -> None:
    path = 'members[$ref eq "https://x/Groups/bulkId:a"]'
    assert bulk.resolve({"path": path}, {"a": "1"}) == {"path": 'members[$ref eq "https://x/Groups/1"]'}
    patch = {"method": "PATCH", "path": "/Groups/1", "bulkId": "a", "data": {"Operations": [{"op": "remove", "path": path}]}}
    read = read_strictly(_message(patch, _post("a"))).operations
    assert [[o.method for o in together] for together in bulk.rounds(read)] == [["POST"], ["PATCH"]]


def test_the_parts_of_a_request_that_an_answer_repeats_are_short() -> None:
    """Otherwise the answer would be as long as the request, or longer: a bulkId is in it twice, and escaped."""
    long = "b" * (bulk.BULK_ID_CHARACTERS_MAX + 1)
    operations = read_strictly(
        _message(
            _post(long),
            {"method": "P" * 1_000, "path": "/Users"},
            {"method": "DELETE", "path": f"/Users/{'x' * 1_000}"},
            {"method": "DELETE", "path": "/Users/%F0%9F%98%80" + "%20" * 250},
            _post("b" * bulk.BULK_ID_CHARACTERS_MAX),
        )
    ).operations
    assert [operation.fault is None for operation in operations] == [False, False, False, True, True]
    assert all(len(operation.bulk_id or "") <= bulk.BULK_ID_CHARACTERS_MAX for operation in operations)
    assert all(len(operation.method) <= 16 for operation in operations)


def test_an_operation_knows_the_size_of_its_data() -> None:
    (operation,) = read_strictly(_message(_post("a", title="t" * 1_000))).operations
    assert 1_000 < operation.size < 1_200


def test_an_endpoint_in_another_letter_case_is_recognised_if_the_profile_allows_it() -> None:
    leniency = Leniency(GENERIC)
    message = _message({"method": "DELETE", "path": "/users/1"})
    assert read_strictly(message).operations[0].fault is not None
    (read,) = bulk.read_bulk(message, leniency).operations
    assert (read.segment, read.resource, read.fault, leniency.used) == ("Users", "1", None, {"endpoint_case"})


def test_an_operation_without_members_has_none_that_must_wait() -> None:
    assert bulk.without_members({"members": None}, frozenset({"x"})) == ({"members": []}, frozenset())
