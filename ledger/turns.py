"""Directories share worker threads and pooled connections fairly.

A worker thread frees the event loop, but threads share the interpreter, so only a few are useful. There are few places; each
directory may hold some of them, and waiting requests are admitted round-robin over directories. A directory that sends a thousand
requests delays its own; it delays others only if as many directories as there are places do the same.
"""

import asyncio
from collections import Counter, deque
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Final, TypeVar

import anyio.to_thread
from psycopg_pool import PoolTimeout

from database import patience
from database.connections import Connection
from database.deadlines import TURN
from ledger.ids import NO_DIRECTORY, DirectoryNumber
from scim.errors import Unavailable

T = TypeVar("T")
_TURN_RETRY_AFTER_S: Final = 5
_AGAIN: Final = "nothing was done. Send the request again in a moment."
# Texts for a turn that did not come in time. They fit both cases: the directory's own requests hold its share, or others hold all places.
COMPUTING: Final = f"Earlier requests are still being computed; {_AGAIN}"
ASKING: Final = f"Earlier requests still use the connections to the database; {_AGAIN}"
LARGE: Final = f"Other large requests, of this directory or of others, are still being carried out; {_AGAIN}"
THREADS: Final = 3  # worker threads; a directory may use one at a time
THREADS_OF_ONE: Final = 1
CONNECTIONS_OF_ONE: Final = 4  # pooled connections that a directory may use at a time, of twelve
LARGE_BYTES: Final = 256 * 1024  # a larger body waits for its turn: processing it may take thirty times as much memory
LARGE_AT_ONCE: Final = 3  # large bodies that are processed at once, one of each directory
V1_LOOP_BYTES_MAX: Final = 4_096  # a longer body to /v1 is parsed in a worker thread: parsing takes over a millisecond


class Line:
    """A limited number of places, and a limit for each key; waiting keys are admitted round-robin."""

    def __init__(self, places: int, of_one: int, why: str) -> None:
        """`why`: the text of the error when a turn does not come in time."""
        self._why = why
        self._free = places
        self._of_one = of_one
        self._held: Counter[int] = Counter()
        self._waiting: dict[int, deque[asyncio.Future[None]]] = {}  # the next key first

    @asynccontextmanager
    async def place(self, key: int) -> AsyncGenerator[None]:
        """Hold a place for the key. Raises Unavailable if its turn does not come in time."""
        await self._enter(key)
        try:
            yield
        finally:
            self._leave(key)

    async def _enter(self, key: int) -> None:
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(key, deque()).append(turn)
        self._admit()
        if turn.done():  # usually a place is free; then no timer is made
            return
        try:
            await patience.within(TURN.seconds, turn)
        except (asyncio.CancelledError, PoolTimeout) as ended:
            if not turn.cancelled():  # its turn came at the same moment as the timeout
                self._leave(key)
            if isinstance(ended, PoolTimeout):
                raise Unavailable(self._why, retry_after=_TURN_RETRY_AFTER_S) from ended
            raise

    def _leave(self, key: int) -> None:
        self._free += 1
        self._held[key] -= 1
        if not self._held[key]:
            del self._held[key]
        self._admit()

    def _admit(self) -> None:
        """Give free places to waiting keys that are below their limit."""
        for key in list(self._waiting):
            if not self._free:
                return
            while self._free and self._held[key] < self._of_one and key in self._waiting:
                turn = self._waiting[key].popleft()
                line = self._waiting.pop(key)
                if line:
                    self._waiting[key] = line  # the key goes to the back, so that the next place goes to another key
                if not turn.done():  # otherwise the waiting request was cancelled
                    self._held[key] += 1
                    self._free -= 1
                    turn.set_result(None)


class Turns:
    """The worker threads and pooled connections of a process, shared by the directories."""

    def __init__(self, connection: Callable[[], AbstractAsyncContextManager[Connection]], connections: int) -> None:
        self._connection = connection
        self._threads = Line(THREADS, THREADS_OF_ONE, COMPUTING)
        self._connections = Line(connections, CONNECTIONS_OF_ONE, ASKING)
        self._large = Line(LARGE_AT_ONCE, 1, LARGE)
        self._limiter = anyio.CapacityLimiter(THREADS)

    async def compute(self, directory: DirectoryNumber, work: Callable[[], T]) -> T:
        """Run `work` in a worker thread once it is the directory's turn. It should not take longer than 0.1 s.

        Raises the errors of `work`. If the caller is cancelled, it still waits for the thread.
        """
        async with self._threads.place(directory):
            return await anyio.to_thread.run_sync(work, limiter=self._limiter)

    def in_hand(self, directory: DirectoryNumber) -> AbstractAsyncContextManager[None]:
        """Hold a place for a body of more than LARGE_BYTES, from its arrival until its request is done."""
        return self._large.place(directory)

    async def read(self, size: int, work: Callable[[], T]) -> T:
        """Parse an operator's request of `size` bytes, a large one in a worker thread. Raises the errors of `work`."""
        return await self.computed(NO_DIRECTORY, work, large=size > V1_LOOP_BYTES_MAX)

    async def computed(self, directory: DirectoryNumber, work: Callable[[], T], *, large: bool) -> T:
        """Run `work` in a worker thread if it is large (over a millisecond), else on the event loop."""
        return await self.compute(directory, work) if large else work()

    @asynccontextmanager
    async def connection(self, directory: DirectoryNumber) -> AsyncGenerator[Connection]:
        """A pooled connection for a few statements. Do not compute or send an answer while holding it: others wait for it."""
        async with self._connections.place(directory), self._connection() as conn:
            yield conn
