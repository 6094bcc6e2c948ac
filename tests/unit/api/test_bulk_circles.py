"""What a bulk request answers when a circle of references can be neither completed nor taken back."""

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
from scim.work import Work


def _group(bulk_id: str, *members: str) -> dict[str, Any]:
    data = {"displayName": bulk_id, "members": [{"value": f"bulkId:{member}"} for member in members]}
    return {"method": "POST", "path": "/Groups", "bulkId": bulk_id, "data": data}


class _Scripted(edge._Run):
    """A run whose operations end as the script says, by method and bulkId (of what was created)."""

    def __init__(self, script: dict[tuple[str, str], int], *operations: dict[str, Any]) -> None:
        no_database: Any = None
        ledger = SimpleNamespace(new_id=uuid4, turns=Turns(no_database, 1))
        services: Any = SimpleNamespace(base_url="http://x", ledger=ledger)
        self.call: Any = SimpleNamespace(refusals=[], work=Work(REQUEST_STEPS))
        directory: Any = SimpleNamespace(id=1, slug="acme")
        token: Any = None
        super().__init__(
            services, self.call, directory, token, read_bulk({"schemas": [BULK_URN], "Operations": list(operations)})
        )
        self._script = script
        self.done: list[tuple[str, str]] = []

    async def _answer(self, operation: BulkOperation, data: Any) -> Answer:
        made = {known: bulk_id for bulk_id, known in self._ids.items()}
        act = operation.method, operation.bulk_id or made[operation.resource]
        self.done.append(act)
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


def test_what_cannot_be_completed_is_taken_back_with_all_that_refers_to_it() -> None:
    run = _run({("PATCH", "a"): 503})
    assert run.done[2:] == [("PATCH", "a"), ("DELETE", "a"), ("DELETE", "b")]
    assert [(result["status"], "location" in result) for result in run.results.values()] == [("503", False), ("400", False)]
    assert len(run.call.refusals) == 2


@pytest.mark.parametrize("status", [404, 410])
def test_what_somebody_else_has_deleted_meanwhile_is_gone_all_the_same(status: int) -> None:
    run = _run({("POST", "b"): 409, ("DELETE", "a"): status})
    assert run.results[0]["status"] == ("400" if status == 404 else "503")


def test_what_cannot_be_taken_back_is_said_to_be_there() -> None:
    run = _run({("POST", "b"): 409, ("DELETE", "a"): 503})
    left = run.results[0]
    assert (left["status"], left["location"]) == ("503", "http://x/g")
    assert "taking it back failed" in left["response"]["detail"]
    assert "version" not in left
