"""The work of a request ends when its client goes away."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, MutableMapping
from contextlib import asynccontextmanager
from typing import Any

from fastapi import Request
from starlette.exceptions import HTTPException

from scim.work import AbandonedError, Work

CLIENT_GONE = 499  # for our own log: nobody reads the answer
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]


async def until_gone(receive: Receive, work: Work) -> None:
    """Wait for the client to go away, and stop the work then. Nobody else may wait for the body meanwhile."""
    while (await receive())["type"] != "http.disconnect":
        pass
    work.gone = True


@asynccontextmanager
async def watched(request: Request, steps: int, refusal: str) -> AsyncGenerator[Work]:
    """A budget for a request without a body, which ends with its client."""
    work = Work(steps, refusal)
    watch = asyncio.create_task(until_gone(request.receive, work))
    try:
        yield work
    except AbandonedError as gone:
        raise HTTPException(CLIENT_GONE) from gone
    finally:
        watch.cancel()
