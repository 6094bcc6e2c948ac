"""The connection between a service and its database: TCP on the side of the service, PostgreSQL's socket on the other, and ways to break it.

It reads the statements that pass, so that a connection can be cut at any statement of a transaction: before it, after it, or
during its answer.
"""

import asyncio
import contextlib
import struct
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

from database.locks import DIRECTORY

Moment = Literal["before", "after", "answer"]
CHUNK: Final = 1 << 18
LOCKS_A_DIRECTORY: Final = f"advisory_xact_lock({DIRECTORY.number},"


@dataclass
class Cut:
    """The next transaction is cut at its `at`-th statement, or at its last one if it has fewer; of a writer, or of any
    connection.
    """

    at: int
    moment: Moment
    of_a_writer: bool
    statement: str = ""  # the statement that was hit
    done: asyncio.Event = field(default_factory=asyncio.Event)


class Statements:
    """Parses the bytes of a client: where its messages end, and which statement each of them executes (protocol 3.0)."""

    def __init__(self) -> None:
        self._waiting = b""
        self._started = False
        self._texts: dict[bytes, str] = {}
        self._bound = ""
        self.writes = False  # it takes locks of directories, so it belongs to a writer
        self.open = False  # within a transaction
        self.count = 0  # the number of statements in it

    def split(self, data: bytes) -> Iterator[tuple[bytes, str | None]]:
        """Yields whole messages, each with the statement that it executes, if any; `open` and `count` are those after the last
        yielded message.
        """
        self._waiting += data
        while (size := self._size()) and len(self._waiting) >= size:
            message, self._waiting = self._waiting[:size], self._waiting[size:]
            executes = self._executes(message) if self._started else None
            self._started = True
            yield message, executes

    def _size(self) -> int:
        if not self._started:
            return struct.unpack(">i", self._waiting[:4])[0] if len(self._waiting) >= 4 else 0
        return 1 + struct.unpack(">i", self._waiting[1:5])[0] if len(self._waiting) >= 5 else 0

    def _executes(self, message: bytes) -> str | None:
        kind, body = message[:1], message[5:]
        if kind == b"P":
            name, text, _ = body.split(b"\0", 2)
            lines = [line for line in text.decode().splitlines() if not line.startswith("--")]
            self._texts[name] = " ".join(" ".join(lines).split())
        elif kind == b"B":
            _, name, _ = body.split(b"\0", 2)
            self._bound = self._texts.get(name, "?")
        elif kind == b"E":
            return self._counted(self._bound)
        elif kind == b"Q":
            return self._counted(body.rstrip(b"\0").decode())
        return None

    def _counted(self, text: str) -> str:
        word = text.split(maxsplit=1)[0].lower() if text else ""
        if word == "begin":
            self.open, self.count = True, 0
        self.count += 1
        self.writes = self.writes or LOCKS_A_DIRECTORY in text
        if word in {"commit", "rollback"}:
            self.open = False
        return text


class Road:
    """Forwards connections, until it is told to drop or cut them."""

    def __init__(self, target: Path) -> None:
        self._target = target
        self._flows = asyncio.Event()
        self._flows.set()
        self._cut: Cut | None = None
        self._server: asyncio.Server | None = None
        self._ends: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self.port = 0
        self.hits: Counter[str] = Counter()  # the statements that were cut

    async def open(self) -> None:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()
        self.break_all()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def swallow(self) -> None:
        """From now on nothing arrives on either side, and neither side gets an error: no byte, no end, no refusal."""
        self._flows.clear()

    def give_back(self, *, broken: bool) -> None:
        """Bytes that were kept arrive late, or, if the connections are `broken`, not at all."""
        if broken:
            self.break_all()
        self._flows.set()

    def break_all(self) -> None:
        for end in list(self._ends):
            end.transport.abort()

    def lead_to(self, target: Path) -> None:
        """From now on connections go to another server."""
        self._target = target
        self.break_all()

    def cut(self, cut: Cut | None) -> None:
        self._cut = cut

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        self._ends.add(writer)
        try:
            await self._flows.wait()
            up_reader, up_writer = await asyncio.open_unix_connection(str(self._target))
        except OSError:
            writer.transport.abort()
            self._ends.discard(writer)
            return
        self._ends.add(up_writer)
        answer = asyncio.Event()  # set: the next answer must not arrive
        try:
            # The task is cancelled when the road is closed: asyncio's server would report that as an error.
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.gather(
                    self._there(reader, writer, up_writer, answer), self._back(up_reader, up_writer, writer, answer)
                )
        finally:
            for end in (writer, up_writer):
                self._ends.discard(end)
                end.close()

    async def _there(
        self, reader: asyncio.StreamReader, down: asyncio.StreamWriter, up: asyncio.StreamWriter, answer: asyncio.Event
    ) -> None:
        statements = Statements()
        with contextlib.suppress(OSError):
            while data := await reader.read(CHUNK):
                await self._flows.wait()
                for message, statement in statements.split(data):
                    if up.is_closing():
                        return
                    cut = self._hits(statements, statement)
                    if cut is None:
                        up.write(message)
                        continue
                    if cut.moment != "before":
                        up.write(message)
                    if cut.moment == "answer":
                        answer.set()
                        continue
                    await up.drain()
                    self._sever(down, up)
                    return
                await up.drain()
        up.close()

    def _hits(self, statements: Statements, statement: str | None) -> Cut | None:
        cut = self._cut
        if cut is None or statement is None or statements.count == 0 or (cut.of_a_writer and not statements.writes):
            return None
        last = not statements.open and statement.lower().startswith("commit")
        if not (last or (statements.open and statements.count >= cut.at)):
            return None
        self._cut, cut.statement = None, statement
        self.hits[statement[:40]] += 1
        cut.done.set()
        return cut

    async def _back(
        self, reader: asyncio.StreamReader, up: asyncio.StreamWriter, down: asyncio.StreamWriter, answer: asyncio.Event
    ) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(CHUNK):
                await self._flows.wait()
                if answer.is_set():
                    self._sever(down, up)
                    return
                if down.is_closing():
                    return
                down.write(data)
                await down.drain()
        down.close()

    def _sever(self, down: asyncio.StreamWriter, up: asyncio.StreamWriter) -> None:
        down.transport.abort()
        up.close()  # bytes that were sent before are still delivered
