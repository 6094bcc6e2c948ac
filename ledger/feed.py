"""Read events in order, in pages that together cover every position of the log exactly once.

A page takes three round trips: the head and the commits; one contiguous seq range of each directory from `events` and `bodies`; the
keys. They are merged in Python: a join of the three tables in SQL is two to three times slower. The head is read before the page or
in the same statement; read later, it could cover events that the page does not have.

A filter that takes only some events of a commit is applied in SQL, in stretches of the log, until the page is full or its scan budget
(SCANNED_MAX, SCAN_S) is spent. Then the page ends where the scan ended, perhaps without an event, and `has_more` is true.

A page holds at most BODIES_BYTES_MAX besides its first event. The size of a sealed body is known before it is read, the inflated
size only when it is opened. So the budget is applied twice, when bodies are fetched and when they are opened. Large pages are opened
in a worker thread, and no connection is held meanwhile.
"""

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field, replace
from time import monotonic
from typing import Any, Final, NamedTuple
from uuid import UUID

import anyio.to_thread
from psycopg import AsyncCursor
from psycopg.rows import TupleRow

from database.arrays import int4s, int8s, uuids
from database.connections import Connection
from database.pipeline import together
from database.queries import load_queries
from ledger.cursor import BEGINNING, MARK_SIZE_BEFORE, Anchor, Cursor, EventId
from ledger.directories import SYSTEM, Directories, Directory
from ledger.ids import NO_DIRECTORY, DirectoryNumber, Number, Position, Seq
from ledger.rendering import BODIES_BYTES_MAX, Budget, Event, SealedEvent, rendered
from ledger.rendering import rfc3339 as rfc3339  # noqa: PLC0414 - times of places in the feed are written as the feed does
from ledger.sealing import Kek, cursor_key, cursor_mark

SQL = load_queries(__file__)
PAGE_MAX = 1_000
COMMITS_SCANNED_MAX = 100_000  # looked at for one page; if none matches, the page is empty and `covered` moves on
SCANNED_MAX: Final = 100_000  # events looked at for one page
SCAN_S: Final = 0.25  # seconds of looking, after which no further stretch is begun
_STRETCH: Final = 20_000  # events that one query looks at
_EVER: Final = 2**63 - 1  # µs since the epoch
_COMMITS_READ = 2_000  # commits that one query fetches
_LONG_BODY: Final = BODIES_BYTES_MAX // PAGE_MAX  # bytes of ciphertext; PAGE_MAX bodies of less always fit the budget
_LOOP_EVENTS: Final = 32  # this many are rendered on the event loop: it takes less than a millisecond
_LOOP_BYTES: Final = 64 * 1024
Connecting = Callable[[], AbstractAsyncContextManager[Connection]]


class CursorAheadError(Exception):
    """The ledger ends before the cursor: it was restored from a backup."""

    def __init__(self, number: Number, head: Number) -> None:
        super().__init__(number, head)
        self.number, self.head = number, head


class CursorForkedError(Exception):
    """Another event is at the cursor's place: the log was restored and has grown again."""

    def __init__(self, number: Number, head: Number) -> None:
        super().__init__(number, head)
        self.number, self.head = number, head


@dataclass(frozen=True, slots=True)
class Selection:
    """What a reader asks for and may see."""

    directory: Directory | None = None  # read one directory by seq
    directories: frozenset[DirectoryNumber] | None = None  # None: all, including later ones, except `without`
    without: frozenset[DirectoryNumber] = frozenset()
    mask: int = -1  # bits of the wanted event types
    subject: UUID | None = None
    time_from: int | None = None  # µs, inclusive
    time_to: int | None = None  # µs, exclusive
    bodies: bool = True
    rendered: bool = True

    def wants(self, directory: DirectoryNumber, types: int) -> bool:
        """Whether a commit of a directory with these event types (bits) can hold an event for the reader."""
        return bool(types & self.mask) and self.reaches(directory)

    def takes_all(self, slices: "Sequence[_Slice]") -> bool:
        """Whether it is known without reading them that the selection includes all events of commits that it wants."""
        if self.subject is not None or self.time_from is not None or self.time_to is not None:
            return False
        return all(not piece.types & ~self.mask for piece in slices)

    def reaches(self, directory: DirectoryNumber) -> bool:
        """Whether the reader reads the directory."""
        return directory not in self.without if self.directories is None else directory in self.directories

    def takes(self, event: Event) -> bool:
        """Whether the selection includes an event."""
        if not (1 << event.kind) & self.mask:  # `wants`, inlined: it runs for each event of a page
            return False
        if event.directory in self.without if self.directories is None else event.directory not in self.directories:
            return False
        if self.subject is not None and self.subject not in {event.obj, event.mem}:
            return False
        if self.time_from is not None and event.at < self.time_from:
            return False
        return self.time_to is None or event.at < self.time_to


@dataclass(frozen=True, slots=True)
class Page:
    """One page. It covers the numbers `covered_from` to `covered_to` (less than from: nothing new). `leaf_hash` is at `covered_to`."""

    events: list[Event]
    after: Cursor
    covered_from: Number
    covered_to: Number
    head: Number
    leaf_hash: bytes = b""

    @property
    def has_more(self) -> bool:
        return self.covered_to < self.head


@dataclass(frozen=True, slots=True)
class _Slice:
    """The part of a commit that a page holds: seq first..last of a directory, and the position of its first event.

    `commit`, `types`, `at` and `trace` are the commit's: its first seq, the bits of its event types, its time in µs, its trace context.
    """

    directory: DirectoryNumber
    first: Seq
    last: Seq
    position: Position
    commit: Seq
    types: int
    at: int
    trace: bytes | None


@dataclass(slots=True)
class Fetched:
    """Events as read, with bodies still sealed. `looked_at` also holds the events of their commits that the filter leaves out."""

    selection: Selection
    looked_at: list[Event] = field(default_factory=list[Event])
    chosen: list[Event] = field(default_factory=list[Event])  # those that the selection includes
    sealed: list[SealedEvent] = field(default_factory=list[SealedEvent])  # a prefix of `chosen`: those that fit the budget
    places: list[int] = field(default_factory=list[int])  # index of each of `sealed` in `looked_at`
    size: int = 0  # bytes of ciphertext
    whole: bool = True  # False: the budget was spent before the last event

    def cut(self, count: int) -> None:
        """Keep the first `count` events, and only the part of `looked_at` before the next one."""
        if count < len(self.sealed):
            self.whole = False
            self.looked_at = self.looked_at[: self.places[count]]
            del self.sealed[count:], self.places[count:]

    @property
    def events(self) -> list[Event]:
        return [sealed.event for sealed in self.sealed]


class Feed:
    """Reads the log. Its only state is the cache of directories and the key of the cursors."""

    def __init__(self, kek: Kek, directories: Directories) -> None:
        self._kek = kek
        self._directories = directories
        self._cursor_key = b""

    async def head(self, conn: Connection, selection: Selection) -> Number:
        """The last readable position, or the last seq if one directory is selected."""
        return await self._head(conn, _own(selection))

    async def _head(self, conn: Connection, directory: DirectoryNumber) -> Number:
        name, params = ("directory_head", (directory,)) if directory else ("head", ())
        row = await (await conn.execute(SQL[name], params)).fetchone()
        return row[0] if row else Number(0)

    async def check(self, conn: Connection, cursor: Cursor) -> Cursor:
        """Check a cursor and return it in the current form. Raises CursorAheadError or CursorForkedError if its event is not in the log."""
        if cursor.number == 0:
            return Cursor(Number(0), BEGINNING, cursor.directory)
        stands = await _stands(conn, cursor.directory, cursor.number)
        if stands is None:
            raise CursorAheadError(cursor.number, await self._head(conn, cursor.directory))
        mark = await self._marked(conn, stands.leaf_hash)
        if cursor.mark != (stands.leaf_hash[:MARK_SIZE_BEFORE] if len(cursor.mark) == MARK_SIZE_BEFORE else mark):
            raise CursorForkedError(cursor.number, await self._head(conn, cursor.directory))
        return Cursor(cursor.number, mark, cursor.directory)

    async def page(
        self, connection: Connecting, selection: Selection, after: Cursor, limit: int, *, budget: int = BODIES_BYTES_MAX
    ) -> Page:
        """Read the next page: at most `limit` events (1 to 1 000), and `budget` bytes besides the first event.

        `after` comes from `check` or from the page before. Raises CursorAheadError or CursorForkedError if its event is no longer in
        the log.
        """
        async with connection() as conn:
            await self._learn_key(conn)

            def known(leaf_hash: bytes) -> bool:
                return cursor_mark(self._cursor_key, leaf_hash) == after.mark

            fetched, end, leaf_hash, head = await self._fetch(conn, selection, after.number, known, limit, budget)
        await self._open(fetched, budget)
        if not fetched.whole:
            end, leaf_hash = _end_of(fetched.looked_at, selection)
        mark = after.mark if end == after.number else cursor_mark(self._cursor_key, leaf_hash)
        last = Cursor(end, mark, _own(selection), after.generation)
        return Page(fetched.events, last, Number(after.number + 1), end, head, leaf_hash)

    async def read(
        self, connection: Connecting, selection: Selection, after: Anchor, limit: int, *, budget: int = BODIES_BYTES_MAX
    ) -> tuple[list[Event], Anchor, int]:
        """Read a page of the whole ledger by position: (events, the place up to which they cover the log, the head)."""
        async with connection() as conn:
            known = after.leaf_hash.__eq__
            fetched, end, leaf_hash, head = await self._fetch(conn, selection, Number(after.position), known, limit, budget)
        await self._open(fetched, budget)
        if not fetched.whole:
            end, leaf_hash = _end_of(fetched.looked_at, selection)
        return fetched.events, Anchor(Position(end), leaf_hash), head

    def cut(self, page: Page, selection: Selection, count: int) -> Page:
        """The page with its first `count` events only, at least one; the next page begins after them."""
        if count == len(page.events):
            return page
        last = page.events[count - 1]
        after = replace(self.cursor_after(last, selection), generation=page.after.generation)
        return replace(page, events=page.events[:count], after=after, covered_to=after.number, leaf_hash=last.leaf_hash)

    async def standing(self, conn: Connection, selection: Selection, number: Number) -> tuple[Number, bytes | None]:
        """The head and the leaf hash at a number (None if there is no event), from one statement."""
        return await _standing(await _ask_standing(conn, selection, number))

    async def anchor_at(self, conn: Connection, position: int) -> Anchor | None:
        """The position with its leaf hash; None if there is no event."""
        _, leaf_hash = await self.standing(conn, Selection(), Number(position))
        return None if leaf_hash is None and position else Anchor(Position(position), leaf_hash or b"")

    async def cursor_at(self, conn: Connection, selection: Selection, at: Position | Seq) -> Cursor:
        """The cursor after the event there, which must be in the log."""
        number = Number(at)
        return Cursor(number, await self._mark(conn, selection, number), _own(selection))

    def cursor_after(self, event: Event, selection: Selection) -> Cursor:
        """The cursor after an event that was just read."""
        return Cursor(_number(event, selection), cursor_mark(self._cursor_key, event.leaf_hash), _own(selection))

    async def mark_of(self, conn: Connection, facts: bytes) -> bytes:
        """A mark of 8 bytes for a cursor: a keyed hash of `facts`, which only the ledger can make."""
        await self._learn_key(conn)
        return cursor_mark(self._cursor_key, facts)

    async def event(self, conn: Connection, event_id: EventId, sight: Selection) -> Event | None:
        """One rendered event; None if it is not in the log, or not included in `sight`, what the reader may see."""
        directory = await self._directories.by_slug(conn, event_id.slug)
        if directory is None:
            return None
        # A hidden event and a missing one cost the same query, so the time of the answer does not tell them apart.
        stands = await _stands(conn, directory.id, event_id.seq)
        if stands is None or not stands.has_id(event_id) or not sight.wants(directory.id, 1 << stands.kind):
            return None
        return (await self.opened(await self.fetch_at(conn, [(directory.id, event_id.seq)], sight)))[0]

    async def at(
        self, conn: Connection, places: Sequence[tuple[int, int]], *, bodies: bool = True, rendered: bool = True
    ) -> list[Event]:
        """The events at (directory, seq) pairs, in their order. Pairs without an event are left out.

        Events beyond the budget of a page have an empty `json`.
        """
        fetched = await self.fetch_at(conn, places, Selection(bodies=bodies, rendered=rendered))
        return await self.opened(fetched)

    async def fetch_at(self, conn: Connection, places: Sequence[tuple[int, int]], selection: Selection) -> Fetched:
        """Read the rows for opened(), which then needs no connection."""
        params = (int4s([directory for directory, _ in places]), int8s([seq for _, seq in places]))
        rows = await (await conn.cursor(binary=True).execute(SQL["commits_of"], params)).fetchall()
        slices = [_Slice(d, seq, seq, position, commit, types, at, trace) for d, seq, position, commit, types, at, trace in rows]
        return await self._events(conn, selection, slices, BODIES_BYTES_MAX)

    async def opened(self, fetched: Fetched, *, budget: int = BODIES_BYTES_MAX) -> list[Event]:
        """The fetched events with their JSON; events beyond the budget have an empty `json`."""
        await self._open(fetched, budget)
        return fetched.chosen

    async def position_of(self, conn: Connection, event_id: EventId, sight: Selection) -> tuple[Directory, Seq, Position] | None:
        """(directory, seq, position) of an event id; None if the directory is unknown or hidden.

        Raises CursorAheadError if the directory ends before the seq, and CursorForkedError if the place has another event or a
        hidden one; the caller cannot tell which. Their numbers are seqs, because an event id has a seq.
        """
        directory = await self._directories.by_slug(conn, event_id.slug)
        if directory is None or not sight.reaches(directory.id):
            return None
        stands = await _stands(conn, directory.id, event_id.seq)
        if stands is None:
            raise CursorAheadError(Number(event_id.seq), await self._head(conn, directory.id))
        if not stands.has_id(event_id) or not sight.wants(directory.id, 1 << stands.kind):
            raise CursorForkedError(Number(event_id.seq), await self._head(conn, directory.id))
        return directory, event_id.seq, stands.position

    # -- choosing commits ---------------------------------------------------

    async def _filled(
        self, conn: Connection, selection: Selection, after: Number, head: Number, limit: int, rows: Sequence[tuple[Any, ...]]
    ) -> tuple[list[_Slice], Number]:
        """Choose as `_choose` does, but single events where the selection leaves out some events of its commits."""
        ends_at = monotonic() + SCAN_S
        slices, end = list[_Slice](), after
        if selection.takes_all(()):
            slices, end = await self._choose(conn, selection, after, head, limit, rows)
            if selection.takes_all(slices):
                return slices, end
            end = Number((slices[0].first if selection.directory else slices[0].position) - 1)
        slices, scanned = [], 0
        while end < head and len(slices) < limit and scanned < SCANNED_MAX and (not scanned or monotonic() < ends_at):
            last = Number(min(end + _STRETCH, head))
            found = await _matches(conn, selection, end, last, limit - len(slices))
            slices += found
            scanned += last - end
            end = last if len(slices) < limit else Number(found[-1].first if selection.directory else found[-1].position)
        return slices, end

    async def _choose(
        self, conn: Connection, selection: Selection, after: Number, head: Number, limit: int, rows: Sequence[tuple[Any, ...]]
    ) -> tuple[list[_Slice], Number]:
        """Choose the slices of the page, and the number up to which the page covers the log. `rows`: the first commits after `after`."""
        slices: list[_Slice] = []
        taken, scanned, covered = 0, 0, after
        while rows and covered < head:
            for position, directory, seq, size, types, at, trace in rows:
                first = seq if selection.directory else position
                start = max(first, covered + 1)
                end = min(first + size - 1, head)
                if selection.wants(directory, types):
                    end = min(end, start + limit - taken - 1)
                    offset = start - first
                    slices.append(_Slice(directory, seq + offset, seq + end - first, position + offset, seq, types, at, trace))
                    taken += end - start + 1
                covered = Number(end)
                if taken >= limit or covered >= head:
                    break
            scanned += len(rows)
            if covered >= head or taken >= limit or scanned >= COMMITS_SCANNED_MAX:
                break
            rows = await (await _ask_commits(conn, selection, covered, limit - taken)).fetchall()
        return slices, covered

    async def _mark(self, conn: Connection, selection: Selection, number: Number) -> bytes:
        await self._learn_key(conn)
        if number == 0:
            return BEGINNING
        stands = await _stands(conn, _own(selection), number)
        assert stands is not None, "a covered number has an event"
        return await self._marked(conn, stands.leaf_hash)

    async def _marked(self, conn: Connection, leaf_hash: bytes) -> bytes:
        await self._learn_key(conn)
        return cursor_mark(self._cursor_key, leaf_hash)

    async def _learn_key(self, conn: Connection) -> None:
        if not self._cursor_key:
            system = await self._directories.by_slug(conn, SYSTEM)
            assert system is not None, "made at first start"
            self._cursor_key = cursor_key(system.index_key)

    # -- reading ------------------------------------------------------------

    async def _fetch(
        self, conn: Connection, selection: Selection, after: Number, known: Callable[[bytes], bool], limit: int, budget: int
    ) -> tuple[Fetched, Number, bytes, Number]:
        """(events, end, leaf hash at the end, head). `known` checks the leaf hash found at `after` against the reader's mark."""
        async with together(conn):
            standing = await _ask_standing(conn, selection, after)
            commits = await _ask_commits(conn, selection, after, limit)
        head, leaf_hash = await _standing(standing)
        if after and leaf_hash is None:
            raise CursorAheadError(after, head)
        if after and not known(leaf_hash or b""):
            raise CursorForkedError(after, head)
        slices, end = await self._filled(conn, selection, after, head, limit, await commits.fetchall())
        fetched = await self._events(conn, selection, slices, budget)
        if end != after:
            number, leaf_hash = _end_of(fetched.looked_at, selection) if fetched.looked_at else (Number(0), None)
            if number != end:
                _, leaf_hash = await self.standing(conn, selection, end)
        return fetched, end, leaf_hash or b"", head

    async def _events(self, conn: Connection, selection: Selection, slices: Sequence[_Slice], budget: int) -> Fetched:
        fetched = Fetched(selection)
        if not slices:
            return fetched
        ranges = _ranges(slices)
        numbers, firsts, lasts = zip(*ranges, strict=True)
        params = (int4s(numbers), int8s(firsts), int8s(lasts))
        async with together(conn):
            events, sealed = await conn.cursor(binary=True).execute(SQL["events_in_ranges"], params), None
            if selection.bodies and selection.rendered:
                sealed = await conn.cursor(binary=True).execute(SQL["bodies_in_ranges"], (*params, _LONG_BODY))
        directories = {number: await self._directories.by_id(conn, number) for number, _, _ in ranges}
        _arrange(fetched, slices, await events.fetchall(), directories)
        if sealed is not None:
            bodies = {(d, seq): (size, ct) for d, seq, size, ct in await sealed.fetchall()}
            await self._add_bodies(conn, fetched, bodies, budget)
        return fetched

    async def _add_bodies(
        self, conn: Connection, fetched: Fetched, bodies: dict[tuple[DirectoryNumber, Seq], tuple[int, bytes | None]], budget: int
    ) -> None:
        """Add ciphertexts and keys to as many events as the budget allows. Long ciphertexts are read only here."""
        long: dict[tuple[DirectoryNumber, Seq], SealedEvent] = {}
        objs: dict[UUID, None] = {}
        first = 0
        for number, sealed in enumerate(fetched.sealed):
            place = sealed.event.directory, sealed.event.seq
            size, sealed.ct = bodies.get(place, (0, None))
            if not size:
                continue
            first, fetched.size = (size if number == 0 else first), fetched.size + size
            if number and fetched.size - first > budget:
                fetched.cut(number)
                break
            objs[sealed.event.obj] = None
            if sealed.ct is None:
                long[place] = sealed
        if long:
            params = (int4s([d for d, _ in long]), int8s([seq for _, seq in long]))
            for d, seq, ct in await (await conn.cursor(binary=True).execute(SQL["bodies_at"], params)).fetchall():
                long[d, seq].ct = ct
        if objs:
            rows = await (await conn.cursor(binary=True).execute(SQL["subject_keys_of"], (uuids(list(objs)),))).fetchall()
            keys = {obj: wrapped for obj, _, wrapped in rows}
            for sealed in fetched.sealed:
                sealed.wrapped = keys.get(sealed.event.obj)

    async def _open(self, fetched: Fetched, budget: int) -> None:
        """Render the fetched events, and cut them where the budget is spent."""
        events, bodies = fetched.sealed, fetched.selection.bodies
        if not fetched.selection.rendered:
            return
        if len(events) <= _LOOP_EVENTS and fetched.size <= _LOOP_BYTES:
            small = Budget(min(budget, _LOOP_BYTES), _LOOP_BYTES)
            if rendered(self._kek, events, small, bodies=bodies) == len(events):
                return
        fetched.cut(await anyio.to_thread.run_sync(lambda: rendered(self._kek, events, Budget(budget), bodies=bodies)))


async def _ask_standing(conn: Connection, selection: Selection, number: Number) -> AsyncCursor[TupleRow]:
    """Ask for the head and the leaf hash at a number, from one statement."""
    if selection.directory is not None:
        name, params = "directory_head_and_leaf", (selection.directory.id, number)
    else:
        name, params = "head_and_leaf", (number,)
    return await conn.cursor(binary=True).execute(SQL[name], params)


async def _standing(asked: AsyncCursor[TupleRow]) -> tuple[Number, bytes | None]:
    row = await asked.fetchone()
    assert row is not None
    head, leaf_hash = row
    return head, leaf_hash


async def _ask_commits(conn: Connection, selection: Selection, after: Number, events: int) -> AsyncCursor[TupleRow]:
    """Ask for the commits after a number, as many as so many events need if each commit has one."""
    count = min(_COMMITS_READ, max(events, 16))
    cursor = conn.cursor(binary=True)
    if selection.directory is not None:
        return await cursor.execute(SQL["directory_commits_from"], (selection.directory.id, after + 1, count))
    return await cursor.execute(SQL["commits_from"], (after + 1, count))


async def _matches(conn: Connection, selection: Selection, after: Number, last: Number, limit: int) -> list[_Slice]:
    """The first events of the selection after a number, up to another one: a slice for each."""
    begin, end = selection.time_from or 0, _EVER if selection.time_to is None else selection.time_to
    wanted = (after + 1, last, selection.mask, selection.subject, begin, end, limit)
    cursor = conn.cursor(binary=True)
    if selection.directory is not None:
        if not selection.reaches(selection.directory.id):
            return []
        rows = await (await cursor.execute(SQL["directory_matches_in"], (selection.directory.id, *wanted))).fetchall()
    else:
        some = None if selection.directories is None else int4s(list(selection.directories))
        rows = await (await cursor.execute(SQL["matches_in"], (some, int4s(list(selection.without)), *wanted))).fetchall()
    return [_Slice(d, seq, seq, position, commit, types, at, trace) for d, seq, position, commit, types, at, trace in rows]


class _Stands(NamedTuple):
    """The event at a place of the log."""

    leaf_hash: bytes
    position: Position
    kind: int

    def has_id(self, event_id: EventId) -> bool:
        """Whether it has this id. After a restore another event may be at its place."""
        return self.leaf_hash.startswith(event_id.mark)


async def _stands(conn: Connection, directory: DirectoryNumber, number: int) -> _Stands | None:
    """The event at a seq of a directory, or at a position of the ledger if `directory` is 0."""
    name, params = ("event_at", (directory, number)) if directory else ("event_at_position", (number,))
    row = await (await conn.cursor(binary=True).execute(SQL[name], params)).fetchone()
    return None if row is None else _Stands(*row)


def _own(selection: Selection) -> DirectoryNumber:
    return selection.directory.id if selection.directory else NO_DIRECTORY


def _end_of(looked_at: Sequence[Event], selection: Selection) -> tuple[Number, bytes]:
    return _number(looked_at[-1], selection), looked_at[-1].leaf_hash


def _number(event: Event, selection: Selection) -> Number:
    return Number(event.position if selection.directory is None else event.seq)


def _arrange(
    fetched: Fetched, slices: Sequence[_Slice], rows: Sequence[tuple[Any, ...]], directories: dict[DirectoryNumber, Directory]
) -> None:
    """Put the rows into the order of the slices, and choose the events of the selection."""
    by_place = {row[:2]: row for row in rows}  # by directory and seq
    takes, looked_at = fetched.selection.takes, fetched.looked_at
    for piece in slices:
        number, commit, types, at, directory = piece.directory, piece.commit, piece.types, piece.at, directories[piece.directory]
        offset, slug, trace = piece.position - piece.first, directory.slug, piece.trace
        for each in range(piece.first, piece.last + 1):
            _, seq, kind, obj, leaf, leaf_hash, mem = by_place[number, each]
            event = Event(seq + offset, number, seq, kind, obj, mem, at, commit, types, leaf_hash, slug, trace=trace)
            if takes(event):
                fetched.places.append(len(looked_at))
                fetched.chosen.append(event)
                fetched.sealed.append(SealedEvent(event, directory, leaf))
            looked_at.append(event)


def _ranges(slices: Sequence[_Slice]) -> list[tuple[DirectoryNumber, Seq, Seq]]:
    """Merge slices into contiguous seq ranges for each directory."""
    merged: dict[DirectoryNumber, list[list[Seq]]] = {}
    for piece in slices:
        runs = merged.setdefault(piece.directory, [])
        if runs and piece.first == runs[-1][1] + 1:
            runs[-1][1] = piece.last
        else:
            runs.append([piece.first, piece.last])
    return [(directory, first, last) for directory, runs in merged.items() for first, last in runs]


def reached(
    slugs: Iterable[str], directories: Sequence[Directory]
) -> tuple[frozenset[DirectoryNumber] | None, frozenset[DirectoryNumber]]:
    """`directories` and `without` of a Selection, from slugs; `*` means all directories except `_system`."""
    named = set(slugs)
    if "*" in named:
        return None, frozenset(d.id for d in directories if d.slug == SYSTEM and SYSTEM not in named)
    return frozenset(d.id for d in directories if d.slug in named), frozenset()
