"""A ledger, a receiver on loopback and delivery workers in one process: the real parts, without the service's HTTP layer."""

import asyncio
import inspect
import json
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, cast
from uuid import UUID, uuid4

import psycopg
from aiohttp import web

from delivery import consumers as acts
from delivery.checkpoints import exceptions, place_of
from delivery.consumers import Allowed, Consumer, consumer_named
from delivery.reports import Place
from delivery.runs import Range, Run
from delivery.signing import new_secret
from delivery.status import Lag, lag_of
from delivery.terms import Definition
from delivery.worker import Worker
from ledger.commands import RecordFacts
from ledger.feed import Selection
from ledger.sealing import Kek
from replay.redeliver import plan, started
from runtime.deliver import open_worker, transports_of
from tests.postgres.ledgers import Ledger, opened

WAIT_S = 30.0
LOOPBACK = Allowed.read("127.0.0.0/8")
PEOPLE = ("user.*", "group.*")
Verdict = Callable[[dict[str, Any]], Any]


@dataclass
class Hook:
    """A receiver.

    `verdict` gives the answer to a delivery with an event: None accepts; of a batch the first other answer counts.
    """

    url: str = ""
    verdict: Verdict = lambda _: None
    tried: list[dict[str, Any]] = field(default_factory=list)
    took: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    sizes: list[list[int]] = field(default_factory=list)  # the sizes of the events of each request, in bytes
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    async def post(self, request: web.Request) -> web.Response:
        data = (await request.json())["data"]
        events = data if isinstance(data, list) else [data]
        self.tried += events
        self.sizes.append([len(json.dumps(event, separators=(",", ":"))) for event in events])
        self.headers += [dict(request.headers)] * len(events)
        self.changed.set()
        answer = None
        for event in events:
            answer = self.verdict(event) if answer is None else answer
            if inspect.isawaitable(answer):
                answer = await answer
        if answer is None:
            self.took += events
            answer = web.Response()
        self.changed.set()
        return answer if isinstance(answer, web.Response) else web.Response(status=answer)

    def positions(self) -> list[int]:
        return [event["position"] for event in self.took]


class Scene:
    def __init__(self, ledger: Ledger, hook: Hook, url: str, kek: Kek) -> None:
        self.ledger, self.hook, self.url, self.kek = ledger, hook, url, kek

    # -- acts ---------------------------------------------------------------

    async def act(self, facts: RecordFacts | None) -> None:
        assert facts is not None
        async with self.conn() as conn:
            system = await self.ledger.services.ledger.directories.by_slug(conn, "_system")
        assert system is not None
        await self.ledger.submit(facts, system)

    async def make(self, name: str = "app", start: int = 0, **asked: Any) -> Consumer:
        webhook = {"mode": "webhook", "url": self.hook.url, "retry_schedule": (0, 0, 0), "types": PEOPLE}
        definition = Definition(**{**webhook, **asked})
        async with self.conn() as conn:
            number = await acts.reserve_id(conn)
        secret = new_secret(os.urandom) if definition.mode == "webhook" else None
        facts = acts.creation(number, uuid4(), name, definition, start, kek=self.kek, secret=secret, random=os.urandom)
        await self.act(facts)
        return await self.consumer(name)

    async def replay(self, *, start: bool = True, **asked: Any) -> Run:
        """Start a run over the whole log, or over the range that `asked` names."""
        consumer, rate = await self.consumer(asked.pop("name", "app")), asked.pop("rate", None)
        head = await self.head()
        async with self.conn() as conn:
            reach = tuple(consumer.reach(await self.ledger.services.ledger.directories.all(conn)))
            wanted = Range(**{"after": 0, "through": head, "types": consumer.mask, "directories": reach, **asked})
            planned = await plan(conn, wanted, head)
        run = Run(
            uuid4(), "again", consumer.id, consumer.name, wanted, head, rate, "an outage", "running", len(planned.events),
            planned.superseded, datetime.fromtimestamp(0, UTC), None, 0, wanted.after, (), None,
        )  # fmt: skip
        if start:
            await self.act(started(consumer, run, [e.position for e in planned.events], kek=self.kek, random=os.urandom))
        return run

    # -- reading ------------------------------------------------------------

    def conn(self) -> Any:
        return self.ledger.services.ledger.connection()

    async def sql(self, statement: str, *params: Any) -> list[tuple[Any, ...]]:
        """Run a statement with the role of the service."""
        async with await psycopg.AsyncConnection.connect(self.url, autocommit=True) as conn:
            await conn.execute("set search_path to ledger")
            cursor = await conn.execute(cast("Any", statement), params)
            return await cursor.fetchall() if cursor.description else []

    async def consumer(self, name: str = "app") -> Consumer:
        async with self.conn() as conn:
            found = await consumer_named(conn, name)
        assert found is not None
        return found

    async def head(self) -> int:
        async with self.conn() as conn:
            return await self.ledger.services.ledger.feed.head(conn, Selection())

    async def place(self, name: str = "app") -> Place:
        async with self.conn() as conn:
            return await place_of(conn, await self.consumer(name))

    async def states(self, name: str = "app") -> dict[int, int]:
        """The exceptions of a consumer: the state at each position."""
        async with self.conn() as conn:
            return {e.position: e.state for e in await exceptions(conn, await self.consumer(name))}

    async def lag(self, name: str = "app") -> Lag:
        async with self.conn() as conn:
            directories = await self.ledger.services.ledger.directories.all(conn)
            return await lag_of(conn, self.ledger.services.ledger.feed, await self.consumer(name), directories)

    async def wanted(self, *topics: str) -> list[dict[str, Any]]:
        """The events of users and groups in the log, in order; only of these types if some are given."""
        import orjson

        found, after = [], None
        while True:
            page = await self.ledger.page(after)
            found += [orjson.loads(event.json) for event in page.events]
            after = page.after
            if not page.has_more:
                return [e for e in found if (e["type"] in topics if topics else e["type"].startswith(("user.", "group.")))]

    async def until(self, holds: Callable[[], Any], what: str = "") -> None:
        """Wait until a condition holds; it is checked after each delivery, and at short intervals."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + WAIT_S
        while True:
            self.hook.changed.clear()
            found = holds()
            if await found if isinstance(found, Awaitable) else found:
                return
            assert loop.time() < deadline, f"{what or inspect.getsource(holds).strip()}: {len(self.hook.took)} taken"
            with suppress(TimeoutError):
                await asyncio.wait_for(self.hook.changed.wait(), 0.05)

    async def settled(self, name: str = "app") -> None:
        """Wait until nothing is left to deliver to a consumer."""

        async def done() -> bool:
            lag = await self.lag(name)
            return lag.events == 0 and lag.place.low >= await self.head() - 5

        await self.until(done, "everything is acknowledged")

    async def settled_but(self, count: int, name: str = "app") -> None:
        """Wait until all but this number of events are acknowledged."""

        async def done() -> bool:
            return (await self.lag(name)).events == count

        await self.until(done, f"all but {count} are acknowledged")

    @asynccontextmanager
    async def working(self, timeout_s: float = 3.0) -> AsyncIterator[Worker]:
        async with open_worker(self.url, self.kek, transports_of(LOOPBACK, timeout_s), timeout_s) as worker:
            running = asyncio.create_task(worker.run())
            try:
                yield worker
            finally:
                worker.stop()
                await asyncio.wait_for(running, WAIT_S)


@asynccontextmanager
async def receiving() -> AsyncIterator[Hook]:
    """Starts a receiver on loopback."""
    hook = Hook()
    app = web.Application(client_max_size=64 << 20)
    app.router.add_post("/hooks", hook.post)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    hook.url = f"http://127.0.0.1:{runner.addresses[0][1]}/hooks"
    try:
        yield hook
    finally:
        await runner.cleanup()


@asynccontextmanager
async def scene(url: str) -> AsyncIterator[Scene]:
    kek = Kek.of(os.urandom(32))
    async with receiving() as hook, opened(url, kek=kek) as ledger:
        yield Scene(ledger, hook, url, kek)


def subject_of(event: dict[str, Any]) -> UUID:
    return UUID(event["subject"]["id"])


def edge_of(event: dict[str, Any]) -> tuple[str, str] | None:
    data = event["data"]
    return (data["group"]["id"], data["member"]["id"]) if "member" in data else None


LIFECYCLE = {"created", "deactivated", "reactivated", "deleted", "erased"}


def must_follow(later: dict[str, Any], earlier: dict[str, Any]) -> bool:
    """Whether the rules of `ordering: subject` require one event to be delivered before another."""
    one, other = edge_of(earlier), edge_of(later)
    if other is not None:
        unfinished = one is None and earlier["type"].split(".")[1] in LIFECYCLE and earlier["subject"]["id"] in other
        return one == other or unfinished
    if one is None:
        return earlier["subject"]["id"] == later["subject"]["id"]
    return later["type"].split(".")[1] in {"deleted", "erased"} and later["subject"]["id"] in one


def in_order(took: list[dict[str, Any]]) -> bool:
    """Whether no event was accepted before one that it depends on."""
    return not any(
        earlier["position"] > later["position"] and must_follow(earlier, later)
        for n, earlier in enumerate(took)
        for later in took[n + 1 :]
    )
