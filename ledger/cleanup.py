"""Taking away what is left of a closed directory, piece by piece: its memberships, users and groups, then `directory.deleted`.

All access has ended with `directory.closed` already; this is tidying, and nobody waits for it. What is left to do stands in the
database alone, so whichever process looks next goes on after a kill. One process at a time: a lock of the connection that also writes,
so it is free only once whatever that connection had under way is over.
"""

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final, LiteralString
from uuid import UUID

import psycopg
import structlog

from database.connections import LOST, Connection
from database.queries import load_queries
from ledger.alone import write_alone
from ledger.commands import CleanUp, Command, needs_of
from ledger.directories import SYSTEM, Directories, Directory
from ledger.events import CLOSED
from ledger.refused import OvertakenError
from ledger.tokens import revocation
from ledger.transaction import Outcome, Submission, Transaction
from ledger.writer import Connect, Link

SQL: Final = load_queries(__file__)
PIECE: Final = 500  # events of a commit: some 50 ms of a lock on a directory that nobody else writes
CLEANUP_LOOK_S: Final = 1.0  # how late it is noticed that the process which cleaned up is gone
AWAY_S: Final = 1.0  # between two tries while the database is away
FAILED_S: Final = 30.0  # after a defect: it would be the same at once
# Whose tokens end with the directory, where they reach no other. Those that only read it stay: an application must still learn that access
# ended, and an auditor what was.
ENDED_ROLES: Final = ("scim", "operator", "admin")
_FIRST: Final = UUID(int=0)
_log = structlog.get_logger("ledger.cleanup")


@dataclass(slots=True)
class _Places:
    """How far this process came with a directory: only so as not to look again through what is gone."""

    membership: tuple[UUID, UUID] = (_FIRST, _FIRST)
    user: UUID = _FIRST
    group: UUID = _FIRST
    events: int = 0


@dataclass(eq=False, slots=True)
class CleanUps:
    """Cleans closed directories up while run() runs."""

    connect: Connect
    transaction: Transaction
    directories: Directories
    new_request_id: Callable[[], UUID]
    wake: asyncio.Event = field(default_factory=asyncio.Event)  # a directory may have been closed; set it once at the start too
    _places: dict[int, _Places] = field(default_factory=dict[int, _Places])

    async def run(self) -> None:
        """Until cancelled: what was under way then is rolled back, and taken up by whoever looks next."""
        link = Link(self.connect)
        try:
            while True:
                await self.wake.wait()
                self.wake.clear()
                while (pause := await self._tried(link)) is not None:
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(pause):
                            await self.wake.wait()
                    self.wake.clear()
                await link.close()  # nothing is left: a process that has nothing to clean up holds no connection for it
        finally:
            await link.close()

    async def _tried(self, link: Link) -> float | None:
        """Clean up; give the seconds until it is to be tried again, None where nothing is left."""
        try:
            return await self._look(await link.get())
        except LOST:
            await link.close()
            return AWAY_S
        except Exception:  # a defect here must not end the service
            _log.exception("cleanup_failed")
            await link.close()
            return FAILED_S

    async def _look(self, conn: Connection) -> float | None:
        """Clean up while there is something to, where no other process does."""
        if not await self._left(conn):
            return None
        if not await _locked(conn):
            return CLEANUP_LOOK_S
        failed: set[int] = set()
        try:
            while waiting := [directory for directory in await self._left(conn) if directory.id not in failed]:
                for directory in waiting:  # in turn: a small one does not wait for a large one
                    if not await self._went_well(conn, directory):
                        failed.add(directory.id)
        finally:
            self._places.clear()
            with contextlib.suppress(psycopg.Error):
                await conn.execute(SQL["end_cleaning"])
        return FAILED_S if failed else None

    async def _went_well(self, conn: Connection, directory: Directory) -> bool:
        try:
            await self._piece(conn, directory)
        except LOST:
            raise
        except Exception:  # a defect with one directory must not keep the others
            _log.exception("cleanup_failed", directory=directory.slug)
            await conn.rollback()
            return False
        return True

    async def _left(self, conn: Connection) -> list[Directory]:
        rows = await (await conn.execute(SQL["directories_in"], (CLOSED,))).fetchall()
        return [await self.directories.by_id(conn, row[0]) for row in rows]

    async def _piece(self, conn: Connection, directory: Directory) -> None:
        """The next piece of a directory; then as long a rest, so that at most half of a processor goes into it."""
        started = asyncio.get_running_loop().time()
        if directory.id not in self._places:
            self._places[directory.id] = _Places()
            await self._revoke(conn, directory)
        places = self._places[directory.id]
        piece = await self._next(conn, directory, places)
        outcome = await self._write(conn, directory, piece)
        places.events += outcome.events
        if piece.last and outcome.events:
            del self._places[directory.id]
            _log.info("directory_cleaned_up", directory=directory.slug, events=places.events)
        await asyncio.sleep(asyncio.get_running_loop().time() - started)

    async def _next(self, conn: Connection, directory: Directory, places: _Places) -> CleanUp:
        """What to take away next: memberships, then users, then groups, so that the end of a resource follows that of its edges."""
        number, uuid, slug = directory.id, directory.uuid, directory.slug
        edges = await _rows(conn, SQL["memberships_left"], (number, *places.membership, PIECE))
        if edges:
            places.membership = edges[-1][0], edges[-1][1]
            return CleanUp(uuid, slug, memberships=tuple((group, member, kind) for group, member, kind in edges))
        users = [row[0] for row in await _rows(conn, SQL["users_left"], (number, places.user, PIECE))]
        if users:
            places.user = users[-1]
            return CleanUp(uuid, slug, users=tuple(users))
        groups = [row[0] for row in await _rows(conn, SQL["groups_left"], (number, places.group, PIECE))]
        if groups:
            places.group = groups[-1]
            return CleanUp(uuid, slug, groups=tuple(groups))
        await self._revoke(conn, directory)  # what was issued meanwhile
        return CleanUp(uuid, slug, last=True)

    async def _revoke(self, conn: Connection, directory: Directory) -> None:
        """Each token that reaches this directory alone ends, on record."""
        system = await self.directories.by_slug(conn, SYSTEM)
        assert system is not None, "made at first start"
        for token, name in await _rows(conn, SQL["tokens_of_directory"], (directory.slug, list(ENDED_ROLES))):
            with contextlib.suppress(OvertakenError):  # an operator was faster
                await self._write(conn, system, revocation(token, name, "its directory was closed"))

    async def _write(self, conn: Connection, directory: Directory, command: Command) -> Outcome:
        """One command in a transaction of its own. Raises what refuses it."""
        waiter: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        submission = Submission(directory, command, needs_of(command), "sys", self.new_request_id(), 0, waiter)
        return await write_alone(conn, self.transaction, submission)


async def _locked(conn: Connection) -> bool:
    row = await (await conn.execute(SQL["try_cleaning"])).fetchone()
    return bool(row and row[0])


async def _rows(conn: Connection, sql: LiteralString, params: tuple[Any, ...]) -> list[tuple[Any, ...]]:
    return await (await conn.cursor(binary=True).execute(sql, params)).fetchall()
