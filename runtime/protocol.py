"""uvicorn's HTTP protocol with limits on deadlines, sizes and connections (docs/operations.md, "Limits for strangers").

uvicorn has none of them: a socket that says nothing is kept for ever, a head may be as long as memory, and a client that does not read
its answer holds it. One sweep a second over the open connections enforces the deadlines, so that a request pays for no timer.
What is wrong with the bytes is answered here, in the form of the address that was asked for; everything else is the application's.
"""

import asyncio
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, cast

import httptools
import orjson
import structlog
from uvicorn.config import Config
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from scim.errors import ERROR_URN

_log = structlog.get_logger("runtime.protocol")
LOG_INTERVAL_S: Final = 10.0  # strangers must not fill the log: one line for all that was cut meanwhile


@dataclass(frozen=True, slots=True)
class Limits:
    """What one process takes of a client before it knows who that is. Times in seconds, sizes in bytes."""

    connections: int = 1_000  # open at once
    head_s: float = 20.0  # until the head of a request is whole: from the opening of the connection, later from its first byte
    body_s: float = 20.0  # how long a body may stand still, or fall behind `rate`
    answer_s: float = 60.0  # how long a client may leave its answer unread, or fall behind `rate`
    rate: int = 1_024  # bytes a second of a body, and of an answer
    idle_s: float = (
        75.0  # an answered connection is closed by then: longer than the 60 s of usual load balancers, so that they close first
    )
    sweep_s: float = 1.0  # how often that is looked at, hence how late it is noticed
    head_bytes: int = 32_768  # request line and headers, and as much again for trailers and whatever else frames a body
    target_bytes: int = 16_384  # of the request line; the longest filters of IdPs are a few hundred bytes
    headers: int = 128  # each costs an object
    pipelined: int = 64  # requests behind the one being answered, all of one read (reading pauses then); no IdP sends any
    farewell_s: float = 2.0  # a client that is still sending gets this long to read why it was refused ...
    farewell_bytes: int = 2**20  # ... and may send this much, which is thrown away unread
    turned_away: int = 64  # connections beyond `connections` that are told so at once; further ones are cut


class Refusal(NamedTuple):
    """Why bytes do not become a request."""

    status: int
    code: str
    detail: str


MALFORMED: Final = Refusal(
    400, "malformed_request", "These bytes are no HTTP/1.1 request. A proxy in between may have changed them."
)
VERSION: Final = Refusal(505, "http_version", "Send HTTP/1.1.")
HEAD_TOO_LARGE: Final = Refusal(
    431, "headers_too_large", "Request line and headers are too large. Send fewer or shorter ones: 32 KiB, 128 headers."
)
TARGET_TOO_LONG: Final = Refusal(
    414, "address_too_long", "The address is longer than 16 KiB. Send a long filter as POST to /.search."
)
FRAMING: Final = Refusal(
    400,
    "body_framing",
    "The body comes in too many small chunks, with too much around them. Send Content-Length, or larger chunks.",
)
HEAD_LATE: Final = Refusal(408, "head_timeout", "The head of the request was not whole in time. Send it at once.")
BODY_LATE: Final = Refusal(408, "body_timeout", "The body of the request came too slowly. Send it at 1 KiB/s or more.")
FULL: Final = Refusal(
    503,
    "too_many_connections",
    "The service has all the connections it takes (LEDGER_CONNECTIONS). Try again in a moment, and keep fewer open.",
)
BUSY: Final = Refusal(400, "pipelining", "Too many requests were sent ahead of their answers.")


def remaining(left: float, most: float, elapsed: float, progress: float) -> float:
    """Seconds that a transfer may go on: they run out with time and are earned by progress (in seconds' worth), up to `most`."""
    return min(most, left - elapsed + progress)


class Doorkeeper:
    """The connections of one listening process: how many there are, and the sweep that ends those that are overdue."""

    def __init__(
        self,
        limits: Limits,
        cut: Callable[[str], None] = lambda _reason: None,
        opened: Callable[[int], None] = lambda _count: None,
    ) -> None:
        self.limits = limits
        self.open: set[Protocol] = set()
        self.leaving: set[Protocol] = set()  # turned away
        self._tell_cut, self._tell_open = cut, opened  # metrics
        self._untold: Counter[str] = Counter()

    def protocol(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> "Protocol":
        """Make the protocol of a connection; what uvicorn calls in place of a class."""
        return Protocol(self, config, server_state, app_state, _loop)

    def count(self, reason: str) -> None:
        """Remember that a connection was cut or refused; the sweep logs it."""
        self._untold[reason] += 1
        self._tell_cut(reason)

    async def sweep(self) -> None:
        """End what is overdue, for ever."""
        loop = asyncio.get_running_loop()
        swept, told = loop.time(), -LOG_INTERVAL_S
        while True:
            await asyncio.sleep(self.limits.sweep_s)
            now = loop.time()
            # When the loop itself stood still the clients are not to blame: what they sent waits unread.
            elapsed = min(now - swept, 2 * self.limits.sweep_s)
            swept = now
            for protocol in [*self.open, *self.leaving]:
                protocol.check(now, elapsed)
            self._tell_open(len(self.open))
            if self._untold and now - told >= LOG_INTERVAL_S:
                told = now
                _log.warning("connections_cut", open=len(self.open), limit=self.limits.connections, **self._untold)
                self._untold.clear()


class Protocol(HttpToolsProtocol):
    """One connection.

    Bytes are parsed until something is wrong with them (`_deaf`). Then the requests before are answered, the client is told, and has a
    moment to read it (`_parting_by`): closing while it sends would make its system throw the answer away.
    """

    def __init__(
        self,
        keeper: Doorkeeper,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        loop: asyncio.AbstractEventLoop | None,
    ) -> None:
        super().__init__(config=config, server_state=server_state, app_state=app_state, _loop=loop)
        self._keeper, self._limits = keeper, keeper.limits
        self.url = b""
        self._since = self.loop.time()  # open, later: idle, since then
        self._newest: RequestResponseCycle | None = None  # request whose head was whole
        self._running: RequestResponseCycle | None = None  # whose answer is being made
        self._startable: Any = None  # the application for it, until the bytes at hand are understood
        self._feeding = self._again = False  # again: a head that the application has already
        self._refusal: Refusal | None = None  # why a callback of the parser stopped it
        self._deaf = False
        self._parting_by: float | None = None
        self._parting_left = 0
        # Of the head that is being read, and of the body behind the last one.
        self._head_since: float | None = None
        self._head_bytes = self._at_hand = self._trailer_bytes = 0
        self._keep = False  # whether the connection goes on after the answer, once the body is whole
        self._chunks = self._framed = self._received = self._judged = (
            0  # chunks, bytes around them, bytes of the body, of them at the last look
        )
        self._body_left = self._limits.body_s
        # Of answers that wait to be read.
        self._answer_left, self._unread, self._drained = self._limits.answer_s, 0, False

    # What the transport tells

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        keeper = self._keeper
        if len(keeper.open) < self._limits.connections:
            keeper.open.add(self)
            super().connection_made(cast("asyncio.Transport", transport))
            return
        keeper.count("connections")
        self.transport, self._deaf = cast("asyncio.Transport", transport), True
        if len(keeper.leaving) >= self._limits.turned_away:
            self.transport.abort()
            return
        keeper.leaving.add(self)
        self._say(FULL)
        self.part()

    def connection_lost(self, exc: Exception | None) -> None:
        self._keeper.open.discard(self)
        self._keeper.leaving.discard(self)
        self._startable = None
        self.pipeline.clear()
        if self._running is not None and self._running is not self.cycle and not self._running.response_complete:
            _end(self._running)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._deaf:
            self._discard(len(data))
            return
        if self._head_since is not None:
            self._head_bytes += len(data)
        self._feeding = True
        self._feed(data)
        self._feeding = False
        if self._startable is not None and self._running is not None:
            app, self._startable = self._startable, None
            super()._start_asgi_task(self._running, app)

    def resume_writing(self) -> None:
        self._drained = True
        super().resume_writing()

    def shutdown(self) -> None:
        self._keep = False
        if self._parting_by is None:
            super().shutdown()

    def _feed(self, data: bytes) -> None:
        while True:
            self._at_hand = len(data)
            try:
                self.parser.feed_data(data)  # pyright: ignore[reportOptionalMemberAccess]  # none once the connection is lost
            except httptools.HttpParserUpgrade as offered:
                data = data[offered.args[0] :]
                self._decline_upgrade()
                continue
            except httptools.HttpParserError:
                self._refuse(self._refusal or MALFORMED)
                return
            if self._head_since is not None and self._head_bytes > self._limits.head_bytes:
                self._refuse(HEAD_TOO_LARGE)
            elif self._chunks and self._overframed(len(data)):
                self._refuse(FRAMING)
            return

    def _decline_upgrade(self) -> None:
        """Another protocol is offered and not taken: the request is one like others (RFC 9110 §7.8), and may have a body.

        The parser takes its message to end with the head. What follows would be the next request, although it is this one's body.
        """
        framing = [b"%s: %s\r\n" % header for header in self.headers if header[0] in {b"content-length", b"transfer-encoding"}]
        self.parser = httptools.HttpRequestParser(self)
        if not framing:
            self.on_message_complete()
            return
        self._again = True
        self.parser.feed_data(b"".join((b"POST / HTTP/1.1\r\n", *framing, b"\r\n")))
        self._again = False

    # What the parser finds

    def on_message_begin(self) -> None:
        if self._again:
            return
        super().on_message_begin()
        newest = self._newest
        self._head_since = self._since if newest is None else self.loop.time()
        # Behind a request that is not answered yet, nobody knows where in the bytes at hand the head began: the next ones count.
        self._head_bytes = self._at_hand if newest is None or newest.response_complete else 0

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._head_since is None:
            # A trailer: the application has the headers already, and must not find another Authorization among them.
            self._trailer_bytes += len(name) + len(value)
            if self._trailer_bytes > self._limits.head_bytes:
                self._stop(FRAMING)
            return
        name = name.lower()
        if name == b"expect" and value.lower() == b"100-continue":
            self.expect_100_continue = True
        self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        if self._again:
            return
        fault = self._fault_of_head()
        if fault is not None:
            self._stop(fault)
        super().on_headers_complete()
        self._head_since = None
        self._chunks = self._received = self._judged = self._trailer_bytes = 0
        self._framed = -self._at_hand  # the head and what follows it in the same bytes are not told apart
        self._body_left = self._limits.body_s + self._limits.sweep_s  # the next sweep takes a whole interval off
        # An answer that comes before the body is whole ends the connection, or the client's next request would be taken for the rest of it.
        cycle = self._newest = self.cycle
        self._keep, cycle.keep_alive = cycle.keep_alive, False
        cycle.transport = cast("asyncio.Transport", _Outlet(self, cycle))

    def on_chunk_header(self) -> None:
        self._chunks += 1
        if self._chunks * 5 > self._allowed_framing():  # the least that frames a chunk: 1, CR, LF and CR, LF
            self._stop(FRAMING)

    def on_body(self, body: bytes) -> None:
        self._received += len(body)
        cycle = self.cycle
        if cycle.response_complete:
            return
        cycle.body += body
        if len(cycle.body) > HIGH_WATER_LIMIT:
            self.flow.pause_reading()
        cycle.message_event.set()

    def on_message_complete(self) -> None:
        if self.parser.should_upgrade():  # pyright: ignore[reportOptionalMemberAccess]
            return  # its body is still to come
        cycle = self.cycle
        cycle.more_body = False
        cycle.keep_alive = self._keep
        cast("_Outlet", cycle.transport).whole = True
        cycle.message_event.set()

    def _stop(self, refusal: Refusal) -> None:
        self._refusal = refusal
        raise ValueError(refusal.code)  # the parser passes it on as an error of its own

    def _fault_of_head(self) -> Refusal | None:
        limits = self._limits
        if len(self.url) > limits.target_bytes:
            return TARGET_TOO_LONG
        if len(self.headers) > limits.headers:
            return HEAD_TOO_LARGE
        if max(self._head_bytes, self._at_hand) > limits.head_bytes and _size(self.url, self.headers) > limits.head_bytes:
            return HEAD_TOO_LARGE
        if len(self.pipeline) >= limits.pipelined:
            return BUSY
        return None if self.parser.get_http_version() in {"1.1", "1.0"} else VERSION  # pyright: ignore[reportOptionalMemberAccess]

    def _overframed(self, size: int) -> bool:
        """Whether chunk sizes, extensions and trailers outweigh the body: that is work for us and none for the client."""
        self._framed += size
        return self._framed - self._received > self._allowed_framing()

    def _allowed_framing(self) -> float:
        return self._limits.head_bytes + self._received / 4

    # Requests

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._running = cycle
        if self._feeding:
            self._startable = app  # a request whose body is found to be broken in the same bytes is not begun at all
        else:
            super()._start_asgi_task(cycle, app)

    def on_response_complete(self) -> None:
        self.server_state.total_requests += 1
        running = self._running
        if running is not None and running.body:
            running.body = bytearray()  # what the application did not read
        if self.transport.is_closing() or self._parting_by is not None:
            return
        self._since = self.loop.time()
        if not self._deaf:
            self.flow.resume_reading()
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())

    # Ends

    def check(self, now: float, elapsed: float) -> None:
        """End the connection if it is overdue: `elapsed` seconds after the last look."""
        transport = self.transport
        if self._unread_too_long(elapsed):
            self._keeper.count("answer_unread")
            transport.abort()
        elif self._parting_by is not None:
            if now >= self._parting_by:
                transport.close()
        elif not self._deaf and not transport.is_closing():  # deaf: the answers before are on their way
            self._check_client(now, elapsed)

    def _check_client(self, now: float, elapsed: float) -> None:
        """It is the client's turn to send, unless its answer is being made."""
        limits, newest = self._limits, self._newest
        if self._head_since is not None:
            if now - self._head_since >= limits.head_s:
                self._refuse(HEAD_LATE)
        elif newest is None:
            if now - self._since >= limits.head_s:
                self._keeper.count("silent")
                self.transport.close()
        elif newest.more_body:
            if self._body_too_slow(elapsed):
                self._refuse(BODY_LATE)
        elif newest.response_complete and now - self._since >= limits.idle_s - 2 * limits.sweep_s:
            self.transport.close()  # two looks early rather than one late

    def _body_too_slow(self, elapsed: float) -> bool:
        limits = self._limits
        if self.flow.read_paused:  # it is we who do not take it
            self._body_left = limits.body_s
            return False
        progress, self._judged = self._received - self._judged, self._received
        self._body_left = remaining(self._body_left, limits.body_s + limits.sweep_s, elapsed, progress / limits.rate)
        return self._body_left <= 0

    def _unread_too_long(self, elapsed: float) -> bool:
        size, limits = self.transport.get_write_buffer_size(), self._limits
        read, self._unread = self._unread - size, size
        if not size or self._drained:  # resumed: the client took what made us wait
            self._answer_left, self._drained = limits.answer_s, False
            return False
        self._answer_left = remaining(self._answer_left, limits.answer_s, elapsed, max(read, 0) / limits.rate)
        return self._answer_left <= 0

    def _refuse(self, refusal: Refusal) -> None:
        """Something is wrong with the newest bytes: answer what came before them, then say so where that is possible, and end."""
        self._deaf = True
        self._keeper.count(refusal.code)
        newest, in_head = self._newest, self._head_since is not None
        if newest is None or (in_head and newest.response_complete):
            self._say(refusal)
            self.part()
        elif in_head:
            self._end_after(newest)
        elif newest is not self._running:  # its body is broken, and it is not begun
            self.pipeline.popleft()
            self._end_after(self.pipeline[0][0] if self.pipeline else cast("RequestResponseCycle", self._running))
        else:
            self._break_off(newest, refusal)

    def _end_after(self, last: RequestResponseCycle) -> None:
        last.keep_alive = False
        self.flow.pause_reading()

    def _break_off(self, cycle: RequestResponseCycle, refusal: Refusal) -> None:
        """The body of the request that is worked on is broken: its application sees that the client is gone."""
        self._startable = None
        unsaid = not cycle.response_started
        _end(cycle)
        if unsaid:
            self._say(refusal)
            self.part()
        else:
            self.transport.close()

    def _say(self, refusal: Refusal) -> None:
        kind, body = _document(refusal, scim=self.url.startswith(b"/scim/"))
        headers = [
            *self.server_state.default_headers, (b"content-type", kind), (b"content-length", str(len(body)).encode()),
            (b"cache-control", b"no-store"), (b"connection", b"close"),
        ]  # fmt: skip
        if refusal.status == 503:
            headers.append((b"retry-after", b"1"))
        lines = b"".join(b"%s: %s\r\n" % header for header in headers)
        self.transport.write(b"".join((STATUS_LINE[refusal.status], lines, b"\r\n", body)))

    def part(self) -> None:
        """Say no more, and let the client read what was said; what it still sends is thrown away, for a moment."""
        if self.transport.is_closing() or self._parting_by is not None:
            return
        self._deaf = True
        self._parting_by, self._parting_left = self.loop.time() + self._limits.farewell_s, self._limits.farewell_bytes
        self.transport.write_eof()
        if self in self._keeper.open:  # where it was turned away nothing was read
            self.flow.resume_reading()

    def _discard(self, size: int) -> None:
        self._parting_left -= size
        if self._parting_by is not None and self._parting_left < 0:
            self.transport.close()


class _Outlet:
    """The transport of one request.

    uvicorn writes the head of an answer and its body apart, and each write is a system call and a packet: a head waits for the body
    that follows at once. Closing while the request's own body is not `whole` leaves the client time to read.
    """

    __slots__ = ("_begun", "_cycle", "_head", "_protocol", "is_closing", "whole")

    def __init__(self, protocol: Protocol, cycle: RequestResponseCycle) -> None:
        self._protocol, self._cycle = protocol, cycle
        self._head: bytes | None = None
        self._begun = self.whole = False
        self.is_closing = protocol.transport.is_closing

    def write(self, data: bytes) -> None:
        head = self._head
        if head is not None:
            self._head = None
            self._protocol.transport.writelines((head, data))
        elif self._begun or not self._cycle.response_started:  # the latter: 100 Continue
            self._protocol.transport.write(data)
        else:
            self._begun, self._head = True, data
            self._protocol.loop.call_soon(self._flush)

    def close(self) -> None:
        self._flush()
        if self.whole:
            self._protocol.transport.close()
        else:
            self._protocol.part()

    def _flush(self) -> None:
        """Send a head that nothing followed at once: the client of a stream knows from it that it is heard."""
        head, self._head = self._head, None
        if head is not None and not self.is_closing():
            self._protocol.transport.write(head)


def _end(cycle: RequestResponseCycle) -> None:
    cycle.disconnected = True
    cycle.message_event.set()


def _size(url: bytes, headers: list[tuple[bytes, bytes]]) -> int:
    return len(url) + sum(len(name) + len(value) + 4 for name, value in headers)


def _document(refusal: Refusal, *, scim: bool) -> tuple[bytes, bytes]:
    """Media type and body, as the API behind the address writes its errors."""
    if scim:
        told = {"schemas": [ERROR_URN], "status": str(refusal.status), "detail": refusal.detail}
        return b"application/scim+json;charset=utf-8", orjson.dumps(told)
    told = {
        "type": f"urn:scim-ledger:problem:{refusal.code}", "title": refusal.code.replace("_", " "), "status": refusal.status,
        "code": refusal.code, "detail": refusal.detail,
    }  # fmt: skip
    return b"application/problem+json", orjson.dumps(told)
