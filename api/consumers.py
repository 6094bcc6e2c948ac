"""Consumers over HTTP (docs/consumers.md): create, read, pull, acknowledge; pause, seek, retry, park and skip for operators."""

import asyncio
from collections.abc import Sequence
from typing import Annotated, Final, Literal, NotRequired, TypedDict

from fastapi import APIRouter, Query, Request
from msgspec import Meta
from pydantic import Field

from api.answers import Created, Encoded, Json, ListOf, NoContent, listed
from api.bodies import Body
from api.events import WAIT_MAX_S, EventPage, page_response, until_news
from api.gate import caller_of
from api.invalid_fields import StrictRoute
from api.revocation import still_allowed, token_hash_of
from api.services import Services
from delivery.consumers import BATCH_EVENTS_MAX, SECRET_OVERLAP_S
from delivery.lanes import Ordering
from delivery.terms import Mode
from ledger.event_data import Count
from ledger.events import TYPE_PATTERNS
from ledger.feed import PAGE_MAX
from operations import consumers, deliveries
from operations.consumers import Changes, ConsumerAudit, ConsumerStatus
from operations.deliveries import FailedDelivery, Verb

LIST_MAX = 1_000
DELIVERY_ACTS: Final[tuple[tuple[str, Verb], ...]] = (
    ("blocked", "retry"), ("blocked", "park"), ("blocked", "skip"), ("parked", "retry"), ("parked", "skip"),
)  # fmt: skip
ITEMS_MAX = 10_000  # names in a list of a body: far more than there are directories or types
# Named in the description only: the operation refuses others, and says what there is.
TypeName = Annotated[str, Field(json_schema_extra={"enum": list(TYPE_PATTERNS)})]
StartWords = Annotated[str, Field(json_schema_extra={"examples": ["beginning", "now", "seq:42", "2026-10-01T00:00:00Z"]})]
Reason = Annotated[str, Field(min_length=1, max_length=500)]


class ConsumerBody(Body):
    """The body of PUT. Fields that are left out stay as they are on an existing consumer."""

    directories: Annotated[tuple[str, ...] | None, Field(max_length=ITEMS_MAX)] = None
    types: Annotated[tuple[TypeName, ...] | None, Field(max_length=ITEMS_MAX)] = None
    start: StartWords | None = None
    mode: Mode | None = None
    ordering: Ordering | None = None
    batch_max: Annotated[int | None, Field(ge=1, le=BATCH_EVENTS_MAX)] = None
    url: str | None = None
    retry_schedule: Annotated[tuple[int, ...] | None, Field(max_length=ITEMS_MAX)] = None

    def changes(self) -> Changes:
        """The fields that are present."""
        return Changes(**self.model_dump(exclude_none=True, exclude={"start"}))  # pyright: ignore[reportReturnType]


class AckBody(Body):
    through: str


class SeekBody(Body):
    to: str | int
    reason: Reason
    dry_run: bool = False


class ReasonBody(Body):
    reason: Reason


class RetryBody(ReasonBody):
    superseded: Literal["skip", "include"] = "skip"


class RotateSecretBody(Body):
    overlap_seconds: int = SECRET_OVERLAP_S


class PutConsumer(ConsumerStatus):
    """A consumer as it is now. `secret`: of a new webhook, shown once; `warnings`: what the change may not have meant."""

    secret: NotRequired[str]
    warnings: NotRequired[Sequence[str]]


class ShownSecret(TypedDict):
    """A new secret, shown once. The one before it signs, too, until the overlap ends."""

    object: Literal["secret"]
    consumer: str
    secret: str
    overlap_seconds: Count


class Ping(TypedDict):
    """What the receiver answered to a test message, cut to what is shown. `seconds`: the time to the answer."""

    object: Literal["ping"]
    ok: bool
    status: int | None
    error: str | None
    answer: str | None
    seconds: float


class NamedAudit(ConsumerAudit):
    consumer: str


class Ack(TypedDict):
    """The place of a consumer after an acknowledgement; `changed`: whether this one moved it."""

    object: Literal["ack"]
    consumer: str
    position: Annotated[Count, Meta(description="Nothing up to here is merely under way.")]
    acked_position: Annotated[Count, Meta(description="The same as `position`.")]
    changed: bool


class Seek(TypedDict):
    """How a consumer was moved, or would be: how many events it gets again, or passes over."""

    object: Literal["seek"]
    consumer: str
    dry_run: bool
    direction: Literal["back", "forward"]
    from_position: Count
    to_position: Count
    delivered_again: NotRequired[Count]
    passed_over: NotRequired[Count]


class DoneDelivery(TypedDict):
    """What was done about a delivery, and why."""

    object: Literal["delivery"]
    consumer: str
    event_id: str
    done: Verb
    reason: str


def routes(services: Services) -> APIRouter:
    """/v1/consumers and everything below."""
    router = APIRouter(route_class=StrictRoute)
    _add_definition(router, services)
    _add_states(router, services)
    _add_pull(router, services)
    _add_deliveries(router, services)
    return router


def _add_definition(router: APIRouter, services: Services) -> None:
    ledger = services.ledger

    @router.put("/v1/consumers/{name}", name="consumers.put")
    async def put_consumer(request: Request, name: str, body: ConsumerBody) -> Json[PutConsumer] | Created[PutConsumer]:
        put = await consumers.put(
            ledger, caller_of(request), name, body.changes(), body.start, services.webhooks.allowed, exists=_condition(request)
        )
        shown: PutConsumer = {**put.status}
        if put.secret:
            shown["secret"] = put.secret
        if put.warnings:
            shown["warnings"] = put.warnings
        return Created(shown) if put.created else Json(shown)

    @router.get("/v1/consumers", name="consumers.list")
    async def list_consumers(request: Request) -> Json[ListOf[ConsumerStatus]]:
        return listed(await consumers.list_all(ledger, caller_of(request)))

    @router.get("/v1/consumers/{name}", name="consumers.show")
    async def get_consumer(request: Request, name: str) -> Json[ConsumerStatus]:
        return Json(await consumers.show(ledger, caller_of(request), name))

    @router.delete("/v1/consumers/{name}", name="consumers.delete")
    async def delete_consumer(request: Request, name: str) -> NoContent:
        await consumers.delete(ledger, caller_of(request), name)
        return NoContent()


def _condition(request: Request) -> bool | None:
    """Whether the consumer must exist: `If-Match` says that it must, `If-None-Match: *` that it must not (RFC 9110 §13.1)."""
    if "if-match" in request.headers:
        return True
    return False if request.headers.get("if-none-match", "").strip() == "*" else None


def _add_states(router: APIRouter, services: Services) -> None:
    ledger = services.ledger

    @router.post("/v1/consumers/{name}/pause", name="consumers.pause")
    async def pause_consumer(request: Request, name: str) -> Json[ConsumerStatus]:
        return Json(await consumers.pause(ledger, caller_of(request), name))

    @router.post("/v1/consumers/{name}/resume", name="consumers.resume")
    async def resume_consumer(request: Request, name: str) -> Json[ConsumerStatus]:
        return Json(await consumers.resume(ledger, caller_of(request), name))

    @router.post("/v1/consumers/{name}/forked/close", name="consumers.close_fork")
    async def close_fork(request: Request, name: str, body: ReasonBody) -> Json[ConsumerStatus]:
        return Json(await consumers.close_fork(ledger, caller_of(request), name, body.reason))

    @router.post("/v1/consumers/{name}/rotate-secret", name="consumers.rotate_secret")
    async def rotate_secret(request: Request, name: str, body: RotateSecretBody) -> Json[ShownSecret]:
        secret = await consumers.rotate_secret(ledger, caller_of(request), name, body.overlap_seconds)
        return Json({"object": "secret", "consumer": name, "secret": secret, "overlap_seconds": body.overlap_seconds})

    @router.post("/v1/consumers/{name}/ping", name="consumers.ping")
    async def ping_consumer(request: Request, name: str) -> Json[Ping]:
        got = await consumers.ping(ledger, caller_of(request), name, services.webhooks)
        return Json(
            {
                "object": "ping",
                "ok": got.ok,
                "status": got.status,
                "error": got.error,
                "answer": got.answer,
                "seconds": got.seconds,
            }
        )

    @router.get("/v1/consumers/{name}/audit", name="consumers.audit")
    async def audit_consumer(
        request: Request, name: str, start: Annotated[str | None, Query(alias="from")] = None, to: str | None = None
    ) -> Json[NamedAudit]:
        return Json({"consumer": name, **await consumers.audit(ledger, caller_of(request), name, start, to)})


def _add_pull(router: APIRouter, services: Services) -> None:
    ledger = services.ledger

    @router.get("/v1/consumers/{name}/events", name="consumers.pull")
    async def pull_events(
        request: Request,
        name: str,
        limit: Annotated[int, Query(ge=1, le=PAGE_MAX)] = 100,
        wait: Annotated[int, Query(ge=0, le=WAIT_MAX_S)] = 0,
        expand: str | None = None,
    ) -> Encoded[EventPage]:
        deadline = asyncio.get_running_loop().time() + wait
        while True:
            arrival = services.arrivals.next()
            page = await consumers.pull(ledger, caller_of(request), name, limit, expand)
            await still_allowed(services, token_hash_of(request))
            left = deadline - asyncio.get_running_loop().time()
            if page.events or page.has_more or left <= 0 or services.stopping:
                return await page_response(page)
            await until_news(arrival, left)

    @router.post("/v1/consumers/{name}/ack", name="consumers.acknowledge")
    async def ack(request: Request, name: str, body: AckBody) -> Json[Ack]:
        done = await consumers.acknowledge(ledger, caller_of(request), name, body.through)
        return Json(
            {
                "object": "ack",
                "consumer": name,
                "position": done.position,
                "acked_position": done.position,
                "changed": done.changed,
            }
        )

    @router.post("/v1/consumers/{name}/seek", name="consumers.seek")
    async def seek_consumer(request: Request, name: str, body: SeekBody) -> Json[Seek]:
        moved = await consumers.seek(ledger, caller_of(request), name, str(body.to), body.reason, dry_run=body.dry_run)
        shown: Seek = {
            "object": "seek", "consumer": name, "dry_run": body.dry_run, "direction": "back" if moved.back else "forward",
            "from_position": moved.from_position, "to_position": moved.to_position,
        }  # fmt: skip
        shown["delivered_again" if moved.back else "passed_over"] = moved.count
        return Json(shown)


def _add_deliveries(router: APIRouter, services: Services) -> None:
    ledger = services.ledger

    @router.get("/v1/consumers/{name}/blocked", name="deliveries.blocked")
    async def list_blocked(
        request: Request, name: str, after: int = 0, limit: Annotated[int, Query(ge=1, le=LIST_MAX)] = 100
    ) -> Json[ListOf[FailedDelivery]]:
        rows, more = await deliveries.list_blocked(ledger, caller_of(request), name, after, limit)
        return listed(rows, after=more)

    @router.get("/v1/consumers/{name}/parked", name="deliveries.parked")
    async def list_parked(
        request: Request, name: str, after: int = 0, limit: Annotated[int, Query(ge=1, le=LIST_MAX)] = 100
    ) -> Json[ListOf[FailedDelivery]]:
        rows, more = await deliveries.list_parked(ledger, caller_of(request), name, after, limit)
        return listed(rows, after=more)

    async def act(
        request: Request, name: str, event_id: str, verb: Verb, body: ReasonBody, *, of_parked: bool
    ) -> Json[DoneDelivery]:
        again = body.superseded if isinstance(body, RetryBody) else "skip"
        caller = caller_of(request)
        await deliveries.act(ledger, caller, name, event_id, verb, body.reason, of_parked=of_parked, superseded=again)
        return Json({"object": "delivery", "consumer": name, "event_id": event_id, "done": verb, "reason": body.reason})

    def add(state: str, verb: Verb) -> None:
        place = f"/v1/consumers/{{name}}/{state}/{{event_id}}/{verb}"
        if verb == "retry":

            @router.post(place, name="deliveries.act")
            async def retry(request: Request, name: str, event_id: str, body: RetryBody) -> Json[DoneDelivery]:
                return await act(request, name, event_id, verb, body, of_parked=state == "parked")
        else:

            @router.post(place, name="deliveries.act")
            async def aside(request: Request, name: str, event_id: str, body: ReasonBody) -> Json[DoneDelivery]:
                return await act(request, name, event_id, verb, body, of_parked=state == "parked")

    for state, verb in DELIVERY_ACTS:
        add(state, verb)
