"""A small load generator: keep-alive connections, requests made beforehand, answers read to the end.

It runs in a process of its own (`python bench/load.py`, a pickled Job on stdin, a pickled Result on stdout), so that
making load and measuring it take nothing from the process that reads the answers. Loopback only, bounded in time.
"""

import asyncio
import itertools
import pickle
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

LAST_CHUNK = b"0\r\n\r\n"
TOO_MANY = 429
LOST = 999  # counted as a status: a connection that was closed unexpectedly


@dataclass
class Job:
    """What to send, and how."""

    port: int
    requests: Sequence[bytes]
    connections: int
    seconds: float = 60.0
    endless: bool = False  # start again when the requests are used up
    locations: bool = False  # keep the ids of what was created
    rate: float = 0.0  # requests a second over all connections, each timed from its due time; 0: as fast as answered
    retry: bool = False  # repeat requests answered 429, after Retry-After


@dataclass
class Result:
    """What a run measured; latencies in ms."""

    seconds: float = 0.0
    statuses: dict[int, int] = field(default_factory=dict)
    latencies: list[float] = field(default_factory=list)
    locations: list[str] = field(default_factory=list)
    began: float = 0.0  # by the clock of the machine, as `times`
    times: list[float] = field(default_factory=list)  # when each request was sent or due
    refused: int = 0  # answers of 429 whose request was sent again
    hasty: int = 0  # those of them without Retry-After

    @property
    def rate(self) -> float:
        return len(self.latencies) / self.seconds

    def percentile(self, share: float) -> float:
        ordered = sorted(self.latencies)
        return ordered[min(len(ordered) - 1, int(len(ordered) * share))]

    def during(self, other: "Result") -> list[float]:
        """Latencies of the requests that were sent during the other run."""
        end = other.began + other.seconds
        return [took for took, sent in zip(self.latencies, self.times, strict=True) if other.began <= sent <= end]


class UnexpectedStatusError(Exception):
    """A run got other answers than it was to measure."""


class Running:
    """A load generator at work."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._process = subprocess.Popen([sys.executable, Path(__file__)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self._process.stdin is not None
        pickle.dump(job, self._process.stdin)
        self._process.stdin.close()
        assert self._process.stdout is not None
        self._process.stdout.readline()  # wait until it is connected and begins
        self._answer = b""
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as stdout:
            self._answer = stdout.read()
        self._process.wait()

    @property
    def over(self) -> bool:
        return not self._reader.is_alive()

    def stop(self) -> Result:
        """Stop after the running requests, and return the result."""
        self._process.send_signal(signal.SIGTERM)
        return self.result()

    def result(self) -> Result:
        """Wait for the end. Raises UnexpectedStatusError for any answer but 2xx."""
        self._reader.join()
        if self._process.returncode:
            raise RuntimeError(f"the load generator ended with {self._process.returncode}")
        result = Result(**pickle.loads(self._answer))
        if not result.latencies or any(status >= 300 for status in result.statuses):
            raise UnexpectedStatusError(f"{result.statuses} to {self._job.requests[0][:80]!r}")
        return result


def drive(job: Job) -> Result:
    """Run a job to its end in a process of its own."""
    return Running(job).result()


class _Client(asyncio.Protocol):
    """One connection that sends the next request as soon as the last is answered, or when it is due."""

    def __init__(self, job: Job, requests: Iterator[bytes], first: float, until: float, result: Result) -> None:
        self._job, self._requests, self._due, self._until, self._result = job, requests, first, until, result
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._request = b""
        self._retry_after: float | None = None
        self._buffer = b""
        self._left = -1
        self._chunked = False
        self._sent = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._next()

    def _next(self) -> None:
        now = time.perf_counter()
        request = next(self._requests, None) if now < self._until else None
        if request is None:
            self._transport.close()
            if not self.done.done():
                self.done.set_result(None)
            return
        self._request = request
        if not self._job.rate:
            self._send()
            return
        # Timed from its due time, even if it is sent later: otherwise a stalling service would get fewer requests and better figures.
        self._sent = self._due
        self._due += self._job.connections / self._job.rate
        asyncio.get_running_loop().call_later(max(0.0, self._sent - now), self._transport.write, request)

    def finish(self) -> None:
        """Send nothing after the running request."""
        self._until = 0.0

    def _send(self) -> None:
        self._sent = time.perf_counter()
        self._transport.write(self._request)

    def _answered(self) -> None:
        if self._retry_after is not None:
            self._result.refused += 1
            asyncio.get_running_loop().call_later(self._retry_after, self._send)
            return
        self._result.latencies.append((time.perf_counter() - self._sent) * 1000)
        self._result.times.append(self._sent)
        self._next()

    def data_received(self, data: bytes) -> None:
        if self._chunked:
            self._buffer = self._buffer[-len(LAST_CHUNK) :] + data
            if not self._buffer.endswith(LAST_CHUNK):
                return
            self._left, self._buffer = 0, b""
        elif self._left < 0:
            self._buffer += data
            end = self._buffer.find(b"\r\n\r\n")
            if end < 0:
                return
            rest = self._buffer[end + 4 :]
            self._head(self._buffer[:end].lower(), len(rest))
            self._buffer = b""
            if self._chunked:
                if rest:
                    self.data_received(rest)
                return
        else:
            self._left -= len(data)
        if self._left <= 0:
            self._left, self._chunked = -1, False
            self._answered()

    def _head(self, head: bytes, got: int) -> None:
        status = int(head[9:12])
        self._retry_after = None
        if status == TOO_MANY and self._job.retry:
            after = _header(head, b"\r\nretry-after:")
            self._result.hasty += not after
            self._retry_after = float(after or 1)
        else:
            self._result.statuses[status] = self._result.statuses.get(status, 0) + 1
        self._left = int(_header(head, b"\r\ncontent-length:") or 0) - got
        self._chunked = _header(head, b"\r\ntransfer-encoding:") == b"chunked"
        if self._job.locations and (location := _header(head, b"\r\nlocation:")):
            self._result.locations.append(location.decode().rsplit("/", 1)[1])

    def connection_lost(self, _: Exception | None) -> None:
        if not self.done.done():
            self._result.statuses[LOST] = self._result.statuses.get(LOST, 0) + 1
            self.done.set_result(None)


def _header(head: bytes, name: bytes) -> bytes:
    place = head.find(name)
    return head[place + len(name) :].split(b"\r\n", 1)[0].strip() if place >= 0 else b""


async def _run(job: Job) -> Result:
    loop = asyncio.get_running_loop()
    result = Result()
    requests = itertools.cycle(job.requests) if job.endless else iter(job.requests)
    started = result.began = time.perf_counter()
    apart = 1 / job.rate if job.rate else 0.0
    clients = [_Client(job, requests, started + n * apart, started + job.seconds, result) for n in range(job.connections)]
    for client in clients:
        await loop.create_connection(lambda client=client: client, "127.0.0.1", job.port)
    loop.add_signal_handler(signal.SIGTERM, lambda: [client.finish() for client in clients])
    print(flush=True)
    await asyncio.gather(*(client.done for client in clients))
    result.seconds = time.perf_counter() - started
    return result


def request(method: str, path: str, body: bytes = b"", token: str = "") -> bytes:
    """The bytes of one HTTP/1.1 request."""
    head = (
        f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/scim+json\r\nAccept: application/scim+json\r\n"
    )
    if token:
        head += f"Authorization: Bearer {token}\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


if __name__ == "__main__":
    import uvloop

    _job = pickle.load(sys.stdin.buffer)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        _found = runner.run(_run(_job))
    # Not sys.stdout: with PYTHONUNBUFFERED it has no buffer, and what a write to a full pipe leaves over is lost.
    with open(sys.stdout.fileno(), "wb", closefd=False) as _out:
        pickle.dump(vars(_found), _out)
