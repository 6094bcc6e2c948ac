"""Move what is sealed in earlier key epochs into the current one, in batches of pages, while writes go on.

Nothing has to be remembered for a run that was interrupted: what is moved carries its epoch. Runs as the owner of the tables, because
the service may not change keys.
"""

import secrets
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple, TypeAlias
from uuid import UUID

import psycopg
from psycopg import sql

from database.arrays import byteas
from database.connections import Connection
from database.queries import load_queries
from ledger.ids import DirectoryUuid
from ledger.sealed_columns import NOTES, WRAPPED, SealedNotes, WrappedKeys
from ledger.sealing import NONCE_SIZE, Kek, note_head, open_note, seal_note, unwrap_key, wrap_key
from proofs.keys import EPOCH_BYTES, WRAPPED_BYTES, WrapError

SQL: Final = load_queries(__file__)
PAGES: Final = 128  # of 8 KiB: about 8 000 subject keys in a transaction of a tenth of a second
_EPOCH_MAX: Final = 2**31 - 1
Column: TypeAlias = WrappedKeys | SealedNotes
Tell: TypeAlias = Callable[[int, int], None]


class Moved(NamedTuple):
    """What a run moved, and what it could not open: that was unreadable before."""

    keys: int
    notes: int
    unreadable: int


class Need(NamedTuple):
    """How many values of a column are sealed in an epoch or an earlier one."""

    column: Column
    rows: int

    def __str__(self) -> str:
        return f"{self.rows} of {self.column.table}.{self.column.column}"


async def needs(conn: Connection, kek: Kek, epoch: int) -> list[Need]:
    """What would become unreadable if this epoch and all earlier ones were destroyed. What does not open now needs none of them."""
    found: list[Need] = []
    for column, _ in await sealed_up_to(conn, epoch):
        opened = [await _readable(conn, kek, column, first, epoch) for first in await _batches(conn, column)]
        if any(opened):
            found.append(Need(column, sum(opened)))
    return found


async def rewrap(conn: Connection, kek: Kek, tell: Tell) -> Moved:
    """Move everything into the current epoch of `kek`. `tell` gets what is done and what there is to do."""
    done = _Done(tell, sum(need.rows for need in await sealed_up_to(conn, kek.current - 1)))
    for column in (*WRAPPED, *NOTES):
        # What is written after this pass began is sealed in the current epoch already.
        for first in await _batches(conn, column):
            await _rewrap_pages(conn, kek, column, first, done)
    return Moved(done.keys, done.notes, done.unreadable)


def sealed_after(column: Column, epoch: int) -> sql.Composed:
    """A condition: the value is sealed in an epoch after this one. Epochs stand in front of values as big-endian numbers."""
    first, last = (
        number.to_bytes(EPOCH_BYTES, "big") if isinstance(column, WrappedKeys) else note_head(number)
        for number in (epoch + 1, _EPOCH_MAX)
    )
    head = sql.SQL("substring({} for {}) between {} and {}").format(
        _value(column), sql.Literal(len(first)), sql.Literal(first), sql.Literal(last)
    )
    if isinstance(column, SealedNotes):
        return head
    return sql.SQL("octet_length({}) <> {} and {}").format(_value(column), sql.Literal(WRAPPED_BYTES), head)


def count_up_to(column: Column, epoch: int) -> sql.Composed:
    """A query: how many values of the column are sealed in this epoch or an earlier one."""
    return sql.SQL("select count(*) from {} t where {}").format(_table(column), _up_to(column, epoch))


class _Done:
    """Counts what was moved, and shows it."""

    def __init__(self, tell: Tell, total: int) -> None:
        self._tell, self._total = tell, total
        self.keys = self.notes = self.unreadable = 0

    def add(self, column: Column, moved: int, unreadable: int) -> None:
        if isinstance(column, WrappedKeys):
            self.keys += moved
        else:
            self.notes += moved
        self.unreadable += unreadable
        seen = self.keys + self.notes + self.unreadable
        self._tell(seen, max(self._total, seen))


async def sealed_up_to(conn: Connection, epoch: int) -> list[Need]:
    """The columns with values that are sealed in this epoch or an earlier one."""
    found: list[Need] = []
    for column in (*WRAPPED, *NOTES):
        row = await (await conn.execute(count_up_to(column, epoch))).fetchone()
        assert row is not None
        if row[0]:
            found.append(Need(column, row[0]))
    return found


async def _batches(conn: Connection, column: Column) -> range:
    row = await (await conn.execute(SQL["pages_of"], (f"ledger.{column.table}",))).fetchone()
    assert row is not None
    return range(0, int(row[0]) + 1, PAGES)


async def _rewrap_pages(conn: Connection, kek: Kek, column: Column, first: int, done: _Done) -> None:
    while True:
        try:
            async with conn.transaction():
                moved, unreadable = await _move(conn, kek, column, first)
        except psycopg.errors.DeadlockDetected:  # the service changes some of these rows in another order
            continue
        done.add(column, moved, unreadable)
        return


async def _move(conn: Connection, kek: Kek, column: Column, first: int) -> tuple[int, int]:
    """Move the values on some pages. A row that changes meanwhile is left to what changes it, or to the next run."""
    rows = await _sealed_rows(conn, column, first, kek.current - 1)
    resealed = [(place, old, new) for place, old, *owners in rows if (new := _resealed(kek, column, old, owners)) is not None]
    if resealed:
        update = sql.SQL(
            "update {} t set {} = n.new from unnest($1::text[]::tid[], $2::bytea[], $3::bytea[]) n(place, old, new) "
            "where t.ctid = n.place and t.{} = n.old"
        ).format(_table(column), _value(column), _value(column))
        places, old, new = zip(*resealed, strict=True)
        await conn.execute(update, (list(places), byteas(old), byteas(new)))
    return len(resealed), len(rows) - len(resealed)


async def _readable(conn: Connection, kek: Kek, column: Column, first: int, epoch: int) -> int:
    rows = await _sealed_rows(conn, column, first, epoch)
    return sum(_resealed(kek, column, value, owners) is not None for _, value, *owners in rows)


async def _sealed_rows(conn: Connection, column: Column, first: int, epoch: int) -> list[tuple[Any, ...]]:
    """Place, value and owners of what is sealed up to an epoch on some pages."""
    select = sql.SQL("select t.ctid::text, t.{}, {} from {} t where t.ctid >= {}::tid and t.ctid < {}::tid and {}").format(
        _value(column), _owners(column), _table(column), _at(first), _at(first + PAGES), _up_to(column, epoch)
    )
    return await (await conn.cursor(binary=True).execute(select)).fetchall()


def _resealed(kek: Kek, column: Column, value: bytes, owners: Sequence[UUID]) -> bytes | None:
    """The value sealed in the current epoch; None if it does not open."""
    try:
        if isinstance(column, SealedNotes):
            (owner,) = owners
            text = open_note(kek, value, kind=column.kind, owner=owner)
            return seal_note(kek, text, kind=column.kind, owner=owner, random=secrets.token_bytes)
        directory, obj = DirectoryUuid(owners[0]), owners[1]
        key = unwrap_key(kek, value, directory=directory, obj=obj)
        return wrap_key(kek, key, directory=directory, obj=obj, nonce=secrets.token_bytes(NONCE_SIZE))
    except WrapError:
        return None


def _up_to(column: Column, epoch: int) -> sql.Composed:
    return sql.SQL("{} is not null and not ({})").format(_value(column), sealed_after(column, epoch))


def _owners(column: Column) -> sql.Composable:
    if isinstance(column, SealedNotes):
        return sql.SQL(column.owner)
    return sql.SQL(column.directory) + sql.SQL(", ") + sql.SQL(column.obj)


def _table(column: Column) -> sql.Identifier:
    return sql.Identifier("ledger", column.table)


def _value(column: Column) -> sql.Identifier:
    return sql.Identifier(column.column)


def _at(page: int) -> sql.Literal:
    return sql.Literal(f"({page},0)")
