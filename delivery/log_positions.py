"""Places in the log as operators say them: beginning, now, seq:N, an instant, a position, an event id, a cursor."""

from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Final

from database.connections import Connection
from database.queries import load_queries
from ledger.clocks import PLUS, microseconds
from ledger.cursor import InvalidCursorError, decode_cursor, parse_event_id
from ledger.directories import Directory
from ledger.feed import Feed, Selection
from ledger.ids import DirectoryNumber, Position, Seq

SQL: Final = load_queries(__file__)
EVERYTHING: Final = Selection()


class PlaceError(ValueError):
    """The given text names no place in the log. The message says what to send instead."""


class PlaceMovedError(Exception):
    """The consumer was moved, or its filter changed, since the page was read that is acknowledged. `through`: where it is now."""

    def __init__(self, through: int) -> None:
        super().__init__(through)
        self.through = through


HINT: Final = 'Say "beginning", "now", "seq:N" of one directory, an instant such as 2026-10-01T09:10:00Z, a position, an event id or a cursor.'


@asynccontextmanager
async def by_index_alone(conn: Connection) -> AsyncGenerator[None]:
    """A transaction whose statements read the log in the order of an index, and so end with their limit.

    A statement that is cancelled leaves the connection fit for the next.
    """
    async with conn.transaction():
        await conn.execute(SQL["by_index_alone"])
        yield


async def around(
    conn: Connection,
    feed: Feed,
    text: str,
    directories: Sequence[Directory],
    sight: Selection = EVERYTHING,
    reads: Selection = EVERYTHING,
) -> tuple[Position, Position]:
    """The position after which to read so that the named place comes first, and the last position of a range that ends with it.

    A cursor and an event id name what has been read already: what follows them comes first. A range ends with a seq or a position
    itself, and with all that came before an instant. `directories` are the ones that a seq may belong to: it must be one. An event
    that `sight` does not take is answered as one that is not there. `reads`: whose directories an instant is about; the clock of
    another one says nothing.
    Raises PlaceError, CursorAheadError, CursorForkedError.
    """
    text = text.strip().removeprefix("position:")
    head = await feed.head(conn, Selection())
    if text.startswith("seq:") or text.isdigit():
        position = await _before_number(conn, text, directories, head)
        return position, Position(position + 1)
    if text == "beginning":
        place = Position(0)
    elif text == "now":
        place = Position(head)
    elif text.startswith("c_"):
        place = await _after_cursor(conn, feed, text)
    elif text.startswith("evt_"):
        place = await _after_event(conn, feed, text, sight)
    else:
        return await _at_instant(conn, text, reads)
    return place, place


async def at_instant(conn: Connection, micros: int, reads: Selection) -> tuple[Position, Position]:
    """Give the position after which a reader gets everything from an instant (µs) on, and the position up to which everything is before it.

    The two differ only where a clock that was set left directories apart.
    """
    some = None if reads.directories is None else list(reads.directories)
    row = await (await conn.execute(SQL["position_at_time"], (micros, some, list(reads.without)))).fetchone()
    assert row is not None
    begins, ends = row
    return begins, ends


async def seqs_at(conn: Connection, position: int) -> dict[DirectoryNumber, Seq]:
    """The last seq of each directory at a position of the ledger, by its number; none of one that begins later."""
    return dict(await (await conn.cursor(binary=True).execute(SQL["seqs_at_position"], (position,))).fetchall())


async def seq_at(conn: Connection, directory: Directory, position: int) -> Seq:
    """The last seq of a directory at or before a position of the ledger; 0 where it begins later."""
    row = await (await conn.execute(SQL["seq_at_position"], (directory.id, position))).fetchone()
    return row[0] if row is not None else Seq(0)


async def _after_cursor(conn: Connection, feed: Feed, text: str) -> Position:
    cursor = decode_cursor(text)
    await feed.check(conn, cursor)
    if not cursor.directory:
        return Position(cursor.number)
    if cursor.number == 0:
        return Position(0)
    row = await (await conn.execute(SQL["position_of_seq"], (cursor.directory, cursor.number))).fetchone()
    assert row is not None, "the cursor was checked"
    return row[0]


async def _after_event(conn: Connection, feed: Feed, text: str, sight: Selection) -> Position:
    event_id = parse_event_id(text)
    place = await feed.position_of(conn, event_id, sight) if event_id is not None else None
    if place is None:
        raise InvalidCursorError
    return place[2]


async def _before_number(conn: Connection, text: str, directories: Sequence[Directory], head: int) -> Position:
    digits = text.removeprefix("seq:")
    if not (digits.isascii() and digits.isdigit() and len(digits) < 19) or int(digits) < 1:
        raise PlaceError(f"A seq or a position is a number from 1. {HINT}")
    if not text.startswith("seq:"):
        if int(digits) > head + 1:
            raise PlaceError(f"The ledger ends at position {head}.")
        return Position(int(digits) - 1)
    if len(directories) != 1:
        raise PlaceError("A seq counts in one directory: name that directory, or give a position or an instant.")
    row = await (await conn.execute(SQL["position_of_seq"], (directories[0].id, int(digits)))).fetchone()
    if row is None:
        raise PlaceError("The directory ends before that seq.")
    return row[0] - 1


async def _at_instant(conn: Connection, text: str, reads: Selection) -> tuple[Position, Position]:
    text = text.removeprefix("time:")
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as broken:
        raise PlaceError(f"{PLUS} {HINT}" if "T" in text and " " in text else HINT) from broken
    if moment.tzinfo is None or len(text) <= 10:
        raise PlaceError(f"An instant needs a time and an offset. {HINT}")
    micros = microseconds(moment)
    if micros > await database_time(conn):
        raise PlaceError('That instant is still to come. Say "now" for the end of the ledger.')
    return await at_instant(conn, micros, reads)


async def database_time(conn: Connection) -> int:
    """The clock of the database in µs since the epoch: events are stamped with it."""
    row = await (await conn.execute(SQL["clock"])).fetchone()
    assert row is not None
    return row[0]
