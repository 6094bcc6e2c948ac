"""Probes and metrics."""

import psycopg
import structlog
from fastapi import APIRouter, Response

from api.metrics import REVOCATION_SECONDS, ConsumerFigures, exposition, show_consumers, show_surges
from api.problems import DATABASE_AWAY
from api.services import Services
from database.connections import Connection
from delivery.brake import Limit
from delivery.consumers import SQL, consumers
from delivery.progress import BLOCKED, STATES
from delivery.replays import runs_of
from delivery.status import lag_of
from delivery.surges import lately, limits
from ledger.directories import SYSTEM
from ledger.feed import Selection
from ledger.obstacles import obstacles

_log = structlog.get_logger("api")
ROWS = 10_000  # of acknowledgements read at once


def routes(services: Services) -> APIRouter:
    """/healthz, /readyz, /metrics."""
    router = APIRouter()

    @router.get("/healthz", name="probes.health")
    async def healthz() -> dict[str, str]:
        return {"status": "ok"}

    @router.get("/readyz", name="probes.ready")
    async def readyz(response: Response) -> dict[str, str]:
        broken = await broken_part(services)
        if broken is None:
            return {"status": "ready"}
        response.status_code = 503
        return {"status": "not_ready", "part": broken[0], "reason": broken[1]}

    @router.get("/metrics", name="metrics.show")
    async def metrics() -> Response:
        try:
            async with services.pool.connection() as conn:
                head = await services.feed.head(conn, Selection())
                await _gather(services, conn)
        except DATABASE_AWAY:
            head = -1  # scrapes go on while the database is away
        return Response(exposition(services.writer.queued, head), media_type="text/plain; version=0.0.4; charset=utf-8")

    return router


async def _gather(services: Services, conn: Connection) -> None:
    """What stands in the database: consumers may be served by other processes, so no process counts them by itself."""
    directories = await services.directories.all(conn)
    figures: list[ConsumerFigures] = []
    for consumer in await consumers(conn):
        lag = await lag_of(conn, services.feed, consumer, directories)
        runs = await runs_of(conn, consumer.id, open_only=True)
        state = "blocked" if lag.by_state.get(STATES[BLOCKED]) and consumer.state == "active" else consumer.state
        left = sum(run.total - run.done for run in runs)
        figures.append(ConsumerFigures(consumer.name, state, lag.events, lag.seconds, lag.by_state, left))
    show_consumers(figures)
    known, counts = await limits(conn), await lately(conn)
    show_surges(
        (d.slug, counts.get(d.id, 0), counts.get(d.id, 0) > known.get(d.id, Limit()).per_hour)
        for d in directories
        if d.slug != SYSTEM
    )
    while rows := await _acked_since(conn, REVOCATION_SECONDS.seen):
        REVOCATION_SECONDS.count(rows)


async def _acked_since(conn: Connection, seen: int) -> list[tuple[int, str, float]]:
    return await (await conn.cursor(binary=True).execute(SQL["revocations_acked_after"], (seen, ROWS))).fetchall()


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
