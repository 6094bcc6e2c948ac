"""Lists of resources: what matches, in which order, and the page of it. SQL only narrows; the one evaluator decides.

No function here holds a connection while it computes, computes on the event loop, or has more in memory than a page and the keys of all
matches. The budget of a request is its `Work`; the same request always spends the same.
"""

from bisect import bisect_right
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from operator import itemgetter
from typing import Any, Final, NamedTuple
from uuid import UUID

import orjson

from api.scim.members import resolve_members
from api.scim.resources import Encode, group_as_json, shown_group, shown_members, with_meta
from api.scim.search import Search
from api.services import Services
from ledger.commands import parse_id
from ledger.directories import Directory
from ledger.rendering import BODIES_BYTES_MAX
from projections import reads, user_groups
from projections.index_pages import BEGINNING, Place, listed, page_after
from projections.reads import SCAN_MAX, SCAN_PAGE, Members, SealedResource
from projections.user_groups import Form, GroupOf
from scim.cursors import ANCHORS, AfterAnchors, AfterCreation, ListPosition
from scim.errors import InvalidCursor, TooMany
from scim.filter_dependencies import NO_VALUES, compared_members, values_needed, with_member_ids
from scim.filter_index import Bounds, bounds, cover
from scim.filters import Filter, matches
from scim.leniency import Leniency
from scim.projection import Projection, needs, project, shows_whole
from scim.schema import GROUP, USER, ResourceType
from scim.sorting import Order, SortKey, in_runs
from scim.work import Work

GROUPS_AT_ONCE: Final = 10  # groups whose members are in memory together


class Item(NamedTuple):
    """A resource as an item of a list; `key` is its sort key, None where the list is ordered by time of creation."""

    kind: str
    id: UUID
    created_at: int  # µs since the epoch
    version: int
    key: SortKey | None = None


@dataclass(frozen=True, slots=True)
class Selection:
    """The items that a page may show, the number of all matches, and the position after the first `n` of the items."""

    total: int
    items: list[Item]
    end: Callable[[int], ListPosition | None]  # None where nothing follows


@dataclass(slots=True)
class Shown:
    """The resources of a page as JSON, groups without their members, and the index of each among the items of the selection."""

    pieces: list[bytes]
    places: list[int]  # of each piece among the items
    used: int = 0  # items visited: one deleted since it was selected has no piece
    size: int = 0  # bytes besides the first


class Listing:
    """One list of one directory."""

    def __init__(self, services: Services, directory: Directory, base: str, work: Work, leniency: Leniency) -> None:
        self._services, self._directory, self._base = services, directory, base
        self._work, self._leniency = work, leniency
        self._kept: dict[UUID, SealedResource] = {}  # matches kept in memory while they are few, so that they are not read twice
        self._kept_bytes = 0

    async def _compute(self, work: Callable[[], Any]) -> Any:
        return await self._services.ledger.turns.compute(self._directory.id, work)

    # -- what matches -------------------------------------------------------

    async def indexed(self, kind: ResourceType, search: Search, after: ListPosition | None, wanted: Filter | None) -> Selection:
        """A page read by index alone, for a list without filter or with one that the index covers completely.

        Resources that are created or deleted later do not shift the page.
        """
        within = Bounds() if wanted is None else bounds(wanted)
        by_offset = search.cursor is None
        limit = search.count if by_offset else search.count + 1
        place = Place(offset=search.start - 1)
        if not by_offset:
            place = Place((after.at, after.id)) if isinstance(after, AfterCreation) else Place()
        async with self._services.ledger.turns.connection(self._directory.id) as conn:
            total, rows = await listed(conn, self._services.lists, self._directory, kind.name, within, place, limit)
        items = [Item(kind.name, obj, at, 0) for at, obj in rows]
        return Selection(total, items[: search.count], _no_end if by_offset else partial(_end_by_creation, items))

    async def selected(
        self,
        kinds: Sequence[ResourceType],
        search: Search,
        after: ListPosition | None,
        wanted: Filter | None,
        order: Order | None,
    ) -> Selection:
        """The page of all matches in order: by time of creation, or by `sortBy` and then by time of creation."""
        if wanted is not None and GROUP.name in {kind.name for kind in kinds}:
            wanted = await self._with_member_ids(wanted)
        found: list[Item] = []
        for kind in kinds:
            found += await self._matching(kind, wanted, search.sort_by, order)
        found = await self._compute(lambda: in_order(found, descending=search.descending, by_key=order is not None))
        first = search.start - 1 if search.cursor is None else _resume(found, after)
        items = found[first : first + search.count]
        if search.cursor is None:
            return Selection(len(found), items, _no_end)
        if search.sort_by is None:
            return Selection(len(found), items, partial(_end_by_creation, found[first:]))
        return Selection(len(found), items, partial(_end_by_anchors, found, first))

    async def _with_member_ids(self, wanted: Filter) -> Filter:
        """The filter with the id in place of each externalId or userName of a member, where the profile says that the IdP uses these."""
        if self._directory.profile.unknown_member == "refuse":
            return wanted
        named = compared_members(wanted)
        ids = await resolve_members(self._services.ledger.turns, self._directory, list(named), self._leniency)
        return with_member_ids(wanted, ids)

    async def _matching(self, kind: ResourceType, wanted: Filter | None, sort_by: str | None, order: Order | None) -> list[Item]:
        name = "groups" if kind.name == USER.name else "members"
        sorts = sort_by is not None and name in sort_by.casefold()
        values = None if sorts else values_needed(wanted, name) if wanted is not None else NO_VALUES
        at_once = GROUPS_AT_ONCE if values is None and kind.name == GROUP.name else SCAN_PAGE
        found: list[Item] = []
        seen = 0
        async for ids in self._narrowed(kind, wanted):
            seen += len(ids)
            if seen > SCAN_MAX:
                raise TooMany(
                    f"This request has to look at more than {SCAN_MAX} resources. Filter by userName, externalId or id."
                )
            done = 0
            while done < len(ids):
                rows, looked_at, related = await self._read(kind, ids[done : done + at_once], values)
                done += looked_at
                found += await self._compute(partial(self._picked, kind.name, rows, related, wanted, order))
        return found

    async def _narrowed(self, kind: ResourceType, wanted: Filter | None) -> AsyncIterator[list[UUID]]:
        atoms = cover(wanted) if wanted is not None else None
        if atoms is not None:
            async with self._services.ledger.turns.connection(self._directory.id) as conn:
                ids = await reads.candidates(conn, self._directory, kind.name, atoms)
            yield ids
            return
        window = bounds(wanted) if wanted is not None else Bounds()
        place = BEGINNING
        while True:
            async with self._services.ledger.turns.connection(self._directory.id) as conn:
                rows = await page_after(conn, self._directory, kind.name, place, SCAN_PAGE, window)
            if not rows:
                return
            yield [obj for _, obj in rows]
            place = rows[-1]

    async def _read(
        self, kind: ResourceType, ids: Sequence[UUID], values: frozenset[str] | None
    ) -> tuple[list[SealedResource], int, dict[UUID, Members | list[dict[str, Any]]]]:
        """The resources, still sealed, the number of ids that were looked up, and the groups or members that the filter depends on."""
        related: dict[UUID, Members | list[dict[str, Any]]] = {}
        async with self._services.ledger.turns.connection(self._directory.id) as conn:
            rows, looked_at = await reads.page(conn, self._directory, kind.name, ids)
            found = [row.id for row in rows]
            if values != NO_VALUES and kind.name == GROUP.name and values is None:
                related |= await reads.members_of(conn, self._directory, found)
            elif values and kind.name == GROUP.name:
                named = [obj for obj in map(parse_id, values) if obj is not None]
                related |= await reads.members_among(conn, self._directory, found, named) if named else {}
        if values != NO_VALUES and kind.name == USER.name:
            related |= await self._groups_of(found, shown_group)
        return rows, looked_at, related

    def _picked(
        self,
        kind: str,
        rows: Sequence[SealedResource],
        related: Mapping[UUID, Members | list[dict[str, Any]]],
        wanted: Filter | None,
        order: Order | None,
    ) -> list[Item]:
        """The resources that match, each with its sort key. One document is in memory at a time."""
        found: list[Item] = []
        for sealed in rows:
            resource = reads.unsealed(self._services.ledger.kek, self._directory, kind, sealed, self._work)
            document = with_meta(resource, self._base)
            self._relate(document, related.get(sealed.id))
            if wanted is None or matches(wanted, document, self._work):
                key = None if order is None else order(document, self._work)
                found.append(Item(kind, sealed.id, sealed.created_at, sealed.etag_rv, key))
                self._keep(sealed)
        return found

    def _relate(self, document: dict[str, Any], related: Members | list[dict[str, Any]] | None) -> None:
        if related is None:
            return
        self._work.spend(len(related))
        if isinstance(related, Members):
            document["members"] = shown_members(related, self._base)
        elif related:
            document["groups"] = related

    def _keep(self, sealed: SealedResource) -> None:
        self._kept_bytes += len(sealed.ct)
        if self._kept_bytes <= BODIES_BYTES_MAX:
            self._kept[sealed.id] = sealed

    # -- the page of it -----------------------------------------------------

    async def shown(self, items: Sequence[Item], projections: Mapping[str, Projection], encode: Encode) -> Shown:
        """The encoded resources of a page, up to BODIES_BYTES_MAX besides the first one. Resources deleted since they were selected are left out."""
        page = Shown([], [])
        while page.used < len(items) and page.size <= BODIES_BYTES_MAX:
            rest = items[page.used :]
            rows, readable = await self._sealed(rest)
            groups = await self._groups(rest[:readable], projections)
            await self._compute(partial(self._show, page, rest[:readable], rows, groups, projections, encode))
        return page

    async def _sealed(self, items: Sequence[Item]) -> tuple[dict[UUID, SealedResource], int]:
        """The resources, still sealed, and the number of items that were looked up."""
        rows = {item.id: self._kept[item.id] for item in items if item.id in self._kept}
        late: set[UUID] = set()
        for kind in dict.fromkeys(item.kind for item in items):
            ids = [item.id for item in items if item.kind == kind and item.id not in rows]
            if ids:
                async with self._services.ledger.turns.connection(self._directory.id) as conn:
                    found, looked_at = await reads.page(conn, self._directory, kind, ids)
                rows |= {sealed.id: sealed for sealed in found}
                late.update(ids[looked_at:])
        return rows, next((n for n, item in enumerate(items) if item.id in late), len(items))

    async def _groups(self, items: Sequence[Item], projections: Mapping[str, Projection]) -> Mapping[UUID, list[Any]]:
        """The groups of each user of a page: each as JSON, unless only a part of it is shown."""
        if USER.name not in projections or not needs(projections[USER.name], "groups"):
            return {}
        users = [item.id for item in items if item.kind == USER.name]
        if not users:
            return {}
        if shows_whole(projections[USER.name], "groups"):
            return await self._groups_of(users, group_as_json)
        return await self._groups_of(users, shown_group)

    async def _groups_of(self, users: Sequence[UUID], shown: Callable[[str, GroupOf], Form]) -> dict[UUID, list[Form]]:
        turns, names = self._services.ledger.turns, self._services.group_names
        return await user_groups.groups_of(turns, names, self._directory, users, self._work, partial(shown, self._base))

    def _show(
        self,
        page: Shown,
        items: Sequence[Item],
        rows: Mapping[UUID, SealedResource],
        groups: Mapping[UUID, list[Any]],
        projections: Mapping[str, Projection],
        encode: Encode,
    ) -> None:
        """Add resources to the page until it is full."""
        for item in items:
            sealed = rows.get(item.id)
            if sealed is not None:
                piece = encode(self._document(item, sealed, groups.get(item.id), projections[item.kind]))
                page.size += len(piece) if page.pieces else 0
                if page.size > BODIES_BYTES_MAX:
                    return
                page.pieces.append(piece)
                page.places.append(page.used)
            page.used += 1

    def _document(self, item: Item, sealed: SealedResource, groups: list[Any] | None, projection: Projection) -> dict[str, Any]:
        document = with_meta(
            reads.unsealed(self._services.ledger.kek, self._directory, item.kind, sealed, self._work), self._base
        )
        if groups:
            self._work.spend(len(groups))
            as_json = isinstance(groups[0], bytes)
            document["groups"] = orjson.Fragment(b"[" + b",".join(groups) + b"]") if as_json else groups
        return project(projection, document)


def in_order(found: list[Item], *, descending: bool, by_key: bool) -> list[Item]:
    """The items by time of creation, in which order they nearly are already, or by key and then by time of creation."""
    found.sort(key=_created)
    return in_runs(found, itemgetter(4), reverse=descending) if by_key else found


def _created(item: Item) -> tuple[int, bytes]:
    return item.created_at, item.id.bytes


def _anchor(item: Item) -> tuple[UUID, int]:
    return item.id, item.version


def _no_end(_used: int) -> None:
    """Pages by index have no cursor."""


def _end_by_creation(items: Sequence[Item], used: int) -> ListPosition | None:
    return AfterCreation(items[used - 1].created_at, items[used - 1].id) if 0 < used < len(items) else None


def _end_by_anchors(found: Sequence[Item], first: int, used: int) -> ListPosition | None:
    stop = first + used
    return AfterAnchors(tuple(map(_anchor, found[max(0, stop - ANCHORS) : stop]))) if 0 < stop < len(found) else None


def _resume(found: Sequence[Item], after: ListPosition | None) -> int:
    """The index of the first item of the page. Raises InvalidCursor where none of a sorted list's anchors is left unchanged."""
    if after is None:
        return 0
    if isinstance(after, AfterCreation):
        return bisect_right(found, (after.at, after.id.bytes), key=_created)
    wanted = {anchor: n for n, anchor in enumerate(after.anchors)}
    standing = [(wanted[anchor], n) for n, anchor in enumerate(map(_anchor, found)) if anchor in wanted]
    if not standing:
        raise InvalidCursor("All resources before this page were changed or deleted since. Start again with an empty cursor.")
    return max(standing)[1] + 1
