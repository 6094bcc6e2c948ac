"""Count and page resources by indexes alone: a list without a filter, or with one that says only bounds. The order is that of creation."""

from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, NamedTuple
from uuid import UUID

from database.connections import Connection
from database.queries import load_queries
from ledger.directories import Directory
from ledger.events import USER
from ledger.ids import DirectoryNumber, Seq
from scim.filter_index import Bounds

SQL: Final = load_queries(__file__)
FEW: Final = (
    40  # changed users are few if they are no more than one in so many: to look one up takes as long as to pass 20 in an index
)
HASHED_MAX: Final = 100_000  # users in a hashed set: takes 25 ms and 8 MB in the database
LISTS_MAX: Final = 1_000  # lists of which something is in memory
PLACES_MAX: Final = 64  # places of each list in memory
STRETCH_MIN: Final = (
    200  # resources: for a tenth of all users, PostgreSQL passes 2 000 in the index to find as many, in less than a millisecond
)
_MIN, _MAX = -(2**62), 2**62
Counts = tuple[int, ...]
Row = tuple[int, UUID]  # creation time and id of a resource
BEGINNING: Final[Row] = (_MIN, UUID(int=0))  # sorts before every resource


class Place(NamedTuple):
    """Where a page begins: `offset` resources after the resource `after`."""

    after: Row = BEGINNING
    offset: int = 0


class _Mark(NamedTuple):
    """The state of a directory's read model: its table, and its newest commit."""

    table: int
    head: Seq
    req: UUID
    op: int


class _List(NamedTuple):
    """A list: names of its statements, and the parameters that both have."""

    total: str
    following: str
    params: tuple[Any, ...]


@dataclass(slots=True)
class _Known:
    """What is remembered of a list as it is at its mark. `places` has places by the stretch of the list that they lie in."""

    mark: _Mark
    counts: Counts
    places: dict[int, Place] = field(default_factory=dict[int, Place])  # of each, `after` is resource number `offset`

    def stretch(self) -> int:
        """Resources of which one place is remembered."""
        return max(STRETCH_MIN, self.counts[0] // PLACES_MAX)

    def nearest(self, place: Place) -> Place:
        """The same place, told from the last remembered one before it: PostgreSQL passes every resource of an offset in the index."""
        size = self.stretch()
        for stretch in range(place.offset // size, -1, -1):
            known = self.places.get(stretch)
            if known is not None and known.offset <= place.offset:
                return Place(known.after, place.offset - known.offset)
        return place


class KnownLists:
    """Remembers of each list, until the next commit of its directory, how many resources it has and where some of its pages end.

    A client that pages asks for each page with the total, and by an offset. A rebuild of the read model, and another commit at the same seq
    after a failover, also end what is remembered.
    """

    def __init__(self) -> None:
        self._known: OrderedDict[tuple[DirectoryNumber, str, Bounds], _Known] = OrderedDict()

    async def of(
        self, conn: Connection, directory: Directory, ot: str, within: Bounds, count: Callable[[], Awaitable[Counts]]
    ) -> _Known:
        """The list with what `count` gives, at the newest commit or later."""
        key, mark = (directory.id, ot, within), await _mark(conn, directory, ot)
        known = self._known.get(key)
        if known is None or known.mark != mark:
            known = _Known(mark, await count())
            # Else another process wrote: were that lost again, the mark would come back.
            if await _mark(conn, directory, ot) == mark:
                self._remember(key, known)
        return known

    def _remember(self, key: tuple[DirectoryNumber, str, Bounds], known: _Known) -> None:
        self._known[key] = known
        self._known.move_to_end(key)
        if len(self._known) > LISTS_MAX:
            self._known.popitem(last=False)


async def listed(
    conn: Connection, lists: KnownLists, directory: Directory, ot: str, within: Bounds, place: Place, limit: int
) -> tuple[int, list[Row]]:
    """How many resources are within the bounds, and those of a page."""
    if ot == USER and (within.modified_min, within.modified_max) != (None, None):
        by_change = partial(_counts_by_change, conn, directory, within)
        known = await lists.of(conn, directory, ot, within, by_change)
        _, changed, everybody = known.counts
        found = _by_change(directory, within, changed, everybody)
    else:
        found = _by_creation(directory, ot, within)
        known = await lists.of(conn, directory, ot, within, partial(_count, conn, found.total, found.params))
    total = known.counts[0]
    if not limit or place.offset >= total:
        return total, []
    if place.offset < STRETCH_MIN:
        return total, await _following(conn, found, place, limit)
    rows = await _following(conn, found, known.nearest(place), limit)
    await _remember_end(conn, directory, ot, known, place.offset, rows)
    return total, rows


async def _remember_end(conn: Connection, directory: Directory, ot: str, known: _Known, offset: int, rows: list[Row]) -> None:
    """Remember where the page ends, unless a place is known in the stretch of its end, or there was a commit since the list was counted."""
    end = offset + len(rows)
    stretch = end // known.stretch()
    if rows and stretch not in known.places and await _mark(conn, directory, ot) == known.mark:
        known.places[stretch] = Place(rows[-1], end)


async def page_after(conn: Connection, directory: Directory, ot: str, after: Row, limit: int, within: Bounds) -> list[Row]:
    """The next resources within bounds, for a scan."""
    return await _following(conn, _within(directory, ot, within), Place(after), limit)


def _by_creation(directory: Directory, ot: str, within: Bounds) -> _List:
    created = _window(within.created_min, within.created_max)
    if ot != USER:
        return _List("count_groups", "next_groups", (directory.id, *created))
    if within.active is None:
        return _List("count_users", "next_users", (directory.id, *created))
    return _List("count_active_users", "next_active_users", (directory.id, within.active, *created))


def _by_change(directory: Directory, within: Bounds, changed: int, everybody: int) -> _List:
    """The users within bounds on the time of change. `changed`: how many there are within these bounds alone, of `everybody`."""
    created, modified = _window(within.created_min, within.created_max), _window(within.modified_min, within.modified_max)
    params = (directory.id, *modified, within.active, *created)
    if changed * FEW <= everybody:
        return _List("count_few_changed", "next_few_changed", params)
    if min(changed, everybody - changed) > HASHED_MAX:
        return _within(directory, USER, within)
    return _List("count_by_change", "next_by_change", (*params, changed <= everybody - changed))


async def _counts_by_change(conn: Connection, directory: Directory, within: Bounds) -> Counts:
    """The number of users within the bounds, of those within the bounds on the time of change alone, and of all users."""
    modified = _window(within.modified_min, within.modified_max)
    changed, total, everybody = await _count(conn, "count_changes", (directory.id, *modified, within.active))
    if (within.created_min, within.created_max) != (None, None):
        found = _by_change(directory, within, changed, everybody)
        (total,) = await _count(conn, found.total, found.params)
    return total, changed, everybody


def _within(directory: Directory, ot: str, within: Bounds) -> _List:
    if ot != USER:
        return _by_creation(directory, ot, within)
    created = _window(within.created_min, within.created_max)
    modified = _window(within.modified_min, within.modified_max)
    return _List("count_users_within", "next_users_within", (directory.id, within.active, *created, *modified))


def _window(low: int | None, high: int | None) -> tuple[int, int]:
    return _MIN if low is None else low, _MAX if high is None else high


async def _mark(conn: Connection, directory: Directory, ot: str) -> _Mark:
    params = (directory.id, "users" if ot == USER else "groups")
    row = await (await conn.cursor(binary=True).execute(SQL["mark"], params)).fetchone()
    assert row is not None, "a directory begins with directory.created"
    return _Mark(*row)


async def _count(conn: Connection, name: str, params: tuple[Any, ...]) -> Counts:
    row = await (await conn.cursor(binary=True).execute(SQL[name], params)).fetchone()
    assert row is not None
    return row


async def _following(conn: Connection, found: _List, place: Place, limit: int) -> list[Row]:
    params = (*found.params, *place.after, place.offset, limit)
    return await (await conn.cursor(binary=True).execute(SQL[found.following], params)).fetchall()
