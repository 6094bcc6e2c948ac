"""How long a request may still wait for the database: one budget of all its waits, from where the request begins.

Each wait has a deadline of its own. A request makes several of them, one after the other: it may not wait for their sum.
The budget belongs to the task of the request, so that nothing in between hands it on. Waits for a read count where they were in vain:
who got an answer waited for a database that works, however often. A write counts also where it was stored, for what is read after it.
Without a request (what runs in the background) there is no budget.
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
SHORT_S: Final = 0.25  # no wait at all
LEAST_S: Final = 0.5  # of any wait, whatever is left: a database that works answers within that


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


def nobodys() -> Context:
    """For a task that works for many requests: none of them pays for what the others wait."""
    return Context()


def started() -> Wait:
    """A wait begins, which `charge` ends."""
    budget = _OF_REQUEST.get()
    return Wait(budget, math.inf if budget is None else budget.left, time.monotonic())


def charge(wait: Wait) -> None:
    """The wait is over, and counts; several at the same time count once."""
    waited = time.monotonic() - wait.at
    if wait.budget is not None and waited > SHORT_S:
        wait.budget.left = min(wait.budget.left, wait.left - waited)


@contextmanager
def charged() -> Generator[None]:
    """What is waited for within counts, in vain or not."""
    wait = started()
    try:
        yield
    finally:
        charge(wait)


async def within(seconds: float, waiting: Awaitable[T]) -> T:
    """Wait for at most so long, and for no longer than the request may. Raises PoolTimeout."""
    wait = started()
    try:
        async with asyncio.timeout(max(min(seconds, wait.left), LEAST_S)):
            return await waiting
    except TimeoutError as late:
        charge(wait)
        raise PoolTimeout("no answer in time") from late
