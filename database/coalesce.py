"""Concurrent point reads share a query: what arrives while one is under way goes into the next.

A query per request reaches about a quarter of what the HTTP server alone can serve; shared ones about half.
"""

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

from psycopg_pool import PoolTimeout

from database import patience
from database.deadlines import REQUEST_WAITS, SHARED_ANSWER

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

KEYS_MAX = 256  # of one query


class Coalescer(Generic[K, V]):
    """Looks keys up together. `fetch` gives the values it found; a missing key reads as None."""

    def __init__(self, fetch: Callable[[list[K]], Awaitable[dict[K, V]]]) -> None:
        self._fetch = fetch
        self._waiting: dict[K, asyncio.Future[V | None]] = {}
        self._task: asyncio.Task[None] | None = None

    async def get(self, key: K) -> V | None:
        """Read one key in a query that begins after this call. Raises what the query raises."""
        waiter = self._waiting.get(key)
        if waiter is None:
            waiter = self._waiting[key] = asyncio.get_running_loop().create_future()
            if self._task is None:
                self._task = asyncio.create_task(self._run(), context=patience.nobodys())
        if patience.left() < REQUEST_WAITS.seconds:  # most requests have not waited yet: they pay for no timer
            return await patience.within(REQUEST_WAITS.seconds, asyncio.shield(waiter))
        wait = patience.started()
        try:
            return await asyncio.shield(waiter)
        except Exception:
            patience.charge(wait)
            raise

    async def _run(self) -> None:
        while self._waiting:
            keys = list(self._waiting)[:KEYS_MAX]
            waiters = [(key, self._waiting.pop(key)) for key in keys]
            try:
                found = await self._fetched(keys)
            except Exception as broken:  # every reader of this query learns of it
                for _, waiter in waiters:
                    waiter.set_exception(broken)
                    waiter.exception()  # marks it as seen: a reader may have gone away
                continue
            for key, waiter in waiters:
                waiter.set_result(found.get(key))
        self._task = None

    async def _fetched(self, keys: list[K]) -> dict[K, V]:
        try:
            async with asyncio.timeout(SHARED_ANSWER.seconds):
                return await self._fetch(keys)
        except TimeoutError as late:
            raise PoolTimeout("no answer in time") from late
