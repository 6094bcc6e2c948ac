"""The ordered read of events: pages that together tile the log.

A page reads head and commits, then one contiguous seq range per directory from events and from bodies, then the keys by id,
and merges here; joining the three tables in SQL is two to three times slower. The head is read no later than the page.

A page holds at most BODIES_BYTES_MAX besides its first event. How large a sealed body is, is known before it is read; what it
inflates to only while it is opened: so a page is fetched within the budget, then opened within it, and ends where that is spent.
Opening leaves the event loop where it is much, and holds no connection.
"""

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Any, Final
from uuid import UUID

import anyio.to_thread

from database.arrays import int4s, int8s, uuids
from database.connections import Connection
from database.queries import load_queries
from ledger.cursor import BEGINNING, MARK_SIZE_BEFORE, Anchor, Cursor, EventId
from ledger.directories import SYSTEM, Directories, Directory
from ledger.rendering import BODIES_BYTES_MAX, Budget, Event, SealedEvent, rendered
from ledger.rendering import rfc3339 as rfc3339  # noqa: PLC0414 - times of places in the feed are written as the feed does
from ledger.sealing import Kek, cursor_key, cursor_mark

SQL = load_queries(__file__)
PAGE_MAX = 1_000
COMMITS_SCANNED_MAX = 100_000  # of one page under a filter; an empty page with `covered` is legal
_COMMITS_READ = 2_000  # commits fetched at once while looking for matches
_LONG_BODY: Final = BODIES_BYTES_MAX // PAGE_MAX  # ciphertext bytes; a whole page of shorter ones is within the budget
_LOOP_EVENTS: Final = 32  # rendered on the event loop: less than a millisecond, and cheaper than the way to a thread
_LOOP_BYTES: Final = 64 * 1024
Connecting = Callable[[], AbstractAsyncContextManager[Connection]]


class CursorAheadError(Exception):
    """The ledger ends before the cursor: it was restored from a backup."""

    def __init__(self, number: int, head: int) -> None:
        super().__init__(number, head)
        self.number, self.head = number, head


class CursorForkedError(Exception):
    """Another event stands at the cursor's place now."""

    def __init__(self, number: int, head: int) -> None:
        super().__init__(number, head)
        self.number, self.head = number, head


@dataclass(frozen=True, slots=True)
class Selection:
    """What a reader asks for and may see."""

    directory: Directory | None = None  # read one directory by seq
    directories: frozenset[int] | None = None  # None: all, those that are made later too, but `without`
    without: frozenset[int] = frozenset()
    mask: int = -1  # bits of the wanted event types
    subject: UUID | None = None
    time_from: int | None = None  # µs, inclusive
    time_to: int | None = None  # µs, exclusive
    bodies: bool = True
    rendered: bool = True

    def wants(self, directory: int, types: int) -> bool:
        """Whether a commit of that directory with those types (bits) may have something for this reader."""
        return bool(types & self.mask) and self.reaches(directory)

    def reaches(self, directory: int) -> bool:
        """Whether anything of that directory may be one of this reader's."""
        return directory not in self.without if self.directories is None else directory in self.directories

    def takes(self, event: Event) -> bool:
        """Whether an event is one of this reader's."""
        if not (1 << event.kind) & self.mask:  # `wants` written out: a page asks it a thousand times
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
    """`covered` says which part of the log the page speaks for (to < from: nothing new); `leaf_hash` stands at its end."""

    events: list[Event]
    after: Cursor
    covered_from: int
    covered_to: int
    head: int
    leaf_hash: bytes = b""

    @property
    def has_more(self) -> bool:
        return self.covered_to < self.head


@dataclass(frozen=True, slots=True)
class _Slice:
    """Part of a commit that a page takes: seq first..last of a directory, and the position of its first event.

    `commit`, `types` and `at` are the commit's: its first seq, the bits of its event types, its time in µs.
    """

    directory: int
    first: int
    last: int
    position: int
    commit: int
    types: int
    at: int


@dataclass(slots=True)
class Fetched:
    """Events as they were read, nothing opened yet. `looked_at` holds all of their commits, also those that a filter leaves out."""

    selection: Selection
    looked_at: list[Event] = field(default_factory=list[Event])
    chosen: list[Event] = field(default_factory=list[Event])  # that the selection takes
    sealed: list[SealedEvent] = field(
        default_factory=list[SealedEvent]
    )  # those of them that are to be opened: a beginning of `chosen`
    places: list[int] = field(default_factory=list[int])  # of each of `sealed`, among `looked_at`
    size: int = 0  # bytes of ciphertext
    whole: bool = True  # False: the budget was spent before the last

    def cut(self, count: int) -> None:
        """Keep the first `count` events, and of what was looked at just what speaks for these."""
        if count < len(self.sealed):
            self.whole = False
            self.looked_at = self.looked_at[: self.places[count]]
            del self.sealed[count:], self.places[count:]

    @property
    def events(self) -> list[Event]:
        return [sealed.event for sealed in self.sealed]


class Feed:
    """Reads the log. Stateless but for the directories it knows and the key of its cursors."""

    def __init__(self, kek: Kek, directories: Directories) -> None:
        self._kek = kek
        self._directories = directories
        self._cursor_key = b""

    async def head(self, conn: Connection, selection: Selection) -> int:
        """The last readable position, or seq where one directory is selected."""
        return await self._head(conn, _own(selection))

    async def _head(self, conn: Connection, directory: int) -> int:
        name, params = ("directory_head", (directory,)) if directory else ("head", ())
        row = await (await conn.execute(SQL[name], params)).fetchone()
        return row[0] if row else 0

    async def check(self, conn: Connection, cursor: Cursor) -> Cursor:
        """Give a cursor as it is made today. Raises CursorAheadError or CursorForkedError where its event is not in this log."""
        if cursor.number == 0:
            return Cursor(0, BEGINNING, cursor.directory)
        name, params = (
            ("event_at", (cursor.directory, cursor.number)) if cursor.directory else ("event_at_position", (cursor.number,))
        )
        row = await (await conn.cursor(binary=True).execute(SQL[name], params)).fetchone()
        if row is None:
            raise CursorAheadError(cursor.number, await self._head(conn, cursor.directory))
        mark = await self._marked(conn, row[4])
        if cursor.mark != (row[4][:MARK_SIZE_BEFORE] if len(cursor.mark) == MARK_SIZE_BEFORE else mark):
            raise CursorForkedError(cursor.number, await self._head(conn, cursor.directory))
        return Cursor(cursor.number, mark, cursor.directory)

    async def page(
        self, connection: Connecting, selection: Selection, after: Cursor, limit: int, *, budget: int = BODIES_BYTES_MAX
    ) -> Page:
        """Read the next page; limit is 1 to 1 000 events, `budget` bytes besides the first.

        `after` must have been made by `check`, or here. Raises CursorAheadError or CursorForkedError where its event is not in
        this log any more, also of a reader that waits from look to look.
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
        return Page(fetched.events, last, after.number + 1, end, head, leaf_hash)

    async def read(
        self, connection: Connecting, selection: Selection, after: Anchor, limit: int, *, budget: int = BODIES_BYTES_MAX
    ) -> tuple[list[Event], Anchor, int]:
        """The same of the whole ledger by position: (events, the place up to which they speak for the log, the head)."""
        async with connection() as conn:
            known = after.leaf_hash.__eq__
            fetched, end, leaf_hash, head = await self._fetch(conn, selection, after.position, known, limit, budget)
        await self._open(fetched, budget)
        if not fetched.whole:
            end, leaf_hash = _end_of(fetched.looked_at, selection)
        return fetched.events, Anchor(end, leaf_hash), head

    async def standing(self, conn: Connection, selection: Selection, number: int) -> tuple[int, bytes | None]:
        """The head, and the leaf hash at a number (None where no event stands there), of one moment."""
        if selection.directory is not None:
            name, params = "directory_head_and_leaf", (selection.directory.id, number)
        else:
            name, params = "head_and_leaf", (number,)
        row = await (await conn.cursor(binary=True).execute(SQL[name], params)).fetchone()
        assert row is not None
        return row[0], row[1]

    async def anchor_at(self, conn: Connection, position: int) -> Anchor | None:
        """A position with what stands there; None where nothing does."""
        _, leaf_hash = await self.standing(conn, Selection(), position)
        return None if leaf_hash is None and position else Anchor(position, leaf_hash or b"")

    async def cursor_at(self, conn: Connection, selection: Selection, number: int) -> Cursor:
        """The cursor after an event that is in the log."""
        return Cursor(number, await self._mark(conn, selection, number), _own(selection))

    def cursor_after(self, event: Event, selection: Selection) -> Cursor:
        """The same of an event that was read here."""
        return Cursor(_number(event, selection), cursor_mark(self._cursor_key, event.leaf_hash), _own(selection))

    async def mark_of(self, conn: Connection, facts: bytes) -> bytes:
        """A mark of 8 bytes for a cursor, which tells these facts from any other, to us alone."""
        await self._learn_key(conn)
        return cursor_mark(self._cursor_key, facts)

    async def event(self, conn: Connection, event_id: EventId, sight: Selection) -> Event | None:
        """Give one event with its JSON, or None where no such event stands in the log for a reader who sees what `sight` takes."""
        directory = await self._directories.by_slug(conn, event_id.slug)
        if directory is None:
            return None
        # What is not in sight and what is not there cost the same one query: nobody tells them apart by the time either.
        row = await (await conn.cursor(binary=True).execute(SQL["event_at"], (directory.id, event_id.seq))).fetchone()
        if row is None or row[4][: len(event_id.mark)] != event_id.mark or not sight.wants(directory.id, 1 << row[6]):
            return None
        return (await self.opened(await self.fetch_at(conn, [(directory.id, event_id.seq)], sight)))[0]

    async def at(
        self, conn: Connection, places: Sequence[tuple[int, int]], *, bodies: bool = True, rendered: bool = True
    ) -> list[Event]:
        """The events at some (directory, seq), in the order of these. Places where no event stands are left out.

        Those beyond the budget of a page have no JSON.
        """
        fetched = await self.fetch_at(conn, places, Selection(bodies=bodies, rendered=rendered))
        return await self.opened(fetched)

    async def fetch_at(self, conn: Connection, places: Sequence[tuple[int, int]], selection: Selection) -> Fetched:
        """Read what opened() gives the events of, so that no connection is held meanwhile."""
        params = (int4s([directory for directory, _ in places]), int8s([seq for _, seq in places]))
        rows = await (await conn.cursor(binary=True).execute(SQL["commits_of"], params)).fetchall()
        slices = [_Slice(d, seq, seq, position, commit, types, at) for d, seq, position, commit, types, at in rows]
        return await self._events(conn, selection, slices, BODIES_BYTES_MAX)

    async def opened(self, fetched: Fetched, *, budget: int = BODIES_BYTES_MAX) -> list[Event]:
        """The events that were read, with their JSON; those beyond the budget have none."""
        await self._open(fetched, budget)
        return fetched.chosen

    async def position_of(self, conn: Connection, event_id: EventId, sight: Selection) -> tuple[Directory, int, int] | None:
        """Give (directory, seq, position) of an event id; None where its directory is not there, or not in sight, or ends before.

        Raises CursorForkedError where another event stands there, or one that is not in sight: the two are not told apart.
        """
        directory = await self._directories.by_slug(conn, event_id.slug)
        if directory is None or not sight.reaches(directory.id):
            return None
        row = await (await conn.cursor(binary=True).execute(SQL["event_at"], (directory.id, event_id.seq))).fetchone()
        if row is None:
            return None
        if row[4][: len(event_id.mark)] != event_id.mark or not sight.wants(directory.id, 1 << row[6]):
            raise CursorForkedError(event_id.seq, await self.head(conn, Selection(directory=directory)))
        return directory, event_id.seq, row[5]

    # -- choosing commits ---------------------------------------------------

    async def _choose(
        self, conn: Connection, selection: Selection, after: int, head: int, limit: int
    ) -> tuple[list[_Slice], int]:
        """Give the slices of the page and the number up to which it speaks for the log."""
        slices: list[_Slice] = []
        taken, scanned, covered = 0, 0, after
        while covered < head and taken < limit and scanned < COMMITS_SCANNED_MAX:
            rows = await self._commits(conn, selection, covered + 1, min(_COMMITS_READ, max(limit - taken, 16)))
            for position, directory, seq, size, types, at in rows:
                first = seq if selection.directory else position
                start = max(first, covered + 1)
                end = min(first + size - 1, head)
                if selection.wants(directory, types):
                    end = min(end, start + limit - taken - 1)
                    offset = start - first
                    slices.append(_Slice(directory, seq + offset, seq + end - first, position + offset, seq, types, at))
                    taken += end - start + 1
                covered = end
                if taken >= limit or covered >= head:
                    break
            scanned += len(rows)
            if not rows:
                break
        return slices, covered

    async def _commits(self, conn: Connection, selection: Selection, number: int, count: int) -> list[tuple[Any, ...]]:
        cursor = conn.cursor(binary=True)
        if selection.directory is not None:
            return await (await cursor.execute(SQL["directory_commits_from"], (selection.directory.id, number, count))).fetchall()
        return await (await cursor.execute(SQL["commits_from"], (number, count))).fetchall()

    async def _mark(self, conn: Connection, selection: Selection, number: int) -> bytes:
        await self._learn_key(conn)
        if number == 0:
            return BEGINNING
        if selection.directory is not None:
            name, params = "event_at", (selection.directory.id, number)
        else:
            name, params = "event_at_position", (number,)
        row = await (await conn.cursor(binary=True).execute(SQL[name], params)).fetchone()
        assert row is not None, "a covered number has an event"
        return await self._marked(conn, row[4])

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
        self, conn: Connection, selection: Selection, after: int, known: Callable[[bytes], bool], limit: int, budget: int
    ) -> tuple[Fetched, int, bytes, int]:
        """What a page holds, its end, the leaf hash there, and the head. `known` says whether the leaf hash at `after` is the one it was."""
        head, leaf_hash = await self.standing(conn, selection, after)
        if after and leaf_hash is None:
            raise CursorAheadError(after, head)
        if after and not known(leaf_hash or b""):
            raise CursorForkedError(after, head)
        slices, end = await self._choose(conn, selection, after, head, limit)
        fetched = await self._events(conn, selection, slices, budget)
        if end != after:
            number, leaf_hash = _end_of(fetched.looked_at, selection) if fetched.looked_at else (0, None)
            if number != end:
                _, leaf_hash = await self.standing(conn, selection, end)
        return fetched, end, leaf_hash or b"", head

    async def _events(self, conn: Connection, selection: Selection, slices: Sequence[_Slice], budget: int) -> Fetched:
        fetched = Fetched(selection)
        if not slices:
            return fetched
        ranges = _ranges(slices)
        params = (int4s([r[0] for r in ranges]), int8s([r[1] for r in ranges]), int8s([r[2] for r in ranges]))
        rows = await (await conn.cursor(binary=True).execute(SQL["events_in_ranges"], params)).fetchall()
        directories = {number: await self._directories.by_id(conn, number) for number, _, _ in ranges}
        _arrange(fetched, slices, rows, directories)
        if selection.bodies and selection.rendered:
            bodies = await (await conn.cursor(binary=True).execute(SQL["bodies_in_ranges"], (*params, _LONG_BODY))).fetchall()
            await self._add_bodies(conn, fetched, {(d, seq): (size, ct) for d, seq, size, ct in bodies}, budget)
        return fetched

    async def _add_bodies(
        self, conn: Connection, fetched: Fetched, bodies: dict[tuple[int, int], tuple[int, bytes | None]], budget: int
    ) -> None:
        """Give the events their ciphertexts and keys, as many as the budget allows; long ones are read only now."""
        long: dict[tuple[int, int], SealedEvent] = {}
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
        """Render what was read, and end it where the budget is spent."""
        events, bodies = fetched.sealed, fetched.selection.bodies
        if not fetched.selection.rendered:
            return
        if len(events) <= _LOOP_EVENTS and fetched.size <= _LOOP_BYTES:
            small = Budget(min(budget, _LOOP_BYTES), _LOOP_BYTES)
            if rendered(self._kek, events, small, bodies=bodies) == len(events):
                return
        fetched.cut(await anyio.to_thread.run_sync(lambda: rendered(self._kek, events, Budget(budget), bodies=bodies)))


def _own(selection: Selection) -> int:
    return selection.directory.id if selection.directory else 0


def _end_of(looked_at: Sequence[Event], selection: Selection) -> tuple[int, bytes]:
    return _number(looked_at[-1], selection), looked_at[-1].leaf_hash


def _number(event: Event, selection: Selection) -> int:
    return event.position if selection.directory is None else event.seq


def _arrange(
    fetched: Fetched, slices: Sequence[_Slice], rows: Sequence[tuple[Any, ...]], directories: dict[int, Directory]
) -> None:
    """Put rows into the order of the slices, and choose what the selection takes."""
    by_place = {(row[0], row[1]): row for row in rows}
    takes, looked_at = fetched.selection.takes, fetched.looked_at
    for piece in slices:
        number, commit, types, at, directory = piece.directory, piece.commit, piece.types, piece.at, directories[piece.directory]
        offset, slug = piece.position - piece.first, directory.slug
        for seq in range(piece.first, piece.last + 1):
            _, _, kind, obj, leaf, leaf_hash, _, mem = by_place[number, seq]
            event = Event(seq + offset, number, seq, kind, obj, mem, at, commit, types, leaf_hash, slug)
            if takes(event):
                fetched.places.append(len(looked_at))
                fetched.chosen.append(event)
                fetched.sealed.append(SealedEvent(event, directory, leaf))
            looked_at.append(event)


def _ranges(slices: Sequence[_Slice]) -> list[tuple[int, int, int]]:
    """Join slices into one contiguous seq range per directory and run."""
    merged: dict[int, list[list[int]]] = {}
    for piece in slices:
        runs = merged.setdefault(piece.directory, [])
        if runs and piece.first == runs[-1][1] + 1:
            runs[-1][1] = piece.last
        else:
            runs.append([piece.first, piece.last])
    return [(directory, first, last) for directory, runs in merged.items() for first, last in runs]


def reached(slugs: Iterable[str], directories: Sequence[Directory]) -> tuple[frozenset[int] | None, frozenset[int]]:
    """`directories` and `without` of a Selection for names, where `*` stands for all but the ledger's own directory."""
    named = set(slugs)
    if "*" in named:
        return None, frozenset(d.id for d in directories if d.slug == SYSTEM and SYSTEM not in named)
    return frozenset(d.id for d in directories if d.slug in named), frozenset()
