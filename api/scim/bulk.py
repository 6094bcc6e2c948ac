"""Bulk (RFC 7644 §3.7): each operation is a command and a commit of its own, in the order given."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import orjson

from api.problems import DATABASE_AWAY
from api.scim.http import Answer, Call, Content, Refusal, as_json, of_error, read_condition
from api.scim.writes import Write
from api.services import Services
from ledger.commands import Condition
from ledger.directories import Directory
from ledger.tokens import Token
from scim.bulk import (
    METHODS,
    OPERATIONS_MAX,
    RESPONSE_URN,
    BulkOperation,
    BulkRequest,
    next_operation,
    read_bulk,
    resolve,
    without_members,
)
from scim.errors import InvalidSyntax, ScimError, Unavailable

BULK_BYTES_MAX = 16 * 2**20
_NAMES = {"POST": "create", "PUT": "replace", "PATCH": "patch", "DELETE": "delete"}


@dataclass(slots=True)
class _Part:
    """One operation of a bulk request as a source of a write."""

    request_id: UUID
    op: int
    data: Any
    version: str | None = None
    resource_id: UUID | None = None
    query: Mapping[str, str] = field(default_factory=dict[str, str])
    used: set[str] = field(default_factory=set[str])
    events: int = 0

    async def content(self, limit: int) -> Content:  # noqa: ARG002  # the whole request was measured already
        if not isinstance(self.data, dict):
            raise InvalidSyntax("data must be an object with the resource or the PATCH message.")
        data: dict[str, Any] = self.data
        return Content(1_000, lambda: data)

    def condition(self) -> Condition | None:
        return read_condition(self.version)


async def bulk(services: Services, call: Call, directory: Directory, token: Token) -> Answer:
    """Carry out a bulk request; the answer has one entry for each operation that was tried, in the order of the request."""
    content = await call.content(BULK_BYTES_MAX)
    request = read_bulk(content.load())
    run = _Run(services, call, directory, token, request)
    await run.all()
    return as_json(200, {"schemas": [RESPONSE_URN], "Operations": [run.results[index] for index in sorted(run.results)]})


def _refusal(operation: BulkOperation, result: dict[str, Any]) -> Refusal:
    """For the journal, which shows no text of the client: a method that is none, and no id."""
    method = operation.method if operation.method in METHODS else "-"
    route = "/Bulk" + (f"/{operation.segment}" if operation.segment else "") + ("/{id}" if operation.resource else "")
    response: dict[str, Any] = result["response"]
    return Refusal(method, route, int(result["status"]), response.get("scimType"), response["detail"])


class _Run:
    """The state of a bulk request under way."""

    def __init__(self, services: Services, call: Call, directory: Directory, token: Token, request: BulkRequest) -> None:
        self._services, self._call, self._directory, self._token = services, call, directory, token
        self._request = request
        self._base = f"{services.base_url}/scim/{directory.slug}/v2"
        # Ids are given out beforehand: a reference can be written before the resource it names exists.
        self._ids = {
            o.bulk_id: str(services.new_id())
            for o in request.operations
            if o.bulk_id is not None and o.method == "POST" and o.fault is None
        }
        self._extra = OPERATIONS_MAX  # the numbers of the follow-ups of circular references
        self.results: dict[int, dict[str, Any]] = {}

    async def all(self) -> None:
        waiting = list(self._request.operations)
        open_ids = set(self._ids)
        postponed: list[tuple[BulkOperation, frozenset[str]]] = []
        errors = 0
        while waiting:
            operation, missing = next_operation(waiting, open_ids)
            waiting.remove(operation)
            if missing:
                postponed.append((operation, missing))
            result = await self._one(operation, missing)
            self.results[operation.index] = result
            open_ids.discard(operation.bulk_id or "")
            if int(result["status"]) >= 400:
                errors += 1
                self._forget(operation)
                self._call.refusals.append(_refusal(operation, result))
            if self._request.fail_on_errors is not None and errors >= self._request.fail_on_errors:
                return
        for operation, missing in postponed:
            await self._complete(operation, missing)

    def _forget(self, operation: BulkOperation) -> None:
        """What was not created has no id: whatever refers to it later fails too, instead of keeping the id of nobody."""
        if operation.method == "POST" and operation.bulk_id is not None:
            self._ids.pop(operation.bulk_id, None)

    async def _one(self, operation: BulkOperation, missing: frozenset[str]) -> dict[str, Any]:
        shown: dict[str, Any] = {"method": operation.method} if operation.method else {}
        if operation.bulk_id is not None:
            shown["bulkId"] = operation.bulk_id
        answer = await self._answer(operation, without_members(operation.data, missing) if missing else operation.data)
        return shown | self._described(operation, answer)

    async def _answer(self, operation: BulkOperation, data: Any) -> Answer:
        if operation.fault is not None:
            return of_error(operation.fault)
        kind = operation.segment.removesuffix("s").lower()
        try:
            resource = resolve(operation.resource, self._ids)
            own_id = UUID(self._ids[operation.bulk_id]) if operation.method == "POST" and operation.bulk_id else None
            part = _Part(
                self._call.request_id, operation.index, resolve(data, self._ids), operation.version, own_id, used=self._call.used
            )
            write = getattr(Write(self._services, part, self._directory, self._token), f"{_NAMES[operation.method]}_{kind}")
            answer = await (write() if resource is None else write(resource))
            self._call.events += part.events
            return answer
        except ScimError as refused:
            return of_error(refused)
        except DATABASE_AWAY:
            return of_error(Unavailable("The database does not answer. Send this operation again.", retry_after=1))

    def _described(self, operation: BulkOperation, answer: Answer) -> dict[str, Any]:
        found: dict[str, Any] = {"status": str(answer.status)}
        headers = dict(answer.headers)
        if answer.status >= 400:
            found["response"] = orjson.loads(answer.body)
        elif b"etag" in headers:
            found["version"] = headers[b"etag"].decode()
        if b"location" in headers:
            found["location"] = headers[b"location"].decode()
        elif operation.resource is not None:
            found["location"] = f"{self._base}/{operation.segment}/{self._known(operation.resource)}"
        return found

    def _known(self, resource: str) -> str:
        """The id of the resource, also where the path names it by its bulkId."""
        return self._ids.get(resource.removeprefix("bulkId:"), resource) if resource.startswith("bulkId:") else resource

    async def _complete(self, operation: BulkOperation, missing: frozenset[str]) -> None:
        """Add the members that a circle of references had left out; a failure is told with the operation itself."""
        if int(self.results[operation.index]["status"]) >= 400 or operation.bulk_id is None:
            return
        members = [{"value": f"bulkId:{bulk_id}"} for bulk_id in sorted(missing)]
        message = {
            "schemas": ["urn:ietf:params:scim:api:messages:2.0:PatchOp"],
            "Operations": [{"op": "add", "path": "members", "value": members}],
        }
        follow_up = BulkOperation(self._extra, "PATCH", operation.segment, self._ids[operation.bulk_id], None, None, message)
        self._extra += 1
        answer = await self._answer(follow_up, message)
        if answer.status >= 400:
            self.results[operation.index] |= {"status": str(answer.status), "response": orjson.loads(answer.body)}
            self._call.refusals.append(_refusal(operation, self.results[operation.index]))
        else:
            self.results[operation.index]["version"] = dict(answer.headers)[b"etag"].decode()
