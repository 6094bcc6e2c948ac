"""A webhook receiver and an SSE client in a process of their own, which note when each event arrived.

    python bench/listeners.py PORT_OF_THE_SERVICE TOKEN      prints its own port, then serves until its standard input ends

`GET /figures` returns what arrived since the last call: {"events", "seconds", "hook": [ms…], "stream": [ms…]}. Latency is from the
time in the event, which the database's clock of the same machine stamped before the commit.
"""

import asyncio
import json
import re
import sys
import time
from datetime import datetime

import uvloop

TIME = re.compile(rb'"commit":\{"first_seq":\d+,"size":\d+\},"rv":\d+,"time":"([^"]+)"')
OK = b"HTTP/1.1 204 No Content\r\n\r\n"


class Heard:
    """The events that arrived since the last call."""

    def __init__(self) -> None:
        self.begin()

    def begin(self) -> None:
        self.events = 0
        self.since = time.perf_counter()
        self.hook: list[float] = []
        self.stream: list[float] = []

    def note(self, data: bytes, into: list[float]) -> None:
        now = time.time()
        found = TIME.findall(data)
        into += [(now - datetime.fromisoformat(text.decode()).timestamp()) * 1000 for text in found]
        self.events += len(found)

    def figures(self) -> bytes:
        shown = {"events": self.events, "seconds": time.perf_counter() - self.since, "hook": self.hook, "stream": self.stream}
        self.begin()
        return json.dumps(shown).encode()


class Receiver(asyncio.Protocol):
    """Just enough HTTP to receive a webhook."""

    def __init__(self, heard: Heard) -> None:
        self._heard = heard
        self._buffer = bytearray()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while (end := self._buffer.find(b"\r\n\r\n")) >= 0:
            head = bytes(self._buffer[:end]).lower()
            place = head.find(b"\r\ncontent-length:")
            size = int(head[place + 17 :].split(b"\r\n", 1)[0]) if place >= 0 else 0
            if len(self._buffer) < end + 4 + size:
                return
            body = bytes(self._buffer[end + 4 : end + 4 + size])
            del self._buffer[: end + 4 + size]
            if head.startswith(b"get"):
                shown = self._heard.figures()
                self._transport.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%s" % (len(shown), shown))
            else:
                self._heard.note(body, self._heard.hook)
                self._transport.write(OK)


async def listen(port: int, token: str, heard: Heard) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=2**24)
    writer.write(f"GET /v1/events/stream HTTP/1.1\r\nHost: ledger\r\nAuthorization: Bearer {token}\r\n\r\n".encode())
    while data := await reader.readuntil(b"\n\n"):
        count = heard.events
        heard.note(data, heard.stream)
        heard.events = count  # an event is counted where it is delivered


async def main(port: int, token: str) -> None:
    heard = Heard()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Receiver(heard), "127.0.0.1", 0, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    listening = asyncio.create_task(listen(port, token, heard))
    await asyncio.to_thread(sys.stdin.read)
    listening.cancel()


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1]), sys.argv[2]))
