"""What the edge works with: made once by the wiring, handed to every route."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from uuid import UUID

from psycopg_pool import AsyncConnectionPool

from api.authentication import Authentication, presented
from api.journal import SQL, Journal
from api.scrapes import Scrapes
from database.coalesce import Coalescer
from database.connections import Connection
from ledger.directories import Directories, Directory
from ledger.feed import Feed
from ledger.sealing import Kek
from ledger.tail import Arrivals, Tail
from ledger.tokens import Token
from ledger.writer import Writer
from operations.consumers import Webhooks
from operations.open_ledger import OpenLedger
from projections.reads import GroupOf, Resource
from scim.errors import Forbidden, Unauthorized, Unavailable
from scim.profile import UnknownProfileError

TOUCH_INTERVAL_S = 60  # last_used_at is flushed once a minute: it must not make tokens a hot row


@dataclass(slots=True)
class Services:
    """The parts of a serving process that requests use."""

    base_url: str
    kek: Kek
    pool: AsyncConnectionPool[Connection]
    directories: Directories
    writer: Writer
    feed: Feed
    tokens: Coalescer[bytes, Token]
    authentication: Authentication
    users: Coalescer[tuple[int, UUID], Resource]
    groups: Coalescer[tuple[int, UUID], list[GroupOf]]  # of a user
    names: Coalescer[tuple[int, str], Resource]  # by folded userName
    new_id: Callable[[], UUID]  # of resources: random
    new_request_id: Callable[[], UUID]  # UUIDv7: its index insert stays at the right edge
    arrivals: Arrivals
    tail: Tail
    webhooks: Webhooks
    ledger: OpenLedger
    journal: Journal
    scrapes: Scrapes
    migrated: Callable[[], Awaitable[bool]]
    stopping: bool = False  # readers that wait are let go

    @property
    def clock(self) -> Callable[[], int]:
        """µs since the epoch."""
        return self.ledger.clock

    async def formerly(self, authorization: str | None, slug: str) -> tuple[Directory, Token] | None:
        """Whose refused request it was, for the journal: the token is ours, and only revoked or expired. It grants nothing."""
        try:
            hashed = presented(authorization)
        except Unauthorized:
            return None
        async with self.pool.connection() as conn:
            row = await (await conn.cursor(binary=True).execute(SQL["token_ever"], (hashed,))).fetchone()
        if row is None:
            return None
        number, role, name, directories, types, bodies = row
        token = Token(number, role, name, tuple(directories), tuple(types), bodies)
        try:
            return await self.directory(slug, token), token
        except Forbidden:
            return None

    async def directory(self, slug: str, token: Token) -> Directory:
        """Give a directory the token reaches. Raises Forbidden alike for one it does not reach and one that is not there."""
        if token.reaches(slug):
            directory = self.directories.known(slug)
            if directory is None:
                async with self.pool.connection() as conn:
                    try:
                        directory = await self.directories.by_slug(conn, slug)
                    except UnknownProfileError as unknown:
                        raise Unavailable(str(unknown), retry_after=60) from unknown
            if directory is not None:
                return directory
        raise Forbidden("This token does not reach a directory of that name.")
