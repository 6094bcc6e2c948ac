"""Deliveries go on record in groups: whatever consumers report while one transaction is under way goes into the next."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Final, Protocol

import psycopg
import structlog

from database.connections import LOST, Connection
from delivery.checkpoints import record
from delivery.reports import Report

RETRY_S: Final = 0.5
# A read-only database is no defect of these consumers: what was delivered would be delivered again.
AWAY: Final = (*LOST, psycopg.errors.ReadOnlySqlTransaction)
_log = structlog.get_logger("delivery.checkpoint_writer")


class LeaseLostError(Exception):
    """Another process delivers for this consumer now, or it was moved: what was under way is not ours to record."""


class Reporter(Protocol):
    """Whoever has something to put on record of one consumer."""

    def take_report(self) -> Report:
        """Give what happened since the last report. Whoever takes it stores it."""
        ...

    def stored(self) -> None:
        """Take note that the report that was taken last is on record."""
        ...


class CheckpointWriter:
    """Collects what reporters have to say; run() stores it. A report is repeated until the database took it: storing it twice changes nothing."""

    def __init__(self, connect: Callable[[], Awaitable[Connection]]) -> None:
        self._connect = connect
        self._conn: Connection | None = None
        self._waiting: dict[Reporter, list[asyncio.Future[None]]] = {}
        self._wake = asyncio.Event()

    async def record(self, reporter: Reporter) -> None:
        """Return once everything that the reporter has to say now is on record. Raises LeaseLostError when it is not ours any more."""
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(reporter, []).append(waiter)
        self._wake.set()
        await waiter

    async def run(self) -> None:
        """Store until cancelled."""
        try:
            while True:
                await self._wake.wait()
                self._wake.clear()
                waiting, self._waiting = self._waiting, {}
                reports = {reporter: reporter.take_report() for reporter in waiting}
                try:
                    held = await self._store(list(reports.values()))
                except Exception:  # a defect: these consumers are loaded anew, the others go on
                    _log.exception("recording_failed", consumers=len(reports))
                    held = set[int]()
                for reporter, report in reports.items():
                    stored = report.consumer in held and _took_note(reporter)
                    for waiter in waiting[reporter]:
                        _settle(waiter, stored=stored)
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


def _took_note(reporter: Reporter) -> bool:
    """Whether it took note. A defect there must not end the recording of the others: this consumer is loaded anew."""
    try:
        reporter.stored()
    except Exception:
        _log.exception("stored_failed")
        return False
    return True


def _settle(waiter: "asyncio.Future[None]", *, stored: bool) -> None:
    if waiter.done():
        return
    if stored:
        waiter.set_result(None)
    else:
        waiter.set_exception(LeaseLostError())
