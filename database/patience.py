"""How long a request may still wait for the database: one budget for all its waits.

Each wait has its own deadline, but a request makes several waits, and their sum would be too long. The budget belongs to the task of
the request (a context variable), so no function has to pass it on. A wait for a read is charged only if it failed, because after an
answer the database is known to work. A write is charged even if it succeeded, to leave time for the reads after it. Background tasks
have no budget.
"""

import asyncio
import math
import time
from collections.abc import Awaitable, Generator
from contextlib import contextmanager
from contextvars import Context, ContextVar
from dataclasses import dataclass
from typing import Final, NamedTuple, TypeVar

from psycopg_pool import PoolTimeout

from database.deadlines import REQUEST_WAITS

T = TypeVar("T")
SHORT_S: Final = 0.25  # seconds; a shorter wait is not charged
LEAST_S: Final = 0.5  # seconds that any wait gets at least: a working database answers within that


@dataclass(slots=True)
class _Budget:
    left: float  # seconds


class Wait(NamedTuple):
    """A wait: the monotonic time of its start, and the seconds left then (infinite without a request)."""

    budget: _Budget | None
    left: float
    at: float


_OF_REQUEST: ContextVar[_Budget | None] = ContextVar("patience", default=None)


def begin(seconds: float = REQUEST_WAITS.seconds) -> None:
    """Give the current task, of a request or a part of one, a new budget."""
    _OF_REQUEST.set(_Budget(seconds))


def renew(seconds: float = REQUEST_WAITS.seconds) -> None:
    """Raise the rest of the budget to so many seconds, after a part of the work is done or of the answer sent."""
    budget = _OF_REQUEST.get()
    if budget is not None:
        budget.left = max(budget.left, seconds)


def left() -> float:
    """The seconds left; infinite outside of requests."""
    budget = _OF_REQUEST.get()
    return math.inf if budget is None else max(budget.left, 0.0)


def nobodys() -> Context:
    """A context without a budget, for a task that works for many requests."""
    return Context()


def started() -> Wait:
    """Begin a wait; `charge` ends it."""
    budget = _OF_REQUEST.get()
    return Wait(budget, math.inf if budget is None else budget.left, time.monotonic())


def charge(wait: Wait) -> None:
    """End a wait and take its time from the budget. Concurrent waits are charged once."""
    waited = time.monotonic() - wait.at
    if wait.budget is not None and waited > SHORT_S:
        wait.budget.left = min(wait.budget.left, wait.left - waited)


@contextmanager
def charged() -> Generator[None]:
    """Charge the time of the block, whether it succeeds or not."""
    wait = started()
    try:
        yield
    finally:
        charge(wait)


async def within(seconds: float, waiting: Awaitable[T]) -> T:
    """Wait at most so many seconds, and at most as long as the budget allows. Raises PoolTimeout."""
    wait = started()
    try:
        async with asyncio.timeout(max(min(seconds, wait.left), LEAST_S)):
            return await waiting
    except TimeoutError as late:
        charge(wait)
        raise PoolTimeout("no answer in time") from late
