"""An application that receives webhooks: a real HTTP server in its own thread, which tests can make fail."""

import asyncio
import base64
import hashlib
import hmac
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from tests.event_checks import check


@dataclass
class Delivery:
    """One request as it was received."""

    events: list[dict[str, Any]]
    headers: dict[str, str]
    body: bytes
    accepted: bool = False

    @property
    def replay(self) -> str | None:
        return self.headers.get("ledger-replay")


@dataclass
class Answer:
    """The answer to give. `hang`: no answer until the client gives up; `cut`: break the connection, with or without `taken`."""

    status: int = 204
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    hang: bool = False
    cut: bool = False
    taken: bool | None = None  # whether the application kept the event; by default the status decides


Behaviour = Callable[[Delivery], Answer]


class Receiver:
    """Collects deliveries. `behave` decides on each; `accepted` has the kept events in order, with repetitions."""

    def __init__(self) -> None:
        self.behave: Behaviour = lambda _: Answer()
        self.deliveries: list[Delivery] = []
        self.accepted: list[dict[str, Any]] = []
        self.secrets: list[str] = []
        self.unsigned = 0
        self.malformed: list[str] = []  # what published schemas say against received events
        self._changed = threading.Condition()
        self._ready = threading.Event()
        self._loop = asyncio.new_event_loop()
        self.port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hook"

    @property
    def ids(self) -> list[str]:
        return [event["id"] for event in self.accepted]

    def wait(self, until: Callable[[], bool], seconds: float = 60) -> None:
        """Wait until the deliveries fulfil a condition."""
        with self._changed:
            assert self._changed.wait_for(until, seconds), f"{len(self.deliveries)} requests, {len(self.accepted)} accepted"

    async def _take(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        message = json.loads(body)
        if self.secrets and not self._signed(request, body):
            self.unsigned += 1
        data = message["data"]
        delivery = Delivery(
            data if message["type"] == "batch" else [data], {k.lower(): v for k, v in request.headers.items()}, body
        )
        self._check(delivery)
        answer = self.behave(delivery)
        taken = answer.taken if answer.taken is not None else (200 <= answer.status < 300 and not answer.hang and not answer.cut)
        with self._changed:
            delivery.accepted = taken
            self.deliveries.append(delivery)
            if taken:
                self.accepted += delivery.events
            self._changed.notify_all()
        if answer.hang:
            await self._over.wait()
        if answer.cut:
            assert request.transport is not None
            request.transport.abort()
        return web.Response(status=answer.status, body=answer.body, headers=answer.headers)

    def _check(self, delivery: Delivery) -> None:
        for event in delivery.events:
            if event.get("object") == "event":  # a ping has none
                try:
                    check(event)
                except AssertionError as wrong:
                    self.malformed.append(str(wrong))

    def _signed(self, request: web.Request, body: bytes) -> bool:
        text = f"{request.headers['webhook-id']}.{request.headers['webhook-timestamp']}.".encode() + body
        offered = set(request.headers["webhook-signature"].split())
        keys = [base64.b64decode(secret.removeprefix("whsec_")) for secret in self.secrets]
        known = {"v1," + base64.b64encode(hmac.new(key, text, hashlib.sha256).digest()).decode() for key in keys}
        fresh = abs(int(request.headers["webhook-timestamp"]) - time.time()) < 60
        return bool(offered & known) and fresh

    def _serve(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._over = asyncio.Event()
        app = web.Application(client_max_size=2**26)
        app.router.add_post("/hook", self._take)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        self._loop.run_until_complete(runner.setup())
        site = web.TCPSite(runner, "127.0.0.1", self.port)
        self._loop.run_until_complete(site.start())
        self.port = runner.addresses[0][1]
        self._ready.set()
        self._loop.run_forever()
        self._loop.run_until_complete(runner.cleanup())
        self._loop.close()

    def start(self) -> None:
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()
        assert self._ready.wait(10)

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._over.set)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(20)


@contextmanager
def receiver() -> Iterator[Receiver]:
    running = Receiver()
    running.start()
    try:
        yield running
    finally:
        running.stop()
    assert running.malformed == []
