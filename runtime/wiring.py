"""The composition root: makes all parts of a process and connects them."""

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Coroutine, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import TypeVar
from uuid import UUID, uuid4

import psycopg
import structlog

from api.authentication import Authentication
from api.journal import Journal
from api.metrics import observe_batch, show_queue
from api.mistakes import Mistakes
from api.rates import Rates
from api.scim.resources import forget_names
from api.scrapes import Scrapes
from api.services import TOUCH_INTERVAL_S, PointReads, Services
from api.strangers import Strangers
from database import frozen, migrate
from database.coalesce import Coalescer
from database.connections import LOST, Connection, Pool, Pulse, connect, connect_owner, notices, probe, sever_all
from database.deadlines import CHECK, LOCK, SHARED_READ, SHARED_STATEMENT, WRITE, WRITES_AT_STOP, Deadline
from database.faults import Fault, no_fault
from database.releases import SchemaRelation
from delivery.consumers import Allowed
from ledger.alone import write_alone
from ledger.cleanup import CleanUps
from ledger.clients import live_access, prune_access
from ledger.directories import Directories, Directory
from ledger.feed import Feed
from ledger.forgetting import Forgetting
from ledger.ids import DirectoryNumber
from ledger.key_epochs import KeyFollower
from ledger.sealing import Kek
from ledger.tail import Arrivals, Tail
from ledger.token_use import note_refusals, note_uses
from ledger.tokens import Token, live_tokens
from ledger.tracing import UNTRACED, Tracer
from ledger.transaction import Outcome, Submission, Transaction
from ledger.turns import Turns
from ledger.writer import LANES_MAX, Link, Links, Writer
from operations import idempotency
from operations.aftercare import Aftercare
from operations.consumers import Webhooks, watch_of
from operations.open_ledger import OpenLedger
from operations.readiness import Own, Readiness
from operations.tokens import warn_of_expiry
from projections import current_state, reads
from projections.index_pages import KnownLists
from projections.reads import ALONE, Alone, Resource
from projections.user_groups import GroupNames, GroupOf, groups_together
from runtime.erasure_list import ErasureList
from runtime.identifiers import uuid7
from runtime.process_figures import ONLY_PROCESS, Process
from runtime.settings import Settings
from scim.errors import Unavailable
from scim.filter_parser import forget_filters
from scim.redaction import forget_redacted

T = TypeVar("T")
K = TypeVar("K")
SERVING_POOL_SIZE = 12
SERVING_CONNECTIONS = (
    SERVING_POOL_SIZE + 1 + LANES_MAX + 4 + 5
)  # most connections of a serving process: the pool, writer, lanes, shared reads, listener, clean-up, aftercare as both roles, probe
LISTEN_RETRY_S = 1.0
DIRECTORIES_INTERVAL_S = 1.0
LOG_LOOK_S = 1.0
PRUNE_INTERVAL_S = 3_600.0
ACCESS_PRUNE_INTERVAL_S = 60.0
GROUPS_MS = 200  # statement timeout for the groups of users, so that deep groups of one directory do not delay others
_log = structlog.get_logger("runtime")


def now_us() -> int:
    """µs since the epoch, by this machine's clock."""
    return time.time_ns() // 1_000


def make_transaction(kek: Kek, clock: Callable[[], int] = now_us) -> Transaction:
    """The write transaction with its inline read models and its randomness."""
    return Transaction(kek, current_state.project, os.urandom, clock)


@asynccontextmanager
async def open_alone(url: str, kek: Kek) -> AsyncGenerator[OpenLedger]:
    """A ledger on one connection without a writer, for the first start. One operation at a time."""
    conn, transaction, directories = await connect(url), make_transaction(kek), Directories(kek)

    @asynccontextmanager
    async def connection() -> AsyncGenerator[Connection]:
        yield conn

    async def submit(submission: Submission) -> Outcome:
        return await write_alone(conn, transaction, submission)

    try:
        turns = Turns(connection, 1)
        yield OpenLedger(connection, turns, directories, Feed(kek, directories), kek, submit, now_us, uuid4, os.urandom)
    finally:
        await conn.close()


def webhooks_of(settings: Settings) -> Webhooks:
    return Webhooks(Allowed.read(settings.webhook_allow), settings.webhook_timeout_s)


def _writing_links(url: str, pulse: Pulse) -> Links:
    def lane() -> Awaitable[Connection]:
        return connect(url, pinned=True, lock_timeout_ms=LOCK.ms, long_work=True, pulse=pulse, cursors_prepare=False)

    def main() -> Awaitable[Connection]:
        return connect(url, pinned=True, lock_timeout_ms=LOCK.ms, patience_s=WRITE.seconds, pulse=pulse, cursors_prepare=False)

    return Links(main, lane, pulse)


@asynccontextmanager
async def open_services(
    url: str,
    kek: Kek,
    base_url: str,
    webhooks: Webhooks,
    pooled: str | None = None,
    *,
    owner_url: str | None = None,
    erasures: ErasureList | None = None,
    clock: Callable[[], int] = now_us,
    room: Callable[[], Fault | None] = no_fault,
    process: Process = ONLY_PROCESS,
    tracer: Tracer = UNTRACED,
    keys: KeyFollower | None = None,
) -> AsyncGenerator[Services]:
    """Open all parts of a serving process. At the end, finish queued writes and close them.

    `owner_url`: of the owner, who vacuums. `pooled`: of a pooler in transaction mode, for reads. `room`: why the disk has none, or None.
    `keys`: follows rotations; a command needs none.
    """
    pulse = Pulse()
    pool = Pool(pooled or url, size=SERVING_POOL_SIZE, pulse=pulse, pooled_transactions=pooled is not None)
    await pool.open()
    directories = Directories(kek)
    writer = Writer(make_transaction(kek, clock), _writing_links(url, pulse), observe_batch, room)
    show_queue(lambda: writer.queued)
    arrivals = Arrivals()
    shared_reads = _SharedReads(
        lambda: connect(url, pinned=True, patience_s=SHARED_READ.seconds, pulse=pulse), pulse, kek, names := GroupNames(kek)
    )
    feed = Feed(kek, directories)
    tail = Tail(feed, pool.connection, arrivals)
    ledger = OpenLedger(
        pool.connection, Turns(pool.connection, pool.max_size), directories, feed, kek, writer.submit, clock, uuid4, os.urandom
    )
    shared = PointReads(Coalescer(shared_reads.users), Coalescer(shared_reads.groups), Coalescer(shared_reads.names))
    journal = Journal(pool, kek, os.urandom, room)
    services = Services(
        base_url=base_url, ledger=ledger, authentication=Authentication(Coalescer(shared_reads.tokens), clock, Strangers()),
        reads=shared, group_names=names, lists=KnownLists(), new_request_id=uuid7, arrivals=arrivals, tail=tail, webhooks=webhooks, journal=journal,
        mistakes=Mistakes(pool, journal, clock), rates=Rates(pool.connection), tracer=tracer, scrapes=Scrapes(ledger, process.name, process.ask_others),
        readiness=Readiness(ledger, _schema(pool.connection), Own(lambda: writer.running, lambda: writer.trouble, room)),
    )  # fmt: skip
    shared_reads.directories = directories
    writing = asyncio.create_task(writer.run(), name="writer")
    background = list(map(asyncio.create_task, _beside_requests(services, url, owner_url, erasures, pulse, keys)))
    try:
        yield services
    finally:
        writer.stop()
        await _wait_for_tasks([writing], WRITES_AT_STOP)
        await _wait_for_tasks([asyncio.create_task(services.journal.flush(), name="journal")], CHECK)
        await _end_work(background, pulse, shared_reads, pool)


async def _end_work(background: Sequence[asyncio.Task[None]], pulse: Pulse, shared_reads: "_SharedReads", pool: Pool) -> None:
    """End the background work and close the connections, those that do not answer too."""
    sever = asyncio.get_running_loop().call_later(CHECK.seconds, sever_all, pulse)
    for task in background:
        task.cancel()
    await asyncio.gather(*background, return_exceptions=True)
    await shared_reads.close()
    await pool.close()
    sever.cancel()


def _beside_requests(
    services: Services, url: str, owner_url: str | None, erasures: ErasureList | None, pulse: Pulse, keys: KeyFollower | None
) -> Iterable[Coroutine[None, None, None]]:
    """What a serving process does besides answering requests and writing."""
    ledger, changed = services.ledger, asyncio.Event()
    cleanups = CleanUps(
        lambda: connect(url, pinned=True, long_work=True), make_transaction(ledger.kek), ledger.directories, uuid7
    )
    return (
        probe(url, pulse), frozen.watch(ledger.connection), _listen(url, services.arrivals, changed, keys), services.tail.run(),
        _follow_directories(services, changed, cleanups.wake), cleanups.run(), _watch_log(ledger), _touch_tokens(services),
        _prune_idempotent(ledger), _prune_access(ledger), _warn_of_expiry(ledger), services.journal.run(), services.mistakes.run(),
        *_after_erasures(services, url, owner_url, erasures),
    )  # fmt: skip


def _after_erasures(
    services: Services, url: str, owner_url: str | None, erasures: ErasureList | None
) -> tuple[Coroutine[None, None, None], ...]:
    """What a process does after erasures: forget what it has in memory, and complete receipts."""

    def forget(subjects: Collection[UUID]) -> None:
        services.tail.forget(subjects)
        services.group_names.forget(subjects)
        for forget_texts in (forget_names, forget_filters, forget_redacted):  # small, and soon filled again
            forget_texts()

    ledger = services.ledger
    owned = None if owner_url is None else (lambda: connect_owner(owner_url))
    forgetting = Forgetting(ledger.connection, forget, services.erased)
    aftercare = Aftercare(
        ledger, lambda: connect(url, long_work=True), owned, services.erased, _unnoted if erasures is None else erasures.note
    )
    return forgetting.run(services.arrivals), aftercare.run()


async def _unnoted(_ledger: OpenLedger) -> None:
    """Of a process without a list of erasures."""


async def _wait_for_tasks(tasks: Sequence[asyncio.Task[None]], deadline: Deadline) -> None:
    """Wait until the tasks have ended; cancel those that are late. Raises their errors."""
    _, late = await asyncio.wait(tasks, timeout=deadline.seconds)
    for task in late:
        _log.warning("given_up_at_stop", part=task.get_name())
        task.cancel()
    for task in tasks:
        if task.done():
            task.result()


class _SharedReads:
    """The connections that concurrent point reads share, one for each kind of question."""

    def __init__(self, open_connection: Callable[[], Awaitable[Connection]], pulse: Pulse, kek: Kek, names: GroupNames) -> None:
        def link(timeout_ms: int) -> Link:
            async def opened() -> Connection:
                conn = await open_connection()
                await conn.execute(f"set statement_timeout = {timeout_ms}".encode())
                return conn

            return Link(opened)

        self._links = {name: link(SHARED_STATEMENT.ms) for name in ("tokens", "users", "names")} | {"groups": link(GROUPS_MS)}
        self._pulse = pulse
        self._kek, self._names = kek, names
        self.directories: Directories | None = None

    async def tokens(self, hashes: list[bytes]) -> dict[bytes, Token]:
        async def read(conn: Connection) -> dict[bytes, Token]:
            found = await live_tokens(conn, self._kek, hashes)
            others = [hashed for hashed in hashes if hashed not in found]
            return {**found, **await live_access(conn, self._kek, others)} if others else found

        return await self._twice("tokens", read)

    async def users(self, keys: list[tuple[DirectoryNumber, UUID]]) -> dict[tuple[DirectoryNumber, UUID], Resource | Alone]:
        async def read(conn: Connection) -> dict[tuple[DirectoryNumber, UUID], Resource | Alone]:
            return await reads.users_together(conn, self._kek, await self._placed(conn, keys))

        return await self._twice("users", read)

    async def groups(self, keys: list[tuple[DirectoryNumber, UUID]]) -> dict[tuple[DirectoryNumber, UUID], list[GroupOf] | Alone]:
        async def read(conn: Connection) -> dict[tuple[DirectoryNumber, UUID], list[GroupOf] | Alone]:
            placed = await self._placed(conn, keys)
            try:
                return await groups_together(conn, self._names, placed)
            except psycopg.errors.QueryCanceled:  # somebody's groups are too many or too deep: the other requests read alone
                return dict.fromkeys(keys, ALONE)

        return await self._twice("groups", read)

    async def names(self, keys: list[tuple[DirectoryNumber, str]]) -> dict[tuple[DirectoryNumber, str], Resource | Alone]:
        async def read(conn: Connection) -> dict[tuple[DirectoryNumber, str], Resource | Alone]:
            return await reads.users_by_name(conn, self._kek, await self._placed(conn, keys))

        return await self._twice("names", read)

    async def _placed(self, conn: Connection, keys: list[tuple[DirectoryNumber, K]]) -> list[tuple[Directory, K]]:
        assert self.directories is not None
        return [(await self.directories.by_id(conn, number), key) for number, key in keys]

    async def _twice(self, name: str, read: Callable[[Connection], Awaitable[T]]) -> T:
        """Read, and repeat the read on a new connection if the first one is broken: that is noticed only at use.

        Raises psycopg.OperationalError, at once if the database is away.
        """
        if self._pulse.away:
            raise psycopg.OperationalError("The database does not answer.")
        link = self._links[name]
        conn = await link.get()
        try:
            return await read(conn)
        except LOST:
            if not conn.closed:  # the server answered, but the statement was too slow, and would be again
                raise
            return await read(await link.get())

    async def close(self) -> None:
        for link in self._links.values():
            await link.close()


def _schema(
    connection: Callable[[], contextlib.AbstractAsyncContextManager[Connection]],
) -> Callable[[], Awaitable[SchemaRelation]]:
    shipped = migrate.shipped()

    async def check() -> SchemaRelation:
        async with connection() as conn:
            return await migrate.relation_to(conn, shipped)

    return check


async def _listen(url: str, arrivals: Arrivals, changed: asyncio.Event, keys: KeyFollower | None) -> None:
    """Turn NOTIFY into announcements. While the connection is broken, wake readers every second instead."""
    while True:
        try:
            conn = await connect(url)
            async with conn:
                await migrate.note_release(conn)
                await conn.execute("listen ledger")
                if keys is not None:
                    await keys.attend(conn)
                arrivals.announce()
                async for payload in notices(conn):
                    if payload is not None:
                        arrivals.announce()
                    elif keys is not None:
                        await keys.refresh(conn)
                    if payload == "directories":
                        changed.set()
        except psycopg.Error:
            _log.warning("listen_lost")
        arrivals.announce()
        await asyncio.sleep(LISTEN_RETRY_S)


async def _follow_directories(services: Services, changed: asyncio.Event, cleaning: asyncio.Event) -> None:
    """Refresh the directories at each notification, and every second, because a notification may be lost."""
    seen = 0
    while True:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(DIRECTORIES_INTERVAL_S):
                await changed.wait()
        changed.clear()
        with contextlib.suppress(psycopg.Error):
            async with services.ledger.connection() as conn:
                await services.ledger.directories.refresh(conn)
        # compared with the last value, because a request may have refreshed before
        if services.ledger.directories.changes != seen:
            seen = services.ledger.directories.changes
            cleaning.set()


async def _watch_log(ledger: OpenLedger) -> None:
    """Watch for a lost end of the log, for events that this process showed to pulling consumers. Delivery processes watch theirs."""
    watch = watch_of(ledger)
    while True:
        await asyncio.sleep(LOG_LOOK_S)
        try:
            async with ledger.connection() as conn:
                await watch.look(conn, places=False, lose=lambda _: None)
        except (*LOST, Unavailable):
            continue
        except Exception:  # a defect must not end the watch
            _log.exception("watch_failed")


async def _warn_of_expiry(ledger: OpenLedger) -> None:
    """Record each hour which tokens expire soon. The event is made once, whichever process is first."""
    while True:
        try:
            await warn_of_expiry(ledger)
        except (*LOST, Unavailable):
            pass  # the next hour is soon enough: the first warning comes 30 days before
        except Exception:  # a defect must not end the warnings
            _log.exception("expiry_not_told")
        await asyncio.sleep(PRUNE_INTERVAL_S)


async def _prune_idempotent(ledger: OpenLedger) -> None:
    while True:
        with contextlib.suppress(psycopg.Error):
            async with ledger.connection() as conn:
                await idempotency.prune(conn)
        await asyncio.sleep(PRUNE_INTERVAL_S)


async def _prune_access(ledger: OpenLedger) -> None:
    while True:
        with contextlib.suppress(psycopg.Error, Unavailable):
            async with ledger.connection() as conn:
                await prune_access(conn)
        await asyncio.sleep(ACCESS_PRUNE_INTERVAL_S)


async def _touch_tokens(services: Services) -> None:
    while True:
        await asyncio.sleep(TOUCH_INTERVAL_S)
        await _touch_used(services)


async def _touch_used(services: Services) -> None:
    """Write where living tokens were used, and that ended ones were sent. While the database accepts no writes they wait."""
    known = services.authentication
    used, known.used = known.used, {}
    refused, known.refused = known.refused, set()
    if not used and not refused:
        return
    try:
        async with services.ledger.connection() as conn:
            await note_uses(conn, services.ledger.kek, used, services.ledger.entropy)
            await note_refusals(conn, list(refused))
    except psycopg.Error:
        known.used = used | known.used  # newer uses win
        known.refused |= refused
