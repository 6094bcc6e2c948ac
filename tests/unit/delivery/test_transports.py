"""The contract of transports, run on the webhook and on a second transport that uses only the public interface."""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from pathlib import Path
from tempfile import TemporaryDirectory

import orjson

from delivery.consumers import Allowed
from delivery.transport import Target
from delivery.transports.webhook import Webhooks
from tests.lines import Lines, answering
from tests.transports import LACKS_AFTER, PAUSE_S, SECRET, TIMEOUT_S, Behaviour, Scene, TransportContract
from tests.unit.delivery.test_webhook import http, serving

ANSWERS = {
    "accepts": http(204), "refuses": http(422, b"no such field"), "asks for a pause": http(429, Retry_After=str(int(PAUSE_S))),
    "is gone": http(410), "lacks events": http(409, b'{"expected_previous_seq": %d}' % LACKS_AFTER),
}  # fmt: skip


def _events(body: bytes) -> list[bytes]:
    """The JSON of the events of a webhook request, as they are in its body."""
    message = orjson.loads(body)
    inner = body[body.index(b'"data":') + len(b'"data":') : -1]
    return [inner] if message["type"] != "batch" else [orjson.dumps(one) for one in message["data"]]


class TestWebhook(TransportContract):
    def scene(self, behaviour: Behaviour) -> AbstractAsyncContextManager[Scene]:
        return _webhook(behaviour)


@asynccontextmanager
async def _webhook(behaviour: Behaviour) -> AsyncIterator[Scene]:
    timeout_s = 0.3 if behaviour == "hangs" else TIMEOUT_S
    transport = Webhooks(Allowed.read("127.0.0.0/8"), timeout_s, lambda: 1_700_000_000.0)
    async with serving(ANSWERS.get(behaviour, b"")) as receiver:
        if behaviour == "hangs":
            receiver.handler = receiver.hang
        url = "http://127.0.0.1:9/hooks" if behaviour == "is not there" else receiver.url()
        yield Scene(transport, Target(url, (SECRET,)), lambda: [_events(body) for _, body in receiver.requests])


class TestLines(TransportContract):
    """A transport of one page, written only from docs/architecture.md."""

    def scene(self, behaviour: Behaviour) -> AbstractAsyncContextManager[Scene]:
        return _lines(behaviour)


@asynccontextmanager
async def _lines(behaviour: Behaviour) -> AsyncIterator[Scene]:
    replies = {
        "accepts": b"ok\n", "refuses": b"retry\n", "asks for a pause": b"retry %d\n" % PAUSE_S, "is gone": b"gone\n",
        "lacks events": b"rewind %d\n" % LACKS_AFTER, "hangs": b"", "is not there": b"",
    }  # fmt: skip
    with TemporaryDirectory() as folder:
        path, received = Path(folder, "receiver"), list[list[bytes]]()
        there = nullcontext() if behaviour == "is not there" else answering(path, replies[behaviour], received)
        async with there:
            yield Scene(Lines(0.3 if behaviour == "hangs" else TIMEOUT_S), Target(str(path), (SECRET,)), lambda: received)
