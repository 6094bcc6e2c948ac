"""Probes and metrics."""

import psycopg
import structlog
from fastapi import APIRouter, Request, Response

from api.problems import DATABASE_AWAY
from api.recent import Recent
from api.scrapes import MEDIA_TYPE, sees_names
from api.services import Services
from api.strangers import address_of
from ledger.obstacles import obstacles

_log = structlog.get_logger("api")
READY_S = 0.5  # anybody may ask, and each answer costs the database two questions


def routes(services: Services) -> APIRouter:
    """/healthz, /readyz, /metrics."""
    router = APIRouter()
    broken = Recent(lambda: broken_part(services), READY_S)

    @router.get("/healthz", name="probes.health")
    async def healthz() -> dict[str, str]:
        return {"status": "ok"}

    @router.get("/readyz", name="probes.ready")
    async def readyz(response: Response) -> dict[str, str]:
        found = await broken.get()
        if found is None:
            return {"status": "ready"}
        response.status_code = 503
        return {"status": "not_ready", "part": found[0], "reason": found[1]}

    @router.get("/metrics", name="metrics.show")
    async def metrics(request: Request) -> Response:
        authorization = request.headers.get("authorization")
        if authorization is None:
            named = bool(request.scope.get("local"))  # the owner of the service, on this machine
        else:
            named = sees_names(await services.authentication.authenticate(authorization, address_of(request.scope)))
        text = services.scrapes.whole if named else services.scrapes.nameless
        return Response(await text.get(), media_type=MEDIA_TYPE)

    return router


async def broken_part(services: Services) -> tuple[str, str] | None:
    """The part that keeps the service from its work, and why in words that name nobody: whoever asks is a stranger."""
    try:
        async with services.pool.connection(timeout=2) as conn:
            in_the_way = await obstacles(conn)
        if not await services.migrated():
            return "migrations", "the schema of the database is not that of this release: run `scim-ledger migrate`"
    except (*DATABASE_AWAY, psycopg.Error):
        return "database", "the database does not answer"
    for obstacle in in_the_way:
        _log.error("lock_in_the_way", **obstacle.described())
    if in_the_way:
        return "writer", "another session of the database holds a lock of the write path; the log of the service says which"
    return None if services.writer.running else ("writer", "the writer of this process has ended")
