"""Replays over HTTP (docs/consumers.md, "Seek and replay"): plan, start, follow, pause, resume, cancel."""

from collections.abc import Sequence
from typing import Annotated, Literal, NotRequired, TypeAlias, TypedDict

from fastapi import APIRouter, Query, Request
from msgspec import Meta
from pydantic import ConfigDict, Field

from api.answers import Accepted, Json, ListOf, listed
from api.bodies import Body
from api.consumers import ITEMS_MAX, Reason, TypeName
from api.gate import caller_of
from api.invalid_fields import StrictRoute
from api.services import Services
from delivery.runs import RUN_STATES, Run
from ledger.event_data import Count, EventIdText, FromOne, Id, Instant, Time
from ledger.feed import rfc3339
from operations import replays
from operations.replays import Preview, Wanted, seconds_left

RUNS_SHOWN_MAX = 1_000
RunState: TypeAlias = Annotated[str, Meta(extra_json_schema={"enum": list(RUN_STATES)})]
_OptionalNames = Annotated[tuple[str, ...] | None, Field(max_length=ITEMS_MAX)]


class ReplayBody(Body):
    """The body of POST /v1/replays. `from` and `to`: positions, seq:N of one directory, instants, event ids or cursors."""

    model_config = ConfigDict(populate_by_name=True)

    name: Annotated[str, Field(min_length=1, max_length=200)] = "replay"
    consumer: str
    start: Annotated[str | int, Field(alias="from")]
    to: str | int | None = None
    types: Annotated[tuple[TypeName, ...] | None, Field(max_length=ITEMS_MAX)] = None
    subjects: _OptionalNames = None
    directories: _OptionalNames = None
    rate_per_second: Annotated[int, Field(ge=1, le=100_000)] | None = None
    superseded: Literal["skip", "include"] = "skip"
    reason: Reason
    dry_run: bool = False

    def wanted(self) -> Wanted:
        """The request, for operations.replays."""
        to = None if self.to is None else str(self.to)
        return Wanted(
            self.name, str(self.start), to, self.types, self.subjects, self.directories, self.rate_per_second, self.superseded, self.reason
        )  # fmt: skip


class ResolvedRange(TypedDict):
    """How the words of the request were understood, as positions and as times."""

    from_position: FromOne
    to_position: Count
    from_time: Time | None
    to_time: Time | None


class _Plan(TypedDict):
    name: str
    consumer: str
    dry_run: bool
    count: Count
    superseded: Count
    first: EventIdText | None
    last: EventIdText | None
    resolved_range: ResolvedRange
    already_acked: Count
    not_acked: dict[str, int]
    estimated_seconds: Count
    warnings: NotRequired[Sequence[str]]


class ReplayPlan(_Plan):
    """What a replay would send. `superseded`: grants that it leaves out, because a later event took them back; `not_acked`: by reason."""

    object: Literal["replay_plan"]


class _Progress(TypedDict):
    object: Literal["replay"]
    id: Id
    status: RunState
    reason: str
    failure: str | None
    done: Count
    total: Count
    rate_per_second: int | None
    created_at: Instant
    ended_at: Instant | None
    eta_seconds: Count | None
    eta: Time | None


class Replay(_Progress):
    """A run of a replay. `eta` (an instant) and `eta_seconds` are estimated from its progress."""

    name: str
    consumer: str
    superseded: Count


class StartedReplay(_Plan, _Progress):
    """A run of a replay that began, with its plan."""


def routes(services: Services) -> APIRouter:
    """/v1/replays."""
    router, ledger = APIRouter(route_class=StrictRoute), services.ledger

    @router.post("/v1/replays", name="replays.create")
    async def make_replay(request: Request, body: ReplayBody) -> Json[ReplayPlan] | Accepted[StartedReplay]:
        preview, run = await replays.create(ledger, caller_of(request), body.consumer, body.wanted(), dry_run=body.dry_run)
        planned = _plan(preview, dry_run=body.dry_run)
        if run is None:
            return Json[ReplayPlan]({"object": "replay_plan", **planned})
        return Accepted[StartedReplay]({**planned, **_run_json(run, ledger.clock())})

    @router.get("/v1/replays", name="replays.list")
    async def list_replays(
        request: Request,
        consumer: str | None = None,
        after: str | None = None,
        limit: Annotated[int, Query(ge=1, le=RUNS_SHOWN_MAX)] = 100,
    ) -> Json[ListOf[Replay]]:
        runs = await replays.list_runs(ledger, caller_of(request), consumer, limit + 1, after)
        more = str(runs[limit - 1].id) if len(runs) > limit else None
        return listed([_run_json(run, ledger.clock()) for run in runs[:limit]], after=more)

    @router.get("/v1/replays/{replay_id}", name="replays.show")
    async def get_replay(request: Request, replay_id: str) -> Json[Replay]:
        return Json(_run_json(await replays.show(ledger, caller_of(request), replay_id), ledger.clock()))

    @router.post("/v1/replays/{replay_id}/pause", name="replays.pause")
    async def pause_replay(request: Request, replay_id: str) -> Json[Replay]:
        return Json(_run_json(await replays.pause(ledger, caller_of(request), replay_id), ledger.clock()))

    @router.post("/v1/replays/{replay_id}/resume", name="replays.resume")
    async def resume_replay(request: Request, replay_id: str) -> Json[Replay]:
        return Json(_run_json(await replays.resume(ledger, caller_of(request), replay_id), ledger.clock()))

    @router.post("/v1/replays/{replay_id}/cancel", name="replays.cancel")
    async def cancel_replay(request: Request, replay_id: str) -> Json[Replay]:
        return Json(_run_json(await replays.cancel(ledger, caller_of(request), replay_id), ledger.clock()))

    return router


def _plan(preview: Preview, *, dry_run: bool) -> _Plan:
    run = preview.run
    span: ResolvedRange = {
        "from_position": run.range.after + 1, "to_position": run.range.through, "from_time": preview.from_time, "to_time": preview.to_time,
    }  # fmt: skip
    planned: _Plan = {
        "name": run.name, "consumer": run.consumer_name, "dry_run": dry_run, "count": run.total,
        "superseded": run.skipped, "first": preview.first, "last": preview.last, "resolved_range": span,
        "already_acked": preview.already_acked, "not_acked": preview.not_acked, "estimated_seconds": preview.estimated_s,
    }  # fmt: skip
    return {**planned, "warnings": preview.warnings} if preview.warnings else planned


def _run_json(run: Run, now: int) -> Replay:
    """A run as JSON. `now` in µs."""
    eta = seconds_left(run, now)
    return {
        "object": "replay", "id": str(run.id), "name": run.name, "consumer": run.consumer_name, "status": run.state, "reason": run.reason,
        "failure": run.failure,
        "done": run.done, "total": run.total, "superseded": run.skipped, "rate_per_second": run.rate_per_second,
        "created_at": run.created_at,
        "ended_at": run.ended_at, "eta_seconds": eta,
        "eta": rfc3339(now + eta * 1_000_000) if eta is not None else None,
    }  # fmt: skip
