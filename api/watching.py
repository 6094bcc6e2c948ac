"""Stop the work of a request when its client disconnects."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, MutableMapping
from contextlib import asynccontextmanager
from typing import Any

from fastapi import Request
from starlette.exceptions import HTTPException

from scim.work import AbandonedError, Work

CLIENT_GONE = 499  # status for logs and metrics: nobody reads the answer
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]


async def until_gone(receive: Receive, work: Work) -> None:
    """Wait until the client disconnects, then stop the work. Nobody else may call `receive` meanwhile."""
    while (await receive())["type"] != "http.disconnect":
        pass
    work.gone = True


@asynccontextmanager
async def watched(request: Request, steps: int, refusal: str) -> AsyncGenerator[Work]:
    """A work budget for a request without a body; it is stopped when the client disconnects."""
    work = Work(steps, refusal)
    watch = asyncio.create_task(until_gone(request.receive, work))
    try:
        yield work
    except AbandonedError as gone:
        raise HTTPException(CLIENT_GONE) from gone
    finally:
        watch.cancel()
