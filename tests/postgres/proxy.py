"""A proxy in front of PostgreSQL's Unix socket that can cut a connection at the worst moment."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

COMMIT_DONE = b"COMMIT\0"  # the tag of the server's CommandComplete


class Proxy:
    """Forwards bytes.

    `lose_answer` cuts after the server has committed, `lose_request` before the server gets the statements that commit.
    """

    def __init__(self, target: Path, own: Path) -> None:
        self.target, self.own = target, own
        self.lose_answer = 0  # the number of next COMMITs to cut
        self.lose_request = 0
        self.cuts = 0
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.StreamWriter] = set()

    async def listen(self) -> None:
        self.own.parent.mkdir(parents=True, exist_ok=True)
        self._server = await asyncio.start_unix_server(self._accept, self.own)

    async def vanish(self) -> None:
        """Refuse new connections and break the open ones."""
        assert self._server is not None
        self._server.close()
        for writer in list(self._open):
            writer.transport.abort()
        with contextlib.suppress(FileNotFoundError):
            self.own.unlink()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        up_reader, up_writer = await asyncio.open_unix_connection(self.target)
        self._open |= {writer, up_writer}

        def cut() -> None:
            self.cuts += 1
            writer.transport.abort()
            up_writer.close()

        await asyncio.gather(
            self._pump(reader, up_writer, self._spoils_request, cut), self._pump(up_reader, writer, self._spoils_answer, cut)
        )
        for end in (writer, up_writer):
            self._open.discard(end)
            end.close()

    def _spoils_answer(self, data: bytes) -> bool:
        if self.lose_answer and COMMIT_DONE in data:
            self.lose_answer -= 1
            return True
        return False

    def _spoils_request(self, data: bytes) -> bool:
        # The second flush of a write transaction is the one with the wake-up call's Bind or Parse in it; its statements
        # are prepared under names, so it is known by the arrays of leaves, which are JSON.
        if self.lose_request and b'"type":"user.created"' in data:
            self.lose_request -= 1
            return True
        return False

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, spoils: Callable[[bytes], bool], cut: Callable[[], None]
    ) -> None:
        with contextlib.suppress(ConnectionError, OSError):
            while data := await reader.read(1 << 20):
                if spoils(data):
                    cut()
                    return
                writer.write(data)
                await writer.drain()
        writer.close()


@asynccontextmanager
async def proxied(socket_dir: str, tmp: Path) -> AsyncIterator[tuple[Proxy, str]]:
    """Runs a proxy for the server of `socket_dir`; yields it with the directory to connect through."""
    proxy = Proxy(Path(socket_dir) / ".s.PGSQL.5432", tmp / "p" / ".s.PGSQL.5432")
    await proxy.listen()
    yield proxy, str(proxy.own.parent)
    await proxy.vanish()
