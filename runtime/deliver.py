"""A delivery process: pushes to webhooks in a process of its own, so that deliveries and requests do not slow each other."""

import asyncio
import contextlib
import os
import random
import signal
import time
from collections import defaultdict
from collections.abc import AsyncGenerator, Collection, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from uuid import UUID, uuid4

import psycopg
import structlog
import uvloop

from api.delivery_metrics import delivery_figures, observe_attempt
from database import frozen, migrate
from database.connections import Pool, connect, notices, probe
from database.deadlines import LOCK
from delivery.checkpoint_writer import CheckpointWriter
from delivery.consumers import Allowed, Consumer
from delivery.dispatcher import Dispatcher, Parts
from delivery.forks import Trail, Watch
from delivery.leases import steady
from delivery.surge_policy import Limit
from delivery.transport import Transport
from delivery.transports.webhook import Webhooks
from delivery.worker import Worker
from ledger.alone import write_alone
from ledger.commands import RecordFacts
from ledger.directories import Directories
from ledger.feed import Feed
from ledger.forgetting import Forgetting
from ledger.key_epochs import KeyFollower
from ledger.sealing import Kek
from ledger.tail import Arrivals, Tail
from ledger.tracing import UNTRACED, Tracer
from ledger.transaction import Outcome, Submission
from ledger.turns import Turns
from ledger.writer import Link
from operations.admin_commands import record
from operations.caller import MACHINE, Caller
from operations.open_ledger import OpenLedger
from replay.redeliver import REPLAYS
from runtime.bootstrap import Urls
from runtime.identifiers import uuid7
from runtime.logs import configure_logs
from runtime.process_figures import Process
from runtime.root_key import providers_of
from runtime.settings import Settings
from runtime.supervisor import Beat, beating
from runtime.telemetry import open_tracer
from runtime.wiring import LISTEN_RETRY_S, make_transaction, now_us

DELIVERY_POOL_SIZE = 8
# most connections of a delivery process: the pool, recording, acts, two listeners, probe
DELIVERY_CONNECTIONS = DELIVERY_POOL_SIZE + 5
_log = structlog.get_logger("runtime.deliver")


def run_delivery(settings: Settings, urls: Urls, kek: Kek, process: Process, beat: Beat) -> None:
    """The entry point of a delivery process: deliver until SIGTERM, then finish running deliveries."""
    configure_logs(settings.log_format)
    # Ctrl-C reaches the whole process group, but only the parent decides when to stop
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_deliver(settings, urls, kek, process, beat))


async def _deliver(settings: Settings, urls: Urls, kek: Kek, process: Process, beat: Beat) -> None:
    alive = asyncio.create_task(beating(beat))
    transports = transports_of(Allowed.read(settings.webhook_allow), settings.webhook_timeout_s)
    async with AsyncExitStack() as parts:
        await parts.enter_async_context(process.answering(delivery_figures))
        keys = KeyFollower(kek, providers_of(settings))
        tracer = parts.enter_context(open_tracer(settings.tracing, process.name))
        worker = await parts.enter_async_context(
            open_worker(urls.serve, kek, transports, settings.webhook_timeout_s, tracer, keys)
        )
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, worker.stop)
        await worker.run()
    alive.cancel()


def transports_of(allowed: Allowed, timeout_s: float) -> Mapping[str, Transport]:
    """The transport of each mode. Consumers that pull have none."""
    return {"webhook": Webhooks(allowed, timeout_s, time.time)}


@asynccontextmanager
async def open_worker(
    url: str,
    kek: Kek,
    transports: Mapping[str, Transport],
    timeout_s: float,
    tracer: Tracer = UNTRACED,
    keys: KeyFollower | None = None,
) -> AsyncGenerator[Worker]:
    """Open all parts of a delivery process. Closes the transports at the end."""
    pool = Pool(url, size=DELIVERY_POOL_SIZE)
    await pool.open()
    directories = Directories(kek)
    feed = Feed(kek, directories)
    hints, changes, limits = Arrivals(), asyncio.Event(), dict[int, Limit]()
    trails = defaultdict[UUID, Trail](Trail)
    tail = Tail(feed, pool.connection, hints)

    def forget(subjects: Collection[UUID]) -> None:
        tail.forget(subjects)
        worker.forget(subjects)

    erased = Forgetting(pool.connection, forget)
    recording = CheckpointWriter(lambda: connect(url, pinned=True, pulse=pool.pulse))
    alone = _Alone(url, kek)
    ledger = OpenLedger(
        pool.connection, Turns(pool.connection, pool.max_size), directories, feed, kek, alone.submit, now_us, uuid4, os.urandom
    )

    async def act(facts: RecordFacts) -> None:
        await record(ledger, Caller(MACHINE, uuid7()), facts)

    parts = Parts(
        pool.connection, feed, directories, kek, tail, transports, timeout_s, act, recording.record, limits, time.time, steady,
        random.random, os.urandom, REPLAYS, trails, observe_attempt, erased, tracer,
    )  # fmt: skip

    forks = Watch(trails, directories, kek, act, REPLAYS)

    def make_dispatcher(consumer: Consumer, fence: int) -> Dispatcher:
        return Dispatcher(parts, consumer, fence)

    worker = Worker(
        uuid4(), pool.connection, directories, make_dispatcher, act, tail, changes, limits, timeout_s, uuid4, forks, steady, tuple(transports),
    )  # fmt: skip

    works = (
        probe(url, pool.pulse), frozen.watch(pool.connection), tail.run(), erased.run(hints), recording.run(),
        _listen_for_changes(url, changes, keys), _listen_for_events(url, hints, tail),
    )  # fmt: skip
    background = [asyncio.create_task(work) for work in works]
    try:
        yield worker
    finally:
        for task in background:
            task.cancel()
        await asyncio.gather(*background, return_exceptions=True)
        for transport in transports.values():
            await transport.close()
        await alone.close()
        await pool.close()


class _Alone:
    """Writes the acts of a delivery process to `_system`: a consumer disabled, a delivery blocked, a run finished."""

    def __init__(self, url: str, kek: Kek) -> None:
        self._link = Link(lambda: connect(url, pinned=True, lock_timeout_ms=LOCK.ms))
        self._transaction = make_transaction(kek)
        self._one = asyncio.Lock()

    async def submit(self, submission: Submission) -> Outcome:
        async with self._one:
            try:
                return await write_alone(await self._link.get(), self._transaction, submission)
            except BaseException:
                await self._link.close()  # closing the connection rolls back an unfinished transaction
                raise

    async def close(self) -> None:
        await self._link.close()


async def _listen_for_changes(url: str, changes: asyncio.Event, keys: KeyFollower | None) -> None:
    """Wake the worker when a NOTIFY says that consumers changed. It also checks every second by itself."""
    while True:
        with contextlib.suppress(psycopg.Error):
            async with await connect(url) as conn:
                await migrate.note_release(conn)
                await conn.execute("listen ledger_consumers")
                if keys is not None:
                    await keys.attend(conn)
                async for payload in notices(conn):
                    if payload is not None:
                        changes.set()
                    elif keys is not None:
                        await keys.refresh(conn)
        await asyncio.sleep(LISTEN_RETRY_S)


async def _listen_for_events(url: str, hints: Arrivals, tail: Tail) -> None:
    """Announce new events at each NOTIFY, while somebody follows the tail. Without followers no write wakes the process."""
    while True:
        await tail.wanted()
        with contextlib.suppress(psycopg.Error):
            async with await connect(url) as conn:
                await conn.execute("listen ledger")
                hints.announce()
                async for payload in notices(conn):
                    hints.announce()
                    if payload is None and not tail.followed:
                        break
        if tail.followed:
            await asyncio.sleep(LISTEN_RETRY_S)
