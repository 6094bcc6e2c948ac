"""Probes and metrics."""

import psycopg
from fastapi import APIRouter, Request, Response

from api.problems import DATABASE_AWAY
from api.recent import Recent
from api.scrapes import MEDIA_TYPE, sees_names
from api.services import Services
from api.strangers import address_of

READY_S = 0.5  # anybody may ask, and each answer costs the database two questions


def routes(services: Services) -> APIRouter:
    """/healthz, /readyz, /metrics."""
    router = APIRouter()
    broken = Recent(lambda: _broken_part(services), READY_S)

    @router.get("/healthz", name="probes.health")
    async def healthz() -> dict[str, str]:
        return {"status": "ok"}

    @router.get("/readyz", name="probes.ready")
    async def readyz(response: Response) -> dict[str, str]:
        part = await broken.get()
        if part is None:
            return {"status": "ready"}
        response.status_code = 503
        return {"status": "not_ready", "part": part}

    @router.get("/metrics", name="metrics.show")
    async def metrics(request: Request) -> Response:
        authorization = request.headers.get("authorization")
        if authorization is None:
            named = bool(request.scope.get("local"))  # the owner of the service, on this machine
        else:
            named = sees_names(await services.authenticate(authorization, address_of(request.scope)))
        text = services.scrapes.whole if named else services.scrapes.nameless
        return Response(await text.get(), media_type=MEDIA_TYPE)

    return router


async def _broken_part(services: Services) -> str | None:
    try:
        async with services.pool.connection(timeout=2) as conn:
            await conn.execute("select 1")
        if not await services.migrated():
            return "migrations"
    except (*DATABASE_AWAY, psycopg.Error):
        return "database"
    return None if services.writer.running else "writer"
