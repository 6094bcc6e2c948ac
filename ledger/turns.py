"""Directories take turns at what they share: worker threads, and connections of the pool.

Computing in a thread leaves the event loop free, but not the interpreter: more threads than a few only get in each other's way.
So there are few places, each directory has a share of them, and whoever waits comes in the order of directories, not of requests:
one that asks for a thousand things holds up its own, and others only while as many directories as there are places do the same.
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
from scim.errors import Unavailable

T = TypeVar("T")
_TURN_RETRY_AFTER_S: Final = 5
_AGAIN: Final = "nothing was done. Send the request again in a moment."
# Why a turn did not come: the directory's own requests may hold its share, or others hold all places. True of both.
COMPUTING: Final = f"What came before this request is still being computed; {_AGAIN}"
ASKING: Final = f"What came before this request still needs the connections to the database; {_AGAIN}"
LARGE: Final = f"Other large requests, of this directory or of others, are still being carried out; {_AGAIN}"
THREADS: Final = 3  # one directory computes in one of them, so that others always find one free
THREADS_OF_ONE: Final = 1
CONNECTIONS_OF_ONE: Final = 4  # of the pool's twelve
LARGE_BYTES: Final = 256 * 1024  # of a body that is in hand alone: what is made of it may take thirty times as much memory
LARGE_AT_ONCE: Final = 3  # of all directories, one of each
V1_LOOP_BYTES_MAX: Final = 4_096  # of a request to /v1 that is read on the event loop: a longer one takes over a millisecond
NO_DIRECTORY: Final = 0  # the turn of what operators ask that is of no directory: a profile to be checked, a schema


class Line:
    """So many places at a time, so many of them for one key; keys that wait take turns."""

    def __init__(self, places: int, of_one: int, why: str) -> None:
        """`why`: what whoever has waited in vain is told, whether its own key holds its share or others hold all places."""
        self._why = why
        self._free = places
        self._of_one = of_one
        self._held: Counter[int] = Counter()
        self._waiting: dict[int, deque[asyncio.Future[None]]] = {}  # in the order of turns

    @asynccontextmanager
    async def place(self, key: int) -> AsyncGenerator[None]:
        """Hold a place for the key. Raises Unavailable where its turn does not come in time."""
        await self._enter(key)
        try:
            yield
        finally:
            self._leave(key)

    async def _enter(self, key: int) -> None:
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(key, deque()).append(turn)
        self._admit()
        if turn.done():  # most find a place free: they pay for no timer
            return
        try:
            await patience.within(TURN.seconds, turn)
        except (asyncio.CancelledError, PoolTimeout) as ended:
            if not turn.cancelled():  # its turn came in the same moment
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
        """Give free places to whoever may have one."""
        for key in list(self._waiting):
            if not self._free:
                return
            while self._free and self._held[key] < self._of_one and key in self._waiting:
                turn = self._waiting[key].popleft()
                line = self._waiting.pop(key)
                if line:
                    self._waiting[key] = line  # to the back: the next place is another key's
                if not turn.done():  # else whoever waited went away
                    self._held[key] += 1
                    self._free -= 1
                    turn.set_result(None)


class Turns:
    """The worker threads and pooled connections of a process, shared out by directory."""

    def __init__(self, connection: Callable[[], AbstractAsyncContextManager[Connection]], connections: int) -> None:
        self._connection = connection
        self._threads = Line(THREADS, THREADS_OF_ONE, COMPUTING)
        self._connections = Line(connections, CONNECTIONS_OF_ONE, ASKING)
        self._large = Line(LARGE_AT_ONCE, 1, LARGE)
        self._limiter = anyio.CapacityLimiter(THREADS)

    async def compute(self, directory: int, work: Callable[[], T]) -> T:
        """Run `work` in a worker thread once it is the directory's turn. It should not take longer than a tenth of a second.

        Raises what the work raises. The thread is waited for also where the caller is cancelled.
        """
        async with self._threads.place(directory):
            return await anyio.to_thread.run_sync(work, limiter=self._limiter)

    def in_hand(self, directory: int) -> AbstractAsyncContextManager[None]:
        """A place for a body of more than LARGE_BYTES, from when it was received until what it asks for is done."""
        return self._large.place(directory)

    async def read(self, size: int, work: Callable[[], T]) -> T:
        """Read what an operator sent, of `size` bytes: off the event loop where that takes long. Raises what the work raises."""
        return await self.computed(NO_DIRECTORY, work, large=size > V1_LOOP_BYTES_MAX)

    async def computed(self, directory: int, work: Callable[[], T], *, large: bool) -> T:
        """What takes over a millisecond leaves the event loop; the rest is not worth the way."""
        return await self.compute(directory, work) if large else work()

    @asynccontextmanager
    async def connection(self, directory: int) -> AsyncGenerator[Connection]:
        """A pooled connection, for the time of a few statements: whoever computes or sends meanwhile keeps others waiting."""
        async with self._connections.place(directory), self._connection() as conn:
            yield conn
