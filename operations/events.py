"""The feed: what a caller reads of it, and where it begins (docs/events.md, "Reading the feed")."""

from dataclasses import dataclass
from datetime import datetime

from database.connections import Connection
from delivery import log_positions
from ledger.clocks import microseconds
from ledger.commands import parse_id
from ledger.cursor import (
    BEGINNING,
    OF_ONE_DIRECTORY,
    OF_THE_WHOLE_LEDGER,
    Cursor,
    EventId,
    InvalidCursorError,
    decode_cursor,
    parse_event_id,
)
from ledger.feed import Selection, reached
from ledger.ids import NO_DIRECTORY, Number
from ledger.rendering import Event
from operations import places
from operations.admission import operation, reached_log
from operations.caller import Caller
from operations.expansion import Expansion, expanded, expansion_of
from operations.open_ledger import OpenLedger
from operations.places import sight_of
from operations.refusals import NotFoundError, invalid, mask_of


@dataclass(frozen=True, slots=True)
class Question:
    """What a reader asks for: a directory, types, a subject, a time range; None means no restriction."""

    directory: str | None = None
    types: str | None = None  # patterns, separated by commas
    subject: str | None = None
    range_start: datetime | None = None
    range_end: datetime | None = None
    expand: str | None = None  # parts of membership events, separated by commas


@dataclass(frozen=True, slots=True)
class Reading:
    """The allowed selection and the place to read from. `filtered`: the selection is not the whole feed."""

    selection: Selection
    cursor: Cursor
    filtered: bool
    expansion: Expansion | None


@operation("events.list")
async def read(ledger: OpenLedger, caller: Caller, question: Question, *, after: str | None, start: str | None) -> Reading:
    """Start reading after a cursor or an event id, or else before the place that `start` names.

    Raises InvalidError if a parameter is invalid, ForbiddenError for a directory beyond the caller's reach, InvalidCursorError,
    CursorAheadError or CursorForkedError for a place that is not in the log.
    """
    return await _begin(ledger, caller, question, after, start)


@operation("events.stream")
async def follow(ledger: OpenLedger, caller: Caller, question: Question, *, after: str | None) -> Reading:
    """Start a stream: the same, checked as the operation `events.stream`."""
    return await _begin(ledger, caller, question, after, None)


@operation("events.show")
async def show(ledger: OpenLedger, caller: Caller, event_id: str, expand: str | None = None) -> Event:
    """One event with its JSON. Raises the same NotFoundError for a missing event and a hidden one."""
    expansion = expansion_of(caller, expand)
    parsed, found = parse_event_id(event_id), None
    if parsed is not None and caller.token.reaches_log(parsed.slug):
        async with ledger.connection() as conn:
            found = await ledger.feed.event(conn, parsed, sight_of(caller))
    if found is None:
        raise NotFoundError("There is no event of this id, or the token does not reach it.")
    return found if expansion is None else (await expanded(ledger, expansion, [found]))[0]


async def _begin(ledger: OpenLedger, caller: Caller, question: Question, after: str | None, start: str | None) -> Reading:
    expansion, selection = expansion_of(caller, question.expand), await _selection(ledger, caller, question)
    async with ledger.connection() as conn:
        if after is None and start is not None:
            cursor = await _cursor_before(ledger, conn, caller, selection, start)
        else:
            cursor = await _cursor_after(ledger, conn, caller, selection, after)
    token = caller.token
    narrowed = token.types != ("*",) or not caller.everywhere
    return Reading(selection, cursor, bool(question.types or question.subject or question.directory or narrowed), expansion)


async def _selection(ledger: OpenLedger, caller: Caller, question: Question) -> Selection:
    mask = mask_of(question.types.split(",")) if question.types else -1
    allowed = mask_of(caller.token.types)
    about = parse_id(question.subject) if question.subject else None
    if question.subject and about is None:
        raise invalid("subject", "is not the id of a user or group (a UUID)", code="invalid_subject")
    chosen = await reached_log(ledger, caller, question.directory) if question.directory else None
    named = (chosen.slug,) if chosen else caller.token.directories
    async with ledger.connection() as conn:
        some, without = reached(named, await ledger.directories.all(conn))
    begin, end = _micros("range_start", question.range_start), _micros("range_end", question.range_end)
    if begin is not None and end is not None and end < begin:
        raise invalid("range_end", "lies before `range_start`: swap them")
    return Selection(chosen, some, without, mask & allowed, about, begin, end, caller.token.bodies)


def _micros(field: str, moment: datetime | None) -> int | None:
    if moment is None:
        return None
    if moment.tzinfo is None:
        raise invalid(field, "has no zone: write an instant such as 2026-10-01T00:00:00Z")
    return microseconds(moment)


async def _cursor_after(ledger: OpenLedger, conn: Connection, caller: Caller, selection: Selection, after: str | None) -> Cursor:
    wanted = selection.directory.id if selection.directory else NO_DIRECTORY
    if after is None:
        return Cursor(Number(0), BEGINNING, wanted)
    event_id = parse_event_id(after)
    if event_id is not None:
        return await _cursor_after_event(ledger, conn, caller, wanted, event_id)
    cursor = decode_cursor(after)
    if cursor.directory != wanted:
        raise InvalidCursorError(OF_THE_WHOLE_LEDGER if wanted else OF_ONE_DIRECTORY)
    return await ledger.feed.check(conn, cursor)


async def _cursor_after_event(ledger: OpenLedger, conn: Connection, caller: Caller, wanted: int, event_id: EventId) -> Cursor:
    """The cursor after an event. A hidden event is answered like one that is not there."""
    seen = caller.token.reaches_log(event_id.slug)
    named = await ledger.directories.by_slug(conn, event_id.slug) if seen else None
    if named is None or (wanted and named.id != wanted):
        raise InvalidCursorError
    place = await ledger.feed.position_of(conn, event_id, sight_of(caller))
    assert place is not None, "the directory is known"
    if wanted:
        return await ledger.feed.cursor_at(conn, Selection(directory=named), place[1])
    return await ledger.feed.cursor_at(conn, Selection(), place[2])


async def _cursor_before(ledger: OpenLedger, conn: Connection, caller: Caller, selection: Selection, place: str) -> Cursor:
    """The cursor before a place in words, for a reader without a cursor: `now`, an instant, `seq:N` of the directory."""
    own = selection.directory
    number = await places.before(ledger, conn, caller, place, [own] if own else [], selection)
    if own is not None:
        number = await log_positions.seq_at(conn, own, number)
    return await ledger.feed.cursor_at(conn, selection, number)
