"""A second transport, which uses only delivery/transport.py.

Over a Unix socket it sends one line of JSON for each event and an empty line, and reads one line as the answer (`ok`, `retry`,
`retry SECONDS`, `gone`, `rewind SEQ`).
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from delivery.transport import Accepted, Batch, Gone, Outcome, Retry, Rewind, Target, TooLateError


class Lines:
    def __init__(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s

    async def send(self, target: Target, batch: Batch) -> Outcome:
        try:
            reader, writer = await asyncio.open_unix_connection(target.address)
        except OSError:
            return Retry("not_there", away=True)
        try:
            if not batch.may_leave():
                raise TooLateError
            writer.writelines([one.json + b"\n" for one in batch.events])
            writer.write(b"\n")
            async with asyncio.timeout(self._timeout_s):
                await writer.drain()
                return _outcome((await reader.readline()).decode().split())
        except TimeoutError:
            return Retry("timeout", away=True, may_have_arrived=True)
        except OSError:
            return Retry("connection_broken", away=True, may_have_arrived=True)
        finally:
            writer.close()

    async def close(self) -> None:
        """Each connection ends with its request, so there is nothing to close."""


def _outcome(answer: list[str]) -> Outcome:
    match answer:
        case ["ok"]:
            return Accepted()
        case ["gone"]:
            return Gone()
        case ["rewind", seq]:
            return Rewind(int(seq), Retry("behind"))
        case ["retry", seconds]:
            return Retry("busy", after_s=float(seconds))
        case _:
            return Retry("refused")


@asynccontextmanager
async def answering(path: Path, reply: bytes, received: list[list[bytes]]) -> AsyncIterator[None]:
    """A receiver that stores what it gets and gives one answer to everything; if the answer is empty, it gives none."""
    over = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            lines: list[bytes] = []
            while (line := (await reader.readline()).rstrip(b"\n")) != b"":
                lines.append(line)
            if lines:
                received.append(lines)
            if not reply:
                await over.wait()
            writer.write(reply)
            await writer.drain()
        writer.close()

    server = await asyncio.start_unix_server(serve, path, limit=64 * 2**20)
    try:
        yield
    finally:
        over.set()
        server.close()
