"""Reading current users, groups and memberships out of the read models, with their attributes unsealed."""

from collections import defaultdict
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple
from uuid import UUID

import anyio.to_thread
import orjson

from database.arrays import byteas, int4s, uuids
from database.connections import Connection
from database.queries import load_queries
from ledger.commands import parse_id
from ledger.directories import Directory
from ledger.events import GROUP, MEMBER_TYPE_NAMES, USER
from ledger.rendering import DAMAGED, tell_unreadable
from ledger.sealing import DISPLAY_NAME, EMAIL, EXTERNAL_ID, USER_NAME, Kek, mac, open_payload, unwrap_key
from scim.filters import Atom, Bounds

SQL: Final = load_queries(__file__)
SCAN_PAGE: Final = 500
SCAN_MAX: Final = 100_000  # documents a filter may unseal; above it the SCIM error tooMany
_MIN, _MAX = -(2**62), 2**62


@dataclass(frozen=True, slots=True)
class Resource:
    """A user or group as of now; times are µs since the epoch."""

    type: str
    id: UUID
    document: dict[str, Any]
    etag_rv: int
    created_at: int
    updated_at: int


class GroupOf(NamedTuple):
    """A group that holds a user: itself (`direct`), or through groups that are its members."""

    id: UUID
    name: str  # displayName
    direct: bool


def open_document(kek: Kek, directory: Directory, obj: UUID, seq: int, ct: bytes, wrapped: bytes) -> dict[str, Any]:
    """Unseal the document that stands in the body at `seq`."""
    key = unwrap_key(kek, wrapped, directory=directory.uuid, obj=obj)
    payload = open_payload(key, ct, directory=directory.uuid, obj=obj, seq=seq)
    return orjson.loads(payload)["data"]["object"]


def readable_document(
    kek: Kek,
    directory: Directory,
    place: tuple[str, UUID, int],
    ct: bytes,
    wrapped: bytes,
    *,
    active: bool = True,
    name: str = "",
) -> dict[str, Any]:
    """The same for SCIM, of (type, resource, seq). One damaged body costs nobody else a page or a shared query.

    A stand-in takes its place: the id, the activity and a name that says so (`name` where that is known), which every client can
    read; nobody is taken for gone.
    """
    ot, obj, seq = place
    try:
        return open_document(kek, directory, obj, seq, ct, wrapped)
    except DAMAGED:
        tell_unreadable(directory, seq)
    shown = name or f"(unreadable) {obj}"
    if ot == USER:
        return {"schemas": [directory.user_type.schema], "id": str(obj), "userName": shown, "active": active}
    return {"schemas": [directory.group_type.schema], "id": str(obj), "displayName": shown}


async def resources(
    conn: Connection, kek: Kek, ot: str, wanted: Sequence[tuple[Directory, UUID]]
) -> dict[tuple[int, UUID], Resource]:
    """Read many resources in one query. What does not exist is left out."""
    by_id = {directory.id: directory for directory, _ in wanted}
    params = (int4s([d.id for d, _ in wanted]), uuids([i for _, i in wanted]))
    name = "users_by_id" if ot == USER else "groups_by_id"
    rows = await (await conn.cursor(binary=True).execute(SQL[name], params)).fetchall()

    def unseal() -> dict[tuple[int, UUID], Resource]:
        found: dict[tuple[int, UUID], Resource] = {}
        for d, obj, active, body_seq, etag_rv, created, updated, ct, wrapped in rows:
            document = readable_document(kek, by_id[d], (ot, obj, body_seq), ct, wrapped, active=active)
            found[d, obj] = Resource(ot, obj, document, etag_rv, created, updated)
        return found

    # A page or a scan leaves the event loop; a point read is cheaper than the way to a thread.
    return unseal() if len(rows) < 32 else await anyio.to_thread.run_sync(unseal)


NameKey = tuple[Directory, str]  # a directory and a folded userName


async def users_by_name(conn: Connection, kek: Kek, wanted: Sequence[NameKey]) -> dict[tuple[int, str], Resource]:
    """Read users by folded userName, many in one query."""
    macs = {(d.id, mac(d.index_key, USER_NAME, name)): (d, name) for d, name in wanted}
    params = (int4s([number for number, _ in macs]), byteas([key for _, key in macs]))
    rows = await (await conn.cursor(binary=True).execute(SQL["users_by_name"], params)).fetchall()
    found: dict[tuple[int, str], Resource] = {}
    for key, number, obj, active, body_seq, etag_rv, created, updated, ct, wrapped in rows:
        directory, name = macs[number, bytes(key)]
        document = readable_document(kek, directory, (USER, obj, body_seq), ct, wrapped, active=active, name=name)
        found[number, name] = Resource(USER, obj, document, etag_rv, created, updated)
    return found


async def candidates(conn: Connection, directory: Directory, ot: str, atoms: Iterable[Atom]) -> list[UUID]:
    """Ids of the resources that satisfy at least one equality: a superset of what a filter with this cover matches."""
    macs: dict[str, list[bytes]] = defaultdict(list)
    ids: dict[str, list[UUID]] = defaultdict(list)
    for atom in atoms:
        if atom.kind in _MAC_KINDS:
            macs[atom.kind].append(mac(directory.index_key, _MAC_KINDS[atom.kind], atom.value))
        elif (parsed := parse_id(atom.value)) is not None:
            ids[atom.kind].append(parsed)
    if ot == USER:
        params = (
            directory.id,
            *(byteas(macs[k]) for k in ("userName", "externalId", "displayName", "emails.value")),
            uuids(ids["id"]),
        )
        name = "user_ids_by_key"
    else:
        params = (
            directory.id,
            *(byteas(macs[k]) for k in ("displayName", "externalId")),
            uuids(ids["members.value"]),
            uuids(ids["id"]),
        )
        name = "group_ids_by_key"
    return [row[0] for row in await (await conn.cursor(binary=True).execute(SQL[name], params)).fetchall()]


_MAC_KINDS: Final = {"userName": USER_NAME, "externalId": EXTERNAL_ID, "displayName": DISPLAY_NAME, "emails.value": EMAIL}


async def count(conn: Connection, directory: Directory, ot: str) -> int:
    """How many resources of a type the directory has."""
    row = await (await conn.execute(SQL["count_users" if ot == USER else "count_groups"], (directory.id,))).fetchone()
    return row[0] if row else 0


async def page_ids(conn: Connection, directory: Directory, ot: str, offset: int, limit: int) -> list[UUID]:
    """Ids by time of creation."""
    name = "page_of_users" if ot == USER else "page_of_groups"
    rows = await (await conn.cursor(binary=True).execute(SQL[name], (directory.id, offset, limit))).fetchall()
    return [row[0] for row in rows]


async def page_after(conn: Connection, directory: Directory, ot: str, at: int, last: UUID, limit: int) -> list[tuple[int, UUID]]:
    """Creation time and id of what comes after a place, by time of creation."""
    everything = (_MIN, _MAX)
    if ot == USER:
        name, params = "users_after", (directory.id, at, last, None, *everything, *everything, limit)
    else:
        name, params = "groups_after", (directory.id, at, last, *everything, limit)
    rows = await (await conn.cursor(binary=True).execute(SQL[name], params)).fetchall()
    return [(row[0], row[1]) for row in rows]


async def scan_ids(conn: Connection, directory: Directory, ot: str, bounds: Bounds) -> AsyncIterator[list[UUID]]:
    """All ids within the bounds of a filter, by time of creation, in pages and short statements."""
    created = (bounds.created_min or _MIN, bounds.created_max or _MAX)
    modified = (bounds.modified_min or _MIN, bounds.modified_max or _MAX)
    at, last = _MIN, UUID(int=0)
    while True:
        if ot == USER:
            name, params = "users_after", (directory.id, at, last, bounds.active, *created, *modified, SCAN_PAGE)
        else:
            name, params = "groups_after", (directory.id, at, last, *created, SCAN_PAGE)
        rows = await (await conn.cursor(binary=True).execute(SQL[name], params)).fetchall()
        if not rows:
            return
        yield [row[1] for row in rows]
        at, last = rows[-1]


@dataclass(frozen=True, slots=True)
class Members:
    """The stored members of a group in the order they were added, packed: 37 bytes each, where a parsed one takes a kilobyte."""

    ids: str = ""  # 36 characters each
    types: str = ""  # one digit each: MEMBER_TYPES

    def __len__(self) -> int:
        return len(self.types)

    def __iter__(self) -> Iterator[tuple[str, str]]:
        """Each member's id and type."""
        return ((self.ids[36 * n : 36 * n + 36], MEMBER_TYPE_NAMES[int(digit)]) for n, digit in enumerate(self.types))


async def members_of(conn: Connection, directory: Directory, groups: Sequence[UUID]) -> dict[UUID, Members]:
    """The stored members of groups; groups without any are left out."""
    params = (int4s([directory.id] * len(groups)), uuids(groups))
    rows = await (await conn.cursor(binary=True).execute(SQL["open_members"], params)).fetchall()
    return {group: Members(ids, types) for group, ids, types in rows}


async def members_among(
    conn: Connection, directory: Directory, groups: Sequence[UUID], members: Sequence[UUID]
) -> dict[UUID, Members]:
    """The same, of these members only: what a filter that asks for them depends on, however large the group is."""
    rows = await (
        await conn.cursor(binary=True).execute(SQL["open_members_among"], (directory.id, uuids(groups), uuids(members)))
    ).fetchall()
    return {group: Members(ids, types) for group, ids, types in rows}


async def groups_of(
    conn: Connection, kek: Kek, members: Sequence[tuple[Directory, UUID]]
) -> dict[tuple[int, UUID], list[GroupOf]]:
    """The groups that hold users, the direct ones first."""
    by_id = {directory.id: directory for directory, _ in members}
    params = (int4s([d.id for d, _ in members]), uuids([member for _, member in members]))
    rows = await (await conn.cursor(binary=True).execute(SQL["open_groups"], params)).fetchall()

    def gather() -> dict[tuple[int, UUID], list[GroupOf]]:
        names: dict[UUID, str] = {}
        above: dict[UUID, list[tuple[int, UUID]]] = defaultdict(list)
        for number, group, body_seq, ct, wrapped, held, since in rows:
            names[group] = readable_document(kek, by_id[number], (GROUP, group, body_seq), ct, wrapped)["displayName"]
            for member, seq in zip(held, since, strict=True):
                above[member].append((seq, group))
        in_order = {member: tuple(group for _, group in sorted(found)) for member, found in above.items()}
        # Most users of a page are in the same groups as others: they share one list.
        shared = {direct: _groups_above(in_order, names, direct) for direct in {in_order.get(m, ()) for _, m in members}}
        return {(d.id, member): shared[in_order.get(member, ())] for d, member in members}

    return gather() if len(rows) < 32 and len(members) < 32 else await anyio.to_thread.run_sync(gather)


def _groups_above(above: Mapping[UUID, Sequence[UUID]], names: Mapping[UUID, str], direct: Sequence[UUID]) -> list[GroupOf]:
    found = dict.fromkeys(direct, True)
    ahead = list(found)
    for group in ahead:  # it grows while it is gone through
        for parent in above.get(group, ()):
            if parent not in found:
                found[parent] = False
                ahead.append(parent)
    return [GroupOf(group, names[group], is_direct) for group, is_direct in found.items()]
