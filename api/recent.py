"""Cache an expensive value for a moment, and compute it only once for concurrent callers."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

from database import patience

V = TypeVar("V")


class Recent(Generic[V]):
    """The result of `make`, at most `seconds` old."""

    def __init__(self, make: Callable[[], Awaitable[V]], seconds: float) -> None:
        self._make, self._seconds = make, seconds
        self._made: tuple[float, V] | None = None
        self._task: asyncio.Task[V] | None = None

    async def get(self) -> V:
        """The value. If `make` fails, all waiting callers get its error, and the next caller tries again."""
        if self._made is not None and asyncio.get_running_loop().time() - self._made[0] < self._seconds:
            return self._made[1]
        if self._task is None:
            self._task = asyncio.create_task(self._remake(), context=patience.nobodys())
        return await asyncio.shield(self._task)  # a cancelled caller must not cancel `make` for the others

    async def _remake(self) -> V:
        try:
            value = await self._make()
            self._made = (asyncio.get_running_loop().time(), value)
            return value
        finally:
            self._task = None
