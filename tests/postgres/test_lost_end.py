"""The log loses its end, as after the restore of a backup (docs/operations.md, "A lost end of the log").

Every reader gets all events of the new log, and every reader who has read events of the lost end is told. The services keep
running, or are started again.
"""

import asyncio
import json
import os
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import httpx
import psycopg
import pytest
from eventsourcing.persistence import OperationalError, PersistenceError
from psycopg.conninfo import conninfo_to_dict

from api.app import make_app
from api.services import Services
from ledger.eventsourcing_recorder import LedgerRecorder, LostEndError
from ledger.sealing import Kek
from operations import tokens
from operations.consumers import Webhooks
from runtime import wiring
from runtime.bootstrap import machine
from scim.errors import Unavailable
from tests.postgres.deliveries import LOOPBACK, Hook, Scene, receiving
from tests.postgres.ledgers import opened
from tests.postgres.lost_ends import Database, cut_log

WAIT_S = 30.0
BASE, LOST = 4, 5  # users in both logs, and users only in the old log
LOST_CODES = {"cursor_ahead", "cursor_forked"}
GROWS = [0, LOST, 2 * LOST]  # users added after the restore: the new log ends before, near, or behind the place of a reader


@dataclass
class Stream:
    """A reader of Server-Sent Events, without a network."""

    services: Services
    token: str
    last: str | None = None
    types: str = ""
    status: int = 0
    body: bytes = b""
    gone: asyncio.Event = field(default_factory=asyncio.Event)

    async def run(self) -> None:
        headers = [(b"authorization", f"Bearer {self.token}".encode())]
        if self.last:
            headers.append((b"last-event-id", self.last.encode()))
        scope = {
            "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "GET", "scheme": "http", "path": "/v1/events/stream",
            "raw_path": b"/v1/events/stream", "query_string": self.types.encode(), "headers": headers, "client": ("127.0.0.1", 1), "server": ("t", 80),
        }  # fmt: skip
        await make_app(self.services)(scope, self._receive, self._send)

    async def _receive(self) -> dict[str, Any]:
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Any) -> None:
        self.status = message.get("status", self.status)
        self.body += message.get("body", b"")

    @property
    def blocks(self) -> list[dict[str, str]]:
        texts = [text for text in self.body.decode().split("\n\n") if "data: " in text]
        return [dict(line.split(": ", 1) for line in text.split("\n")) for text in texts]

    def events(self) -> list[dict[str, Any]]:
        return [json.loads(block["data"]) for block in self.blocks if block["event"] not in {"covered", "error"}]

    def error(self) -> dict[str, Any] | None:
        return next((json.loads(block["data"]) for block in self.blocks if block["event"] == "error"), None)


class LedgerWithReaders(Scene):
    """A ledger in this process with its HTTP layer, a webhook, a consumer that pulls, streams, a replay and an eventsourcing
    subscription.
    """

    def __init__(self, *args: Any, http: httpx.AsyncClient, token: str) -> None:
        super().__init__(*args)
        self.http, self.token = http, token
        self.recorder = LedgerRecorder(self.url, self.kek)

    async def get(self, path: str, **params: Any) -> dict[str, Any]:
        for _ in range(20):  # after a restore each connection of the pool may be broken, and each gives one 503
            answer = await self.http.get(f"/v1/{path}", params=params)
            if answer.status_code != 503:
                break
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def users(self, name: str, count: int) -> None:
        """Create some users, as soon as the database answers again."""
        for n in range(count):
            await self.until(lambda n=n: self._created(f"{name}{n}"), "a write is answered")

    async def _created(self, name: str) -> bool:
        with suppress(Unavailable):
            await self.ledger.create_user(name)
            return True
        return False

    async def answers(self) -> None:
        """Wait until the database answers again."""

        async def back() -> bool:
            with suppress(psycopg.Error, OperationalError):
                self.recorder.max_notification_id()
                return (await self.http.get("/v1/events", params={"limit": 1})).status_code == 200
            return False

        await self.until(back, "the database is back")

    async def wanted(self, *topics: str) -> list[dict[str, Any]]:
        """The events of a consumer, as soon as the pool has connections from after the restore."""
        while True:
            with suppress(psycopg.Error):
                return await super().wanted(*topics)

    async def named(self, prefix: str) -> list[dict[str, Any]]:
        """The events in the log about users with these names."""
        return [e for e in await self.wanted() if _about(e).startswith(prefix)]

    def took(self, prefix: str) -> list[dict[str, Any]]:
        return [e for e in self.hook.took if _about(e).startswith(prefix)]

    async def system(self, topic: str) -> list[dict[str, Any]]:
        return (await self.get("events", directory="_system", types=topic, limit=1000))["data"]


def _about(event: dict[str, Any]) -> str:
    return event["data"].get("object", {}).get("userName", "")


@asynccontextmanager
async def world(url: str, kek: Kek, hook: Hook, token: str = "") -> AsyncIterator[LedgerWithReaders]:
    async with opened(url, kek=kek, webhooks=Webhooks(LOOPBACK, 3.0)) as ledger:
        if not token:
            token = (await tokens.issue(ledger.services.ledger, machine(), "admin", "test", ("*",), None, days=1)).text
        headers = {"Authorization": f"Bearer {token}"}
        transport = httpx.ASGITransport(make_app(ledger.services))
        async with httpx.AsyncClient(transport=transport, base_url="http://ledger.test", headers=headers, timeout=60) as http:
            found = LedgerWithReaders(ledger, hook, url, kek, http=http, token=token)
            try:
                yield found
            finally:
                found.recorder.close()


def database(url: str, admin_url: str) -> Database:
    return Database(admin_url, str(conninfo_to_dict(url)["dbname"]))


@dataclass
class Held:
    """Places of the old end that readers have."""

    cursor: str
    event_id: str
    page: str  # a cursor of a consumer's page
    gone: list[str]  # ids of the events that will be lost
    common_seq: int
    place: tuple[int, bytes]  # of the eventsourcing view: position and leaf hash


async def prepared(w: LedgerWithReaders) -> str:
    """The part that both logs have: users, a webhook that got them, a consumer that pulls, a slow replay.

    Returns the id of the run.
    """
    await w.users("base", BASE)
    await w.make(types=("user.*",), batch_max=3)
    await w.make("puller", mode="pull", url=None, types=("user.*",))
    await w.until(lambda: len(w.took("base")) == BASE)
    await w.settled()
    run = await w.replay(rate=1)
    await w.until(lambda: any(h.get("ledger-replay") for h in w.hook.headers), "the replay has begun")
    return str(run.id)


async def lost(w: LedgerWithReaders) -> Held:
    """The part that only the old log has, and the readers that got it."""
    common_seq = (await w.get("events", directory="acme", limit=1000))["head_position"]
    await w.users("lost", LOST)
    gone = [e["id"] for e in await w.named("lost")]
    await w.until(lambda: {e["id"] for e in w.took("lost")} == set(gone))
    page = await w.get("consumers/puller/events", limit=1000)
    acked = await w.http.post("/v1/consumers/puller/ack", json={"through": page["list_metadata"]["after"]})
    assert acked.status_code == 200, acked.text
    whole = await w.get("events", limit=1000)
    position = whole["data"][-1]["position"]
    return Held(
        whole["list_metadata"]["after"], gone[-1], page["list_metadata"]["after"], gone, common_seq,
        (position, w.recorder.place(position).leaf_hash),
    )  # fmt: skip


async def told(w: LedgerWithReaders, held: Held) -> None:
    """Every request with a place of the old end gets an error, whatever it reads."""
    for place in (held.cursor, held.event_id):
        answer = await w.http.get("/v1/events", params={"after": place})
        assert (answer.status_code, answer.json()["code"] in LOST_CODES) == (409, True), answer.text
    for place in (held.page, held.event_id):
        answer = await w.http.post("/v1/consumers/puller/ack", json={"through": place})
        assert (answer.status_code, answer.json()["code"] in LOST_CODES) == (409, True), answer.text
    again = Stream(w.ledger.services, w.token, last=held.cursor)
    await asyncio.wait_for(again.run(), WAIT_S)
    assert again.status == 409
    with pytest.raises(LostEndError):
        await asyncio.to_thread(w.recorder.subscribe, held.place[0], leaf_hash=held.place[1])


async def nothing_is_passed_over(w: LedgerWithReaders) -> None:
    """The webhook and the consumer that pulls get the complete new log."""
    fresh = await w.named("new")
    assert fresh
    await w.until(lambda: {e["id"] for e in fresh} <= {e["id"] for e in w.hook.took}, "the webhook got the new log")
    pulled = await w.get("consumers/puller/events", limit=1000)
    assert [e["id"] for e in fresh] == [e["id"] for e in pulled["data"] if _about(e).startswith("new")]
    answer = await w.http.post("/v1/consumers/puller/ack", json={"through": pulled["list_metadata"]["after"]})
    assert answer.status_code == 200, answer.text
    await w.settled()
    for name in ("app", "puller"):
        audit = await w.get(f"consumers/{name}/audit")
        assert (audit["expected"], audit["holes"], audit["to_come"]) == (audit["acknowledged"], [], 0)
        assert audit["expected"] == len([e for e in await w.wanted() if e["type"].startswith("user.")])


def run(check: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(asyncio.wait_for(check(), 90))  # pyright: ignore[reportArgumentType]


@asynccontextmanager
async def followed(w: LedgerWithReaders, **streams: str) -> AsyncIterator[list[Stream]]:
    """Streams that are open during the loss."""
    opened_ = [Stream(w.ledger.services, w.token, types=types) for types in streams.values()]
    running = [asyncio.create_task(stream.run()) for stream in opened_]
    try:
        yield opened_
    finally:
        for stream in opened_:
            stream.gone.set()
        await asyncio.wait(running, timeout=WAIT_S)


class Subscriber:
    """A projection of a user of the library, in a thread."""

    def __init__(self, recorder: LedgerRecorder) -> None:
        self.ids: list[int] = []
        self.error: Exception | None = None
        self._subscription = recorder.subscribe(gt=0)
        self._thread = threading.Thread(target=self._follow)
        self._thread.start()

    def _follow(self) -> None:
        try:
            with self._subscription as found:
                for notification in found:
                    self.ids.append(notification.id)
        except PersistenceError as error:
            self.error = error

    def close(self) -> None:
        self._subscription.stop()
        self._thread.join(WAIT_S)
        assert not self._thread.is_alive()


@pytest.mark.parametrize("grows", GROWS)
def test_a_lost_end_under_running_services(app_url: str, admin_url: str, grows: int) -> None:
    async def check() -> None:
        kek, there = Kek.of(os.urandom(32)), database(app_url, admin_url)
        async with receiving() as hook, world(app_url, kek, hook) as w, w.working():
            number = await prepared(w)
            there.back_up()
            await w.answers()
            held = await lost(w)
            async with followed(w, whole="", filtered="types=user.*", one="directory=acme") as streams:
                await w.until(
                    lambda: all(held.event_id in {e["id"] for e in s.events()} for s in streams), "streams are at the end"
                )
                subscriber = Subscriber(w.recorder)
                await w.until(lambda: held.place[0] in subscriber.ids)
                polling = asyncio.create_task(w.http.get("/v1/events", params={"after": held.cursor, "wait": 30}))
                there.restore()
                await w.users("new", grows)
                await w.until(lambda: all(s.error() for s in streams), "streams are told")
                assert {s.error()["code"] for s in streams} <= LOST_CODES  # pyright: ignore[reportOptionalSubscript]
                await w.until(lambda: subscriber.error is not None, "the subscription is told")
                assert isinstance(subscriber.error, LostEndError)
                subscriber.close()
                polled = await asyncio.wait_for(polling, WAIT_S)
                assert polled.status_code in {409, 503}, polled.text
            for name in ("app", "puller"):
                status = await forked(w, name)
                assert (status["gone"], status["gone_count"]) == (held.gone, LOST)
                assert (status["common_seq"], status["common"]) == (held.common_seq, {"acme": held.common_seq})
            await told(w, held)
            await w.users("newer", 3)
            await nothing_is_passed_over(w)
            await on_record(w, number, held)

    run(check)


async def forked(w: LedgerWithReaders, name: str) -> dict[str, Any]:
    async def seen() -> Any:
        return (await w.get(f"consumers/{name}"))["forked"]

    await w.until(seen, "the status says it")
    return await seen()


async def on_record(w: LedgerWithReaders, number: str, held: Held) -> None:
    """What an operator sees of the fork until it is closed, and what stays afterwards."""
    replay = await w.get(f"replays/{number}")
    assert (replay["status"], replay["failure"]) == ("failed", "log_forked")
    events = {e["data"]["object"]["name"]: e["data"]["object"]["gone"] for e in await w.system("consumer.forked")}
    assert events == {"app": held.gone, "puller": held.gone}
    assert len(await w.system("replay.failed")) == 1
    assert 'ledger_consumer_forked{consumer="app"} 1.0' in (await w.http.get("/metrics")).text
    audit = await w.get("consumers/app/audit")
    assert (audit["gone_count"], audit["gone"][0]["gone"]) == (LOST, held.gone)
    answer = await w.http.post("/v1/consumers/app/forked/close", json={"reason": "the leavers were taken out by hand"})
    assert (answer.status_code, answer.json()["forked"]) == (200, None), answer.text
    assert (await w.http.post("/v1/consumers/app/forked/close", json={"reason": "twice"})).json()["code"] == "not_forked"
    assert len(await w.system("consumer.fork_closed")) == 1
    assert (await w.get("consumers/app/audit"))["gone_count"] == LOST, "history stays"


@pytest.mark.parametrize("grows", GROWS)
def test_a_lost_end_while_the_services_were_down(app_url: str, admin_url: str, grows: int) -> None:
    async def check() -> None:
        kek, there = Kek.of(os.urandom(32)), database(app_url, admin_url)
        async with receiving() as hook:
            async with world(app_url, kek, hook) as w:
                async with w.working():
                    await prepared(w)
                there.back_up()
                await w.answers()
                async with w.working():
                    held = await lost(w)
            there.restore()
            async with world(app_url, kek, hook, w.token) as w, w.working():
                await w.users("new", grows)
                await told(w, held)
                await w.users("newer", 3)
                await nothing_is_passed_over(w)

    run(check)


@pytest.mark.parametrize("running", [True, False])
@pytest.mark.parametrize("grows", GROWS)
def test_a_log_that_was_cut_by_hand_below_the_places_of_consumers(
    app_url: str, superuser_url: str, grows: int, running: bool
) -> None:
    """Places and checkpoints are left behind: they have leaf hashes, and consumers go back to the last place that both logs have."""

    async def check() -> None:
        kek = Kek.of(os.urandom(32))
        async with receiving() as hook:
            async with world(app_url, kek, hook) as w, w.working():
                await prepared(w)
                head = await w.head()
                held = await lost(w)
                await w.settled()
                if running:
                    cut_log(superuser_url, head)
                    await after_the_cut(w, grows, held, told_ids=True)
            if not running:
                cut_log(superuser_url, head)
                async with world(app_url, kek, hook, w.token) as w, w.working():
                    await after_the_cut(w, grows, held, told_ids=False)

    run(check)


async def after_the_cut(w: LedgerWithReaders, grows: int, held: Held, *, told_ids: bool) -> None:
    await w.users("new", grows)
    for name in ("app", "puller"):
        await forked(w, name)
        if told_ids:
            await w.until(lambda name=name: _gone_of(w, name, held.gone), "who sent them says which")
        status = await forked(w, name)
        assert status["gone_count"] >= LOST
        assert status["gone"] == (held.gone if told_ids else [])
    await told(w, held)
    await w.users("newer", 3)
    await nothing_is_passed_over(w)


async def _gone_of(w: LedgerWithReaders, name: str, gone: list[str]) -> bool:
    return (await forked(w, name))["gone"] == gone


@pytest.mark.parametrize("ordering", ["subject", "directory"])
def test_events_of_the_lost_end_that_were_not_delivered_are_never_delivered(app_url: str, admin_url: str, ordering: str) -> None:
    """Their deliveries had failed and waited for a retry when the log was restored: the receiver has lost nothing, so nothing is
    reported.
    """

    async def check() -> None:
        kek, there = Kek.of(os.urandom(32)), database(app_url, admin_url)
        async with receiving() as hook, world(app_url, kek, hook) as w:
            await w.users("base", BASE)
            await w.make(types=("user.*",), ordering=ordering)
            async with w.working():
                await w.settled()
            there.back_up()
            await w.answers()
            hook.verdict = lambda event: 500 if _about(event).startswith("lost") else None
            async with w.working():
                await w.users("lost", LOST)
                await w.until(lambda: any(_about(e).startswith("lost") for e in hook.tried))
                there.restore()
                await w.users("new", LOST + 1)
                fresh = [e["id"] for e in await w.named("new")]
                await w.until(lambda: set(fresh) <= {e["id"] for e in hook.took}, "the webhook got the new log")
                hook.verdict = lambda _: None
                await w.settled()
            assert not w.took("lost")
            assert (await w.get("consumers/app"))["forked"] is None
            assert await w.system("consumer.forked") == []

    run(check)


def test_a_directory_and_a_consumer_from_after_the_backup_are_unknown(app_url: str, admin_url: str) -> None:
    """After a restore their numbers are given to other directories and consumers."""

    async def check() -> None:
        kek, there = Kek.of(os.urandom(32)), database(app_url, admin_url)
        async with receiving() as hook, world(app_url, kek, hook) as w, w.working():
            await w.users("base", BASE)
            there.back_up()
            await w.answers()
            assert (await w.http.post("/v1/directories", json={"slug": "gone"})).status_code == 201
            await w.make("early", types=("user.*",))
            await w.until(lambda: len(w.took("base")) == BASE)
            directories = w.ledger.services.ledger.directories
            assert directories.known("gone") is not None
            there.restore()
            await w.answers()
            await w.until(lambda: directories.known("gone") is None, "the directory is forgotten")
            assert (await w.http.post("/v1/directories", json={"slug": "other"})).status_code == 201
            assert (await w.http.get("/v1/directories/gone")).status_code == 403
            await w.make("late", types=("user.*",))
            await w.until(lambda: len(w.took("base")) == 2 * BASE, "the consumer of the same number begins at its own beginning")
            assert (await w.get("consumers/late"))["forked"] is None

    run(check)


@pytest.mark.parametrize("acknowledged", [True, False])
def test_a_consumer_that_pulls_before_the_next_comparison_is_told_too(
    app_url: str, admin_url: str, monkeypatch: pytest.MonkeyPatch, *, acknowledged: bool
) -> None:
    """A page of the new log must not hide which lost events were shown at the same positions."""
    monkeypatch.setattr(wiring, "LOG_LOOK_S", 3_600.0)

    async def check() -> None:
        kek, there = Kek.of(os.urandom(32)), database(app_url, admin_url)
        async with receiving() as hook, world(app_url, kek, hook) as w:
            await w.users("base", BASE)
            await w.make("puller", mode="pull", url=None, types=("user.*",))
            there.back_up()
            await w.answers()
            await w.users("lost", LOST)
            gone = [e["id"] for e in await w.named("lost")]
            page = await _pulled(w)
            if acknowledged:
                answer = await w.http.post("/v1/consumers/puller/ack", json={"through": page["list_metadata"]["after"]})
                assert answer.status_code == 200, answer.text
            there.restore()
            await w.users("new", 2 * LOST)
            pulled = await _pulled(w)
            assert [_about(e) for e in pulled["data"]][-1].startswith("new")
            status = (await w.get("consumers/puller"))["forked"]
            assert (status["gone"], status["gone_count"]) == (gone, LOST)
            await _pulled(w)
            assert len(await w.system("consumer.forked")) == 1

    run(check)


async def _pulled(w: LedgerWithReaders) -> dict[str, Any]:
    """A page, as soon as no connection is left that the restore broke."""
    pages: list[httpx.Response] = []

    async def answered() -> bool:
        pages.append(await w.http.get("/v1/consumers/puller/events", params={"limit": 1000}))
        return pages[-1].status_code == 200

    await w.until(answered, "a page comes")
    return pages[-1].json()


def test_each_process_reports_the_events_that_it_sent(app_url: str, admin_url: str) -> None:
    """The consumer moved from one delivery process to another before the end was lost: each of them sent a part."""

    async def check() -> None:
        kek, there = Kek.of(os.urandom(32)), database(app_url, admin_url)
        async with receiving() as hook, world(app_url, kek, hook) as w:
            await w.users("base", BASE)
            await w.make(types=("user.*",))
            async with w.working() as first:
                await w.settled()
                there.back_up()
                await w.answers()
                await w.users("lost", 2)
                await w.settled()
                (held,) = first._held.values()
                held.dispatcher.stop()
                async with w.working():
                    await w.users("lost_too", 3)
                    gone = [e["id"] for e in await w.named("lost")]
                    await w.until(lambda: {e["id"] for e in w.took("lost")} == set(gone))
                    there.restore()
                    await w.answers()
                    await w.until(lambda: _all_gone(w, gone), "both said their part")

    run(check)


async def _all_gone(w: LedgerWithReaders, gone: list[str]) -> bool:
    status = (await w.get("consumers/app"))["forked"]
    return status is not None and set(status["gone"]) == set(gone) and status["gone_count"] == len(gone)
