"""uvicorn's HTTP protocol with limits on deadlines, sizes and connections (docs/operations.md, "Limits for strangers").

uvicorn has no such limits: it keeps a silent socket for ever, accepts a head of any size, and holds an answer for a client that does not
read it. One sweep a second over the open connections enforces the deadlines, so a request needs no timer. Malformed requests are answered
here, as SCIM or problem+json by their path; everything else goes to the application.
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

from api.error_codes import type_of
from scim.errors import ERROR_URN

_log = structlog.get_logger("runtime.protocol")
LOG_INTERVAL_S: Final = 10.0  # one log line for all connections cut in this time, so that strangers cannot fill the log


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits of one process for clients that are not authenticated yet. Times in seconds, sizes in bytes."""

    connections: int = 1_000  # open connections
    # until the head of a request is complete; counted from the opening of the connection, later from the first byte
    head_s: float = 20.0
    body_s: float = 20.0  # how long a body may stall, or fall behind `rate`
    answer_s: float = 60.0  # how long a client may leave its answer unread, or fall behind `rate`
    rate: int = 1_024  # bytes a second of a body and of an answer
    idle_s: float = 75.0  # an idle connection is closed; longer than the usual 60 s of load balancers, so that they close first
    sweep_s: float = 1.0  # interval of the sweep
    head_bytes: int = 32_768  # request line and headers; the same again for trailers and chunk framing
    target_bytes: int = 16_384  # of the request line; the longest filters of IdPs are a few hundred bytes
    headers: int = 128  # each costs an object
    pipelined: int = 64  # pipelined requests behind the current one, all from one read (reading pauses then); no IdP sends any
    farewell_s: float = 2.0  # a refused client that is still sending gets this long to read the answer
    farewell_bytes: int = 2**20  # and may send this much, which is discarded
    turned_away: int = 64  # connections above `connections` that get a 503; further ones are cut


class Refusal(NamedTuple):
    """Why a request is malformed: status, code and sentence."""

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
    "The body comes in too many small chunks, with too much framing. Send Content-Length, or larger chunks.",
)
HEAD_LATE: Final = Refusal(408, "head_timeout", "The head of the request was not complete in time. Send it at once.")
BODY_LATE: Final = Refusal(408, "body_timeout", "The body of the request came too slowly. Send it at 1 KiB/s or more.")
FULL: Final = Refusal(
    503,
    "too_many_connections",
    "The service has reached its limit of connections (LEDGER_CONNECTIONS). Try again in a moment, and keep fewer open.",
)
BUSY: Final = Refusal(400, "pipelining", "Too many pipelined requests were sent before their answers.")


def remaining(left: float, most: float, elapsed: float, progress: float) -> float:
    """Seconds that a transfer may go on. Elapsed time is subtracted, progress (in seconds at `rate`) is added, up to `most`."""
    return min(most, left - elapsed + progress)


class Doorkeeper:
    """The open connections of one process, and the sweep that ends overdue ones."""

    def __init__(
        self,
        limits: Limits,
        cut: Callable[[str], None] = lambda _reason: None,
        opened: Callable[[int], None] = lambda _count: None,
    ) -> None:
        self.limits = limits
        self.open: set[Protocol] = set()
        self.leaving: set[Protocol] = set()  # connections that are being refused
        self._tell_cut, self._tell_open = cut, opened  # metrics
        self._untold: Counter[str] = Counter()

    def protocol(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> "Protocol":
        """Make the protocol of a connection; uvicorn calls this instead of a class."""
        return Protocol(self, config, server_state, app_state, _loop)

    def count(self, reason: str) -> None:
        """Count a connection that was cut or refused; the sweep logs it."""
        self._untold[reason] += 1
        self._tell_cut(reason)

    async def sweep(self) -> None:
        """End overdue connections, once a second. Never returns."""
        loop = asyncio.get_running_loop()
        swept, told = loop.time(), -LOG_INTERVAL_S
        while True:
            await asyncio.sleep(self.limits.sweep_s)
            now = loop.time()
            # After a blocked event loop no client is ended for it: their bytes may wait unread.
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

    Bytes are parsed until one is malformed (`_deaf`). Then earlier requests are answered, the refusal is sent, and the client has a
    moment to read it (`_parting_by`): if the connection were closed while the client sends, its system would discard the answer.
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
        self._since = self.loop.time()  # time of the opening, later the time since which it is idle
        self._newest: RequestResponseCycle | None = None  # the newest request with a complete head
        self._running: RequestResponseCycle | None = None  # the request that is being answered
        self._startable: Any = None  # the application for it, called once the bytes at hand are parsed
        self._feeding = self._again = False  # again: the parser repeats a head that the application has already
        self._refusal: Refusal | None = None  # the reason why a callback stopped the parser
        self._deaf = False
        self._parting_by: float | None = None
        self._parting_left = 0
        # The head that is being read, and the body after the last head.
        self._head_since: float | None = None
        self._head_bytes = self._at_hand = self._trailer_bytes = 0
        self._keep = False  # whether the connection stays open after the answer, once the body is complete
        self._chunks = self._framed = self._received = self._judged = (
            0  # number of chunks, bytes of framing, bytes of the body, bytes of the body at the last sweep
        )
        self._body_left = self._limits.body_s
        # Answers that the client has not read yet.
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
            elif (self._chunks or self._in_body) and self._overframed(len(data)):
                self._refuse(FRAMING)
            return

    def _decline_upgrade(self) -> None:
        """Ignore an Upgrade header: the request is an ordinary one (RFC 9110 §7.8), and may have a body.

        The parser ends the message after the head, so it would read the body as the next request. Parse the head again without it.
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
        # Behind an unanswered request it is unknown where in these bytes the head began, so the time counts from the next bytes.
        self._head_bytes = self._at_hand if newest is None or newest.response_complete else 0

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._head_since is None:
            # A trailer: not added, because the application must not see a second Authorization header.
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
        self._framed = -self._at_hand  # subtracts the bytes at hand, because head and body in them cannot be separated
        self._body_left = self._limits.body_s + self._limits.sweep_s  # plus one interval, which the next sweep subtracts
        # If the answer comes before the body is complete, the connection ends: otherwise the next request would be read as the rest of the body.
        cycle = self._newest = self.cycle
        self._keep, cycle.keep_alive = cycle.keep_alive, False
        cycle.transport = cast("asyncio.Transport", _Outlet(self))

    def on_chunk_header(self) -> None:
        self._chunks += 1
        if self._chunks * 5 > self._allowed_framing():  # 5 bytes are the smallest framing of a chunk: 1 CR LF … CR LF
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
            return  # its body is still missing
        cycle = self.cycle
        cycle.more_body = False
        cycle.keep_alive = self._keep
        cast("_Outlet", cycle.transport).whole = True
        cycle.message_event.set()

    def _stop(self, refusal: Refusal) -> None:
        self._refusal = refusal
        raise ValueError(refusal.code)  # the parser turns it into an error of its own

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

    @property
    def _in_body(self) -> bool:
        """Whether a body is not complete: the first chunk may not have begun, because its extension does not end."""
        return self._head_since is None and self._newest is not None and self._newest.more_body

    def _overframed(self, size: int) -> bool:
        """Whether chunk framing and trailers are too large for the body: they cost the server work, but the client nothing."""
        self._framed += size
        return self._framed - self._received > self._allowed_framing()

    def _allowed_framing(self) -> float:
        return self._limits.head_bytes + self._received / 4

    # Requests

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._running = cycle
        if self._feeding:
            self._startable = app  # not started yet: if its body is malformed in the same bytes, it never is
        else:
            super()._start_asgi_task(cycle, app)

    def on_response_complete(self) -> None:
        self.server_state.total_requests += 1
        running = self._running
        if running is not None and running.body:
            running.body = bytearray()  # the application has not read it
        if self.transport.is_closing() or self._parting_by is not None:
            return
        self._since = self.loop.time()
        if not self._deaf:
            self.flow.resume_reading()
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())

    # Ends

    def check(self, now: float, elapsed: float) -> None:
        """End the connection if it is overdue. `elapsed`: seconds since the last sweep."""
        transport = self.transport
        if self._unread_too_long(elapsed):
            self._keeper.count("answer_unread")
            transport.abort()
        elif self._parting_by is not None:
            if now >= self._parting_by:
                transport.close()
        elif not self._deaf and not transport.is_closing():  # if deaf, earlier answers are still being sent
            self._check_client(now, elapsed)

    def _check_client(self, now: float, elapsed: float) -> None:
        """Check the deadlines of what the client must send, unless its answer is being made."""
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
            self.transport.close()  # two sweeps early, so that it is never too late

    def _body_too_slow(self, elapsed: float) -> bool:
        limits = self._limits
        if self.flow.read_paused:  # the server itself has paused reading
            self._body_left = limits.body_s
            return False
        progress, self._judged = self._received - self._judged, self._received
        self._body_left = remaining(self._body_left, limits.body_s + limits.sweep_s, elapsed, progress / limits.rate)
        return self._body_left <= 0

    def _unread_too_long(self, elapsed: float) -> bool:
        size, limits = self.transport.get_write_buffer_size(), self._limits
        read, self._unread = self._unread - size, size
        if not size or self._drained:  # the client has read what blocked the answer
            self._answer_left, self._drained = limits.answer_s, False
            return False
        self._answer_left = remaining(self._answer_left, limits.answer_s, elapsed, max(read, 0) / limits.rate)
        return self._answer_left <= 0

    def _refuse(self, refusal: Refusal) -> None:
        """Malformed bytes: let earlier requests be answered, then send the refusal if possible, and end the connection."""
        self._deaf = True
        self._keeper.count(refusal.code)
        newest, in_head = self._newest, self._head_since is not None
        if newest is None or (in_head and newest.response_complete):
            self._say(refusal)
            self.part()
        elif in_head:
            self._end_after(newest)
        elif newest is not self._running:  # its body is malformed and it was not started
            self.pipeline.popleft()
            self._end_after(self.pipeline[0][0] if self.pipeline else cast("RequestResponseCycle", self._running))
        else:
            self._break_off(newest, refusal)

    def _end_after(self, last: RequestResponseCycle) -> None:
        last.keep_alive = False
        self.flow.pause_reading()

    def _break_off(self, cycle: RequestResponseCycle, refusal: Refusal) -> None:
        """The body of the running request is malformed: to its application the client looks disconnected."""
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
        """Send nothing more, and give the client a moment to read; what it still sends is discarded."""
        if self.transport.is_closing() or self._parting_by is not None:
            return
        self._deaf = True
        self._parting_by, self._parting_left = self.loop.time() + self._limits.farewell_s, self._limits.farewell_bytes
        self.transport.write_eof()
        if self in self._keeper.open:  # for a refused connection nothing was read
            self.flow.resume_reading()

    def _discard(self, size: int) -> None:
        self._parting_left -= size
        if self._parting_by is not None and self._parting_left < 0:
            self.transport.close()


_CONTINUE: Final = b"HTTP/1.1 100 "  # before the answer, which begins after it


class _Outlet:
    """The transport of one request.

    uvicorn writes head and body of an answer separately, and each write would be a system call and a packet. So the head is held until
    the body follows. If the connection is closed while the request's body is not `whole`, the client gets time to read the answer.

    It has no reference to the request: the two would form a cycle, and each body would stay in memory until the garbage collector runs.
    """

    __slots__ = ("_begun", "_head", "_protocol", "is_closing", "whole")

    def __init__(self, protocol: Protocol) -> None:
        self._protocol = protocol
        self._head: bytes | None = None
        self._begun = self.whole = False
        self.is_closing = protocol.transport.is_closing

    def write(self, data: bytes) -> None:
        head = self._head
        if head is not None:
            self._head = None
            self._protocol.transport.writelines((head, data))
        elif self._begun or data.startswith(_CONTINUE):
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
        """Send a head without a body after it, so that the client of a stream sees that it is connected."""
        head, self._head = self._head, None
        if head is not None and not self.is_closing():
            self._protocol.transport.write(head)


def _end(cycle: RequestResponseCycle) -> None:
    cycle.disconnected = True
    cycle.message_event.set()


def _size(url: bytes, headers: list[tuple[bytes, bytes]]) -> int:
    return len(url) + sum(len(name) + len(value) + 4 for name, value in headers)


def _document(refusal: Refusal, *, scim: bool) -> tuple[bytes, bytes]:
    """Media type and body of a refusal, in the form of the API at the path."""
    if scim:
        told = {"schemas": [ERROR_URN], "status": str(refusal.status), "detail": refusal.detail}
        return b"application/scim+json;charset=utf-8", orjson.dumps(told)
    told = {
        "type": type_of(refusal.code), "title": refusal.code.replace("_", " "), "status": refusal.status,
        "code": refusal.code, "detail": refusal.detail,
    }  # fmt: skip
    return b"application/problem+json", orjson.dumps(told)
