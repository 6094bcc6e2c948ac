"""Deliveries go on record in groups: whatever consumers report while one transaction is under way goes into the next."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Final

import psycopg
import structlog

from database.connections import LOST, Connection
from delivery.checkpoints import record
from delivery.dispatcher import Dispatcher, LeaseLostError
from delivery.reports import Report

RETRY_S: Final = 0.5
# A read-only database is no defect of these consumers: what was delivered would be delivered again.
AWAY: Final = (*LOST, psycopg.errors.ReadOnlySqlTransaction)
_log = structlog.get_logger("delivery.checkpoint_writer")


class CheckpointWriter:
    """Collects what pushes report; run() stores it. A report is repeated until the database took it: storing it twice changes nothing."""

    def __init__(self, connect: Callable[[], Awaitable[Connection]]) -> None:
        self._connect = connect
        self._conn: Connection | None = None
        self._waiting: dict[Dispatcher, list[asyncio.Future[None]]] = {}
        self._wake = asyncio.Event()

    async def record(self, dispatcher: Dispatcher) -> None:
        """Return once everything that the dispatcher has to report now is on record. Raises LeaseLostError when it is not ours any more."""
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(dispatcher, []).append(waiter)
        self._wake.set()
        await waiter

    async def run(self) -> None:
        """Store until cancelled."""
        try:
            while True:
                await self._wake.wait()
                self._wake.clear()
                waiting, self._waiting = self._waiting, {}
                reports = [dispatcher.take_report() for dispatcher in waiting]
                try:
                    held = await self._store(reports)
                except Exception:  # a defect: these consumers are loaded anew, the others go on
                    _log.exception("recording_failed", consumers=len(reports))
                    held = set[int]()
                for dispatcher, waiters in waiting.items():
                    for waiter in waiters:
                        _settle(waiter, stored=dispatcher.consumer.id in held)
        finally:
            await self._close()

    async def _store(self, reports: list[Report]) -> set[int]:
        while True:
            try:
                if self._conn is None or self._conn.closed or self._conn.broken:
                    self._conn = await self._connect()
                return await record(self._conn, reports)
            except AWAY:
                _log.warning("recording_away", consumers=len(reports))
                await self._close()
                await asyncio.sleep(RETRY_S)

    async def _close(self) -> None:
        conn, self._conn = self._conn, None
        if conn is not None:
            with contextlib.suppress(psycopg.Error):
                await conn.close()


def _settle(waiter: "asyncio.Future[None]", *, stored: bool) -> None:
    if waiter.done():
        return
    if stored:
        waiter.set_result(None)
    else:
        waiter.set_exception(LeaseLostError())
