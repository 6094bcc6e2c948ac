"""The processes of a service give each other their figures through Unix sockets, so one scrape has the figures of all.

Each process listens at a socket of its own and answers a connection with its figures; nobody asks, nothing is computed. All sockets are
in a directory that only their owner may enter. No figures are in files: a write to a mapped file on a full disk would kill the process.
"""

import asyncio
import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import AsyncGenerator, Callable, Generator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

import anyio.to_thread
import structlog

from api.exposition import Exposition
from database.deadlines import FIGURES
from runtime.local_socket import make_private, place_of

BYTES_MAX: Final = 16 * 2**20  # of one text of a process; a thousand consumers need 4 MiB
_END: Final = b"\0"  # of a text; the text format has none
_PREFIX: Final = "figures-"
_LONGEST: Final = f"{_PREFIX}12345678/deliver-64"
_TRIES: Final = 3
_log = structlog.get_logger("runtime.process_figures")


@dataclass(frozen=True, slots=True)
class Process:
    """A process of the service by name, and the names of the others. `directory` has their sockets; None if it could not be made."""

    name: str
    others: tuple[str, ...] = ()
    directory: Path | None = None

    @contextlib.asynccontextmanager
    async def answering(self, figures: Callable[[str], Exposition]) -> AsyncGenerator[None]:
        """Give others the figures during the block. If there can be no socket, the process works all the same, and counts as down.

        `figures` is called in a thread with the name of the process.
        """
        async with contextlib.AsyncExitStack() as stack:
            if self.directory is not None:
                try:
                    server = await asyncio.start_unix_server(partial(self._answer, figures), self.directory / self.name)
                    stack.callback(server.close)
                except OSError as refused:
                    _log.warning("figures_not_shared", process=self.name, reason=str(refused))
            yield

    async def ask_others(self) -> dict[str, Exposition | None]:
        """The figures of all other processes, asked at once; None of one that did not answer in time."""
        return dict(zip(self.others, await asyncio.gather(*map(self._ask, self.others)), strict=True))

    async def _answer(self, figures: Callable[[str], Exposition], _: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.closing(writer), contextlib.suppress(OSError):
            async with asyncio.timeout(FIGURES.seconds):
                for text in await anyio.to_thread.run_sync(figures, self.name):
                    writer.write(text + _END)
                await writer.drain()

    async def _ask(self, name: str) -> Exposition | None:
        if self.directory is None:
            return None
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            async with asyncio.timeout(FIGURES.seconds):
                reader, writer = await asyncio.open_unix_connection(self.directory / name, limit=BYTES_MAX)
                with contextlib.closing(writer):
                    nameless, named = await reader.readuntil(_END), await reader.readuntil(_END)
                    return Exposition(nameless.removesuffix(_END), named.removesuffix(_END))
        return None


ONLY_PROCESS: Final = Process("serve-1")


def named_processes(serving: int, delivering: int, directory: Path | None) -> tuple[list[Process], list[Process]]:
    """The serving processes and the delivery processes of a service. A process that replaces another has its name."""
    names = [*(f"serve-{n + 1}" for n in range(serving)), *(f"deliver-{n + 1}" for n in range(delivering))]
    found = [Process(name, tuple(other for other in names if other != name), directory) for name in names]
    return found[:serving], found[serving:]


@contextlib.contextmanager
def figures_directory(data_dir: Path) -> Generator[Path | None]:
    """A directory for the sockets during the block; None if it cannot be made: each process then has only its own figures."""
    with contextlib.ExitStack() as stack:
        made: Path | None = None
        try:
            place = place_of(data_dir, _LONGEST)
            make_private(place, data_dir)
            _remove_remnants(place)
            made, lock = _make(place)
            stack.callback(os.close, lock)
            stack.callback(shutil.rmtree, made, ignore_errors=True)
        except OSError as refused:
            _log.warning("figures_not_shared", reason=str(refused))
        yield made


def _make(place: Path) -> tuple[Path, int]:
    """Make a directory and lock it. Another service that starts may remove it before the lock; then the next one is made."""
    for _ in range(_TRIES):
        made = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=place))
        with contextlib.suppress(FileNotFoundError, BlockingIOError):
            lock = _locked(made)
            if made.exists():
                return made, lock
            os.close(lock)
    raise BlockingIOError(f"{place} is being cleaned by others")


def _remove_remnants(place: Path) -> None:
    """Remove the directories of killed services. The lock of a running service ends with its process."""
    for found in place.glob(f"{_PREFIX}*"):
        with contextlib.suppress(OSError):
            lock = _locked(found)
            shutil.rmtree(found, ignore_errors=True)
            os.close(lock)


def _locked(directory: Path) -> int:
    """A descriptor that holds the lock of a directory. Raises BlockingIOError if another process holds it."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor
