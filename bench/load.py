"""A small load generator: keep-alive connections, requests made beforehand, answers read to the end.

It runs in a process of its own (`python bench/load.py`, a pickled Job on stdin, a pickled Result on stdout), so that
making load and measuring it take nothing from the process that reads the answers. Loopback only, bounded in time.
"""

import asyncio
import itertools
import pickle
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

LAST_CHUNK = b"0\r\n\r\n"
LOST = 999  # counted as a status: a connection that ended before it was told to


@dataclass
class Job:
    """What to send, and how."""

    port: int
    requests: Sequence[bytes]
    connections: int
    seconds: float = 60.0
    endless: bool = False  # begin anew when the requests are used up
    locations: bool = False  # keep the ids of what was created


@dataclass
class Result:
    """What a run measured; latencies in ms."""

    seconds: float = 0.0
    statuses: dict[int, int] = field(default_factory=dict)
    latencies: list[float] = field(default_factory=list)
    locations: list[str] = field(default_factory=list)

    @property
    def rate(self) -> float:
        return len(self.latencies) / self.seconds

    def percentile(self, share: float) -> float:
        ordered = sorted(self.latencies)
        return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


class UnexpectedStatusError(Exception):
    """A run got answers that are not what was to be measured."""


class Running:
    """A load generator at work."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._process = subprocess.Popen([sys.executable, Path(__file__)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self._process.stdin is not None
        pickle.dump(job, self._process.stdin)
        self._process.stdin.close()
        assert self._process.stdout is not None
        self._process.stdout.readline()  # it is connected and begins
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

    def result(self) -> Result:
        """Wait for the end. Raises UnexpectedStatusError when anything but 2xx was answered."""
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
    """One connection that sends the next request as soon as the last is answered."""

    def __init__(self, requests: Iterator[bytes], until: float, result: Result, keep: bool, done: "asyncio.Future[None]") -> None:
        self._requests, self._until, self._result, self._keep, self._done = requests, until, result, keep, done
        self._buffer = b""
        self._left = -1
        self._chunked = False
        self._sent = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._next()

    def _next(self) -> None:
        request = next(self._requests, None) if time.perf_counter() < self._until else None
        if request is None:
            self._transport.close()
            if not self._done.done():
                self._done.set_result(None)
            return
        self._sent = time.perf_counter()
        self._transport.write(request)

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
            self._result.latencies.append((time.perf_counter() - self._sent) * 1000)
            self._next()

    def _head(self, head: bytes, got: int) -> None:
        status = int(head[9:12])
        self._result.statuses[status] = self._result.statuses.get(status, 0) + 1
        self._left = int(_header(head, b"\r\ncontent-length:") or 0) - got
        self._chunked = _header(head, b"\r\ntransfer-encoding:") == b"chunked"
        if self._keep and (location := _header(head, b"\r\nlocation:")):
            self._result.locations.append(location.decode().rsplit("/", 1)[1])

    def connection_lost(self, _: Exception | None) -> None:
        if not self._done.done():
            self._result.statuses[LOST] = self._result.statuses.get(LOST, 0) + 1
            self._done.set_result(None)


def _header(head: bytes, name: bytes) -> bytes:
    place = head.find(name)
    return head[place + len(name) :].split(b"\r\n", 1)[0].strip() if place >= 0 else b""


async def _run(job: Job) -> Result:
    loop = asyncio.get_running_loop()
    result = Result()
    requests = itertools.cycle(job.requests) if job.endless else iter(job.requests)
    started = time.perf_counter()
    waiters = [loop.create_future() for _ in range(job.connections)]
    for done in waiters:
        client = _Client(requests, started + job.seconds, result, job.locations, done)
        await loop.create_connection(lambda client=client: client, "127.0.0.1", job.port)
    print(flush=True)
    await asyncio.gather(*waiters)
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
    pickle.dump(vars(_found), sys.stdout.buffer)
    sys.stdout.buffer.flush()
