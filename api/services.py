"""The parts that the edge works with, made once by the wiring."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from uuid import UUID

from api.authentication import Authentication
from api.journal import Journal
from api.mistakes import Mistakes
from api.rates import Rates
from api.scrapes import Scrapes
from database.coalesce import Coalescer
from ledger.directories import Directory
from ledger.ids import DirectoryNumber
from ledger.tail import Arrivals, Tail
from ledger.tokens import Token
from ledger.tracing import UNTRACED, Tracer
from operations.consumers import Webhooks
from operations.open_ledger import OpenLedger
from operations.readiness import Readiness
from projections.index_pages import KnownLists
from projections.reads import Alone, Resource
from projections.user_groups import GroupNames, GroupOf
from scim.errors import Forbidden, Unavailable
from scim.profile import UnknownProfileError

TOUCH_INTERVAL_S = (
    5  # last_used_at is written so often, so that a request does not update a row, and a careful end sees what is in use
)


@dataclass(frozen=True, slots=True)
class PointReads:
    """Reads of single resources that concurrent requests share."""

    users: Coalescer[tuple[DirectoryNumber, UUID], Resource | Alone]
    groups: Coalescer[tuple[DirectoryNumber, UUID], list[GroupOf] | Alone]  # groups of a user
    names: Coalescer[tuple[DirectoryNumber, str], Resource | Alone]  # by casefolded userName


@dataclass(slots=True)
class Services:
    """The parts of a serving process that requests use: the open ledger, and those that only the edge needs."""

    base_url: str
    ledger: OpenLedger
    authentication: Authentication
    reads: PointReads
    group_names: GroupNames
    lists: KnownLists
    new_request_id: Callable[[], UUID]  # UUIDv7: ascending, so index inserts stay at the right edge
    arrivals: Arrivals
    tail: Tail
    webhooks: Webhooks
    journal: Journal
    mistakes: Mistakes
    rates: Rates
    scrapes: Scrapes
    readiness: Readiness
    erased: asyncio.Event = field(default_factory=asyncio.Event)  # something was erased here: its receipt is to be completed
    tracer: Tracer = UNTRACED
    stopping: bool = False  # the service stops: waiting readers end

    async def directory(self, slug: str, token: Token) -> Directory:
        """A directory that the token reaches. Raises the same Forbidden for a hidden one and a missing one."""
        if token.reaches(slug):
            directory = self.ledger.directories.known(slug)
            if directory is None:
                async with self.ledger.connection() as conn:
                    try:
                        directory = await self.ledger.directories.by_slug(conn, slug)
                    except UnknownProfileError as unknown:
                        raise Unavailable(str(unknown), retry_after=60) from unknown
            if directory is not None:
                return directory
        raise Forbidden("There is no directory of that name, or the token does not reach it.")
