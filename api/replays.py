"""Replays over HTTP (CONTRACT §6): plan, start, follow, pause, resume, cancel."""

import math
from datetime import UTC, datetime
from typing import Annotated, Any, Literal
from uuid import UUID

import orjson
from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from api.acts import Caller, as_json, authorised, caller_of, record
from api.consumers import OPERATORS, Reason, consumer
from api.problems import ProblemError
from api.services import Services
from database.arrays import int8s
from database.connections import Connection
from delivery import starts
from delivery.consumers import SQL as DELIVERY_SQL
from delivery.consumers import Consumer
from delivery.progress import Place, exceptions, place_of
from delivery.replays import Plan, Range, ReplayRefusedError, Run, Superseded, moved, plan, run_of, runs_of, started
from ledger.commands import parse_id
from ledger.feed import Selection, rfc3339, type_mask

RATE_ASSUMED = 500  # deliveries a second, for the estimate of a run without a rate
RUNS_SHOWN_MAX = 1_000


class ReplayBody(BaseModel):
    """What POST /v1/replays takes. `from` and `to` are positions, seq:N of one directory, instants, event ids or cursors."""

    model_config = ConfigDict(extra="forbid", populate_by_name=True)

    name: Annotated[str, Field(min_length=1, max_length=200)] = "replay"
    consumer: str
    start: Annotated[str | int, Field(alias="from")]
    to: str | int | None = None
    types: list[str] | None = None
    subjects: list[str] | None = None
    directories: list[str] | None = None
    rate_per_second: Annotated[int, Field(ge=1, le=100_000)] | None = None
    superseded: Superseded = "skip"
    reason: Reason
    dry_run: bool = False


def routes(services: Services) -> APIRouter:
    """/v1/replays."""
    router = APIRouter()

    @router.post("/v1/replays")
    async def make_replay(request: Request, body: ReplayBody) -> Response:
        token = await authorised(services, request, *OPERATORS)
        async with services.pool.connection() as conn:
            answer = await start(services, conn, caller_of(request, token), body)
        return as_json(answer, 200 if body.dry_run else 202)

    @router.get("/v1/replays")
    async def list_replays(
        request: Request, consumer: str | None = None, limit: Annotated[int, Query(ge=1, le=RUNS_SHOWN_MAX)] = 100
    ) -> Response:
        await authorised(services, request, *OPERATORS)
        async with services.pool.connection() as conn:
            return as_json({"object": "list", "data": await listed(conn, consumer, limit, services.clock())})

    @router.get("/v1/replays/{replay_id}")
    async def get_replay(request: Request, replay_id: str) -> Response:
        await authorised(services, request, *OPERATORS)
        async with services.pool.connection() as conn:
            return as_json(shown_run(await found(conn, replay_id), services.clock()))

    @router.post("/v1/replays/{replay_id}/{verb}")
    async def move_replay(request: Request, replay_id: str, verb: str) -> Response:
        token = await authorised(services, request, *OPERATORS)
        async with services.pool.connection() as conn:
            return as_json(await move(services, conn, caller_of(request, token), replay_id, verb))

    return router


async def start(services: Services, conn: Connection, caller: Caller, body: ReplayBody) -> dict[str, Any]:
    """Plan a run, and start it unless it is a dry run."""
    target = await consumer(conn, body.consumer)
    if target.definition.mode != "webhook" and not body.dry_run:
        raise ReplayRefusedError("A consumer that pulls reads again after a seek: POST /v1/consumers/{name}/seek.")
    place = await place_of(conn, target)
    head = await services.feed.head(conn, Selection())
    wanted = await _range(services, conn, target, body, head)
    planned = await plan(conn, wanted, head)
    run = Run(
        services.new_request_id(), body.name, target.id, target.name, wanted, head, body.rate_per_second, body.reason, "running",
        len(planned.events), planned.superseded, datetime.fromtimestamp(services.clock() / 1e6, UTC), None, 0, wanted.after, (), None,
    )  # fmt: skip
    answer = {
        "object": "replay_plan", "name": body.name, "consumer": target.name, "dry_run": body.dry_run, "count": run.total,
        "superseded": run.skipped, **await _ends(services, conn, planned), "resolved_range": await _resolved(conn, wanted),
        "already_acked": await _acked(conn, target, place, planned), "estimated_seconds": _estimate(run),
    }  # fmt: skip
    if body.dry_run:
        return answer
    await record(services, conn, caller, started(run))
    if not planned.events:
        await record(services, conn, caller, moved(run, "finished"))
    return {**answer, **shown_run(await found(conn, str(run.id)), services.clock())}


async def _range(services: Services, conn: Connection, target: Consumer, body: ReplayBody, head: int) -> Range:
    """What the words mean."""
    every = await services.directories.all(conn)
    reach = set(target.reach(every))
    named = [d for d in every if d.slug in (body.directories or target.definition.directories)]
    chosen = [d for d in named if d.id in reach] if body.directories is not None else [d for d in every if d.id in reach]
    if body.directories is not None and len(chosen) < len(set(body.directories)):
        raise ReplayRefusedError("`directories` names one that this consumer does not read.")
    asked = type_mask(body.types) if body.types else -1
    if asked is None:
        raise ProblemError(
            400, "invalid_types", "`types` names an event type that does not exist. See docs/events.md for the list."
        )
    after = await starts.before(conn, services.feed, str(body.start), named)
    through = await starts.through(conn, services.feed, str(body.to), named) if body.to is not None else head
    if through < after:
        raise ReplayRefusedError("`to` lies before `from`.")
    subjects = _subjects(body.subjects)
    return Range(after, min(through, head), asked & target.mask, tuple(d.id for d in chosen), subjects, body.superseded)


def _subjects(texts: list[str] | None) -> tuple[UUID, ...] | None:
    if texts is None:
        return None
    ids = [parse_id(text) for text in texts]
    if None in ids:
        raise ProblemError(400, "invalid_subject", "`subjects` are ids of users or groups.")
    return tuple(number for number in ids if number is not None)


async def _ends(services: Services, conn: Connection, planned: Plan) -> dict[str, str | None]:
    """The ids of the first and the last event."""
    if not planned.events:
        return {"first": None, "last": None}
    places = [(planned.events[n].directory, planned.events[n].seq) for n in (0, -1)]
    events = await services.feed.at(conn, places, bodies=False)
    return dict(zip(("first", "last"), (orjson.loads(event.json)["id"] for event in events), strict=True))


async def _resolved(conn: Connection, wanted: Range) -> dict[str, Any]:
    """The range as positions and times: words such as "yesterday 09:10" are shown for what they were taken for."""
    positions = [wanted.after + 1, wanted.through]
    rows = await (await conn.cursor(binary=True).execute(DELIVERY_SQL["times_at"], (int8s(positions),))).fetchall()
    times = [rfc3339(row[0]) for row in rows] if len(rows) == 2 else [None, None]
    return {"from_position": positions[0], "to_position": positions[1], "from_time": times[0], "to_time": times[1]}


async def _acked(conn: Connection, target: Consumer, place: Place, planned: Plan) -> int:
    still = {*place.open, *(e.position for e in await exceptions(conn, target))}
    return sum(event.position <= place.through and event.position not in still for event in planned.events)


def _estimate(run: Run) -> int:
    return math.ceil(run.total / (run.rate_per_second or RATE_ASSUMED))


async def found(conn: Connection, replay_id: str) -> Run:
    """A run by its id. Raises ProblemError 404."""
    number = parse_id(replay_id)
    run = await run_of(conn, number) if number is not None else None
    if run is None:
        raise ProblemError(404, "not_found", "There is no replay of that id. GET /v1/replays lists them.")
    return run


async def listed(conn: Connection, name: str | None, limit: int, now: int) -> list[dict[str, Any]]:
    number = (await consumer(conn, name)).id if name is not None else None
    return [shown_run(run, now) for run in await runs_of(conn, number, limit=limit)]


_Moves = Literal["running", "paused", "cancelled"]
_VERBS: dict[str, _Moves] = {"pause": "paused", "resume": "running", "cancel": "cancelled"}


async def move(services: Services, conn: Connection, caller: Caller, replay_id: str, verb: str) -> dict[str, Any]:
    """Pause, resume or cancel a run."""
    state = _VERBS.get(verb)
    if state is None:
        raise ProblemError(404, "not_found", "A replay can be paused, resumed or cancelled.")
    run = await found(conn, replay_id)
    if run.state != state:
        await record(services, conn, caller, moved(run, state))
    return shown_run(await found(conn, replay_id), services.clock())


def shown_run(run: Run, now: int) -> dict[str, Any]:
    """A run as JSON. `eta` (an instant) and `eta_seconds` follow from what it did since it began."""
    eta = _eta(run, now)
    return {
        "object": "replay", "id": str(run.id), "name": run.name, "consumer": run.consumer_name, "status": run.state, "reason": run.reason,
        "done": run.done, "total": run.total, "superseded": run.skipped, "rate_per_second": run.rate_per_second,
        "created_at": run.created_at.astimezone(UTC).isoformat(),
        "ended_at": run.ended_at.astimezone(UTC).isoformat() if run.ended_at else None, "eta_seconds": eta,
        "eta": rfc3339(now + eta * 1_000_000) if eta is not None else None,
    }  # fmt: skip


def _eta(run: Run, now: int) -> int | None:
    if run.state != "running":
        return None
    left = run.total - run.done
    if run.rate_per_second is not None:
        return math.ceil(left / run.rate_per_second)
    seconds = now / 1e6 - run.created_at.timestamp()
    return math.ceil(left * seconds / run.done) if run.done and seconds > 0 else _estimate(run)
