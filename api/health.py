"""Probes and metrics."""

from typing import Any

import psycopg
from fastapi import APIRouter, Request, Response
from fastapi.responses import HTMLResponse

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


def routes(services: Services) -> APIRouter:
    """/healthz, /readyz, /metrics."""
    router = APIRouter(route_class=StrictRoute)
    broken = Recent(lambda: _broken_part(services.readiness), READY_S)

    @router.get("/healthz", name="probes.health")
    async def healthz() -> dict[str, str]:
        """Answers as long as the process lives."""
        return {"status": "ok"}

    @router.get("/readyz", name="probes.ready")
    async def readyz(response: Response) -> dict[str, Any]:
        """Whether the service can serve, and if not, which part fails."""
        found = await broken.get()
        warnings = [concern._asdict() for concern in services.readiness.concerns]
        if found is None:
            schema = {"schema": "newer"} if services.readiness.schema is SchemaRelation.NEWER else {}
            return {"status": "ready", **schema, **({"warnings": warnings} if warnings else {})}
        response.status_code = 503
        return {"status": "not_ready", **found._asdict()}

    @router.get("/metrics", name="metrics.show")
    async def metrics(request: Request) -> Response:
        """The figures of this process for Prometheus; names only for tokens that see everything."""
        authorization = request.headers.get("authorization")
        if authorization is None:
            named = bool(request.scope.get("local"))  # it came through the local socket
        else:
            named = sees_names(await services.authentication.authenticate(authorization, address_of(request.scope)))
        text = services.scrapes.whole if named else services.scrapes.nameless
        return Response(await text.get(), media_type=MEDIA_TYPE)

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
