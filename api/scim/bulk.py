"""Bulk requests (RFC 7644 §3.7): each operation is a command with a commit of its own, in the order of the request."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote
from uuid import UUID

import orjson
import psycopg

from api.database_errors import scim_error
from api.scim.http import REQUEST_STEPS, Answer, Call, Content, Refusal, as_json, of_error, read_condition
from api.scim.writes import THREAD_BYTES_MIN, Write
from api.services import Services
from database import patience
from ledger.commands import Condition, parse_id
from ledger.directories import Directory
from ledger.tokens import Token
from scim.bulk import (
    BULK_OPERATIONS_MAX,
    METHODS,
    RESPONSE_URN,
    BulkOperation,
    BulkRequest,
    not_created,
    read_bulk,
    resolve,
    rounds,
    without_members,
)
from scim.errors import InvalidSyntax, PayloadTooLarge, ScimError, TooMany, Unauthorized, Unavailable
from scim.leniency import Leniency
from scim.patch import PATCH_URN
from scim.work import Work

BULK_BYTES_MAX = 16 * 2**20
CHANGED_BYTES_MAX = 128 * 2**20  # bytes of the resources that one request changes: each is read, compared and written
BULK_STEPS = 2_000_000  # budget of all PATCHes of a request: ten seconds of one core
TOGETHER_MAX = 16  # concurrent creations: as many as the writer takes of one directory for a batch
LOOP_OPERATIONS_MAX = 50  # operations of a request that are put in order on the event loop; more, in a worker thread
_TOO_MUCH_TOGETHER = "The operations of this request need too much work together. Send several requests."
_NOT_TRIED = "An operation before this one could not be carried out now, so this one was not tried. Send it again."
_LEFT_BEHIND = "The resource was created, but not all that it refers to, and could not be taken back. Delete it, then send the operation again."
_VERBS = {"POST": "create", "PUT": "replace", "PATCH": "patch", "DELETE": "delete"}


@dataclass(slots=True)
class _BulkSource:
    """One operation of a bulk request as the source of a write."""

    request_id: UUID
    op: int
    data: Any
    version: str | None = None
    resource_id: UUID | None = None
    query: Mapping[str, str] = field(default_factory=dict[str, str])
    leniency: Leniency = field(default_factory=Leniency)
    size: int = 1_000  # bytes of `data` as JSON
    work: Work = field(default_factory=lambda: Work(REQUEST_STEPS))
    effort: Work = field(default_factory=lambda: Work(BULK_STEPS))
    shows: bool = False  # the answer of a bulk request has no resources
    events: int = 0
    changed_bytes: int = 0
    trace: bytes | None = None

    async def content(self, limit: int) -> Content:
        if not isinstance(self.data, dict):
            raise InvalidSyntax("data must be an object with the resource or the PATCH message.")
        if self.size > limit:
            raise PayloadTooLarge(f"data is larger than {limit} bytes. Send less at once.")
        data: dict[str, Any] = self.data
        return Content(self.size, lambda: data)

    def condition(self) -> Condition | None:
        return read_condition(self.version)


async def bulk(services: Services, call: Call, directory: Directory, token: Token) -> Answer:
    """Carry out a bulk request. The answer has an entry for each operation that was tried, in the order of the request."""
    content = await call.content(BULK_BYTES_MAX)
    call.watch()

    def read() -> BulkRequest:
        return read_bulk(content.load(), call.leniency)

    request = await services.ledger.turns.compute(directory.id, read) if content.size > THREAD_BYTES_MIN else read()
    run = _BulkRun(services, call, directory, token, request)
    await run.all()
    run.refuse_if_dead()
    return as_json(200, {"schemas": [RESPONSE_URN], "Operations": [run.results[index] for index in sorted(run.results)]})


def _method_and_bulk_id(operation: BulkOperation) -> dict[str, Any]:
    shown: dict[str, Any] = {"method": operation.method} if operation.method else {}
    return shown if operation.bulk_id is None else shown | {"bulkId": operation.bulk_id}


def _refusal(operation: BulkOperation, result: dict[str, Any]) -> Refusal:
    """The refusal for the journal, which shows no text of the client: neither an unknown method nor an id."""
    method = operation.method if operation.method in METHODS else "-"
    route = "/Bulk" + (f"/{operation.segment}" if operation.segment else "") + ("/{id}" if operation.resource else "")
    response: dict[str, Any] = result["response"]
    return Refusal(
        method, route, int(result["status"]), response.get("scimType"), response["detail"], parse_id(operation.resource or "")
    )


def _patch_adding(bulk_ids: frozenset[str]) -> dict[str, Any]:
    members = [{"value": f"bulkId:{bulk_id}"} for bulk_id in sorted(bulk_ids)]
    return {"schemas": [PATCH_URN], "Operations": [{"op": "add", "path": "members", "value": members}]}


class _BulkRun:
    """The state of a bulk request while it is carried out."""

    def __init__(self, services: Services, call: Call, directory: Directory, token: Token, request: BulkRequest) -> None:
        self._services, self._call, self._directory, self._token = services, call, directory, token
        self._request = request
        self._base = f"{services.base_url}/scim/{directory.slug}/v2"
        # The id of each resource to create, by bulkId: with it a reference can be stored before its resource exists. None for one
        # that is never created.
        faulty = {o.bulk_id: None for o in request.operations if o.bulk_id is not None and o.fault}
        self._ids: dict[str, str | None] = faulty | {
            o.bulk_id: str(services.ledger.new_id())
            for o in request.operations
            if o.bulk_id is not None and o.method == "POST" and not o.fault
        }
        # Budgets that all operations share.
        self._read_work, self._write_work = Work(REQUEST_STEPS, _TOO_MUCH_TOGETHER), Work(BULK_STEPS)
        self._extra_op = BULK_OPERATIONS_MAX  # op numbers of the commands that circular references need in addition
        self._errors = 0
        self._token_ended = False  # an operation got 401: the next ones would too
        self._unavailable = False  # an operation got 503: the next ones would wait as long for the same thing
        # The same of deletions that take a creation back: they are tried although other operations got 503.
        self._deletes_unavailable = False
        self.results: dict[int, dict[str, Any]] = {}

    async def all(self) -> None:
        """Carry out the operations in their order. Creations that do not refer to each other share a batch of the writer, in that order."""
        together: list[BulkOperation] = []
        turns, large = self._services.ledger.turns, len(self._request.operations) > LOOP_OPERATIONS_MAX
        for operations in await turns.computed(self._directory.id, self._rounds, large=large):
            if together and not (len(operations) == 1 and self._can_run_beside(together, operations[0])):
                await self._carry_out([(operation, operation.data) for operation in together])
                together.clear()
            if self._is_over():
                return
            if len(operations) == 1:
                together.append(operations[0])
            else:
                await self._circle(operations)
        if not self._is_over():
            await self._carry_out([(operation, operation.data) for operation in together])

    def _can_run_beside(self, together: list[BulkOperation], operation: BulkOperation) -> bool:
        """Whether an operation can run at the same time as these: it refers to none, and would be carried out if all of them failed."""
        return self._fits_beside(together, operation) and operation.needs.isdisjoint(o.bulk_id for o in together)

    def _fits_beside(self, together: list[BulkOperation], operation: BulkOperation) -> bool:
        fail_on_errors = self._request.fail_on_errors
        room = TOGETHER_MAX if fail_on_errors is None else min(TOGETHER_MAX, fail_on_errors - self._errors)
        return len(together) < room and self._reaches_queue_at_once(together[-1]) and self._reaches_queue_at_once(operation)

    def _reaches_queue_at_once(self, operation: BulkOperation) -> bool:
        """Whether it is a creation that goes to the writer's queue without awaiting anything, so that it keeps its place in the order.

        Any other operation reads first: it could be overtaken, or read while the one before it is half done.
        """
        looks_up = operation.segment == "Groups" and self._directory.profile.unknown_member != "refuse"  # its members, first
        return operation.method == "POST" and operation.size <= THREAD_BYTES_MIN and not looks_up

    async def _carry_out(self, together: Sequence[tuple[BulkOperation, Any]]) -> None:
        answers = await asyncio.gather(*(self._answer(operation, data, down=self._unavailable) for operation, data in together))
        for (operation, _), answer in zip(together, answers, strict=True):
            if answer.status >= 400:
                self._note_failure(operation, answer)
            else:
                self.results[operation.index] = self._result(operation, answer)

    def _rounds(self) -> list[tuple[BulkOperation, ...]]:
        return list(rounds(self._request.operations))

    def refuse_if_dead(self) -> None:
        """Raises Unauthorized where nothing was carried out because the token ended after it was checked."""
        found = [result["status"] for result in self.results.values()]
        if "401" in found and all(int(status) >= 400 for status in found):
            self._call.refusals.clear()
            raise Unauthorized("The token was revoked or has expired. Issue a new one and put it into the IdP.")

    def _is_over(self) -> bool:
        """Whether the rest is not carried out: after `failOnErrors` errors, after the token ended, or once the client is gone.

        A client that is gone would not learn the outcome of the rest.
        """
        too_many = self._request.fail_on_errors is not None and self._errors >= self._request.fail_on_errors
        return self._token_ended or self._call.work.gone or too_many

    def _note_failure(self, operation: BulkOperation, answer: Answer, **kept: str) -> None:
        """Note that an operation failed. A creation that failed loses its id, so that each operation that refers to it fails too.

        Otherwise they would store the id of a resource that does not exist.
        """
        self.results[operation.index] = (
            _method_and_bulk_id(operation)
            | {"status": str(answer.status)}
            | self._location(operation)
            | kept
            | {"response": orjson.loads(answer.body)}
        )
        self._errors += 1
        self._token_ended = self._token_ended or answer.status == 401
        self._unavailable = self._unavailable or answer.status == 503
        if operation.method == "POST" and operation.bulk_id is not None:
            self._ids[operation.bulk_id] = None
        self._call.refusals.append(_refusal(operation, self.results[operation.index]))

    # -- circles ------------------------------------------------------------

    async def _circle(self, circle: tuple[BulkOperation, ...]) -> None:
        """Carry out creations that refer to each other in a circle: create all, then add the members that did not exist yet.

        A user is created with its references, which are values: their ids are known beforehand. A group is created without the members
        that do not exist yet, since a member must. A resource that refers to one whose creation failed is deleted again.
        """
        later = await self._create(circle)
        self._ids |= {o.bulk_id: None for o in circle if o.index not in later and o.bulk_id is not None}
        await self._take_back(circle)
        waiting = [operation for operation in circle if later.get(operation.index)]
        for start in range(0, len(waiting), TOGETHER_MAX):
            await self._complete([o for o in waiting[start : start + TOGETHER_MAX] if self._was_created(o)], later, circle)

    async def _create(self, circle: tuple[BulkOperation, ...]) -> dict[int, frozenset[str]]:
        """Create the resources of a circle, several at once. Gives for each that was tried the members that it was created without.

        In a large circle a group is also created without members that are created at the same time: otherwise each creation would wait
        for the one before.
        """
        to_come = frozenset(operation.bulk_id for operation in circle if operation.bulk_id is not None)
        later: dict[int, frozenset[str]] = {}
        together: list[BulkOperation] = []
        for operation in (*circle, None):
            joins = self._can_run_beside if len(circle) <= TOGETHER_MAX else self._fits_beside
            if together and (operation is None or not joins(together, operation)):
                if self._is_over():
                    break
                later |= await self._create_together(together, to_come)
                to_come -= {o.bulk_id for o in together}
                if not all(map(self._was_created, together)):
                    self._fail_rest([o for o in circle if o.index not in later])
                    break
                together.clear()
            if operation is not None:
                together.append(operation)
        return later

    def _fail_rest(self, rest: list[BulkOperation]) -> None:
        """Fail the rest of a circle without trying it: each needs all others, so after one failure the rest would be deleted again."""
        for operation in rest:
            if self._is_over():
                return
            self._note_failure(operation, of_error(not_created()))

    async def _create_together(self, together: list[BulkOperation], to_come: frozenset[str]) -> dict[int, frozenset[str]]:
        later: dict[int, frozenset[str]] = {}
        some: list[tuple[BulkOperation, Any]] = []
        for operation in together:
            unborn = to_come if operation.segment == "Groups" else frozenset[str]()
            data, later[operation.index] = without_members(operation.data, unborn - {operation.bulk_id})
            some.append((operation, data))
        await self._carry_out(some)
        return later

    def _was_created(self, operation: BulkOperation) -> bool:
        return operation.bulk_id is not None and self._ids[operation.bulk_id] is not None

    async def _take_back(self, circle: tuple[BulkOperation, ...]) -> None:
        """Delete each created resource that refers to one that was not created, or was deleted here, until there is none."""
        while lost := {bulk_id for bulk_id, known in self._ids.items() if known is None}:
            broken = next((o for o in circle if self._was_created(o) and not o.needs.isdisjoint(lost)), None)
            if broken is None:
                return
            await self._undo(broken, of_error(not_created()))

    async def _complete(
        self, some: list[BulkOperation], later: Mapping[int, frozenset[str]], circle: tuple[BulkOperation, ...]
    ) -> None:
        """Add the members that groups were created without, to several groups at once, each with a commit of its own."""
        answers = await asyncio.gather(*(self._extra_operation(o, "PATCH", _patch_adding(later[o.index])) for o in some))
        for operation, answer in zip(some, answers, strict=True):
            if not self._was_created(operation):
                continue  # deleted again, because of another group
            if answer.status < 400:
                self.results[operation.index]["version"] = dict(answer.headers)[b"etag"].decode()
            else:
                await self._undo(operation, answer)
                await self._take_back(circle)

    async def _undo(self, operation: BulkOperation, why: Answer) -> None:
        """Delete a resource whose operation failed after its creation; where that fails too, the answer gives its location."""
        location = self.results[operation.index]["location"]
        undone = await self._extra_operation(operation, "DELETE", None)
        if undone.status in {204, 404}:
            self._note_failure(operation, why)
        else:
            self._deletes_unavailable = self._deletes_unavailable or undone.status == 503
            self._note_failure(operation, of_error(Unavailable(_LEFT_BEHIND, retry_after=1)), location=location)

    async def _extra_operation(self, operation: BulkOperation, method: str, data: Any) -> Answer:
        """Carry out a command that the request does not have itself, on the resource that an operation created."""
        self._extra_op += 1
        resource = self._ids[operation.bulk_id or ""]
        size = len(orjson.dumps(data))
        part = BulkOperation(self._extra_op, method, operation.segment, resource, None, None, data, size=size)
        return await self._answer(part, data, down=self._deletes_unavailable if method == "DELETE" else self._unavailable)

    # -- one operation ------------------------------------------------------

    async def _answer(self, operation: BulkOperation, data: Any, *, down: bool) -> Answer:
        if operation.fault is not None:
            return of_error(operation.fault)
        if down:
            return of_error(Unavailable(_NOT_TRIED, retry_after=1))
        patience.begin()  # each operation may wait as long as a request of its own
        kind = operation.segment.removesuffix("s").lower()
        try:
            if self._call.changed_bytes > CHANGED_BYTES_MAX:
                raise TooMany(_TOO_MUCH_TOGETHER)
            resource = resolve(operation.resource, self._ids, refers=True)
            own_id = self._ids[operation.bulk_id] if operation.method == "POST" and operation.bulk_id else None
            resolved = await self._services.ledger.turns.computed(
                self._directory.id, lambda: resolve(data, self._ids), large=operation.size > THREAD_BYTES_MIN
            )
            part = _BulkSource(
                self._call.request_id, operation.index, resolved, operation.version, UUID(own_id) if own_id else None,
                leniency=self._call.leniency, size=operation.size, work=self._read_work, effort=self._write_work, trace=self._call.trace,
            )  # fmt: skip
            write = getattr(Write(self._services, part, self._directory, self._token), f"{_VERBS[operation.method]}_{kind}")
            answer = await (write() if resource is None else write(resource))
            self._call.events += part.events
            self._call.changed_bytes += part.changed_bytes
            return answer
        except ScimError as refused:
            return of_error(refused)
        except psycopg.Error as broken:
            return of_error(scim_error(broken))

    def _result(self, operation: BulkOperation, answer: Answer) -> dict[str, Any]:
        found = _method_and_bulk_id(operation) | {"status": str(answer.status)}
        headers = dict(answer.headers)
        if b"etag" in headers:
            found["version"] = headers[b"etag"].decode()
        return found | ({"location": headers[b"location"].decode()} if b"location" in headers else self._location(operation))

    def _location(self, operation: BulkOperation) -> dict[str, str]:
        """The `location`, which each result has except that of a creation that failed (RFC 7644 §3.7)."""
        if operation.resource is None:
            return {}
        return {"location": f"{self._base}/{operation.segment}/{quote(self._id_in(operation.resource))}"}

    def _id_in(self, resource: str) -> str:
        """The id in a path, also if the path names the resource by its bulkId."""
        return (self._ids.get(resource.removeprefix("bulkId:")) if resource.startswith("bulkId:") else None) or resource
