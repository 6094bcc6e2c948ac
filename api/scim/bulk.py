"""Bulk (RFC 7644 §3.7): each operation is a command and a commit of its own, in the order given."""

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
from ledger.commands import Condition
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
CHANGED_BYTES_MAX = 128 * 2**20  # of the resources that a request changes: each is read, compared and written again
BULK_STEPS = 2_000_000  # of all PATCHes of a request together: ten seconds of one core
TOGETHER_MAX = 16  # creations under way at once: as many as a directory has in a batch of the writer, each a commit of its own
LOOP_OPERATIONS_MAX = 50  # put in order on the event loop
_TOO_MUCH = "The operations of this request need too much work together. Send several requests."
_NOT_TRIED = "An operation before this one could not be carried out now, so this one was not tried. Send it again."
_LEFT_BEHIND = "The resource was created, but not all that it refers to, and could not be taken back. Delete it, then send the operation again."
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
    leniency: Leniency = field(default_factory=Leniency)
    size: int = 1_000  # bytes of `data` as JSON
    work: Work = field(default_factory=lambda: Work(REQUEST_STEPS))
    effort: Work = field(default_factory=lambda: Work(BULK_STEPS))
    shows: bool = False  # the answer of a bulk request has no resources
    events: int = 0
    changed_bytes: int = 0

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
    """Carry out a bulk request; the answer has one entry for each operation that was tried, in the order of the request."""
    content = await call.content(BULK_BYTES_MAX)
    call.watch()

    def read() -> BulkRequest:
        return read_bulk(content.load(), call.leniency)

    request = await services.ledger.turns.compute(directory.id, read) if content.size > THREAD_BYTES_MIN else read()
    run = _Run(services, call, directory, token, request)
    await run.all()
    run.refuse_if_dead()
    return as_json(200, {"schemas": [RESPONSE_URN], "Operations": [run.results[index] for index in sorted(run.results)]})


def _named(operation: BulkOperation) -> dict[str, Any]:
    shown: dict[str, Any] = {"method": operation.method} if operation.method else {}
    return shown if operation.bulk_id is None else shown | {"bulkId": operation.bulk_id}


def _refusal(operation: BulkOperation, result: dict[str, Any]) -> Refusal:
    """For the journal, which shows no text of the client: a method that is none, and no id."""
    method = operation.method if operation.method in METHODS else "-"
    route = "/Bulk" + (f"/{operation.segment}" if operation.segment else "") + ("/{id}" if operation.resource else "")
    response: dict[str, Any] = result["response"]
    return Refusal(method, route, int(result["status"]), response.get("scimType"), response["detail"])


def _adding(bulk_ids: frozenset[str]) -> dict[str, Any]:
    members = [{"value": f"bulkId:{bulk_id}"} for bulk_id in sorted(bulk_ids)]
    return {"schemas": [PATCH_URN], "Operations": [{"op": "add", "path": "members", "value": members}]}


class _Run:
    """The state of a bulk request under way."""

    def __init__(self, services: Services, call: Call, directory: Directory, token: Token, request: BulkRequest) -> None:
        self._services, self._call, self._directory, self._token = services, call, directory, token
        self._request = request
        self._base = f"{services.base_url}/scim/{directory.slug}/v2"
        # Ids are given out beforehand: a reference can be written before the resource it names exists. None: it never will.
        faulty = {o.bulk_id: None for o in request.operations if o.bulk_id is not None and o.fault}
        self._ids: dict[str, str | None] = faulty | {
            o.bulk_id: str(services.ledger.new_id())
            for o in request.operations
            if o.bulk_id is not None and o.method == "POST" and not o.fault
        }
        self._reading, self._effort = Work(REQUEST_STEPS, _TOO_MUCH), Work(BULK_STEPS)  # what all operations share
        self._extra = BULK_OPERATIONS_MAX  # the numbers of what circular references need besides
        self._errors = 0
        self._dead = False  # the token: whatever would come next is refused too
        self._down = False  # what an operation needs: whatever would come next would wait for it as long again
        self._stays = False  # what was to be taken back: the same of that, which is tried also after another operation failed
        self.results: dict[int, dict[str, Any]] = {}

    async def all(self) -> None:
        """Operations in their order. Creations that do not need each other share a batch of the writer, which keeps their order."""
        together: list[BulkOperation] = []
        turns, large = self._services.ledger.turns, len(self._request.operations) > LOOP_OPERATIONS_MAX
        for operations in await turns.computed(self._directory.id, self._rounds, large=large):
            if together and not (len(operations) == 1 and self._joins(together, operations[0])):
                await self._carry_out([(operation, operation.data) for operation in together])
                together.clear()
            if self._given_up():
                return
            if len(operations) == 1:
                together.append(operations[0])
            else:
                await self._circle(operations)
        if not self._given_up():
            await self._carry_out([(operation, operation.data) for operation in together])

    def _joins(self, together: list[BulkOperation], operation: BulkOperation) -> bool:
        """Whether it can be under way at the same time: it needs none of them, and would be carried out if all of them failed."""
        return self._has_room(together, operation) and operation.needs.isdisjoint(o.bulk_id for o in together)

    def _has_room(self, together: list[BulkOperation], operation: BulkOperation) -> bool:
        fail_on_errors = self._request.fail_on_errors
        room = TOGETHER_MAX if fail_on_errors is None else min(TOGETHER_MAX, fail_on_errors - self._errors)
        return len(together) < room and self._shares(together[-1]) and self._shares(operation)

    def _shares(self, operation: BulkOperation) -> bool:
        """A creation that reaches the writer's queue at once. Anything else could overtake, or see what comes before it half done."""
        looks_up = operation.segment == "Groups" and self._directory.profile.unknown_member != "refuse"  # its members, first
        return operation.method == "POST" and operation.size <= THREAD_BYTES_MIN and not looks_up

    async def _carry_out(self, together: Sequence[tuple[BulkOperation, Any]]) -> None:
        answers = await asyncio.gather(*(self._answer(operation, data, down=self._down) for operation, data in together))
        for (operation, _), answer in zip(together, answers, strict=True):
            if answer.status >= 400:
                self._failed(operation, answer)
            else:
                self.results[operation.index] = self._described(operation, answer)

    def _rounds(self) -> list[tuple[BulkOperation, ...]]:
        return list(rounds(self._request.operations))

    def refuse_if_dead(self) -> None:
        """Raises Unauthorized where nothing was carried out because the token died since it was asked about."""
        found = [result["status"] for result in self.results.values()]
        if "401" in found and all(int(status) >= 400 for status in found):
            self._call.refusals.clear()
            raise Unauthorized("The token was revoked or has expired. Issue a new one and put it into the IdP.")

    def _given_up(self) -> bool:
        """After so many errors as the client said, or once it went away: nobody would learn what became of the rest."""
        too_many = self._request.fail_on_errors is not None and self._errors >= self._request.fail_on_errors
        return self._dead or self._call.work.gone or too_many

    def _failed(self, operation: BulkOperation, answer: Answer, **kept: str) -> None:
        """What was not created has no id: whatever refers to it fails too, instead of keeping the id of nobody."""
        self.results[operation.index] = (
            _named(operation)
            | {"status": str(answer.status)}
            | self._place(operation)
            | kept
            | {"response": orjson.loads(answer.body)}
        )
        self._errors += 1
        self._dead = self._dead or answer.status == 401
        self._down = self._down or answer.status == 503
        if operation.method == "POST" and operation.bulk_id is not None:
            self._ids[operation.bulk_id] = None
        self._call.refusals.append(_refusal(operation, self.results[operation.index]))

    # -- circles ------------------------------------------------------------

    async def _circle(self, circle: tuple[BulkOperation, ...]) -> None:
        """Create what refers to each other, then add the references that had to wait. What refers to a failure is taken back.

        A user is created with all its references: they are values, whose ids are known beforehand. A member must exist.
        """
        later = await self._create(circle)
        self._ids |= {o.bulk_id: None for o in circle if o.index not in later and o.bulk_id is not None}
        await self._take_back(circle)
        waiting = [operation for operation in circle if later.get(operation.index)]
        for start in range(0, len(waiting), TOGETHER_MAX):
            await self._complete([o for o in waiting[start : start + TOGETHER_MAX] if self._exists(o)], later, circle)

    async def _create(self, circle: tuple[BulkOperation, ...]) -> dict[int, frozenset[str]]:
        """Create them, several at once. Gives the members that each was created without, of those that were carried out.

        In a large circle also what is under way counts as still to come: its creations would otherwise wait for each other one by one.
        """
        to_come = frozenset(operation.bulk_id for operation in circle if operation.bulk_id is not None)
        later: dict[int, frozenset[str]] = {}
        together: list[BulkOperation] = []
        for operation in (*circle, None):
            joins = self._joins if len(circle) <= TOGETHER_MAX else self._has_room
            if together and (operation is None or not joins(together, operation)):
                if self._given_up():
                    break
                later |= await self._create_some(together, to_come)
                to_come -= {o.bulk_id for o in together}
                if not all(map(self._exists, together)):
                    self._leave_out([o for o in circle if o.index not in later])
                    break
                together.clear()
            if operation is not None:
                together.append(operation)
        return later

    def _leave_out(self, rest: list[BulkOperation]) -> None:
        """In a circle each needs all others: once one was not created, what would come after it would only be taken back."""
        for operation in rest:
            if self._given_up():
                return
            self._failed(operation, of_error(not_created()))

    async def _create_some(self, together: list[BulkOperation], to_come: frozenset[str]) -> dict[int, frozenset[str]]:
        later: dict[int, frozenset[str]] = {}
        some: list[tuple[BulkOperation, Any]] = []
        for operation in together:
            unborn = to_come if operation.segment == "Groups" else frozenset[str]()
            data, later[operation.index] = without_members(operation.data, unborn - {operation.bulk_id})
            some.append((operation, data))
        await self._carry_out(some)
        return later

    def _exists(self, operation: BulkOperation) -> bool:
        return operation.bulk_id is not None and self._ids[operation.bulk_id] is not None

    async def _take_back(self, circle: tuple[BulkOperation, ...]) -> None:
        """Delete what was created with a reference to what was not, until nothing of it is left."""
        while lost := {bulk_id for bulk_id, known in self._ids.items() if known is None}:
            broken = next((o for o in circle if self._exists(o) and not o.needs.isdisjoint(lost)), None)
            if broken is None:
                return
            await self._undo(broken, of_error(not_created()))

    async def _complete(
        self, some: list[BulkOperation], later: Mapping[int, frozenset[str]], circle: tuple[BulkOperation, ...]
    ) -> None:
        """Add the members that had to wait. Groups are changed at once, each by a commit of its own."""
        answers = await asyncio.gather(*(self._besides(o, "PATCH", _adding(later[o.index])) for o in some))
        for operation, answer in zip(some, answers, strict=True):
            if not self._exists(operation):
                continue  # taken back with another
            if answer.status < 400:
                self.results[operation.index]["version"] = dict(answer.headers)[b"etag"].decode()
            else:
                await self._undo(operation, answer)
                await self._take_back(circle)

    async def _undo(self, operation: BulkOperation, why: Answer) -> None:
        """A creation that failed leaves nothing behind; where it does, the answer says so."""
        location = self.results[operation.index]["location"]
        undone = await self._besides(operation, "DELETE", None)
        if undone.status in {204, 404}:
            self._failed(operation, why)
        else:
            self._stays = self._stays or undone.status == 503
            self._failed(operation, of_error(Unavailable(_LEFT_BEHIND, retry_after=1)), location=location)

    async def _besides(self, operation: BulkOperation, method: str, data: Any) -> Answer:
        """Carry out what the request did not ask for itself, on what the operation has created."""
        self._extra += 1
        resource = self._ids[operation.bulk_id or ""]
        size = len(orjson.dumps(data))
        part = BulkOperation(self._extra, method, operation.segment, resource, None, None, data, size=size)
        return await self._answer(part, data, down=self._stays if method == "DELETE" else self._down)

    # -- one operation ------------------------------------------------------

    async def _answer(self, operation: BulkOperation, data: Any, *, down: bool) -> Answer:
        if operation.fault is not None:
            return of_error(operation.fault)
        if down:
            return of_error(Unavailable(_NOT_TRIED, retry_after=1))
        patience.begin()  # for each: those before it were carried out
        kind = operation.segment.removesuffix("s").lower()
        try:
            if self._call.changed_bytes > CHANGED_BYTES_MAX:
                raise TooMany(_TOO_MUCH)
            resource = resolve(operation.resource, self._ids, refers=True)
            own_id = self._ids[operation.bulk_id] if operation.method == "POST" and operation.bulk_id else None
            resolved = await self._services.ledger.turns.computed(
                self._directory.id, lambda: resolve(data, self._ids), large=operation.size > THREAD_BYTES_MIN
            )
            part = _Part(
                self._call.request_id, operation.index, resolved, operation.version, UUID(own_id) if own_id else None,
                leniency=self._call.leniency, size=operation.size, work=self._reading, effort=self._effort,
            )  # fmt: skip
            write = getattr(Write(self._services, part, self._directory, self._token), f"{_NAMES[operation.method]}_{kind}")
            answer = await (write() if resource is None else write(resource))
            self._call.events += part.events
            self._call.changed_bytes += part.changed_bytes
            return answer
        except ScimError as refused:
            return of_error(refused)
        except psycopg.Error as broken:
            return of_error(scim_error(broken))

    def _described(self, operation: BulkOperation, answer: Answer) -> dict[str, Any]:
        found = _named(operation) | {"status": str(answer.status)}
        headers = dict(answer.headers)
        if b"etag" in headers:
            found["version"] = headers[b"etag"].decode()
        return found | ({"location": headers[b"location"].decode()} if b"location" in headers else self._place(operation))

    def _place(self, operation: BulkOperation) -> dict[str, str]:
        """The location, which every answer has but that of a creation that failed (RFC 7644 §3.7)."""
        if operation.resource is None:
            return {}
        return {"location": f"{self._base}/{operation.segment}/{quote(self._known(operation.resource))}"}

    def _known(self, resource: str) -> str:
        """The id of the resource, also where the path names it by its bulkId."""
        return (self._ids.get(resource.removeprefix("bulkId:")) if resource.startswith("bulkId:") else None) or resource
