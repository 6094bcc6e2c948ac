"""Clean up a closed directory in small commits: remove memberships, users and groups, then write `directory.deleted`.

All access ended with `directory.closed`, so nobody waits for the clean-up. Its progress is only in the database: after a kill, any
process continues. An advisory lock keeps it to one process at a time. The connection that writes also holds the lock, so the lock
cannot become free while a write of that connection is still running.
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
from ledger.clients import find_clients, revoke_client
from ledger.commands import CleanUp, Command, needs_of
from ledger.directories import SYSTEM, Directories, Directory
from ledger.events import CLOSED
from ledger.ids import DirectoryNumber
from ledger.refused import OvertakenError
from ledger.tokens import ENDED_ROLES, revocation
from ledger.transaction import Outcome, Submission, Transaction
from ledger.writer import Connect, Link

SQL: Final = load_queries(__file__)
PIECE: Final = 500  # events in one commit; it locks a directory that nobody else writes for about 50 ms
CLEANUP_LOOK_S: Final = 1.0  # between two checks whether the process that cleans up is gone
AWAY_S: Final = 1.0  # between two attempts while the database is away
FAILED_S: Final = 30.0  # after a defect, because an immediate attempt would fail in the same way
_CLOSED: Final = "its directory was closed"
_FIRST: Final = UUID(int=0)
_log = structlog.get_logger("ledger.cleanup")


@dataclass(slots=True)
class _Places:
    """How far this process came with a directory. Only saves scanning again what was already removed; nothing depends on it."""

    membership: tuple[UUID, UUID] = (_FIRST, _FIRST)
    user: UUID = _FIRST
    group: UUID = _FIRST
    events: int = 0


@dataclass(eq=False, slots=True)
class CleanUps:
    """Cleans up closed directories while run() runs."""

    connect: Connect
    transaction: Transaction
    directories: Directories
    new_request_id: Callable[[], UUID]
    wake: asyncio.Event = field(default_factory=asyncio.Event)  # set when a directory may have been closed, and once at the start
    _places: dict[DirectoryNumber, _Places] = field(default_factory=dict[DirectoryNumber, _Places])

    async def run(self) -> None:
        """Run until cancelled. A transaction that is running then is rolled back, and the next process repeats it."""
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
                await link.close()  # a process that has nothing to clean up holds no connection
        finally:
            await link.close()

    async def _tried(self, link: Link) -> float | None:
        """Clean up. Return the seconds until the next attempt, or None if nothing is left."""
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
        """Clean up as long as there is work and no other process holds the lock."""
        if not await self._left(conn):
            return None
        if not await _locked(conn):
            return CLEANUP_LOOK_S
        failed = set[DirectoryNumber]()
        try:
            while waiting := [directory for directory in await self._left(conn) if directory.id not in failed]:
                for directory in waiting:  # one piece each in turn, so that a small directory does not wait for a large one
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
        except Exception:  # a defect in one directory must not stop the clean-up of the others
            _log.exception("cleanup_failed", directory=directory.slug)
            await conn.rollback()
            return False
        return True

    async def _left(self, conn: Connection) -> list[Directory]:
        rows = await (await conn.execute(SQL["directories_in"], (CLOSED,))).fetchall()
        return [await self.directories.by_id(conn, row[0]) for row in rows]

    async def _piece(self, conn: Connection, directory: Directory) -> None:
        """Write the next piece of a directory, then sleep as long as that took: the clean-up uses at most half of a core."""
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
        """The next piece: memberships first, then users, then groups, so that a resource is deleted after its memberships."""
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
        await self._revoke(conn, directory)  # also tokens that were issued during the clean-up
        return CleanUp(uuid, slug, last=True)

    async def _revoke(self, conn: Connection, directory: Directory) -> None:
        """Revoke each token that reaches only this directory, and its clients; each revocation is an event."""
        system = await self.directories.by_slug(conn, SYSTEM)
        assert system is not None, "made at first start"
        for token, name in await _rows(conn, SQL["tokens_of_directory"], (directory.slug, list(ENDED_ROLES))):
            with contextlib.suppress(OvertakenError):  # an operator revoked it at the same moment
                await self._write(conn, system, revocation(token, name, _CLOSED))
        for client in await find_clients(conn, directory=directory.slug):
            ends = revoke_client(client, _CLOSED)
            if ends is not None:
                with contextlib.suppress(OvertakenError):
                    await self._write(conn, system, ends)

    async def _write(self, conn: Connection, directory: Directory, command: Command) -> Outcome:
        """Write one command in its own transaction. Raises the error that refuses it."""
        waiter: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        submission = Submission(directory, command, needs_of(command), "sys", self.new_request_id(), 0, waiter)
        return await write_alone(conn, self.transaction, submission)


async def _locked(conn: Connection) -> bool:
    row = await (await conn.execute(SQL["try_cleaning"])).fetchone()
    return bool(row and row[0])


async def _rows(conn: Connection, sql: LiteralString, params: tuple[Any, ...]) -> list[tuple[Any, ...]]:
    return await (await conn.cursor(binary=True).execute(sql, params)).fetchall()
