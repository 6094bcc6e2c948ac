"""The limits for unauthenticated clients, over real sockets with the real protocol class, with deadlines of fractions of a
second.
"""

import asyncio
import contextlib
import gc
import json
import socket
import tracemalloc
import weakref
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, cast

import pytest
import uvicorn
import uvloop
from uvicorn.server import ServerState

from runtime.protocol import Doorkeeper, Limits, remaining

QUICK = Limits(
    head_s=0.4, body_s=0.4, answer_s=0.4, idle_s=0.6, sweep_s=0.05, rate=1_000, farewell_s=0.5, connections=20, turned_away=4
)
PATIENT = Limits(sweep_s=0.05)
DEADLINE_S = 20.0  # of a test: a busy machine must not make it fail
GET = b"GET /v1/x HTTP/1.1\r\nHost: a\r\n\r\n"


@dataclass
class App:
    """An ASGI application that reads its requests, and gives the answers that the test sets."""

    reads: bool = True
    status: int = 200
    parts: tuple[bytes, ...] = (b"whole",)
    seen: list[dict[str, Any]] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    gone: int = 0
    hold: asyncio.Event | None = None
    pause: asyncio.Event | None = None  # set by the test between head and body

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.seen.append(scope)
        body, more = b"", self.reads
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                self.gone += 1
                return
            body, more = body + message["body"], message["more_body"]
        self.bodies.append(body)
        if self.hold is not None:
            await self.hold.wait()
        await send({"type": "http.response.start", "status": self.status, "headers": []})
        if self.pause is not None:
            await self.pause.wait()
        for part in self.parts:
            await send({"type": "http.response.body", "body": part, "more_body": True})
        await send({"type": "http.response.body", "body": b""})


@dataclass
class Served:
    port: int
    app: App
    keeper: Doorkeeper
    cut: Counter[str]
    clients: list[asyncio.StreamWriter] = field(default_factory=list)

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        self.clients.append(writer)
        return reader, writer

    async def say(self, data: bytes) -> bytes:
        """Send, and read until the server closes."""
        reader, writer = await self.connect()
        with contextlib.suppress(ConnectionError):
            writer.write(data)
            await writer.drain()
        return await rest(reader)

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until a condition holds for the server, which runs on this event loop."""
        while not condition():
            await asyncio.get_running_loop().run_in_executor(None, lambda: None)


@contextlib.asynccontextmanager
async def serving(app: App, limits: Limits) -> AsyncIterator[Served]:
    config = uvicorn.Config(
        app, log_config=None, access_log=False, lifespan="off", http="httptools", ws="none", timeout_keep_alive=75
    )
    config.load()
    cut = Counter[str]()
    keeper, state = Doorkeeper(limits, cut=lambda reason: cut.update([reason])), ServerState()
    state.default_headers = [(b"x-content-type-options", b"nosniff")]
    server = await asyncio.get_running_loop().create_server(
        lambda: keeper.protocol(config, state, {}), "127.0.0.1", 0, backlog=2048
    )
    sweeping = asyncio.create_task(keeper.sweep())
    served = Served(server.sockets[0].getsockname()[1], app, keeper, cut)
    try:
        yield served
    finally:
        sweeping.cancel()
        for client in served.clients:
            client.transport.abort()
        server.close()
        for protocol in [*keeper.open, *keeper.leaving]:
            protocol.transport.abort()
        for task in list(state.tasks):
            task.cancel()


def run(story: Callable[[Served], Awaitable[None]], limits: Limits = QUICK, **app: Any) -> None:
    """Run a scenario against a server, on the event loop that the service uses."""

    async def told() -> None:
        async with asyncio.timeout(DEADLINE_S), serving(App(**app), limits) as served:
            await story(served)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(told())


async def rest(reader: asyncio.StreamReader) -> bytes:
    """All bytes until the connection ends, in whatever way."""
    got = b""
    with contextlib.suppress(ConnectionError):
        while data := await reader.read(65_536):
            got += data
    return got


def status(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1])


def headers(answer: bytes) -> dict[str, str]:
    lines = answer.partition(b"\r\n\r\n")[0].decode().split("\r\n")[1:]
    return {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}


def post(body: bytes, *lines: bytes, path: bytes = b"/v1/x") -> bytes:
    return b"\r\n".join((b"POST " + path + b" HTTP/1.1", b"Host: a", *lines, b"", body))


def chunked(*chunks: bytes) -> bytes:
    return b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks)


# Deadlines


@pytest.mark.parametrize(
    ("sent", "answered"),
    [
        (b"", None), (b"\r\n\r\n", None), (b"GE", 408), (b"GET / HTTP/1.1\r\nHost: a\r\n", 408),
        (post(b"half", b"Content-Length: 8"), 408), (post(b"5\r\nha", b"Transfer-Encoding: chunked"), 408), (GET, 200),
    ],
)  # fmt: skip
def test_a_client_that_stops_sending_is_disconnected_in_time(sent: bytes, answered: int | None) -> None:
    """The cases: nothing sent, half a head, a head and half a body, idle after an answer, and variants of these."""

    async def story(served: Served) -> None:
        began = asyncio.get_running_loop().time()
        answer = await served.say(sent)
        assert asyncio.get_running_loop().time() - began < 5 * QUICK.idle_s
        assert (status(answer) if answer else None) == answered
        await served.until(lambda: not served.keeper.open)

    run(story)


def test_an_idle_connection_is_kept_until_shortly_before_its_time() -> None:
    async def story(served: Served) -> None:
        reader, writer = await served.connect()
        for _ in range(2):
            began = asyncio.get_running_loop().time()
            writer.write(GET)
            assert b"200 OK" in await reader.readuntil(b"0\r\n\r\n")
        await rest(reader)
        assert asyncio.get_running_loop().time() - began >= QUICK.idle_s - 3 * QUICK.sweep_s

    run(story)


def test_a_head_that_arrives_too_slowly_is_refused() -> None:
    """Each byte arrives in time, but the head is not complete in time."""

    async def story(served: Served) -> None:
        reader, writer = await served.connect()
        heard = asyncio.create_task(rest(reader))
        for byte in GET.replace(b"\r\n\r\n", b"\r\nX: " + b"x" * 1_000):
            writer.write(bytes([byte]))
            if (await asyncio.wait({heard}, timeout=0.03))[0]:
                break
        assert status(await heard) == 408
        assert served.cut["head_timeout"] == 1

    run(story)


@pytest.mark.parametrize(("size", "arrives"), [(100, True), (5, False)])
def test_a_body_must_make_progress(size: int, arrives: bool) -> None:
    """100 bytes each 30 ms are 3 KB/s, 5 bytes are 160 B/s; the required rate is 1 KB/s after the time that each body has."""
    many = 40

    async def story(served: Served) -> None:
        reader, writer = await served.connect()
        writer.write(post(b"", b"Connection: close", b"Content-Length: %d" % (size * many)))
        heard = asyncio.create_task(rest(reader))
        for _ in range(many):
            writer.write(b"x" * size)
            if (await asyncio.wait({heard}, timeout=0.03))[0]:
                break
        assert status(await heard) == (200 if arrives else 408)
        assert served.app.gone == (0 if arrives else 1)

    run(story)


def test_a_client_is_not_disconnected_while_the_service_does_not_read_its_body() -> None:
    async def story(served: Served) -> None:
        served.app.hold = asyncio.Event()
        served.app.reads = False
        reader, writer = await served.connect()
        writer.write(post(b"x" * 200_000, b"Content-Length: 400000"))
        await served.until(lambda: bool(served.app.seen) and next(iter(served.keeper.open)).flow.read_paused)
        assert (await asyncio.wait({heard := asyncio.create_task(rest(reader))}, timeout=3 * QUICK.body_s))[0] == set()
        served.app.hold.set()
        assert status(await heard) == 200

    run(story)


@pytest.mark.parametrize("parts", [(b"x" * 30_000_000,), (b"x" * 1_000_000,) * 1_000], ids=["whole", "streamed"])
def test_a_connection_whose_answer_is_not_read_is_closed(parts: tuple[bytes, ...]) -> None:
    async def story(served: Served) -> None:
        with socket.socket() as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
            client.connect(("127.0.0.1", served.port))
            client.sendall(GET)
            await served.until(lambda: bool(served.app.seen))
            (protocol,) = served.keeper.open
            await served.until(lambda: not served.keeper.open)
            assert served.cut["answer_unread"] == 1
            assert protocol.transport.get_write_buffer_size() == 0

    run(story, parts=parts)


def test_a_connection_whose_answer_is_read_slowly_but_steadily_is_kept() -> None:
    """The whole answer takes longer than a reader may pause."""
    size = 12_000_000

    async def story(served: Served) -> None:
        reader, writer = await served.connect()
        writer.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
        writer.write(GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
        got, began, loop = 0, asyncio.get_running_loop().time(), asyncio.get_running_loop()
        while data := await reader.read(65_536):
            got += len(data)
            await asyncio.wait({loop.create_future()}, timeout=0.005)
        assert got > size
        assert loop.time() - began > QUICK.answer_s

    run(story, parts=(b"x" * 100_000,) * (size // 100_000))


def test_the_time_that_a_transfer_has_left() -> None:
    assert remaining(20.0, 20.0, 1.0, 0.0) == 19.0
    assert remaining(19.0, 20.0, 1.0, 0.5) == 18.5, "progress adds time to the allowance"
    assert remaining(19.0, 20.0, 1.0, 1_000.0) == 20.0, "the allowance has a maximum, so nobody can save up for a long silence"


# Sizes


@pytest.mark.parametrize(
    ("head", "answered"),
    [
        (b"X: " + b"x" * 31_000, 200), (b"X: " + b"x" * 33_000, 431), (b"X: " + b"x" * 2_000_000, 431),
        (b"\r\n".join(b"X%d: y" % n for n in range(126)), 200), (b"\r\n".join(b"X%d: y" % n for n in range(128)), 431),
    ],
)  # fmt: skip
@pytest.mark.parametrize("piece", [1_000, 3_000_000])
def test_the_head_is_bounded(head: bytes, answered: int, piece: int) -> None:
    async def story(served: Served) -> None:
        data = b"GET /v1/x HTTP/1.1\r\nHost: a\r\n" + head + b"\r\nConnection: close\r\n\r\n"
        if answered == 200:
            data = data.replace(b"Host: a\r\n", b"")
        reader, writer = await served.connect()
        heard = asyncio.create_task(rest(reader))
        with contextlib.suppress(ConnectionError):
            for start in range(0, len(data), piece):
                writer.write(data[start : start + piece])
                await writer.drain()
        answer = await heard
        assert status(answer) == answered
        assert len(served.app.seen) == (answered == 200)
        if answered != 200:
            assert headers(answer)["content-type"] == "application/problem+json"
            assert json.loads(answer.partition(b"\r\n\r\n")[2])["code"] == "headers_too_large"

    run(story, PATIENT)


@pytest.mark.parametrize(("length", "answered"), [(16_000, 200), (17_000, 414), (40_000, 414)])
def test_the_length_of_the_url_is_bounded(length: int, answered: int) -> None:
    async def story(served: Served) -> None:
        path = b"/" + b"x" * length
        assert status(await served.say(b"GET " + path + b" HTTP/1.1\r\nConnection: close\r\n\r\n")) in {answered, 431}

    run(story, PATIENT)


def test_a_large_request_and_the_next_one_are_not_counted_as_one_large_head() -> None:
    async def story(served: Served) -> None:
        first = post(b"x" * 60_000, b"Content-Length: 60000")
        second = post(b"y", b"Content-Length: 1", b"Connection: close")
        reader, writer = await served.connect()
        writer.write(first + second[:40])
        await served.until(lambda: bool(served.app.bodies))
        writer.write(second[40:])
        assert (await rest(reader)).count(b"200 OK") == 2
        assert served.app.bodies == [b"x" * 60_000, b"y"]

    run(story, PATIENT)


@pytest.mark.parametrize(
    "body",
    [
        chunked(*[b"x"] * 100_000),  # six bytes on the wire, and two calls, for each byte of the body
        b"1;" + b"e" * 400_000 + b"\r\nx\r\n0\r\n\r\n",  # an extension longer than any body
        b"1\r\nx\r\n0\r\nT: " + b"t" * 400_000,  # a trailer that does not end
        b"1\r\nx\r\n0\r\n" + b"T: t\r\n" * 50_000,  # trailers that do not end
    ],
    ids=["tiny chunks", "extension", "trailer", "trailers"],
)
@pytest.mark.parametrize("piece", [4_000, 3_000_000])
def test_the_framing_of_a_body_is_bounded(body: bytes, piece: int) -> None:
    async def story(served: Served) -> None:
        reader, writer = await served.connect()
        heard = asyncio.create_task(rest(reader))
        data = post(body, b"Transfer-Encoding: chunked")
        with contextlib.suppress(ConnectionError):
            for start in range(0, len(data), piece):
                writer.write(data[start : start + piece])
                await writer.drain()
                await asyncio.sleep(0)  # the server reads it here: an extension that arrives in pieces must be refused too
        answer = await heard
        assert status(answer) == 400
        assert b"body_framing" in answer
        assert served.app.bodies == []

    run(story, PATIENT)


def test_usual_chunks_are_accepted() -> None:
    async def story(served: Served) -> None:
        chunks = [b"x" * 8_192] * 100 + [b"y"] * 500 + [b"z" * 40] * 5_000
        signed = b"".join(b"%x;chunk-signature=%s\r\n%s\r\n" % (len(c), b"a" * 64, c) for c in chunks[:100])
        end = b"0\r\nAuthorization: Bearer other\r\n\r\n"
        answer = await served.say(
            post(signed + chunked(*chunks[100:]) + end, b"Transfer-Encoding: chunked", b"Connection: close")
        )
        assert status(answer) == 200
        assert served.app.bodies == [b"".join(chunks)]
        names = [name for name, _ in served.app.seen[0]["headers"]]
        assert names == [b"host", b"transfer-encoding", b"connection"], "a trailer is no header"

    run(story, PATIENT)


# Requests that could be read in two ways


@pytest.mark.parametrize(
    "request_",
    [
        post(b"0\r\n\r\n", b"Content-Length: 5", b"Transfer-Encoding: chunked"),
        post(b"0\r\n\r\n", b"Transfer-Encoding: chunked", b"Content-Length: 5"),
        post(b"0\r\n\r\n", b"Transfer-Encoding : chunked"),
        post(b"0\r\n\r\n", b"Transfer-Encoding: chunked, identity"),
        post(b"0\r\n\r\n", b"Transfer-Encoding: identity"),
        post(b"0\r\n\r\n", b"Transfer-Encoding: xchunked"),
        post(b"abcde", b"Content-Length: 5", b"Content-Length: 6"),
        post(b"abcde", b"Content-Length: 5, 5"),
        post(b"abcde", b"Content-Length: +5"),
        post(b"abcde", b"Content-Length: -5"),
        post(b"abcde", b"Content-Length: 5x"),
        post(b"abcde", b"Content-Length:"),
        post(b"abcde", b"Content-Length: 99999999999999999999999"),
        post(b"5x\r\nabcde\r\n0\r\n\r\n", b"Transfer-Encoding: chunked"),
        post(b"5\nabcde\r\n0\r\n\r\n", b"Transfer-Encoding: chunked"),
        post(b"FFFFFFFFFFFFFFFFFF\r\nabcde", b"Transfer-Encoding: chunked"),
        b"GET /v1/x HTTP/1.1\nHost: a\n\n",
        b"GET /v1/x HTTP/1.1\r\nHost: a\r\n folded\r\n\r\n",
        b"GET /v1/x HTTP/1.1\r\nHost: a\0b\r\n\r\n",
        b"CONNECT a:80 HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET \xff HTTP/1.1\r\nHost: a\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc",
        b"GET /v1/x\r\n\r\n",
        b"GET /v1/x HTTP/1.2\r\n\r\n",
    ],
)
def test_an_ambiguous_request_reaches_no_application(request_: bytes) -> None:
    async def story(served: Served) -> None:
        answer = await served.say(request_)
        assert status(answer) in {400, 505}
        told = headers(answer)
        assert (told["connection"], told["cache-control"], told["x-content-type-options"]) == ("close", "no-store", "nosniff")
        assert served.app.bodies == []

    run(story, PATIENT)


def test_errors_have_the_format_of_their_address() -> None:
    async def story(served: Served) -> None:
        answer = await served.say(post(b"x\r\n", b"Transfer-Encoding: chunked", path=b"/scim/acme/v2/Users"))
        assert headers(answer)["content-type"] == "application/scim+json;charset=utf-8"
        told = json.loads(answer.partition(b"\r\n\r\n")[2])
        assert (told["schemas"], told["status"]) == (["urn:ietf:params:scim:api:messages:2.0:Error"], "400")

    run(story, PATIENT)


def test_requests_before_an_invalid_one_are_answered_and_later_ones_are_not() -> None:
    async def story(served: Served) -> None:
        served.app.hold = asyncio.Event()
        reader, writer = await served.connect()
        writer.write(GET + GET + b"GET / HTTP/9\r\n\r\n" + GET)
        await served.until(lambda: bool(served.app.seen))
        served.app.hold.set()
        answer = await rest(reader)
        assert (answer.count(b"HTTP/1.1 200 OK"), answer.count(b"HTTP/1.1 ")) == (2, 2)
        assert answer.count(b"connection: close") == 1
        assert len(served.app.seen) == 2

    run(story, PATIENT)


def test_a_request_with_a_broken_body_behind_another_one_is_never_begun() -> None:
    async def story(served: Served) -> None:
        served.app.hold = asyncio.Event()
        reader, writer = await served.connect()
        writer.write(GET + post(b"x\r\n", b"Transfer-Encoding: chunked") + GET)
        await served.until(lambda: bool(served.app.seen))
        served.app.hold.set()
        assert (await rest(reader)).count(b"HTTP/1.1 ") == 1
        assert len(served.app.seen) == 1

    run(story, PATIENT)


def test_only_a_few_pipelined_requests_are_accepted() -> None:
    async def story(served: Served) -> None:
        served.app.hold = asyncio.Event()
        reader, writer = await served.connect()
        writer.write(GET * 5_000)
        await served.until(lambda: bool(served.app.seen))
        (protocol,) = served.keeper.open
        assert len(protocol.pipeline) <= PATIENT.pipelined
        served.app.hold.set()
        assert (await rest(reader)).count(b"HTTP/1.1 200 OK") == PATIENT.pipelined + 1

    run(story, PATIENT)


@pytest.mark.parametrize("upgrade", [b"h2c", b"websocket"])
@pytest.mark.parametrize("body", [b"", b"abc", GET])
@pytest.mark.parametrize("piece", [1, 10_000])
def test_an_offered_upgrade_is_not_accepted_and_hides_no_body(upgrade: bytes, body: bytes, piece: int) -> None:
    """Java's client offers h2c with its first request, also with a body, and continues with HTTP/1.1."""

    async def story(served: Served) -> None:
        offer = (b"Connection: Upgrade", b"Upgrade: " + upgrade)
        first = [
            post(body, *offer, b"Content-Length: %d" % len(body)),
            post(chunked(body) + b"0\r\n\r\n" if body else b"0\r\n\r\n", *offer, b"Transfer-Encoding: chunked"),
            b"GET /v1/x HTTP/1.1\r\n" + b"\r\n".join(offer) + b"\r\n\r\n",
        ]
        data = b"".join(first) + post(b"next", b"Content-Length: 4", b"Connection: close")
        reader, writer = await served.connect()
        for start in range(0, len(data), piece):
            writer.write(data[start : start + piece])
            await served.until(lambda: True)
        assert (await rest(reader)).count(b"HTTP/1.1 200 OK") == 4
        assert served.app.bodies == [body, body, b"", b"next"]

    run(story, PATIENT)


def test_http_1_0_is_answered_and_closed() -> None:
    async def story(served: Served) -> None:
        answer = await served.say(b"GET /v1/x HTTP/1.0\r\n\r\n" + GET)
        assert (status(answer), answer.count(b"HTTP/1.1 ")) == (200, 1)

    run(story, PATIENT)


# Answers before the body is complete


@pytest.mark.parametrize("length", [b"Content-Length: 209715200", b"Transfer-Encoding: chunked"])
def test_a_body_behind_a_refusal_is_neither_kept_nor_parsed(length: bytes) -> None:
    """200 MiB follow a refused request: the client can read the answer, and its bytes are discarded."""

    async def story(served: Served) -> None:
        reader, writer = await served.connect()
        heard = asyncio.create_task(rest(reader))
        writer.write(post(b"", length))
        block = chunked(b"x" * 2**20)
        tracemalloc.start()
        sent = 0
        with contextlib.suppress(ConnectionError):
            while sent < 200 * 2**20:
                writer.write(block)
                await writer.drain()
                sent += len(block)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        answer = await heard
        assert status(answer) == 401
        assert headers(answer)["connection"] == "close"
        assert sent < 30 * 2**20, "the buffers of the operating system, and the bytes discarded before the close"
        assert peak < 8 * 2**20
        await served.until(lambda: not served.keeper.open)

    run(story, PATIENT, reads=False, status=401)


def test_a_request_with_expect_100_continue_is_refused_before_its_body_or_gets_the_continue() -> None:
    async def refused(served: Served) -> None:
        answer = await served.say(post(b"", b"Content-Length: 5", b"Expect: 100-continue"))
        assert status(answer) == 401
        assert headers(answer)["connection"] == "close", (
            "a client that sends its next request now would have it taken for the body"
        )

    async def invited(served: Served) -> None:
        reader, writer = await served.connect()
        writer.write(post(b"", b"Content-Length: 5", b"Expect: 100-continue", b"Connection: close"))
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(b"abcde")
        assert status(await rest(reader)) == 200

    run(refused, PATIENT, reads=False, status=401)
    run(invited, PATIENT)


def test_a_refusal_of_a_complete_request_keeps_the_connection() -> None:
    async def story(served: Served) -> None:
        reader, writer = await served.connect()
        for _ in range(3):
            writer.write(post(b"x" * 1_000, b"Content-Length: 1000"))
            assert b"connection: close" not in await reader.readuntil(b"0\r\n\r\n")
        (protocol,) = served.keeper.open
        assert protocol.cycle.body == b"", "what was not read is not kept either"

    run(story, PATIENT, reads=False, status=401)


# Connections


def test_connections_beyond_the_limit_get_503_and_others_may_connect_once_they_are_closed() -> None:
    async def story(served: Served) -> None:
        kept = [await served.connect() for _ in range(QUICK.connections)]
        await served.until(lambda: len(served.keeper.open) == QUICK.connections)
        answer = await served.say(GET)
        assert status(answer) == 503
        assert headers(answer)["retry-after"] == "1"
        assert b"LEDGER_CONNECTIONS" in answer
        crowd = [await served.connect() for _ in range(50)]
        await served.until(lambda: served.cut["connections"] == 51)
        assert len(served.keeper.open) == QUICK.connections
        assert len(served.keeper.leaving) <= QUICK.turned_away
        for _, writer in (*kept, *crowd):
            writer.close()
        await served.until(lambda: not served.keeper.open and not served.keeper.leaving)
        reader, writer = await served.connect()
        writer.write(GET)
        assert b"200 OK" in await reader.readuntil(b"0\r\n\r\n")

    run(story, Limits(connections=QUICK.connections, turned_away=QUICK.turned_away, sweep_s=0.05))


def test_a_disconnected_client_is_noticed_by_each_of_its_pipelined_requests() -> None:
    async def story(served: Served) -> None:
        _reader, writer = await served.connect()
        served.app.hold = asyncio.Event()
        writer.write(GET + GET)
        await served.until(lambda: bool(served.app.seen))
        (protocol,) = served.keeper.open
        running = protocol._running
        writer.transport.abort()
        await served.until(lambda: not served.keeper.open)
        assert running is not None
        assert running.disconnected
        assert not protocol.pipeline

    run(story, PATIENT)


@dataclass
class Recorder:
    """A transport that records which bytes were written in one call."""

    inner: asyncio.Transport
    written: list[bytes] = field(default_factory=list)

    def write(self, data: bytes) -> None:
        self.written.append(bytes(data))
        self.inner.write(data)

    def writelines(self, parts: tuple[bytes, ...]) -> None:
        self.written.append(b"".join(parts))
        self.inner.writelines(parts)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)


def test_head_and_body_of_a_short_answer_are_sent_in_one_call() -> None:
    async def story(served: Served) -> None:
        reader, writer = await served.connect()
        await served.until(lambda: bool(served.keeper.open))
        protocol = next(iter(served.keeper.open))
        protocol.transport = recorder = cast("Any", Recorder(protocol.transport))
        for _ in range(2):  # on the same connection
            writer.write(GET)
            assert b"whole" in await reader.readuntil(b"0\r\n\r\n")
        assert [piece.startswith(b"HTTP/1.1 200") and b"whole" in piece for piece in recorder.written] == [True, False] * 2

    run(story, PATIENT)


def test_a_head_whose_body_comes_later_is_sent_at_once() -> None:
    async def story(served: Served) -> None:
        served.app.pause = asyncio.Event()
        reader, writer = await served.connect()
        writer.write(GET)
        assert status(await reader.readuntil(b"\r\n\r\n")) == 200
        served.app.pause.set()
        assert b"whole" in await reader.readuntil(b"0\r\n\r\n")

    run(story, PATIENT)


def test_an_announced_body_is_requested_before_the_answer() -> None:
    async def story(served: Served) -> None:
        reader, writer = await served.connect()
        writer.write(b"POST /v1/x HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n")
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(b"{}")
        assert status(await reader.readuntil(b"\r\n\r\n")) == 200

    run(story, PATIENT)


def test_a_request_that_was_answered_is_freed_without_the_garbage_collector() -> None:
    """With a cycle of references, each body would stay in memory until the collector runs, and the collector would run often
    because of it.
    """

    async def story(served: Served) -> None:
        reader, writer = await served.connect()
        requests = list[weakref.ref[Any]]()
        for _ in range(3):
            writer.write(GET)
            await reader.readuntil(b"0\r\n\r\n")
            (protocol,) = served.keeper.open
            request = protocol.cycle
            await served.until(partial(getattr, request, "response_complete"))
            requests.append(weakref.ref(request))
            del request
        assert [request() is None for request in requests] == [True, True, False]

    gc.disable()
    try:
        run(story, PATIENT)
    finally:
        gc.enable()
