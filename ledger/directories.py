"""Directories as the write side knows them, and the key-encryption key of the ledger."""

from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from database.connections import Connection
from database.queries import load_queries
from ledger.sealing import Kek, unwrap_key
from scim.tolerances import GENERIC, Tolerances

SQL = load_queries(__file__)
SYSTEM = "_system"  # the ledger's own directory: tokens, consumers, replays
PROFILE = "generic@1"


@dataclass(frozen=True, slots=True)
class Directory:
    """One IdP connection. `slug` is its public name, never reused; `profile` says how its IdP speaks."""

    id: int
    uuid: UUID
    slug: str
    profile: str
    index_key: bytes = field(repr=False)
    created_at: int = 0  # µs since the epoch
    tolerances: Tolerances = GENERIC


def _directory(kek: Kek, row: tuple[Any, ...]) -> Directory:
    number, uuid, slug, profile, index_key, created_at, _closed = row
    opened = unwrap_key(kek, index_key, directory=uuid, obj=uuid)
    return Directory(number, uuid, slug, profile, opened, int(created_at.timestamp() * 1_000_000))


class Directories:
    """The directories by slug and by number, read once each: they are immutable but for their profile."""

    def __init__(self, kek: Kek) -> None:
        self._kek = kek
        self._by_slug: dict[str, Directory] = {}
        self._by_id: dict[int, Directory] = {}

    async def by_slug(self, conn: Connection, slug: str) -> Directory | None:
        """Give a directory, or None where the ledger has none of that name."""
        found = self._by_slug.get(slug)
        if found is None:
            row = await (await conn.execute(SQL["directory_by_slug"], (slug,))).fetchone()
            found = self._remember(row) if row else None
        return found

    async def by_id(self, conn: Connection, number: int) -> Directory:
        """Raises KeyError for a number the ledger never gave."""
        if number not in self._by_id:
            await self.all(conn)
        return self._by_id[number]

    async def all(self, conn: Connection) -> list[Directory]:
        rows = await (await conn.execute(SQL["directories_all"])).fetchall()
        return [self._remember(row) for row in rows]

    def known(self, slug: str) -> Directory | None:
        """The same without asking the database."""
        return self._by_slug.get(slug)

    def _remember(self, row: tuple[Any, ...]) -> Directory:
        directory = _directory(self._kek, row)
        self._by_slug[directory.slug] = self._by_id[directory.id] = directory
        return directory
