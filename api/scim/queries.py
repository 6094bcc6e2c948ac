"""SCIM reads: one resource, and lists with filters. SQL only narrows; the one evaluator decides."""

import asyncio
from bisect import bisect_right
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import groupby
from operator import itemgetter
from typing import Any, TypeAlias, TypeVar
from uuid import UUID

import anyio.to_thread
import orjson

from api.scim.http import Answer, Call, as_json, streamed
from api.scim.members import meant
from api.scim.resources import etag, group_json, shown_groups, shown_members, with_meta
from api.scim.search import Search
from api.services import Services
from database.connections import Connection
from ledger.commands import parse_id
from ledger.directories import Directory
from ledger.feed import rfc3339
from projections import reads
from projections.reads import SCAN_MAX, SCAN_PAGE, GroupOf, Members, Resource
from scim.cursors import ANCHORS, Created, Place, Sorted, decode, encode, query_digest
from scim.discovery import list_response
from scim.errors import InvalidCount, InvalidCursor, NotFound, TooMany
from scim.filters import Bounds, Filter, bounds, cover, either, instant, matches, parse_filter
from scim.mentions import NONE as NOTHING
from scim.mentions import asked, mentions, named_members, with_member_ids
from scim.misnomers import filter_as_meant, names_as_meant
from scim.projection import Projection, needs, project, read_projection
from scim.schema import GROUP, USER, ResourceType
from scim.sorting import SortKey, sort_key

GROUPS_AT_ONCE = 10  # groups whose members are in memory together
T = TypeVar("T")
Order: TypeAlias = Callable[[Mapping[str, Any]], SortKey]
Page = tuple[int, list[dict[str, Any]], Place | None]  # how many there are, some of them, where those end if more follow


class Query:
    """One read request."""

    def __init__(self, services: Services, call: Call, directory: Directory) -> None:
        self._services = services
        self._call = call
        self._directory = directory
        self._base = f"{services.base_url}/scim/{directory.slug}/v2"

    def _projection(self, kind: ResourceType) -> Projection:
        return self._read_projection(kind, self._call.query.get("attributes"), self._call.query.get("excludedAttributes"))

    def _read_projection(self, kind: ResourceType, attributes: str | None, excluded: str | None) -> Projection:
        return read_projection(kind, attributes, excluded, self._directory.tolerances, self._call.used)

    async def one(self, kind: ResourceType, text: str) -> Answer:
        projection = self._projection(kind)
        obj = parse_id(text)
        resource, groups = await self._read_one(kind, obj, projection) if obj is not None else (None, None)
        if resource is None:
            raise NotFound(f"There is no {kind.name.lower()} with this id in this directory. It may have been deleted.")
        version = etag(resource.etag_rv)
        if self._call.if_none_match(version):
            return Answer(304, headers=[(b"etag", version.encode())])
        document = with_meta(resource, self._base)
        headers = [(b"etag", version.encode()), (b"location", document["meta"]["location"].encode())]
        if kind.name == GROUP.name:
            return await streamed(200, self._groups_json(projection, [document]), headers)
        if groups:
            document["groups"] = shown_groups(groups, self._base)
        return Answer(200, orjson.dumps(project(projection, document)), headers)

    async def _groups_json(self, projection: Projection, documents: Sequence[dict[str, Any]]) -> AsyncIterator[bytes]:
        """Groups as JSON, a comma between two, with the members of GROUPS_AT_ONCE in memory at a time.

        No connection is held while a part is sent: a client that reads slowly holds up nobody.
        """
        for start in range(0, len(documents), GROUPS_AT_ONCE):
            some = documents[start : start + GROUPS_AT_ONCE]
            members = await self._members(some) if needs(projection, "members") else {}
            for n, document in enumerate(some, start):
                if n:
                    yield b","
                for piece in group_json(projection, document, members.get(UUID(document["id"]), Members()), self._base):
                    yield piece

    async def _members(self, documents: Sequence[dict[str, Any]]) -> dict[UUID, Members]:
        async with self._services.pool.connection() as conn:
            return await reads.members_of(conn, self._directory, [UUID(document["id"]) for document in documents])

    async def _read_one(
        self, kind: ResourceType, obj: UUID, projection: Projection
    ) -> tuple[Resource | None, list[GroupOf] | None]:
        """The resource, and the groups of a user: both asked at once, in queries that concurrent reads share."""
        key = (self._directory.id, obj)
        if kind.name == USER.name:
            if not needs(projection, "groups"):
                return await self._services.users.get(key), None
            return await asyncio.gather(self._services.users.get(key), self._services.groups.get(key))
        async with self._services.pool.connection() as conn:
            found = await reads.resources(conn, self._services.kek, kind.name, [(self._directory, obj)])
        return found.get(key), None

    async def many(self, kinds: Sequence[ResourceType], search: Search) -> Answer:
        """List resources of one type, or of several together (RFC 7644 §3.4.2.1)."""
        search = self._as_meant(kinds, search)
        projections = {kind.name: self._read_projection(kind, search.attributes, search.excluded) for kind in kinds}
        name = _only_name(kinds, search)
        if name is not None:
            return await self._named(name, search, projections[USER.name])
        digest = self._digest(kinds, search) if search.cursor is not None else b""
        after = _begin(search, digest)
        async with self._services.pool.connection() as conn:
            if search.filter is None and search.sort_by is None and len(kinds) == 1:
                total, page, end = await self._plain(conn, kinds[0], search, after)
            else:
                total, page, end = await self._selected(conn, kinds, search, after)
            if USER.name in projections and needs(projections[USER.name], "groups"):
                await self._with_groups(conn, [d for d in page if d["meta"]["resourceType"] == USER.name])
        following = None if end is None else encode(end, digest, search.count)
        frame = list_response(page, total, search.start if search.cursor is None else None, following)
        if GROUP.name in projections and needs(projections[GROUP.name], "members"):
            return await streamed(200, self._page_json(frame, projections), [])
        frame["Resources"] = [project(projections[document["meta"]["resourceType"]], document) for document in page]
        return as_json(200, frame)

    def _one_of(self, kinds: Sequence[ResourceType]) -> ResourceType:
        return kinds[0] if len(kinds) == 1 else either(self._directory.user_type, self._directory.group_type)

    def _as_meant(self, kinds: Sequence[ResourceType], search: Search) -> Search:
        one, tolerances, used = self._one_of(kinds), self._directory.tolerances, self._call.used
        if search.sort_by is not None:
            search = replace(search, sort_by=names_as_meant(search.sort_by, one, tolerances, used))
        if search.filter is None:
            return search
        text = filter_as_meant(search.filter, one, tolerances, used)
        if text is search.filter:
            return search
        self._call.filter = text  # for the journal, which could not read it as it was sent
        return replace(search, filter=text)

    async def _page_json(self, frame: dict[str, Any], projections: Mapping[str, Projection]) -> AsyncIterator[bytes]:
        """A page with groups in it, which may have any number of members."""
        page: list[dict[str, Any]] = frame.pop("Resources")
        yield orjson.dumps(frame)[:-1] + b',"Resources":['
        first = True
        for name, run in groupby(page, key=_type_of):
            if not first:
                yield b","
            first = False
            if name == GROUP.name:
                async for piece in self._groups_json(projections[name], list(run)):
                    yield piece
            else:
                yield orjson.dumps([project(projections[name], document) for document in run])[1:-1]
        yield b"]}"

    async def _named(self, name: str, search: Search, projection: Projection) -> Answer:
        """`userName eq "…"`, what every IdP asks before it creates: in queries that concurrent requests share."""
        assert search.filter is not None
        resource = await self._services.names.get((self._directory.id, name))
        documents = [with_meta(resource, self._base)] if resource is not None else []
        if resource is not None and needs(projection, "groups"):
            groups = await self._services.groups.get((self._directory.id, resource.id))
            if groups:
                documents[0]["groups"] = shown_groups(groups, self._base)
        wanted = parse_filter(search.filter, self._directory.user_type)
        found = [document for document in documents if matches(wanted, document)]
        page = found[search.start - 1 : search.start - 1 + search.count]
        return as_json(200, list_response([project(projection, document) for document in page], len(found), search.start))

    def _digest(self, kinds: Sequence[ResourceType], search: Search) -> bytes:
        order = None if search.sort_by is None else str(search.descending)
        parts = [*(kind.name for kind in kinds), search.filter, search.sort_by, order]
        return query_digest(self._directory.index_key, parts)

    async def _plain(self, conn: Connection, kind: ResourceType, search: Search, after: Place | None) -> Page:
        """A page without looking at the rest: what comes later or goes away moves nothing of it."""
        total = await reads.count(conn, self._directory, kind.name)
        if search.cursor is None:
            if not search.count:
                return total, [], None
            ids = await reads.page_ids(conn, self._directory, kind.name, search.start - 1, search.count)
            return total, await self._documents(conn, kind, ids), None
        if not isinstance(after, Created):
            after = Created(0, UUID(int=0))
        rows = await reads.page_after(conn, self._directory, kind.name, after.at, after.id, search.count + 1)
        shown = rows[: search.count]
        end = Created(*shown[-1]) if len(rows) > len(shown) else None
        return total, await self._documents(conn, kind, [obj for _, obj in shown]), end

    async def _selected(self, conn: Connection, kinds: Sequence[ResourceType], search: Search, after: Place | None) -> Page:
        """All matches in order, then the page of them: by time of creation, or by sortBy with that as the tie-break."""
        one = self._one_of(kinds)
        wanted = parse_filter(search.filter, one) if search.filter is not None else None
        if wanted is not None and GROUP.name in {kind.name for kind in kinds}:
            wanted = await self._with_member_ids(conn, wanted)
        order = sort_key(search.sort_by, one) if search.sort_by is not None else None
        ordered: list[tuple[Any, dict[str, Any]]] = []
        for kind in kinds:
            ordered += await self._matching(conn, kind, wanted, search.sort_by, order)
        ordered.sort(key=lambda item: _created(item[1]))
        if order is not None:
            ordered.sort(key=itemgetter(0), reverse=search.descending)
        found = [document for _, document in ordered]
        if search.cursor is None:
            return len(found), found[search.start - 1 : search.start - 1 + search.count], None
        first = _resume(found, after)
        stop = first + search.count
        if stop >= len(found):
            return len(found), found[first:stop], None
        if search.sort_by is None:
            last = found[stop - 1]
            end: Place = Created((instant(last["meta"]["created"]) or 0) // 1_000_000, UUID(last["id"]))
        else:
            end = Sorted(tuple(map(_anchor, found[max(0, stop - ANCHORS) : stop])))
        return len(found), found[first:stop], end

    async def _with_member_ids(self, conn: Connection, wanted: Filter) -> Filter:
        """The filter with the ids of members that the IdP names by another key, where the profile says that it may."""
        if self._directory.speaks.unknown_member == "refuse":
            return wanted
        named = named_members(wanted)
        return with_member_ids(wanted, await meant(conn, self._services.kek, self._directory, named, self._call.used))

    async def _matching(
        self, conn: Connection, kind: ResourceType, wanted: Filter | None, sort_by: str | None, order: Order | None
    ) -> list[tuple[Any, dict[str, Any]]]:
        """What matches, each with the key it is sorted by."""
        name = "groups" if kind.name == USER.name else "members"
        sorts = sort_by is not None and name in sort_by.casefold()
        values = None if sorts else asked(wanted, name) if wanted is not None else NOTHING
        at_once = GROUPS_AT_ONCE if values is None and kind.name == GROUP.name else SCAN_PAGE
        found: list[tuple[Any, dict[str, Any]]] = []
        seen = 0
        async for ids in self._narrowed(conn, kind, wanted):
            seen += len(ids)
            if seen > SCAN_MAX:
                raise TooMany(
                    f"This request has to look at more than {SCAN_MAX} resources. Filter by userName, externalId or id."
                )
            for start in range(0, len(ids), at_once):
                documents = await self._documents(conn, kind, ids[start : start + at_once])
                if values != NOTHING:
                    await self._relate(conn, kind, documents, values)
                found += await _off_loop(len(documents), partial(_picked, wanted, order, documents))
        return found

    async def _narrowed(self, conn: Connection, kind: ResourceType, wanted: Filter | None) -> AsyncIterator[list[UUID]]:
        atoms = cover(wanted) if wanted is not None else None
        if atoms is not None:
            yield await reads.candidates(conn, self._directory, kind.name, atoms)
            return
        async for ids in reads.scan_ids(conn, self._directory, kind.name, bounds(wanted) if wanted is not None else Bounds()):
            yield ids

    async def _documents(self, conn: Connection, kind: ResourceType, ids: Sequence[UUID]) -> list[dict[str, Any]]:
        if not ids:
            return []
        found = await reads.resources(conn, self._services.kek, kind.name, [(self._directory, obj) for obj in ids])
        rows = [found.get((self._directory.id, obj)) for obj in ids]
        return [with_meta(resource, self._base) for resource in rows if resource is not None]

    async def _relate(
        self, conn: Connection, kind: ResourceType, documents: Sequence[dict[str, Any]], values: frozenset[str] | None
    ) -> None:
        """Add to users their `groups`; to groups their `members`, or only those of them that have these values."""
        if kind.name == USER.name:
            await self._with_groups(conn, documents)
            return
        groups = [UUID(document["id"]) for document in documents]
        if values is None:
            members = await reads.members_of(conn, self._directory, groups)
        else:
            named = [obj for obj in map(parse_id, values) if obj is not None]
            members = await reads.members_among(conn, self._directory, groups, named) if named else {}
        for group, document in zip(groups, documents, strict=True):
            if group in members:
                document["members"] = shown_members(members[group], self._base)

    async def _with_groups(self, conn: Connection, documents: Sequence[dict[str, Any]]) -> None:
        by_id = {UUID(document["id"]): document for document in documents}
        if not by_id:
            return
        wanted = [(self._directory, user) for user in by_id]
        shown: dict[int, list[dict[str, Any]]] = {}  # users in the same groups share a list
        for (_, user), groups in (await reads.groups_of(conn, self._services.kek, wanted)).items():
            if groups:
                if id(groups) not in shown:
                    shown[id(groups)] = shown_groups(groups, self._base)
                by_id[user]["groups"] = shown[id(groups)]


def _begin(search: Search, digest: bytes) -> Place | None:
    """Where the page begins by its cursor. Raises InvalidCursor, InvalidCount."""
    if not search.cursor:
        return None
    place, count = decode(search.cursor, digest)
    if isinstance(place, Sorted) is (search.sort_by is None):
        raise InvalidCursor
    if count != search.count:
        raise InvalidCount
    return place


def _created(document: dict[str, Any]) -> tuple[str, str]:
    return document["meta"]["created"], document["id"]


def _anchor(document: dict[str, Any]) -> tuple[UUID, int]:
    return UUID(document["id"]), int(document["meta"]["version"][3:-1])


def _resume(found: Sequence[dict[str, Any]], after: Place | None) -> int:
    """The index of the first item of the page. Raises InvalidCursor where a sorted list has lost the place."""
    if after is None:
        return 0
    if isinstance(after, Created):
        return bisect_right(found, (rfc3339(after.at), str(after.id)), key=_created)
    wanted = {anchor: n for n, anchor in enumerate(after.anchors)}
    standing = [(wanted[anchor], n) for n, anchor in enumerate(map(_anchor, found)) if anchor in wanted]
    if not standing:
        raise InvalidCursor("All resources before this page were changed or deleted since. Start again with an empty cursor.")
    return max(standing)[1] + 1


async def _off_loop(size: int, work: Callable[[], T]) -> T:
    """More than a millisecond of work leaves the event loop."""
    return await anyio.to_thread.run_sync(work) if size > 50 else work()


def _picked(wanted: Filter | None, order: Order | None, documents: Sequence[dict[str, Any]]) -> list[tuple[Any, dict[str, Any]]]:
    """What matches, with its sort key; members are let go again, since the page loads its own."""
    found = [(order(d) if order else None, d) for d in documents if wanted is None or matches(wanted, d)]
    for _, document in found:
        document.pop("members", None)
    return found


def _type_of(document: dict[str, Any]) -> str:
    return document["meta"]["resourceType"]


def _only_name(kinds: Sequence[ResourceType], search: Search) -> str | None:
    """The folded userName, where a list of users is asked for by nothing else."""
    if (
        [kind.name for kind in kinds] != [USER.name]
        or search.filter is None
        or search.sort_by is not None
        or search.cursor is not None
    ):
        return None
    wanted = parse_filter(search.filter, kinds[0])
    atoms = cover(wanted)
    if atoms is None or len(atoms) != 1:
        return None
    (atom,) = atoms
    return atom.value if atom.kind == "userName" and not mentions(wanted, "groups") else None
