"""SCIM reads: one resource, and lists with filters. SQL only narrows; the one evaluator decides."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any
from uuid import UUID

import orjson

from api.scim.http import Answer, Call, as_json, streamed
from api.scim.lists import GROUPS_AT_ONCE, Listing, Selection
from api.scim.points import groups_of_user, user_by_id, user_by_name
from api.scim.resources import Encode, each, etag, group_json, object_members, shown_groups, with_meta
from api.scim.search import Search
from api.scim.writes import GROUPS_SHOWN_MAX
from api.services import Services
from ledger.commands import parse_id
from ledger.directories import Directory
from ledger.rendering import BODIES_BYTES_MAX
from projections import reads
from projections.reads import Members, Resource
from projections.user_groups import GroupOf
from scim.cursors import AfterAnchors, ListPosition, decode, encode, query_digest
from scim.discovery import list_frame, list_response
from scim.errors import InvalidCount, InvalidCursor, NotFound
from scim.filter_dependencies import refers_to
from scim.filter_index import cover, says_only_bounds
from scim.filter_parser import either, parse_filter
from scim.filters import Filter, matches
from scim.projection import Projection, needs, project, read_projection
from scim.respelling import respelt_filter, respelt_names
from scim.schema import GROUP, USER, ResourceType
from scim.sorting import Order, sort_key
from scim.strictness import Strictness, refuse_undefined

LONG_TEXT = 512  # characters of filter, attributes and sortBy together: reading more takes over a millisecond
JOINED_BYTES_MAX = 2**20  # of an answer put together on the event loop


@dataclass(frozen=True, slots=True)
class ListRequest:
    """A list request that was read: its parameters, and what they were parsed to."""

    search: Search
    projections: Mapping[str, Projection]
    wanted: Filter | None
    order: Order | None


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
        return read_projection(kind, attributes, excluded, self._call.leniency)

    async def one(self, kind: ResourceType, text: str) -> Answer:
        projection = self._projection(kind)
        obj = parse_id(text)
        resource, groups = await self._read_one(kind, obj, projection) if obj is not None else (None, None)
        if resource is None:
            raise NotFound(f"There is no {kind.name.lower()} with this id in this directory. It may have been deleted.")
        version = etag(resource.etag_rv)
        if self._call.if_none_match(version):
            return Answer(304, headers=[(b"etag", version.encode())])
        headers = [(b"etag", version.encode()), (b"location", f"{self._base}/{kind.name}s/{resource.id}".encode())]
        large = resource.size > 0 or len(groups or ()) > GROUPS_SHOWN_MAX
        whole = kind.name == USER.name or not needs(projection, "members")
        head = await self._services.ledger.turns.computed(
            self._directory.id,
            partial(self._head, projection, resource, groups, orjson.dumps if whole else object_members),
            large=large,
        )
        if whole:
            return Answer(200, head, headers)
        members = (await self._members([obj])).get(obj, Members()) if obj is not None else Members()
        return await streamed(200, each(group_json(head, projection, members, self._base)), headers)

    def _head(self, projection: Projection, resource: Resource, groups: Sequence[GroupOf] | None, write: Encode) -> bytes:
        document = with_meta(resource, self._base)
        if groups:
            document["groups"] = shown_groups(groups, self._base)
        return write(project(projection, document))

    async def _members(self, groups: Sequence[UUID]) -> dict[UUID, Members]:
        async with self._services.ledger.turns.connection(self._directory.id) as conn:
            return await reads.members_of(conn, self._directory, groups)

    async def _read_one(
        self, kind: ResourceType, obj: UUID, projection: Projection
    ) -> tuple[Resource | None, list[GroupOf] | None]:
        """The resource, and for a user its groups: two queries at once, which concurrent requests share."""
        services, directory, work = self._services, self._directory, self._call.work
        if kind.name == USER.name:
            if not needs(projection, "groups"):
                return await user_by_id(services, directory, obj, work), None
            return await asyncio.gather(
                user_by_id(services, directory, obj, work), groups_of_user(services, directory, obj, work)
            )
        async with services.ledger.turns.connection(directory.id) as conn:
            rows, _ = await reads.page(conn, directory, kind.name, [obj])
        if not rows:
            return None, None
        unseal = partial(reads.unsealed, services.ledger.kek, directory, kind.name, rows[0], work)
        return await services.ledger.turns.compute(directory.id, unseal), None

    async def many(self, kinds: Sequence[ResourceType], search: Search) -> Answer:
        """List resources of one type, or of several together (RFC 7644 §3.4.2.1)."""
        texts = (search.filter, search.sort_by, search.attributes, search.excluded)
        large = sum(len(text) for text in texts if text is not None) > LONG_TEXT
        if large:
            self._call.watch()
        request = await self._services.ledger.turns.computed(
            self._directory.id, partial(self._read_request, kinds, search), large=large
        )
        name = None if large else _user_name_alone(kinds, request)
        if name is not None:
            return await self._by_user_name(name, request)
        self._call.watch()
        search = request.search
        digest = self._digest(kinds, search) if search.cursor is not None else b""
        after = _position_in(search, digest)
        listing = Listing(self._services, self._directory, self._base, self._call.work, self._call.leniency)
        if _indexed(kinds, request):
            selection = await listing.indexed(kinds[0], search, after, request.wanted)
        else:
            selection = await listing.selected(kinds, search, after, request.wanted, request.order)

        def frame(shown: int, used: int) -> dict[str, Any]:
            """The ListResponse without its resources, for a page that shows this many of the items it visited."""
            end = selection.end(used)
            following = None if end is None else encode(end, digest, search.count)
            return list_frame(shown, selection.total, search.start if search.cursor is None else None, following)

        if GROUP.name in request.projections and needs(request.projections[GROUP.name], "members"):
            return await streamed(200, self._page_json(listing, selection, request.projections, frame), [])
        page = await listing.shown(selection.items, request.projections, orjson.dumps)
        head = b"{" + object_members(frame(len(page.pieces), page.used)) + b',"Resources":['
        pieces = page.pieces or [b""]
        pieces[0] = head + pieces[0]  # so that the whole page is copied only once
        pieces[-1] += b"]}"
        body = await self._services.ledger.turns.computed(
            self._directory.id, lambda: b",".join(pieces), large=page.size > JOINED_BYTES_MAX
        )
        return Answer(200, body)

    def _read_request(self, kinds: Sequence[ResourceType], search: Search) -> ListRequest:
        """Parse the parameters. Raises InvalidFilter, InvalidPath and InvalidValue for the filter, the order and the names."""
        search = self._respelt(kinds, search)
        projections = {kind.name: self._read_projection(kind, search.attributes, search.excluded) for kind in kinds}
        one = self._one_of(kinds)
        wanted = parse_filter(search.filter, one) if search.filter is not None else None
        if wanted is not None and self._call.leniency.demands(Strictness.KNOWN_ATTRIBUTES):
            refuse_undefined(wanted)
        return ListRequest(search, projections, wanted, sort_key(search.sort_by, one) if search.sort_by is not None else None)

    def _one_of(self, kinds: Sequence[ResourceType]) -> ResourceType:
        return kinds[0] if len(kinds) == 1 else either(self._directory.user_type, self._directory.group_type)

    def _respelt(self, kinds: Sequence[ResourceType], search: Search) -> Search:
        one, leniency = self._one_of(kinds), self._call.leniency
        if search.sort_by is not None:
            search = replace(search, sort_by=respelt_names(search.sort_by, one, leniency))
        if search.filter is None:
            return search
        text = respelt_filter(search.filter, one, leniency)
        if text is search.filter:
            return search
        self._call.filter = text  # for the journal, which could not read it as it was sent
        return replace(search, filter=text)

    async def _page_json(
        self,
        listing: Listing,
        selection: Selection,
        projections: Mapping[str, Projection],
        frame: Callable[[int, int], dict[str, Any]],
    ) -> AsyncIterator[bytes]:
        """A page with groups, which may have any number of members: `itemsPerPage` comes last, when it is known how many groups fit.

        No connection is held while a part is sent: a client that reads slowly holds up nobody.
        """
        page = await listing.shown(selection.items, projections, object_members)
        yield b'{"Resources":['
        sent = shown = 0
        members: dict[UUID, Members] = {}
        for n, head in enumerate(page.pieces):
            if sent > BODIES_BYTES_MAX:
                break
            self._call.work.spend(1)
            if n % GROUPS_AT_ONCE == 0:
                near = [selection.items[place] for place in page.places[n : n + GROUPS_AT_ONCE]]
                members = await self._members([item.id for item in near if item.kind == GROUP.name])
            item = selection.items[page.places[n]]
            if n:
                yield b","
            for piece in group_json(head, projections[item.kind], members.get(item.id, Members()), self._base):
                sent += len(piece) if n else 0
                yield piece
            shown += 1
        used = page.used if shown == len(page.pieces) else page.places[shown]
        yield b"]," + object_members(frame(shown, used)) + b"}"

    async def _by_user_name(self, name: str, request: ListRequest) -> Answer:
        """Answer `userName eq "…"`, which every IdP sends before it creates a user: in queries that concurrent requests share."""
        services, directory, work, projection = self._services, self._directory, self._call.work, request.projections[USER.name]
        resource = await user_by_name(services, directory, name, work)
        documents = [with_meta(resource, self._base)] if resource is not None else []
        if resource is not None and needs(projection, "groups"):
            groups = await groups_of_user(services, directory, resource.id, work)
            if groups:
                documents[0]["groups"] = shown_groups(groups, self._base)
        wanted, search = request.wanted, request.search
        assert wanted is not None
        found = [document for document in documents if matches(wanted, document, work)]
        page = found[search.start - 1 : search.start - 1 + search.count]
        return as_json(200, list_response([project(projection, document) for document in page], len(found), search.start))

    def _digest(self, kinds: Sequence[ResourceType], search: Search) -> bytes:
        order = None if search.sort_by is None else str(search.descending)
        parts = [*(kind.name for kind in kinds), search.filter, search.sort_by, order]
        return query_digest(self._directory.index_key, parts)


def _position_in(search: Search, digest: bytes) -> ListPosition | None:
    """The position in the cursor after which the page begins; None for the first page. Raises InvalidCursor, InvalidCount."""
    if not search.cursor:
        return None
    place, count = decode(search.cursor, digest)
    if isinstance(place, AfterAnchors) is (search.sort_by is None):
        raise InvalidCursor
    if count != search.count:
        raise InvalidCount
    return place


def _indexed(kinds: Sequence[ResourceType], request: ListRequest) -> bool:
    """Whether the rows of the read model tell what is on the page, and how many there are, without a document."""
    if len(kinds) != 1 or request.search.sort_by is not None:
        return False
    return request.wanted is None or says_only_bounds(request.wanted, kinds[0].name)


def _user_name_alone(kinds: Sequence[ResourceType], request: ListRequest) -> str | None:
    """The casefolded userName, where the request is for users with that userName and nothing else; else None."""
    search, wanted = request.search, request.wanted
    if [kind.name for kind in kinds] != [USER.name] or wanted is None or search.sort_by is not None or search.cursor is not None:
        return None
    atoms = cover(wanted)
    if atoms is None or len(atoms) != 1:
        return None
    (atom,) = atoms
    return atom.value if atom.kind == "userName" and not refers_to(wanted, "groups") else None
