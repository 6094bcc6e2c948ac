"""A burst from one directory: nothing is lost or reordered, 429 comes only when its queue is full, and other directories write
on.
"""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import psycopg
from psycopg.conninfo import make_conninfo

from database.connections import APPLICATION_NAME
from database.locks import DIRECTORY
from ledger.queue import BATCH_MAX, QUEUED_MAX
from runtime import embedded
from tests.acceptance.conftest import Service

USER = "urn:ietf:params:scim:schemas:core:2.0:User"
PATCH = "urn:ietf:params:scim:api:messages:2.0:PatchOp"
CONNECTIONS = 64
USERS_EACH = 2
PATCHES_EACH = 20
CROWD = QUEUED_MAX + BATCH_MAX + 200  # the writer may have taken a batch already


@dataclass(frozen=True)
class Reply:
    status: int
    headers: dict[str, str]
    body: dict[str, Any]

    @property
    def seq(self) -> int:
        return int(self.headers["ledger-seq"])


class Line:
    """One HTTP connection, so that a test decides which request is sent on which connection, in what order, and when the answer
    is read.
    """

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, path: str, token: str) -> None:
        self._reader, self._writer, self._path, self._token = reader, writer, path, token

    def send(self, method: str, path: str, document: dict[str, Any]) -> None:
        body = json.dumps(document).encode()
        head = f"{method} {self._path}{path} HTTP/1.1\r\nHost: ledger\r\nAuthorization: Bearer {self._token}\r\n"
        self._writer.write(f"{head}Content-Type: application/scim+json\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)

    async def reply(self) -> Reply:
        head = (await self._reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:] if line)}
        body = await self._reader.readexactly(int(headers.get("content-length", 0)))
        return Reply(int(head[0].split()[1]), headers, json.loads(body) if body else {})

    async def ask(self, method: str, path: str, document: dict[str, Any]) -> Reply:
        self.send(method, path, document)
        return await self.reply()

    async def create(self, name: str) -> Reply:
        return await self.ask("POST", "/Users", {"schemas": [USER], "userName": name})

    def close(self) -> None:
        self._writer.close()


@asynccontextmanager
async def lines(service: Service, slug: str, token: str, count: int) -> AsyncIterator[list[Line]]:
    made = []
    for _ in range(count):
        reader, writer = await asyncio.open_connection("127.0.0.1", service.port)
        made.append(Line(reader, writer, f"/scim/{slug}/v2", token))
    try:
        yield made
    finally:
        for line in made:
            line.close()


@dataclass
class Acknowledged:
    """The writes of a directory that were answered as stored: for each user, seq and title of each write in the order of sending."""

    writes: dict[str, list[tuple[int, str | None]]] = field(default_factory=dict)
    statuses: Counter[int] = field(default_factory=Counter)

    def note(self, user: str, reply: Reply, title: str | None) -> None:
        self.statuses[reply.status] += 1
        self.writes.setdefault(user, []).append((reply.seq, title))


def _other(service: Service) -> str:
    """A second directory; returns its SCIM token."""
    assert service.cli("directory", "create", "other").returncode == 0
    return json.loads(service.cli("token", "issue", "scim", "--directory", "other", "--json").stdout)["token"]


def _stored(service: Service, slug: str) -> dict[str, list[tuple[int, str | None]]]:
    """The same from the feed: for each user, the seq of each event and the title after it."""
    found: dict[str, list[tuple[int, str | None]]] = {}
    for event in _feed(service, directory=slug, types="user.*"):
        found.setdefault(event["subject"]["id"], []).append((event["seq"], event["data"]["object"].get("title")))
    return found


def _feed(service: Service, **params: str) -> Iterator[dict[str, Any]]:
    more, after = True, {}
    with service.client("consumer") as reader:
        while more:
            page = reader.get(service.base + "/v1/events", params={**params, **after, "limit": 1000}).json()
            yield from page["data"]
            more, after = page["has_more"], {"after": page["list_metadata"]["after"]}


async def _burst(line: Line, number: int, told: Acknowledged) -> None:
    """Create users, and send to each a series of PATCHes before the first one is answered."""
    for name in (f"storm-{number}-{n}" for n in range(USERS_EACH)):
        created = await line.create(name)
        user = created.body["id"]
        told.note(user, created, None)
        titles = [f"title {n}" for n in range(PATCHES_EACH)]
        for title in titles:
            line.send("PATCH", f"/Users/{user}", _titled(title))
        for title in titles:
            told.note(user, await line.reply(), title)


def _titled(title: str) -> dict[str, Any]:
    return {"schemas": [PATCH], "Operations": [{"op": "replace", "path": "title", "value": title}]}


async def _steady(line: Line, over: "asyncio.Future[Any]", told: Acknowledged) -> None:
    """One write after the other while the storm goes on."""
    while not over.done():
        created = await line.create(f"steady-{told.statuses.total()}")
        told.note(created.body["id"], created, None)


def test_a_storm_loses_and_reorders_nothing_and_another_directory_can_write(make_service: Callable[..., Service]) -> None:
    service = make_service(LEDGER_CONNECTIONS="8000")  # the storm is one of requests; the limit of connections has its own tests
    token = _other(service)
    storm, calm = Acknowledged(), Acknowledged()

    async def run() -> None:
        own = service.first_run["tokens"]["scim"]
        async with lines(service, "acme", own, CONNECTIONS) as many, lines(service, "other", token, 1) as (one,):
            over = asyncio.gather(*(_burst(line, number, storm) for number, line in enumerate(many)))
            await asyncio.gather(over, _steady(one, over, calm))

    asyncio.run(run())
    users = CONNECTIONS * USERS_EACH
    assert storm.statuses == {201: users, 200: users * PATCHES_EACH}, "fewer wait than a queue holds, so nobody is refused"
    assert _stored(service, "acme") == storm.writes, "the acknowledged writes, each once, in the order of sending"
    assert calm.statuses.keys() == {201}
    assert _stored(service, "other") == calm.writes
    order = [event["directory"] for event in _feed(service, types="user.*")]
    first, last = order.index("acme"), len(order) - order[::-1].index("acme")
    assert "other" in order[first:last], "the other directory's writes are stored amid the storm"
    assert service.cli("replay", "verify").returncode == 0


@asynccontextmanager
async def _held(service: Service, slug: str) -> AsyncIterator[None]:
    """Hold the lock of a directory, as a giant commit in another process does: its queue fills and is not emptied."""
    cluster = embedded.running(service.data_dir / "postgres")
    assert cluster is not None
    writer = make_conninfo(
        cluster.url("ledger_owner", "ledger"), application_name=APPLICATION_NAME
    )  # the writer does not wait for the lock of a foreign session
    async with await psycopg.AsyncConnection.connect(writer) as conn:
        await conn.execute(
            f"select pg_advisory_xact_lock({DIRECTORY.number}, id) from ledger.directories where slug = %s", (slug,)
        )
        yield
        await conn.rollback()


def _queued(service: Service) -> int:
    with service.client("operator") as reader:
        text = reader.get(service.base + "/metrics").text
    return next(int(float(line.split()[1])) for line in text.splitlines() if line.startswith("ledger_write_queue_commands{"))


async def _crowd(service: Service, many: list[Line], other: Line) -> tuple[list[Reply], list[Reply]]:
    """Send more writes than the queue of the held directory takes.

    Returns their answers, and those of the other directory meanwhile.
    """
    async with _held(service, "acme"):
        replies = [asyncio.create_task(line.create(f"crowd-{n}")) for n, line in enumerate(many)]
        await asyncio.wait(replies, return_when=asyncio.FIRST_COMPLETED)
        assert _queued(service) >= QUEUED_MAX - BATCH_MAX, "refused only when it is full; a batch may have left it since"
        calm = [await other.create(f"calm-{n}") for n in range(50)]
        # The directory is not written to now, so every answered request was refused; wait for all that must be.
        while sum(reply.done() for reply in replies) < CROWD - QUEUED_MAX - BATCH_MAX:
            await asyncio.wait([reply for reply in replies if not reply.done()], return_when=asyncio.FIRST_COMPLETED)
    return await asyncio.gather(*replies), calm


def test_a_full_queue_is_429_with_retry_after_for_its_directory_alone_and_is_in_the_journal(
    make_service: Callable[..., Service],
) -> None:
    service = make_service(LEDGER_CONNECTIONS="8000")  # the storm is one of requests; the limit of connections has its own tests
    token = _other(service)

    async def run() -> tuple[list[Reply], list[Reply], list[Reply]]:
        own = service.first_run["tokens"]["scim"]
        async with lines(service, "acme", own, CROWD) as many, lines(service, "other", token, 1) as (other,):
            replies, calm = await _crowd(service, many, other)
            refused = [n for n, reply in enumerate(replies) if reply.status == 429]
            return replies, calm, [await many[n].create(f"crowd-{n}") for n in refused]

    replies, calm, again = asyncio.run(run())
    refused = [reply for reply in replies if reply.status == 429]
    assert {reply.status for reply in replies} == {201, 429}
    assert {reply.status for reply in (*calm, *again)} == {201}
    assert CROWD - QUEUED_MAX - BATCH_MAX <= len(refused) <= CROWD - QUEUED_MAX
    assert all(int(reply.headers["retry-after"]) >= 1 and reply.body["status"] == "429" for reply in refused)
    told = {reply.body["id"]: [(reply.seq, None)] for reply in (*replies, *again) if reply.status == 201}
    assert len(told) == CROWD
    assert _stored(service, "acme") == told, "each write once: a refused one left nothing"
    _journal_tells(service, len(refused))


def _journal_tells(service: Service, refused: int) -> None:
    with service.client("operator") as operator:
        for _ in range(10_000):  # the journal is written within a second: ask again until the last request is there
            page = operator.get(service.base + "/v1/requests", params={"status": 429, "limit": 1000}).json()
            if len(page["data"]) == refused:
                break
        assert len(page["data"]) == refused
        assert {(row["directory"], row["method"], row["path"]) for row in page["data"]} == {("acme", "POST", "/Users")}
        assert "fix" in page["data"][0]
    told = service.cli("directory", "doctor", "acme")
    assert told.returncode == 1
    assert f"{refused} requests were answered 429" in " ".join(told.stdout.split())
