"""Erasures that were made: their rows, from which receipts are shown."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final, NamedTuple
from uuid import UUID

from database.arrays import uuids
from database.connections import Connection
from database.queries import load_queries
from ledger.events import MEMBER_TYPE_NAMES
from ledger.horizon import Swept
from ledger.ids import DirectoryNumber, Position, Seq
from ledger.sealing import Kek

SQL: Final = load_queries(__file__)


class Epochs(NamedTuple):
    """The epochs of key-encryption keys: the one that wraps new keys, and those that are destroyed."""

    current: int = 1
    destroyed: frozenset[int] = frozenset()


def epochs_of(kek: Kek) -> Epochs:
    """The epochs of a ledger's key-encryption keys: the one that seals, and those that are destroyed."""
    return Epochs(kek.current, frozenset(range(1, kek.epochs[-1])) - frozenset(kek.epochs))


class ErasureRow(NamedTuple):
    """A row of `erasures`, with the place of its event. `recipients`, `mentions`: None until they were looked up."""

    id: UUID
    number: int
    directory: DirectoryNumber
    slug: str
    obj: UUID
    ot: str
    seq: Seq
    position: Position
    at: int  # µs since the epoch, of its commit
    actor: str
    leaf_hash: bytes
    sealed_reason: bytes | None
    counts: Mapping[str, int]
    recipients: list[dict[str, Any]] | None
    mentions: dict[str, Any] | None
    swept: Swept
    completed_at: datetime | None

    @property
    def erased_in(self) -> int:
        """The epoch in which it was made."""
        return self.counts.get("epoch", 1)


def _row(row: Sequence[Any]) -> ErasureRow:
    *stored, vacuumed_at, wal_switched_at, refused, completed_at = row
    found = ErasureRow._make((*stored, Swept(vacuumed_at, wal_switched_at, refused), completed_at))
    return found._replace(ot=MEMBER_TYPE_NAMES[int(found.ot)])


async def _erasures(conn: Connection, name: str, *params: Any) -> list[ErasureRow]:
    return [_row(row) for row in await (await conn.cursor(binary=True).execute(SQL[name], params)).fetchall()]


async def erasure_of(conn: Connection, directory: DirectoryNumber, obj: UUID) -> ErasureRow | None:
    """The erasure of a user or group, if it was erased."""
    found = await _erasures(conn, "erasure_of", directory, obj)
    return found[0] if found else None


async def erasure_by_id(conn: Connection, directory: DirectoryNumber, erasure: UUID) -> ErasureRow | None:
    """One erasure of a directory."""
    found = await _erasures(conn, "erasure_by_id", directory, erasure)
    return found[0] if found else None


async def erasures_after(conn: Connection, directory: DirectoryNumber, after: int, limit: int) -> list[ErasureRow]:
    """The erasures of a directory with a higher number, in the order of their commits."""
    return await _erasures(conn, "erasures_after", directory, after, limit)


async def incomplete(conn: Connection, limit: int) -> list[ErasureRow]:
    """The erasures whose receipts are not complete, of all directories, in the order of their commits."""
    return await _erasures(conn, "erasures_incomplete", limit)


async def erased_since(conn: Connection, number: int) -> list[tuple[int, UUID]]:
    """Number and subject of later erasures, in order: what processes forget."""
    return await (await conn.cursor(binary=True).execute(SQL["erased_since"], (number,))).fetchall()


async def last_number(conn: Connection) -> int:
    """The number of the last erasure; 0 if there is none."""
    row = await (await conn.execute(SQL["last_number"])).fetchone()
    assert row is not None
    return row[0]


class Listed(NamedTuple):
    """An erasure as the list beside the root key names it; `at` in µs since the epoch."""

    number: int
    directory: UUID
    ot: str
    subject: UUID
    at: int


async def listed_after(conn: Connection, number: int, limit: int) -> list[Listed]:
    """Erasures with a higher number, in order."""
    rows = await (await conn.cursor(binary=True).execute(SQL["listed_after"], (number, limit))).fetchall()
    return [Listed(count, directory, MEMBER_TYPE_NAMES[ot], subject, at) for count, directory, ot, subject, at in rows]


async def erased_among(conn: Connection, subjects: Sequence[UUID]) -> set[UUID]:
    """Those of the users and groups that were erased."""
    rows = await (await conn.cursor(binary=True).execute(SQL["erased_among"], (uuids(subjects),))).fetchall()
    return {row[0] for row in rows}
