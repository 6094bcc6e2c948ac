"""Probes and metrics."""

import psycopg
from fastapi import APIRouter, Response

from api.metrics import exposition
from api.problems import DATABASE_AWAY
from api.services import Services
from ledger.feed import Selection


def routes(services: Services) -> APIRouter:
    """/healthz, /readyz, /metrics."""
    router = APIRouter()

    @router.get("/healthz")
    async def healthz() -> dict[str, str]:
        return {"status": "ok"}

    @router.get("/readyz")
    async def readyz(response: Response) -> dict[str, str]:
        part = await _broken_part(services)
        if part is None:
            return {"status": "ready"}
        response.status_code = 503
        return {"status": "not_ready", "part": part}

    @router.get("/metrics")
    async def metrics() -> Response:
        try:
            async with services.pool.connection() as conn:
                head = await services.feed.head(conn, Selection())
        except DATABASE_AWAY:
            head = -1  # scrapes go on while the database is away
        return Response(exposition(services.writer.queued, head), media_type="text/plain; version=0.0.4; charset=utf-8")

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
