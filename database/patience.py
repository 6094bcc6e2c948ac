"""How long a request may still wait for the database: one budget of all its waits, from where the request begins.

Each wait has a deadline of its own. A request makes several of them, one after the other: it may not wait for their sum.
The budget belongs to the task of the request, so that nothing in between hands it on. Short waits cost nothing: they are a database
that works, however many there are of them. Without a request (what runs in the background) there is no budget.
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
SHORT_S: Final = 0.25
NOBODYS: Final = Context()  # for tasks that work for many requests: none of them pays for what the others wait


@dataclass(slots=True)
class _Budget:
    left: float  # seconds


class Wait(NamedTuple):
    """One that began `at` a time of the monotonic clock, when so many seconds were `left`: without end where no request waits."""

    budget: _Budget | None
    left: float
    at: float


_OF_REQUEST: ContextVar[_Budget | None] = ContextVar("patience", default=None)


def begin(seconds: float = REQUEST_WAITS.seconds) -> None:
    """The task is that of a request from now on, or of a part of one, and may wait for so long."""
    _OF_REQUEST.set(_Budget(seconds))


def renew(seconds: float = REQUEST_WAITS.seconds) -> None:
    """Part of the work is done, or of the answer sent: what comes next may wait for so long, whatever was waited before."""
    budget = _OF_REQUEST.get()
    if budget is not None:
        budget.left = max(budget.left, seconds)


def left() -> float:
    """Seconds; without end where the task is no request's."""
    budget = _OF_REQUEST.get()
    return math.inf if budget is None else max(budget.left, 0.0)


def started() -> Wait:
    """A wait begins, which `charge` ends: `charged` for where each microsecond counts."""
    budget = _OF_REQUEST.get()
    return Wait(budget, math.inf if budget is None else budget.left, time.monotonic())


def charge(wait: Wait) -> float:
    """The wait is over: it counts, and once what was waited for at the same time. Gives the time, of the monotonic clock."""
    budget, before, began = wait
    now = time.monotonic()
    if budget is not None and now - began > SHORT_S:
        budget.left = min(budget.left, before - (now - began))
    return now


@contextmanager
def charged() -> Generator[None]:
    """Waits within count, those at the same time once."""
    wait = started()
    try:
        yield
    finally:
        charge(wait)


async def within(seconds: float, waiting: Awaitable[T]) -> T:
    """Wait for at most so long, and for no longer than the request may. Raises PoolTimeout."""
    with charged():
        try:
            async with asyncio.timeout(min(seconds, left())):
                return await waiting
        except TimeoutError as late:
            raise PoolTimeout("no answer in time") from late
