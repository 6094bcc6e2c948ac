"""Consumers over HTTP (CONTRACT §5): making them, reading and acknowledging by pull, and what operators do about deliveries."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Any

import orjson
from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from api.acts import Caller, as_json, authorised, caller_of, record
from api.events import WAIT_MAX_S, encode_page, until_news
from api.problems import ProblemError
from api.services import Services
from database.arrays import int4s
from database.connections import Connection
from delivery import consumers as acts
from delivery import starts
from delivery.audit import audit, summary
from delivery.consumers import Consumer, Definition, check_definition, consumer_named
from delivery.operating import parked, retried, skipped
from delivery.progress import BLOCKED, PARKED, RETRYING, Exceptional, acknowledge, exception_at, exceptions, place_of
from delivery.signing import new_secret
from delivery.status import shown, status_of
from delivery.surges import held_commits, limits
from delivery.transports.webhook import Message, Sender
from ledger.cursor import InvalidCursorError, decode_cursor, parse_event_id
from ledger.feed import PAGE_MAX, Page, Selection, rfc3339, type_mask
from ledger.tokens import Token

OPERATORS = ("operator", "admin")
READERS = ("consumer", "operator", "admin")
LIST_MAX = 1_000
Reason = Annotated[str, Field(min_length=1, max_length=500)]


class ConsumerBody(BaseModel):
    """What PUT takes. On an existing consumer what is left out stays as it is."""

    model_config = ConfigDict(extra="forbid")

    directories: list[str] | None = None
    types: list[str] | None = None
    start: str | None = None
    mode: str | None = None
    ordering: str | None = None
    batch_max: int | None = None
    url: str | None = None
    retry_schedule: list[int] | None = None


class AckBody(BaseModel):
    model_config = ConfigDict(extra="forbid")
    through: str


class SeekBody(BaseModel):
    model_config = ConfigDict(extra="forbid")
    to: str | int
    reason: Reason
    dry_run: bool = False


class ReasonBody(BaseModel):
    model_config = ConfigDict(extra="forbid")
    reason: Reason


class RotateBody(BaseModel):
    model_config = ConfigDict(extra="forbid")
    overlap_seconds: int = 86_400


def routes(services: Services) -> APIRouter:
    """/v1/consumers and everything below."""
    router = APIRouter()
    _add_definition(router, services)
    _add_pull(router, services)
    _add_operating(router, services)
    return router


def _add_definition(router: APIRouter, services: Services) -> None:
    @router.put("/v1/consumers/{name}")
    async def put_consumer(request: Request, name: str, body: ConsumerBody) -> Response:
        token = await authorised(services, request, *OPERATORS)
        return await put(services, caller_of(request, token), name, body, token)

    @router.get("/v1/consumers")
    async def list_consumers(request: Request) -> Response:
        token = await authorised(services, request, *READERS)
        async with services.pool.connection() as conn:
            directories = await services.directories.all(conn)
            found = [c for c in await acts.consumers(conn) if _uses(token, c.name)]
            rows = [await status_of(conn, services.feed, services.kek, c, directories) for c in found]
        return as_json({"object": "list", "data": rows})

    @router.get("/v1/consumers/{name}")
    async def get_consumer(request: Request, name: str) -> Response:
        token = await authorised(services, request, *READERS)
        async with services.pool.connection() as conn:
            return as_json(await status(services, conn, await consumer(conn, name, token)))

    @router.delete("/v1/consumers/{name}")
    async def delete_consumer(request: Request, name: str) -> Response:
        token = await authorised(services, request, *OPERATORS)
        async with services.pool.connection() as conn:
            await remove(services, conn, caller_of(request, token), name)
        return Response(status_code=204)

    @router.post("/v1/consumers/{name}/pause")
    async def pause_consumer(request: Request, name: str) -> Response:
        return await _moved(request, name, "paused")

    @router.post("/v1/consumers/{name}/resume")
    async def resume_consumer(request: Request, name: str) -> Response:
        return await _moved(request, name, "active")

    async def _moved(request: Request, name: str, state: str) -> Response:
        token = await authorised(services, request, *OPERATORS)
        async with services.pool.connection() as conn:
            await move(services, conn, caller_of(request, token), name, state)
            return as_json(await status(services, conn, await consumer(conn, name)))

    @router.post("/v1/consumers/{name}/rotate-secret")
    async def rotate_secret(request: Request, name: str, body: RotateBody) -> Response:
        token = await authorised(services, request, *OPERATORS)
        async with services.pool.connection() as conn:
            return as_json(await rotate(services, conn, caller_of(request, token), name, body.overlap_seconds))

    @router.post("/v1/consumers/{name}/ping")
    async def ping_consumer(request: Request, name: str) -> Response:
        await authorised(services, request, *OPERATORS)
        async with services.pool.connection() as conn:
            found = await consumer(conn, name)
        return as_json(await ping(services, found))


def _add_pull(router: APIRouter, services: Services) -> None:
    @router.get("/v1/consumers/{name}/events")
    async def pull_events(
        request: Request,
        name: str,
        limit: Annotated[int, Query(ge=1, le=PAGE_MAX)] = 100,
        wait: Annotated[int, Query(ge=0, le=WAIT_MAX_S)] = 0,
    ) -> Response:
        token = await authorised(services, request, *READERS)
        async with services.pool.connection() as conn:
            found = await _pulling(conn, name, token)
        deadline = asyncio.get_running_loop().time() + wait
        while True:
            arrival = services.arrivals.next()
            async with services.pool.connection() as conn:
                page = await _next_page(services, conn, found, token, limit)
                left = deadline - asyncio.get_running_loop().time()
                if page.events or page.has_more or left <= 0 or services.stopping:
                    await _mark_held(conn, page)
                    return Response(encode_page(page), media_type="application/json")
            await until_news(arrival, left)

    @router.post("/v1/consumers/{name}/ack")
    async def ack(request: Request, name: str, body: AckBody) -> Response:
        token = await authorised(services, request, *READERS)
        async with services.pool.connection() as conn:
            found = await _pulling(conn, name, token)
            return as_json(await acked(services, conn, found, body.through))

    @router.post("/v1/consumers/{name}/seek")
    async def seek_consumer(request: Request, name: str, body: SeekBody) -> Response:
        token = await authorised(services, request, *OPERATORS)
        async with services.pool.connection() as conn:
            found = await consumer(conn, name)
            return as_json(await seek(services, conn, caller_of(request, token), found, body))


def _add_operating(router: APIRouter, services: Services) -> None:
    @router.get("/v1/consumers/{name}/audit")
    async def audit_consumer(
        request: Request, name: str, start: Annotated[str | None, Query(alias="from")] = None, to: str | None = None
    ) -> Response:
        await authorised(services, request, *OPERATORS, "auditor")
        async with services.pool.connection() as conn:
            return as_json(await audited(services, conn, await consumer(conn, name), start, to))

    @router.get("/v1/consumers/{name}/blocked")
    async def list_blocked(
        request: Request, name: str, after: int = 0, limit: Annotated[int, Query(ge=1, le=LIST_MAX)] = 100
    ) -> Response:
        await authorised(services, request, *OPERATORS)
        async with services.pool.connection() as conn:
            return as_json(await listed(services, conn, await consumer(conn, name), (BLOCKED, RETRYING), after, limit))

    @router.get("/v1/consumers/{name}/parked")
    async def list_parked(
        request: Request, name: str, after: int = 0, limit: Annotated[int, Query(ge=1, le=LIST_MAX)] = 100
    ) -> Response:
        await authorised(services, request, *OPERATORS)
        async with services.pool.connection() as conn:
            return as_json(await listed(services, conn, await consumer(conn, name), (PARKED,), after, limit))

    @router.post("/v1/consumers/{name}/blocked/{event_id}/{verb}")
    async def act_on_blocked(request: Request, name: str, event_id: str, verb: str, body: ReasonBody) -> Response:
        token = await authorised(services, request, *OPERATORS)
        if verb not in {"retry", "park", "skip"}:
            raise ProblemError(404, "not_found", "A blocked delivery can be retried, parked or skipped.")
        async with services.pool.connection() as conn:
            return as_json(
                await operate(services, conn, caller_of(request, token), name, event_id, verb, body.reason, (BLOCKED, RETRYING))
            )

    @router.post("/v1/consumers/{name}/parked/{event_id}/{verb}")
    async def act_on_parked(request: Request, name: str, event_id: str, verb: str, body: ReasonBody) -> Response:
        token = await authorised(services, request, *OPERATORS)
        if verb not in {"retry", "skip"}:
            raise ProblemError(404, "not_found", "A parked delivery can be retried or skipped.")
        async with services.pool.connection() as conn:
            return as_json(await operate(services, conn, caller_of(request, token), name, event_id, verb, body.reason, (PARKED,)))


# -- what the routes and the command line share -------------------------------


def _uses(token: Token | None, name: str) -> bool:
    return token is None or token.role != "consumer" or "*" in token.consumers or name in token.consumers


async def consumer(conn: Connection, name: str, token: Token | None = None) -> Consumer:
    """The consumer of a name. Raises ProblemError 403 where the token does not name it, 404 where there is none."""
    if not _uses(token, name):
        raise ProblemError(403, "forbidden", "This token does not reach a consumer of that name.")
    found = await consumer_named(conn, name) if acts.NAME.fullmatch(name) else None
    if found is None:
        raise ProblemError(404, "not_found", "There is no consumer of that name. GET /v1/consumers lists them.")
    return found


async def _pulling(conn: Connection, name: str, token: Token) -> Consumer:
    """A consumer that this token may read for: all of it, because what it acknowledges it must have been able to see."""
    found = await consumer(conn, name, token)
    if found.definition.mode != "pull":
        raise ProblemError(409, "not_a_pull_consumer", "Its events are pushed. GET /v1/events reads the feed beside it.")
    if found.state != "active":
        raise ProblemError(409, "consumer_paused", "The consumer is paused. An operator resumes it.")
    allowed = type_mask(token.types) or 0
    if found.mask & ~allowed or not all(_reaches(token, slug) for slug in found.definition.directories):
        raise ProblemError(403, "forbidden", "This token sees less than the consumer reads: it cannot acknowledge for it.")
    return found


def _reaches(token: Token, slug: str) -> bool:
    if slug.startswith("_"):
        return token.role in OPERATORS and "*" in token.directories
    return "*" in token.directories if slug == "*" else token.reaches(slug)


async def status(services: Services, conn: Connection, found: Consumer) -> dict[str, Any]:
    return await status_of(conn, services.feed, services.kek, found, await services.directories.all(conn))


async def put(services: Services, caller: Caller, name: str, body: ConsumerBody, token: Token | None = None) -> Response:
    """Make a consumer, or give it another definition."""
    if not acts.NAME.fullmatch(name):
        raise ProblemError(
            400, "refused", "A consumer's name is 1 to 63 of a-z, 0-9, _, . and -, beginning with a letter or digit."
        )
    async with services.pool.connection() as conn:
        directories = await services.directories.all(conn)
        known = await consumer_named(conn, name)
        asked = _asked(known.definition if known else Definition(), body)
        check_definition(asked, [d.slug for d in directories], services.webhooks)
        if token is not None and not all(_reaches(token, slug) for slug in asked.directories):
            raise ProblemError(403, "forbidden", "This token does not reach all of these directories.")
        warnings: list[str] = []
        secret = None
        if known is None:
            secret = await _create(services, conn, caller, name, asked, body.start)
        else:
            if body.start is not None:
                warnings.append("`start` was ignored: the consumer exists. POST …/seek moves it.")
            change = acts.change(known, asked)
            if change is not None:
                await record(services, conn, caller, change)
        answer = await status(services, conn, await consumer(conn, name))
    extra = {**({"secret": secret} if secret else {}), **({"warnings": warnings} if warnings else {})}
    return as_json({**answer, **extra}, 201 if known is None else 200)


async def _create(
    services: Services, conn: Connection, caller: Caller, name: str, asked: Definition, start: str | None
) -> str | None:
    directories = [d for d in await services.directories.all(conn) if d.slug in asked.directories]
    position = await starts.before(conn, services.feed, start or "beginning", directories)
    secret = new_secret(services.entropy) if asked.mode == "webhook" else None
    number = await acts.reserve_id(conn)
    made = acts.creation(
        number, services.new_id(), name, asked, position, kek=services.kek, secret=secret, random=services.entropy
    )
    await record(services, conn, caller, made)
    return secret


def _asked(known: Definition, body: ConsumerBody) -> Definition:
    given = body.model_dump(exclude_none=True, exclude={"start"})
    for name in ("directories", "types", "retry_schedule"):
        if name in given:
            given[name] = tuple(given[name])
    return replace(known, **given)


async def move(services: Services, conn: Connection, caller: Caller, name: str, state: str) -> None:
    """Pause or resume."""
    found = await consumer(conn, name)
    act = acts.paused(found) if state == "paused" else acts.resumed(found)
    if act is not None:
        await record(services, conn, caller, act)


async def remove(services: Services, conn: Connection, caller: Caller, name: str) -> None:
    """End a consumer."""
    await record(services, conn, caller, acts.deletion(await consumer(conn, name)))


async def rotate(services: Services, conn: Connection, caller: Caller, name: str, overlap_s: int) -> dict[str, Any]:
    """Another signing secret, shown once; the old one signs too until the overlap is over."""
    found = await consumer(conn, name)
    secret = new_secret(services.entropy)
    act = acts.secret_rotated(found, secret, overlap_s, kek=services.kek, random=services.entropy)
    await record(services, conn, caller, act)
    return {"object": "secret", "consumer": name, "secret": secret, "overlap_seconds": overlap_s}


async def ping(services: Services, found: Consumer) -> dict[str, Any]:
    """Send a signed message of type `ping`, outside of all order, and say what the receiver answered."""
    if found.definition.mode != "webhook" or found.definition.url is None:
        raise ProblemError(409, "not_a_webhook", "Only webhooks can be pinged.")
    sender = Sender(services.webhooks, services.webhook_timeout_s, lambda: services.clock() / 1e6)
    started = asyncio.get_running_loop().time()
    try:
        body = orjson.dumps({"type": "ping", "timestamp": rfc3339(services.clock()), "data": {"consumer": found.name}})
        result = await sender.send(
            found.definition.url, found.secrets(services.kek), Message(f"ping_{services.new_request_id()}", body)
        )
    finally:
        await sender.close()
    seconds = round(asyncio.get_running_loop().time() - started, 3)
    return {
        "object": "ping", "ok": result.ok, "status": result.status or None, "error": result.error or None, "answer": result.answer or None,
        "seconds": seconds,
    }  # fmt: skip


async def _next_page(services: Services, conn: Connection, found: Consumer, token: Token, limit: int) -> Page:
    place = await place_of(conn, found)
    selection = found.selection(await services.directories.all(conn), bodies=token.bodies)
    cursor = await services.feed.cursor_at(conn, selection, place.through)
    return await services.feed.page(conn, selection, cursor, limit)


async def _mark_held(conn: Connection, page: Page) -> None:
    """Say of what the surge brake would hold back that it does: a reader decides for itself."""
    held = await held_commits(conn, await limits(conn), page.events)
    for event in page.events:
        if (event.directory, event.commit) in held:
            event.json = event.json[:-1] + b',"held":true}'


async def acked(services: Services, conn: Connection, found: Consumer, through: str) -> dict[str, Any]:
    """Acknowledge everything up to a cursor or an event. Idempotent; a lower one changes nothing."""
    directories = await services.directories.all(conn)
    if parse_event_id(through) is None and decode_cursor(through).directory:
        raise InvalidCursorError  # of the feed of one directory: it counts otherwise
    position = await starts.before(conn, services.feed, through, [])
    changed = await acknowledge(conn, found, position, found.reach(directories))
    place = await place_of(conn, found)
    return {"object": "ack", "consumer": found.name, "acked_position": place.low, "changed": changed}


async def seek(services: Services, conn: Connection, caller: Caller, found: Consumer, body: SeekBody) -> dict[str, Any]:
    """Move a consumer back or forth; `dry_run` only says what that means."""
    directories = await services.directories.all(conn)
    named = [d for d in directories if d.slug in found.definition.directories]
    position = await starts.before(conn, services.feed, str(body.to), named)
    place = await place_of(conn, found)
    back = position < place.through
    first, last = (position, place.through) if back else (place.through, position)
    count = await matching(conn, found, found.reach(directories), first, last)
    if not body.dry_run:
        await record(services, conn, caller, acts.sought(found, position, body.reason))
    return {
        "object": "seek", "consumer": found.name, "dry_run": body.dry_run, "direction": "back" if back else "forward",
        "from_position": place.through, "to_position": position, ("delivered_again" if back else "passed_over"): count,
    }  # fmt: skip


async def matching(conn: Connection, found: Consumer, reach: Sequence[int], after: int, through: int) -> int:
    """How many events of a consumer's own lie in (after, through]."""
    params = (after, through, int4s(reach), found.mask, 2**31 - 1)
    row = await (await conn.cursor(binary=True).execute(acts.SQL["matching_after"], params)).fetchone()
    assert row is not None
    return row[0]


async def audited(services: Services, conn: Connection, found: Consumer, start: str | None, to: str | None) -> dict[str, Any]:
    """What it acknowledged, held against the log; of a part of it where `from` and `to` say so."""
    directories = await services.directories.all(conn)
    named = [d for d in directories if d.slug in found.definition.directories]
    head = await services.feed.head(conn, Selection())
    first = await starts.before(conn, services.feed, start, named) if start else 0
    last = await starts.through(conn, services.feed, to, named) if to else head
    return {"consumer": found.name, **summary(await audit(conn, found, directories, after=first, through=last))}


async def listed(
    services: Services, conn: Connection, found: Consumer, states: tuple[int, ...], after: int, limit: int
) -> dict[str, Any]:
    some = await exceptions(conn, found, states=states, after=after, limit=limit)
    rows = await shown(conn, services.feed, services.kek, found, some)
    return {"object": "list", "data": rows, "list_metadata": {"after": some[-1].position if len(some) == limit else None}}


async def operate(
    services: Services,
    conn: Connection,
    caller: Caller,
    name: str,
    event_id: str,
    verb: str,
    reason: str,
    states: tuple[int, ...],
) -> dict[str, Any]:
    """Retry, park or skip one delivery, with a reason. Raises ProblemError 404 where it is not in that state (any more)."""
    found = await consumer(conn, name)
    exceptional = await _exceptional(services, conn, found, event_id, states)
    act = {"retry": retried, "park": parked, "skip": skipped}[verb]
    await record(services, conn, caller, act(found, exceptional.position, event_id, reason))
    return {"object": "delivery", "consumer": name, "event_id": event_id, "done": verb, "reason": reason}


async def _exceptional(
    services: Services, conn: Connection, found: Consumer, event_id: str, states: tuple[int, ...]
) -> Exceptional:
    parsed = parse_event_id(event_id)
    place = await services.feed.position_of(conn, parsed) if parsed is not None else None
    exceptional = await exception_at(conn, found, place[0].id, place[1]) if place is not None else None
    if exceptional is None or exceptional.state not in states:
        raise ProblemError(404, "not_found", "There is no such delivery here now. GET …/blocked and …/parked list them.")
    return exceptional
