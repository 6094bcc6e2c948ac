"""Count and page resources by indexes alone: a list without a filter, or with one that says only bounds.

The order is that of creation. The times of one directory never run backwards, so a resource that was created since a moment was also
modified since then: for such a bound only older resources are looked at.
"""

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, Final, NamedTuple
from uuid import UUID

from database.connections import Connection
from database.queries import load_queries
from ledger.directories import Directory
from ledger.events import USER
from ledger.ids import DirectoryNumber, Seq
from scim.filter_index import Bounds

SQL: Final = load_queries(__file__)
CHANGES_MAX: Final = (
    5_000  # newest events that are read for what was modified; more of them cost more than to read the older users
)
TOTALS_MAX: Final = 1_000  # totals in memory
_MIN, _MAX = -(2**62), 2**62
Row = tuple[int, UUID]  # creation time and id of a resource
BEGINNING: Final[Row] = (_MIN, UUID(int=0))  # sorts before every resource


class Place(NamedTuple):
    """Where a page begins: `offset` resources after the resource `after`."""

    after: Row = BEGINNING
    offset: int = 0


class _Mark(NamedTuple):
    """The state of a directory's read model: its table, and its newest commit. `before` is the last event before the bound on changes."""

    table: int
    head: Seq
    req: UUID
    op: int
    before: Seq


class _Slice(NamedTuple):
    """A part of a list, which no other part overlaps: names of its statements, and their parameters."""

    total: str
    following: str
    params: tuple[Any, ...]


class Totals:
    """Remembers how many resources a list has until the next commit of its directory, because a client that pages asks for each page.

    A rebuild of the read model, and another commit at the same seq after a failover, also end what is remembered.
    """

    def __init__(self) -> None:
        self._known: OrderedDict[tuple[DirectoryNumber, str, Bounds], tuple[_Mark, list[int]]] = OrderedDict()

    async def of(
        self, conn: Connection, directory: Directory, mark: _Mark, asked: tuple[str, Bounds], parts: Sequence[_Slice]
    ) -> list[int]:
        """How many resources each part of the list has, at the mark or later."""
        key = (directory.id, *asked)
        mark_then, counts = self._known.get(key, (None, []))
        if mark_then != mark:
            counts = [await _count(conn, part) for part in parts]
            if (
                await _mark(conn, directory, *asked) == mark
            ):  # else another process wrote: were that lost again, the mark would come back
                self._remember(key, mark, counts)
        return counts

    def _remember(self, key: tuple[DirectoryNumber, str, Bounds], mark: _Mark, counts: list[int]) -> None:
        self._known[key] = (mark, counts)
        self._known.move_to_end(key)
        if len(self._known) > TOTALS_MAX:
            self._known.popitem(last=False)


async def listed(
    conn: Connection, totals: Totals, directory: Directory, ot: str, within: Bounds, place: Place, limit: int
) -> tuple[int, list[Row]]:
    """How many resources are within the bounds, and those of a page."""
    mark = await _mark(conn, directory, ot, within)
    parts = _parts(directory, ot, within)
    changed: list[Row] = []
    if len(parts) > 1 and mark.head - mark.before <= CHANGES_MAX:
        changed = await _older_modified(conn, directory, within, mark.before)
        parts = parts[1:]
    counts = await totals.of(conn, directory, mark, (ot, within), parts)
    rows = [row for row in changed if row > place.after][place.offset : place.offset + limit]
    offset = max(0, place.offset - len(changed))
    for part, count in zip(parts, counts, strict=True):
        if len(rows) < limit and offset < count:
            rows += await _following(conn, part, Place(place.after, offset), limit - len(rows))
        offset = max(0, offset - count)
    return len(changed) + sum(counts), rows


async def page_after(conn: Connection, directory: Directory, ot: str, after: Row, limit: int, within: Bounds) -> list[Row]:
    """The next resources within bounds, for a scan."""
    return await _following(conn, _within(directory, ot, within), Place(after), limit)


def _parts(directory: Directory, ot: str, within: Bounds) -> list[_Slice]:
    """The list as parts, in order."""
    if ot != USER:
        return [_within(directory, ot, within)]
    low, high = _window(within.created_min, within.created_max)
    since = within.modified_min
    if since is None and within.modified_max is None:
        if within.active is None:
            return [_Slice("count_users", "next_users", (directory.id, low, high))]
        return [_Slice("count_active_users", "next_active_users", (directory.id, within.active, low, high))]
    if since is None or within.active is not None or within.modified_max is not None:
        return [_within(directory, ot, within)]
    return [
        _Slice("count_changed_users", "next_changed_users", (directory.id, low, high, since)),
        _Slice("count_users", "next_users", (directory.id, max(low, since), high)),
    ]


def _within(directory: Directory, ot: str, within: Bounds) -> _Slice:
    created = _window(within.created_min, within.created_max)
    if ot != USER:
        return _Slice("count_groups", "next_groups", (directory.id, *created))
    modified = _window(within.modified_min, within.modified_max)
    return _Slice("count_users_within", "next_users_within", (directory.id, within.active, *created, *modified))


def _window(low: int | None, high: int | None) -> tuple[int, int]:
    return _MIN if low is None else low, _MAX if high is None else high


async def _mark(conn: Connection, directory: Directory, ot: str, within: Bounds) -> _Mark:
    since = _MIN if within.modified_min is None else within.modified_min
    params = (directory.id, since, "users" if ot == USER else "groups")
    row = await (await conn.cursor(binary=True).execute(SQL["mark"], params)).fetchone()
    assert row is not None, "a directory begins with directory.created"
    table, head, req, op, before = row
    return _Mark(table, head, req, op, before)


async def _older_modified(conn: Connection, directory: Directory, within: Bounds, before: Seq) -> list[Row]:
    """The older users that were modified after this seq."""
    low, high = _window(within.created_min, within.created_max)
    params = (directory.id, before, low, high, within.modified_min)
    return await (await conn.cursor(binary=True).execute(SQL["users_changed_since"], params)).fetchall()


async def _count(conn: Connection, part: _Slice) -> int:
    row = await (await conn.cursor(binary=True).execute(SQL[part.total], part.params)).fetchone()
    return row[0] if row else 0


async def _following(conn: Connection, part: _Slice, place: Place, limit: int) -> list[Row]:
    params = (*part.params, *place.after, place.offset, limit)
    return await (await conn.cursor(binary=True).execute(SQL[part.following], params)).fetchall()
