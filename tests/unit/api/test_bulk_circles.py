"""The answers of a bulk request if a circle of references can be neither completed nor deleted again."""

import asyncio
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import orjson
import pytest

from api.scim import bulk as edge
from api.scim.http import REQUEST_STEPS, Answer
from ledger.turns import Turns
from scim.bulk import BULK_URN, BulkOperation, read_bulk
from scim.leniency import Leniency
from scim.work import Work


def _group(bulk_id: str, *members: str) -> dict[str, Any]:
    data = {"displayName": bulk_id, "members": [{"value": f"bulkId:{member}"} for member in members]}
    return {"method": "POST", "path": "/Groups", "bulkId": bulk_id, "data": data}


class _Scripted(edge._BulkRun):
    """A run whose operations end as the script says, by method and bulkId (for a DELETE: the bulkId of the resource that was
    created).
    """

    def __init__(self, script: dict[tuple[str, str], int], *operations: dict[str, Any], **more: Any) -> None:
        no_database: Any = None
        ledger = SimpleNamespace(new_id=uuid4, turns=Turns(no_database, 1))
        services: Any = SimpleNamespace(base_url="http://x", ledger=ledger)
        self.call: Any = SimpleNamespace(refusals=[], work=Work(REQUEST_STEPS))
        directory: Any = SimpleNamespace(id=1, slug="acme", profile=SimpleNamespace(unknown_member="refuse"))
        token: Any = None
        super().__init__(
            services,
            self.call,
            directory,
            token,
            read_bulk({"schemas": [BULK_URN], "Operations": list(operations), **more}, Leniency()),
        )
        self._script = script
        self.done: list[tuple[str, str]] = []
        self.under_way = self.most_at_once = 0

    async def _answer(self, operation: BulkOperation, data: Any, *, down: bool) -> Answer:
        if down:
            return Answer(503, orjson.dumps({"detail": "not tried"}))
        made = {known: bulk_id for bulk_id, known in self._ids.items()}
        resource = operation.resource or ""
        act = operation.method, operation.bulk_id or made.get(resource) or resource.removeprefix("bulkId:")
        self.done.append(act)
        self.under_way += 1
        self.most_at_once = max(self.most_at_once, self.under_way)
        await asyncio.sleep(0)  # other operations begin here, if they may
        self.under_way -= 1
        status = self._script.get(act, 204 if operation.method == "DELETE" else 200)
        headers = [(b"etag", b'W/"1"'), (b"location", b"http://x/g")] if status < 400 else []
        return Answer(status, orjson.dumps({"detail": "scripted"}) if status >= 400 else b"", headers)


def _run(script: dict[tuple[str, str], int]) -> _Scripted:
    run = _Scripted(script, _group("a", "b"), _group("b", "a"))
    asyncio.run(run.all())
    return run


def test_a_circle_is_created_then_completed() -> None:
    run = _run({})
    assert run.done == [("POST", "a"), ("POST", "b"), ("PATCH", "a")]
    assert [result["status"] for result in run.results.values()] == ["200", "200"]


def test_a_circle_that_cannot_be_completed_is_deleted_with_all_that_refers_to_it() -> None:
    run = _run({("PATCH", "a"): 503})
    assert run.done[2:] == [("PATCH", "a"), ("DELETE", "a"), ("DELETE", "b")]
    assert [(result["status"], "location" in result) for result in run.results.values()] == [("503", False), ("400", False)]
    assert len(run.call.refusals) == 2


@pytest.mark.parametrize("status", [404, 410])
def test_a_resource_that_somebody_else_has_deleted_counts_as_deleted(status: int) -> None:
    run = _run({("POST", "b"): 409, ("DELETE", "a"): status})
    assert run.results[0]["status"] == ("400" if status == 404 else "503")


def test_a_resource_that_cannot_be_deleted_again_is_reported_as_left() -> None:
    run = _run({("POST", "b"): 409, ("DELETE", "a"): 503})
    left = run.results[0]
    assert (left["status"], left["location"]) == ("503", "http://x/g")
    assert "could not be taken back" in left["response"]["detail"]
    assert "version" not in left


def test_resources_of_a_failed_circle_are_deleted_whatever_failed_before() -> None:
    """After a 503 no further operation is tried, but deleting what the request has left behind is not a new operation."""
    run = _run({("PATCH", "a"): 503})
    assert run.done[-2:] == [("DELETE", "a"), ("DELETE", "b")]
    several = _Scripted({("POST", "5"): 503}, *_ring(30, 1))
    asyncio.run(several.all())
    assert [act for act, _ in several.done] == ["POST"] * 16 + ["DELETE"] * 15
    assert "could not be taken back" not in str(several.results)


def test_after_a_deletion_was_answered_503_no_more_are_tried() -> None:
    run = _Scripted({("POST", "5"): 503, ("DELETE", "4"): 503}, *_ring(30, 1))
    asyncio.run(run.all())
    tried = [bulk_id for act, bulk_id in run.done if act == "DELETE"]
    assert tried == ["4"]
    left = [result for result in run.results.values() if "could not be taken back" in result["response"]["detail"]]
    assert len(left) == 15, "each is reported as left, whether its deletion was tried or not"
    assert all("location" in result for result in left)


def _ring(size: int, step: int) -> list[dict[str, Any]]:
    return [_group(str(n), str((n + step) % size)) for n in range(size)]


@pytest.mark.parametrize("step", [1, -1])
def test_a_large_circle_is_created_and_completed_several_operations_at_a_time(step: int) -> None:
    """One after the other, a thousand groups took two thousand turns of the writer: a minute."""
    run = _Scripted({}, *_ring(100, step))
    asyncio.run(run.all())
    assert run.most_at_once == edge.TOGETHER_MAX
    acts = [act for act, _ in run.done]
    assert acts[:100] == ["POST"] * 100
    assert 90 <= acts[100:].count("PATCH") == len(acts) - 100
    assert {result["status"] for result in run.results.values()} == {"200"}


def test_after_a_failure_in_a_circle_nothing_more_of_it_is_created() -> None:
    run = _Scripted({("POST", "3"): 409}, *_ring(100, 1))
    asyncio.run(run.all())
    assert [act for act, _ in run.done] == ["POST"] * 16 + ["DELETE"] * 15
    assert len(run.results) == 100
    assert [result["status"] for result in run.results.values()].count("400") == 99
    assert run.results[3]["status"] == "409"


def test_creations_that_refer_to_each_other_come_one_after_the_other() -> None:
    run = _Scripted({}, *(_group(str(n), *([str(n - 1)] if n else [])) for n in range(20)))
    asyncio.run(run.all())
    assert run.most_at_once == 1
    assert [bulk_id for _, bulk_id in run.done] == [str(n) for n in range(20)]


@pytest.mark.parametrize(("fail_on_errors", "tried", "at_once"), [(None, 40, 16), (1, 1, 1), (3, 3, 3), (30, 30, 16)])
def test_no_more_is_under_way_than_may_fail(fail_on_errors: int | None, tried: int, at_once: int) -> None:
    """failOnErrors is exact: operations after that number of errors are not carried out, also if several run at once."""
    more = {} if fail_on_errors is None else {"failOnErrors": fail_on_errors}
    run = _Scripted({("POST", str(n)): 409 for n in range(40)}, *(_group(str(n)) for n in range(40)), **more)
    asyncio.run(run.all())
    assert (len(run.done), len(run.results), run.most_at_once) == (tried, tried, at_once)


def test_an_operation_that_changes_a_resource_waits_for_those_before_it() -> None:
    gone = {"method": "DELETE", "path": "/Groups/bulkId:0"}
    large = {**_group("2"), "data": {"displayName": "x" * 20_000}}
    run = _Scripted({}, _group("0"), gone, _group("1"), large, _group("3"))
    asyncio.run(run.all())
    assert run.most_at_once == 1
    assert run.done == [("POST", "0"), ("DELETE", "0"), ("POST", "1"), ("POST", "2"), ("POST", "3")]
