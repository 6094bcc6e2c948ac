"""Probes and metrics."""

from typing import Literal, NotRequired, TypedDict

import psycopg
from fastapi import APIRouter, Request, Response
from fastapi.responses import HTMLResponse

from api.answers import Json
from api.error_codes import ERRORS_PAGE, page
from api.invalid_fields import StrictRoute
from api.recent import Recent
from api.scrapes import MEDIA_TYPE
from api.services import Services
from api.strangers import address_of
from database.releases import SchemaRelation
from operations.figures import sees_names
from operations.readiness import DATABASE_SILENT, Broken, Readiness

READY_S = 0.5  # an answer is reused for so long: anybody may ask, and each costs the database some queries


class Alive(TypedDict):
    status: Literal["ok"]


class Fault(TypedDict):
    """The part, a reason as a word for programs, and a sentence."""

    part: str
    reason: str
    detail: str


class Warned(TypedDict):
    """A word for programs, and a sentence."""

    reason: str
    says: str


class Ready(TypedDict):
    """The service can serve. `schema`: the database was made by a newer release; `warnings`: nothing is broken, but an operator should know."""

    status: Literal["ready"]
    schema: NotRequired[Literal["newer"]]
    warnings: NotRequired[list[Warned]]


class NotReady(Fault):
    """The service cannot serve: which part fails, and why."""

    status: Literal["not_ready"]


class Unready(Json[NotReady]):
    status = 503


class Figures(Response):
    """Metrics in the text format of Prometheus."""

    media_type = MEDIA_TYPE


def routes(services: Services) -> APIRouter:
    """/healthz, /readyz, /metrics."""
    router = APIRouter(route_class=StrictRoute)
    broken = Recent(lambda: _broken_part(services.readiness), READY_S)

    @router.get("/healthz", name="probes.health")
    async def healthz() -> Json[Alive]:
        """Answers as long as the process lives."""
        return Json({"status": "ok"})

    @router.get("/readyz", name="probes.ready")
    async def readyz() -> Json[Ready] | Unready:
        """Whether the service can serve, and if not, which part fails."""
        found = await broken.get()
        if found is not None:
            return Unready({"status": "not_ready", "part": found.part, "reason": found.reason, "detail": found.detail})
        shown: Ready = {"status": "ready"}
        if services.readiness.schema is SchemaRelation.NEWER:
            shown["schema"] = "newer"
        if services.readiness.concerns:
            shown["warnings"] = [{"reason": c.reason, "says": c.says} for c in services.readiness.concerns]
        return Json(shown)

    @router.get("/metrics", name="metrics.show")
    async def metrics(request: Request) -> Figures:
        """The figures of all processes of the service for Prometheus; names only for tokens that see everything."""
        authorization = request.headers.get("authorization")
        if authorization is None:
            named = bool(request.scope.get("local"))  # it came through the local socket
        else:
            named = sees_names(
                await services.authentication.authenticate(authorization, address_of(request.scope), route="GET /metrics")
            )
        text = services.scrapes.whole if named else services.scrapes.nameless
        return Figures(await text.get())

    @router.get(ERRORS_PAGE, name="docs.errors", include_in_schema=False)
    async def errors() -> HTMLResponse:
        headers = {
            "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
            "Cache-Control": "public, max-age=3600",
        }
        return HTMLResponse(page(), headers=headers)

    return router


async def _broken_part(readiness: Readiness) -> Broken | None:
    try:
        return await readiness.broken_part()
    except psycopg.Error:
        return DATABASE_SILENT
