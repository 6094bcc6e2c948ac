"""The ordered read of events: pages that together tile the log.

A page reads head and commits, then one contiguous seq range per directory from events and from bodies, then the keys by id,
and merges here; joining the three tables in SQL is two to three times slower. The head is read no later than the page.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Final
from uuid import UUID

import orjson

from database.arrays import int4s, int8s, uuids
from database.connections import Connection
from database.queries import load_queries
from ledger.cursor import BEGINNING, Cursor, EventId
from ledger.directories import SYSTEM, Directories, Directory
from ledger.events import BY_TOPIC, EVENT_TYPES
from ledger.sealing import Kek, data_of, open_payload, unwrap_key

SQL = load_queries(__file__)
PAGE_MAX = 1_000
COMMITS_SCANNED_MAX = 100_000  # of one page under a filter; an empty page with `covered` is legal
_COMMITS_READ = 2_000  # commits fetched at once while looking for matches


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
        if not types & self.mask:
            return False
        return directory not in self.without if self.directories is None else directory in self.directories

    def takes(self, event: "Event") -> bool:
        """Whether an event is one of this reader's."""
        if not self.wants(event.directory, 1 << event.kind):
            return False
        if self.subject is not None and self.subject not in {event.obj, event.mem}:
            return False
        if self.time_from is not None and event.at < self.time_from:
            return False
        return self.time_to is None or event.at < self.time_to


@dataclass(slots=True)
class Event:
    """One event of the log for a reader inside the process. `json` is what the public reads, or empty where nobody asked."""

    position: int
    directory: int
    seq: int
    kind: int  # number of its type
    obj: UUID
    mem: UUID | None
    at: int  # µs since the epoch
    commit: int  # first seq of its commit
    types: int  # bits of all event types in its commit
    json: bytes = b""


@dataclass(frozen=True, slots=True)
class Page:
    """`covered` says which part of the log the page speaks for (to < from: nothing new)."""

    events: list[Event]
    after: Cursor
    covered_from: int
    covered_to: int
    head: int

    @property
    def has_more(self) -> bool:
        return self.covered_to < self.head


def type_mask(patterns: Iterable[str]) -> int | None:
    """Turn `user.*`, `group.created`, `*` into a bit mask; None where a pattern names no event type."""
    mask = 0
    for pattern in patterns:
        if pattern == "*":
            bits = -1
        elif pattern.endswith(".*"):
            bits = sum(kind.bit for kind in EVENT_TYPES if kind.topic.startswith(pattern[:-1]))
        else:
            bits = BY_TOPIC[pattern].bit if pattern in BY_TOPIC else 0
        if not bits:
            return None
        mask |= bits
    return mask


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


class Feed:
    """Reads the log. Stateless but for the directories it knows."""

    def __init__(self, kek: Kek, directories: Directories) -> None:
        self._kek = kek
        self._directories = directories

    async def head(self, conn: Connection, selection: Selection) -> int:
        """The last readable position, or seq where one directory is selected."""
        if selection.directory is not None:
            row = await (await conn.execute(SQL["directory_head"], (selection.directory.id,))).fetchone()
        else:
            row = await (await conn.execute(SQL["head"])).fetchone()
        return row[0] if row else 0

    async def check(self, conn: Connection, cursor: Cursor) -> None:
        """Raises CursorAheadError or CursorForkedError where the cursor's event is not in this log."""
        if cursor.number == 0:
            return
        if cursor.directory:
            name, params = "event_at", (cursor.directory, cursor.number)
            head_row = await (await conn.execute(SQL["directory_head"], (cursor.directory,))).fetchone()
        else:
            name, params = "event_at_position", (cursor.number,)
            head_row = await (await conn.execute(SQL["head"])).fetchone()
        head = head_row[0] if head_row else 0
        row = await (await conn.cursor(binary=True).execute(SQL[name], params)).fetchone()
        if row is None:
            raise CursorAheadError(cursor.number, head)
        if row[4][:4] != cursor.mark:
            raise CursorForkedError(cursor.number, head)

    async def page(self, conn: Connection, selection: Selection, after: Cursor, limit: int) -> Page:
        """Read the next page. `after` must have been checked; limit is 1 to 1 000 events."""
        events, covered_to, head = await self.read(conn, selection, after.number, limit)
        mark = after.mark if covered_to == after.number else await self._mark(conn, selection, covered_to)
        directory = selection.directory.id if selection.directory else 0
        return Page(events, Cursor(covered_to, mark, directory), after.number + 1, covered_to, head)

    async def read(self, conn: Connection, selection: Selection, after: int, limit: int) -> tuple[list[Event], int, int]:
        """The same by number: (events, the number up to which they speak for the log, the head)."""
        head = await self.head(conn, selection)
        slices, covered_to = await self._choose(conn, selection, after, head, limit)
        return await self._events(conn, selection, slices), covered_to, head

    async def cursor_at(self, conn: Connection, selection: Selection, number: int) -> Cursor:
        """The cursor after an event that is in the log."""
        directory = selection.directory.id if selection.directory else 0
        return Cursor(number, await self._mark(conn, selection, number), directory)

    async def event(self, conn: Connection, event_id: EventId, *, bodies: bool) -> bytes | None:
        """Give one rendered event, or None where no such event stands in the log."""
        directory = await self._directories.by_slug(conn, event_id.slug)
        if directory is None:
            return None
        row = await (await conn.cursor(binary=True).execute(SQL["event_at"], (directory.id, event_id.seq))).fetchone()
        if row is None or row[4][:4] != event_id.mark:
            return None
        found = await self.at(conn, [(directory.id, event_id.seq)], bodies=bodies)
        return found[0].json

    async def at(
        self, conn: Connection, places: Sequence[tuple[int, int]], *, bodies: bool = True, rendered: bool = True
    ) -> list[Event]:
        """The events at some (directory, seq), in the order of these. Places where no event stands are left out."""
        params = (int4s([directory for directory, _ in places]), int8s([seq for _, seq in places]))
        rows = await (await conn.cursor(binary=True).execute(SQL["commits_of"], params)).fetchall()
        slices = [_Slice(d, seq, seq, position, commit, types, at) for d, seq, position, commit, types, at in rows]
        return await self._events(conn, Selection(bodies=bodies, rendered=rendered), slices)

    async def position_of(self, conn: Connection, event_id: EventId) -> tuple[Directory, int, int, bytes] | None:
        """Give (directory, seq, position, mark now standing there) of an event id; mark differs after a restore."""
        directory = await self._directories.by_slug(conn, event_id.slug)
        if directory is None:
            return None
        row = await (await conn.cursor(binary=True).execute(SQL["event_at"], (directory.id, event_id.seq))).fetchone()
        return (directory, event_id.seq, row[5], row[4][:4]) if row else None

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
        if number == 0:
            return BEGINNING
        if selection.directory is not None:
            name, params = "event_at", (selection.directory.id, number)
        else:
            name, params = "event_at_position", (number,)
        row = await (await conn.cursor(binary=True).execute(SQL[name], params)).fetchone()
        assert row is not None, "a covered number has an event"
        return row[4][:4]

    # -- rendering ----------------------------------------------------------

    async def _events(self, conn: Connection, selection: Selection, slices: Sequence[_Slice]) -> list[Event]:
        if not slices:
            return []
        ranges = _ranges(slices)
        params = (int4s([r[0] for r in ranges]), int8s([r[1] for r in ranges]), int8s([r[2] for r in ranges]))
        rows = await (await conn.cursor(binary=True).execute(SQL["events_in_ranges"], params)).fetchall()
        by_place = {(row[0], row[1]): row for row in rows}
        shown = selection.bodies and selection.rendered
        bodies, keys = await self._bodies(conn, params, rows) if shown else ({}, {})
        out: list[Event] = []
        for piece in slices:
            directory = await self._directories.by_id(conn, piece.directory)
            for seq in range(piece.first, piece.last + 1):
                row = by_place[piece.directory, seq]
                position = piece.position + seq - piece.first
                event = Event(position, directory.id, seq, row[2], row[3], row[7], piece.at, piece.commit, piece.types)
                if not selection.takes(event):
                    continue
                if selection.rendered:
                    # A reader of bodies is told of one that is gone, another that it may not see it.
                    data = self._data(directory, row, bodies, keys) or ERASED if shown else WITHHELD
                    event.json = render(directory.slug, row[4], row[5], position, data)
                out.append(event)
        return out

    async def _bodies(
        self, conn: Connection, params: tuple[Any, ...], rows: Sequence[tuple[Any, ...]]
    ) -> tuple[dict[tuple[int, int], bytes], dict[UUID, bytes]]:
        found = await (await conn.cursor(binary=True).execute(SQL["bodies_in_ranges"], params)).fetchall()
        bodies = {(directory, seq): ct for directory, seq, ct in found}
        if not bodies:
            return bodies, {}
        objs = list(dict.fromkeys(row[3] for row in rows if (row[0], row[1]) in bodies))
        wrapped = await (await conn.cursor(binary=True).execute(SQL["subject_keys_of"], (uuids(objs),))).fetchall()
        keys: dict[UUID, bytes] = {}
        for obj, number, key in wrapped:
            directory = await self._directories.by_id(conn, number)
            keys[obj] = unwrap_key(self._kek, key, directory=directory.uuid, obj=obj)
        return bodies, keys

    def _data(
        self, directory: Directory, row: tuple[Any, ...], bodies: dict[tuple[int, int], bytes], keys: dict[UUID, bytes]
    ) -> bytes | None:
        ct, key = bodies.get((row[0], row[1])), keys.get(row[3])
        if ct is None or key is None:
            return None
        return data_of(open_payload(key, ct, directory=directory.uuid, obj=row[3], seq=row[1]))


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


@lru_cache(maxsize=4096)
def _second(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def rfc3339(micros: int) -> str:
    """RFC 3339 UTC with microseconds."""
    return f"{_second(micros // 1_000_000)}.{micros % 1_000_000:06d}Z"


_DATA: Final = b',"data":'  # nothing before it in an event comes from a request
_NO_DATA: Final = _DATA + b"{}}"
WITHHELD: Final = b'{"withheld":true}'
ERASED: Final = b'{"erased":true}'


def render(slug: str, leaf: bytes, leaf_hash: bytes, position: int, data: bytes) -> bytes:
    """Give the public JSON of an event (CONTRACT §4) from its leaf and the bytes of its body's `data`.

    In the place of `data` stand WITHHELD or ERASED where it cannot be shown; the leaf tells which events have one (`ct`).
    """
    f: dict[str, Any] = orjson.loads(leaf)
    if f.get("mem"):
        flag = "true" if f["eff"] else "false"
        shown = f'{{"group":{{"id":"{f["obj"]}"}},"member":{{"type":"{f["mt"]}","id":"{f["mem"]}"}},"effective":{flag}}}'.encode()
    else:
        shown = b"{}" if data in {WITHHELD, ERASED} and "ct" not in f else data
    head = (
        f'{{"object":"event","id":"evt_{slug}_{f["seq"]}_{leaf_hash[:4].hex()}","type":"{f["type"]}","directory":"{slug}",'
        f'"seq":{f["seq"]},"position":{position},"commit":{{"first_seq":{f["tx"]},"size":{f["txn"]}}},"rv":{f["rv"]},'
        f'"time":"{rfc3339(f["at"])}","cause":"{f["cause"]}","actor":"{f["actor"]}","request_id":"{f["req"]}",'
        f'"profile":"{f["prof"]}","subject":{{"type":"{f["ot"]}","id":"{f["obj"]}"}},"data":'
    )
    return head.encode() + shown + b"}"


def withheld(event: Event) -> bytes:
    """The JSON of an event for a reader who may not see attributes, from that for one who may."""
    if event.mem is not None or event.json.endswith(_NO_DATA):
        return event.json
    return event.json[: event.json.index(_DATA)] + _DATA + WITHHELD + b"}"


def reached(slugs: Iterable[str], directories: Sequence[Directory]) -> tuple[frozenset[int] | None, frozenset[int]]:
    """`directories` and `without` of a Selection for names, where `*` stands for all but the ledger's own directory."""
    named = set(slugs)
    if "*" in named:
        return None, frozenset(d.id for d in directories if d.slug == SYSTEM and SYSTEM not in named)
    return frozenset(d.id for d in directories if d.slug in named), frozenset()
