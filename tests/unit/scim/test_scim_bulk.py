"""Bulk requests: what is read, and in which order operations are carried out (RFC 7644 §3.7)."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scim import bulk
from scim.errors import InvalidSyntax, InvalidValue, PayloadTooLarge


def _message(*operations: Any, **more: Any) -> dict[str, Any]:
    return {"schemas": [bulk.BULK_URN], "Operations": list(operations), **more}


def _post(bulk_id: str, segment: str = "Users", **data: Any) -> dict[str, Any]:
    return {"method": "post", "path": f"/{segment}", "bulkId": bulk_id, "data": data}


def _group(bulk_id: str, *members: str) -> dict[str, Any]:
    return _post(bulk_id, "Groups", members=[{"value": f"bulkId:{member}"} for member in members])


@pytest.mark.parametrize(
    "broken",
    [
        {"Operations": [_post("a")]}, {"schemas": [bulk.BULK_URN]}, _message(), _message("x"), _message(_post("a"), _post("a")),
        _message(_post("a"), failOnErrors=0), _message(_post("a"), failOnErrors=True), _message(_post("a"), failOnErrors="1"),
    ],
)  # fmt: skip
def test_what_is_no_bulk_request_is_refused(broken: dict[str, Any]) -> None:
    with pytest.raises(InvalidSyntax):
        bulk.read_bulk(broken)


@pytest.mark.parametrize(
    ("broken", "status"),
    [
        ({"method": "GET", "path": "/Users"}, 400), ({"path": "/Users"}, 400), ({"method": 5, "path": "/Users"}, 400),
        ({"method": "POST", "bulkId": "a"}, 400), ({"method": "POST", "path": "/Schemas", "bulkId": "a"}, 404),
        ({"method": "POST", "path": "/Users/1", "bulkId": "a"}, 400), ({"method": "DELETE", "path": "/Users"}, 400),
        ({"method": "POST", "path": "/Users"}, 400), ({"method": "POST", "path": "/Users", "bulkId": 5}, 400),
        ({"method": "PUT", "path": "/Users/1", "version": 5}, 400),
    ],
)  # fmt: skip
def test_an_operation_that_cannot_be_read_fails_alone(broken: dict[str, Any], status: int) -> None:
    """RFC 7644 §3.7: as many changes as possible are made, disregarding partial failures."""
    read = bulk.read_bulk(_message(_post("a2"), broken, _post("b"))).operations
    assert [operation.fault and operation.fault.status for operation in read] == [None, status, None]
    assert read[1].fault is not None
    assert "Operations[1]" in read[1].fault.detail


def test_more_than_a_thousand_operations_are_too_large() -> None:
    with pytest.raises(PayloadTooLarge):
        bulk.read_bulk(_message(*(_post(str(n)) for n in range(1_001))))


def _order(*operations: dict[str, Any]) -> list[tuple[str | None, list[str]]]:
    """(bulkId, references left out) in the order of execution."""
    waiting = list(bulk.read_bulk(_message(*operations)).operations)
    open_ids = {operation.bulk_id for operation in waiting if operation.bulk_id}
    done = []
    while waiting:
        operation, missing = bulk.next_operation(waiting, open_ids)
        waiting.remove(operation)
        open_ids.discard(operation.bulk_id or "")
        done.append((operation.bulk_id, sorted(missing)))
    return done


def test_operations_keep_their_order_where_nothing_refers_forward() -> None:
    assert _order(_post("a"), _group("g", "a"), _post("b")) == [("a", []), ("g", []), ("b", [])]


def test_an_operation_waits_for_what_it_refers_to() -> None:
    assert _order(_group("g", "a", "b"), _post("a"), _post("b")) == [("a", []), ("b", []), ("g", [])]
    patch = {
        "method": "PATCH",
        "path": "/Groups/bulkId:g",
        "data": {"Operations": [{"op": "remove", "path": 'members[value eq "bulkId:a"]'}]},
    }
    assert _order(patch, _group("g"), _post("a")) == [("g", []), ("a", []), (None, [])]


def test_a_circle_is_broken_and_a_reference_to_oneself_is_none() -> None:
    assert _order(_group("g", "h"), _group("h", "g"), _group("own", "own")) == [("own", []), ("g", ["h"]), ("h", [])]


def test_a_circle_without_a_creation_goes_on_with_the_first() -> None:
    waiting = [bulk.BulkOperation(0, "PATCH", "Groups", "1", None, None, {}, frozenset({"x"}))]
    assert bulk.next_operation(waiting, {"x"}) == (waiting[0], frozenset({"x"}))


def test_users_do_not_wait_for_their_references() -> None:
    """A manager is a value, not an edge: its id is known beforehand and may be written at once."""
    assert _order(_post("a", manager={"value": "bulkId:b"}), _post("b"))[0] == ("a", [])


def test_references_become_ids_everywhere() -> None:
    data = {"members": [{"value": "bulkId:a"}], "note": ["bulkId:b", 5], "path": 'members[value eq "bulkId:a"]', "plain": "x"}
    assert bulk.resolve(data, {"a": "1", "b": "2"}) == {
        "members": [{"value": "1"}], "note": ["2", 5], "path": 'members[value eq "1"]', "plain": "x",
    }  # fmt: skip
    with pytest.raises(InvalidValue):
        bulk.resolve("bulkId:ghost", {})


@pytest.mark.parametrize("text", ["see bulkId:a", "bulkId", "xbulkId:a", 'say "x" bulkId:a'])
def test_text_that_speaks_of_a_bulk_id_is_no_reference(text: str) -> None:
    assert bulk.resolve({"title": text}, {"a": "1"}) == {"title": text}
    assert bulk.read_bulk(_message(_post("g", "Groups", note=text))).operations[0].needs == frozenset()


def test_a_link_by_bulk_id_is_a_reference() -> None:
    assert bulk.resolve("https://x/v2/Users/bulkId:a", {"a": "1"}) == "https://x/v2/Users/1"


def test_members_of_a_circle_are_left_out_and_nothing_else() -> None:
    data = {
        "displayName": "g",
        "Members": [{"value": "bulkId:a"}, {"value": "bulkId:b"}, "odd"],
        "other": [{"value": "bulkId:a"}],
    }
    assert bulk.without_members(data, frozenset({"a"})) == {
        "displayName": "g", "Members": [{"value": "bulkId:b"}, "odd"], "other": [{"value": "bulkId:a"}],
    }  # fmt: skip
    assert bulk.without_members("odd", frozenset({"a"})) == "odd"


@given(st.lists(st.tuples(st.booleans(), st.sets(st.integers(0, 6), max_size=3)), min_size=1, max_size=7))
def test_every_operation_is_carried_out_once_and_only_circles_lose_references(plan: list[tuple[bool, set[int]]]) -> None:
    operations = [
        _group(str(n), *(str(m) for m in refs if m < len(plan))) if is_group else _post(str(n))
        for n, (is_group, refs) in enumerate(plan)
    ]
    done = _order(*operations)
    assert sorted(bulk_id or "" for bulk_id, _ in done) == [str(n) for n in range(len(plan))]
    place = {bulk_id: n for n, (bulk_id, _) in enumerate(done)}
    for n, (is_group, refs) in enumerate(plan):
        left_out = dict(done)[str(n)]
        for m in refs:
            if is_group and m < len(plan) and m != n and str(m) not in left_out:
                assert place[str(m)] < place[str(n)]
