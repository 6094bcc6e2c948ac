"""Resolve places in the log that callers name, within what they reach."""

from collections.abc import Sequence

from database.connections import Connection
from delivery import log_positions
from ledger.cursor import InvalidCursorError, decode_cursor, parse_event_id
from ledger.directories import Directory
from ledger.events import type_mask
from ledger.feed import Selection
from ledger.ids import Position
from operations.caller import Caller
from operations.open_ledger import OpenLedger


async def before(
    ledger: OpenLedger, conn: Connection, caller: Caller, text: str, named: Sequence[Directory], reads: Selection
) -> Position:
    """The position directly before the named place.

    `named`: the directories that a seq may belong to. `reads`: the directories whose times an instant is compared with.
    Raises PlaceError, CursorAheadError, CursorForkedError; InvalidCursorError for an event or cursor of a directory that the caller
    does not reach, whether it exists or not. An event of a hidden type is answered like a missing one.
    """
    return (await _around(ledger, conn, caller, text, named, reads))[0]


async def through(
    ledger: OpenLedger, conn: Connection, caller: Caller, text: str, named: Sequence[Directory], reads: Selection
) -> Position:
    """The last position of a range that ends with the named place. Raises as `before` does."""
    return (await _around(ledger, conn, caller, text, named, reads))[1]


async def _around(
    ledger: OpenLedger, conn: Connection, caller: Caller, text: str, named: Sequence[Directory], reads: Selection
) -> tuple[Position, Position]:
    await _check_cursor_reach(ledger, conn, caller, text.strip())
    return await log_positions.around(conn, ledger.feed, text, named, sight_of(caller), reads)


def sight_of(caller: Caller) -> Selection:
    """What a caller may see of the directories that it reaches."""
    return Selection(mask=type_mask(caller.token.types) or 0, bodies=caller.token.bodies)


async def _check_cursor_reach(ledger: OpenLedger, conn: Connection, caller: Caller, text: str) -> None:
    event = parse_event_id(text)
    if event is not None and not caller.token.reaches_log(event.slug):
        raise InvalidCursorError
    if text.startswith("c_") and (number := decode_cursor(text).directory):
        slugs = {d.id: d.slug for d in await ledger.directories.all(conn)}
        if number not in slugs or not caller.token.reaches_log(slugs[number]):
            raise InvalidCursorError
