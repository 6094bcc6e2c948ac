"""The limit of a directory's SCIM requests, over all processes: a token bucket in the database.

Each process takes several requests of the bucket at once and counts them down in memory, so that most requests ask nobody. What it took
and did not use yet stays its own: no process admits what another one has admitted, and a process that gets all connections of an IdP
has the whole rate, because the bucket fills as fast as the limit says, whoever takes from it (docs/decisions/0068).
"""

import asyncio
import math
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Final

import psycopg
import structlog

from api.metrics import count_rate_limited
from database.connections import Connection
from database.queries import load_queries
from ledger.directories import Directory
from ledger.ids import DirectoryNumber
from scim.errors import TooManyRequests, Unavailable
from scim.profile import RateLimit
from scim.remedies import RATE_LIMITED

SQL: Final = load_queries(__file__)
TAKEN_PER_SECOND: Final = 10  # a process takes a tenth of a second's requests at once
_log = structlog.get_logger("api.rates")


@dataclass(slots=True, eq=False)
class _Share:
    """What a process has of one directory's bucket. Times are in seconds of the event loop's clock."""

    limit: RateLimit
    left: int = 0  # requests that were taken and are not used yet
    empty_until: float = 0.0
    waiting: int = 0
    asking: asyncio.Lock = field(default_factory=asyncio.Lock)

    def use(self, now: float) -> float | None:
        """Use one request: 0, or the seconds for which the bucket is known to be empty; None: the database must be asked."""
        if self.left:
            self.left -= 1
            return 0.0
        return self.empty_until - now if now < self.empty_until else None


class Rates:
    """The shares of this process."""

    def __init__(self, connection: Callable[[], AbstractAsyncContextManager[Connection]]) -> None:
        self._connection = connection
        self._shares: dict[DirectoryNumber, _Share] = {}

    async def check(self, directory: Directory) -> None:
        """Count a request of a directory. Raises TooManyRequests above its limit, if it has one.

        While the database cannot be asked, requests are let through: what they need of it decides.
        """
        limit = directory.rate_limit
        if limit is None:
            return
        share = self._shares.get(directory.id)
        if share is None or share.limit != limit:
            share = self._shares[directory.id] = _Share(limit)
        wait = share.use(asyncio.get_running_loop().time())
        if wait is None:
            wait = await self._taken(directory, share)
        if wait:
            count_rate_limited(directory.slug)
            raise TooManyRequests(
                f"{RATE_LIMITED} ({limit.per_second} a second, {limit.burst} at once). Repeat this request after the time in Retry-After.",
                retry_after=max(1, math.ceil(wait)),
            )

    async def _taken(self, directory: Directory, share: _Share) -> float:
        """Take from the bucket, for all requests that wait for it in one query. Returns as `_Share.use`."""
        share.waiting += 1
        try:
            async with share.asking:
                loop = asyncio.get_running_loop()
                wait = share.use(loop.time())  # another request has asked meanwhile
                if wait is None:
                    await self._ask(directory, share)
                    wait = share.use(loop.time())
                return wait or 0.0
        except (psycopg.Error, Unavailable) as away:
            _log.warning("rate_not_counted", directory=directory.slug, reason=type(away).__name__)
            return 0.0
        finally:
            share.waiting -= 1

    async def _ask(self, directory: Directory, share: _Share) -> None:
        limit = share.limit
        count = max(share.waiting, limit.per_second // TAKEN_PER_SECOND)
        params = (directory.id, float(limit.per_second), float(limit.burst), count)
        async with self._connection() as conn:
            row = await (await conn.execute(SQL["take_requests"], params)).fetchone()
            if row is None:
                await conn.execute(SQL["begin_requests"], (directory.id,))
                row = await (await conn.execute(SQL["take_requests"], params)).fetchone()
        assert row is not None
        taken, wait = row
        share.left += taken
        if not taken:
            share.empty_until = asyncio.get_running_loop().time() + wait
