"""Read current users, groups and memberships from the read models, and open their attributes."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
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
from ledger.events import MEMBER_TYPE_NAMES, USER
from ledger.ids import DirectoryNumber, Seq
from ledger.rendering import BODIES_BYTES_MAX, DAMAGED, tell_unreadable
from ledger.sealing import DISPLAY_NAME, EMAIL, EXTERNAL_ID, USER_NAME, Kek, mac, open_payload, unwrap_key
from proofs.body import PayloadTooLargeError
from scim.filter_index import Atom
from scim.work import Work, reading

SQL: Final = load_queries(__file__)
SCAN_PAGE: Final = 500  # resources that a filter reads at once
SCAN_MAX: Final = 100_000  # documents that a filter may open; above it the SCIM error tooMany
SHARED_BYTES_MAX: Final = 64 * 1024  # largest body that is read in a shared query


class Alone:
    """A marker instead of a result that is too large for a shared query: the request then reads it alone."""


ALONE: Final = Alone()


class Resource(NamedTuple):
    """A current user or group; times are µs since the epoch."""

    type: str
    id: UUID
    document: dict[str, Any]
    etag_rv: int
    created_at: int
    updated_at: int
    size: int = 0  # bytes of its body, if it may be large


def open_sized(
    kek: Kek, directory: Directory, obj: UUID, seq: Seq, ct: bytes, wrapped: bytes, bytes_max: int | None = None
) -> tuple[dict[str, Any], int]:
    """Open the body at `seq`; return its document and the bytes of the body.

    Raises PayloadTooLargeError for a body of `bytes_max` bytes or more, and the errors in DAMAGED.
    """
    key = unwrap_key(kek, wrapped, directory=directory.uuid, obj=obj)
    payload = open_payload(key, ct, directory=directory.uuid, obj=obj, seq=seq, payload_max=bytes_max)
    return orjson.loads(payload)["data"]["object"], len(payload)


def open_document(kek: Kek, directory: Directory, obj: UUID, seq: Seq, ct: bytes, wrapped: bytes) -> dict[str, Any]:
    """Open the body at `seq` and return its document. Raises the errors in DAMAGED."""
    return open_sized(kek, directory, obj, seq, ct, wrapped)[0]


def readable(
    kek: Kek,
    directory: Directory,
    place: tuple[str, UUID, Seq],
    ct: bytes,
    wrapped: bytes,
    *,
    active: bool = True,
    name: str = "",
    bytes_max: int | None = None,
) -> tuple[dict[str, Any], int]:
    """Open the document of (type, resource, seq) for SCIM. A damaged body does not fail the page or the shared query.

    Instead of a damaged document it returns one with the id, the activity and a name that says so (or `name`), so that no IdP takes
    the resource for deleted. Raises PayloadTooLargeError if `bytes_max` is given.
    """
    ot, obj, seq = place
    try:
        return open_sized(kek, directory, obj, seq, ct, wrapped, bytes_max)
    except DAMAGED as broken:
        if bytes_max is not None and isinstance(broken, PayloadTooLargeError):
            raise
        tell_unreadable(directory, seq)
    shown = name or f"(unreadable) {obj}"
    if ot == USER:
        return {"schemas": [directory.user_type.schema], "id": str(obj), "userName": shown, "active": active}, 0
    return {"schemas": [directory.group_type.schema], "id": str(obj), "displayName": shown}, 0


async def users_together(
    conn: Connection, kek: Kek, wanted: Sequence[tuple[Directory, UUID]]
) -> dict[tuple[DirectoryNumber, UUID], Resource | Alone]:
    """Read users for several requests at once. A large user is ALONE, so that the other requests do not wait for it."""
    by_id = {directory.id: directory for directory, _ in wanted}
    params = (int4s([d.id for d, _ in wanted]), uuids([i for _, i in wanted]), SHARED_BYTES_MAX)
    rows = await (await conn.cursor(binary=True).execute(SQL["users_by_id"], params)).fetchall()

    def unseal() -> dict[tuple[DirectoryNumber, UUID], Resource | Alone]:
        return {(number, obj): _open_small(kek, by_id[number], (obj, *columns)) for number, obj, *columns in rows}

    return unseal() if len(rows) < 32 else await anyio.to_thread.run_sync(unseal)


def _open_small(kek: Kek, directory: Directory, row: Sequence[Any], name: str = "") -> Resource | Alone:
    obj, active, body_seq, etag_rv, created, updated, ct, wrapped = row
    if ct is None:
        return ALONE
    try:
        place = (USER, obj, body_seq)
        document, _ = readable(kek, directory, place, ct, wrapped, active=active, name=name, bytes_max=SHARED_BYTES_MAX)
    except PayloadTooLargeError:
        return ALONE
    return Resource(USER, obj, document, etag_rv, created, updated)


NameKey = tuple[Directory, str]  # a directory and a casefolded userName


async def users_by_name(
    conn: Connection, kek: Kek, wanted: Sequence[NameKey]
) -> dict[tuple[DirectoryNumber, str], Resource | Alone]:
    """Read users by casefolded userName, in the same way."""
    macs = {(d.id, mac(d.index_key, USER_NAME, name)): (d, name) for d, name in wanted}
    params = (int4s([number for number, _ in macs]), byteas([key for _, key in macs]), SHARED_BYTES_MAX)
    rows = await (await conn.cursor(binary=True).execute(SQL["users_by_name"], params)).fetchall()

    def unseal() -> dict[tuple[DirectoryNumber, str], Resource | Alone]:
        found: dict[tuple[DirectoryNumber, str], Resource | Alone] = {}
        for key, number, *rest in rows:
            directory, name = macs[number, bytes(key)]
            found[number, name] = _open_small(kek, directory, rest, name)
        return found

    return unseal() if len(rows) < 32 else await anyio.to_thread.run_sync(unseal)


class SealedResource(NamedTuple):
    """A resource as it is stored; times are µs since the epoch."""

    id: UUID
    body_seq: Seq
    etag_rv: int
    created_at: int
    updated_at: int
    ct: bytes
    wrapped: bytes
    active: bool


async def page(
    conn: Connection, directory: Directory, ot: str, ids: Sequence[UUID], *, bytes_max: int = BODIES_BYTES_MAX
) -> tuple[list[SealedResource], int]:
    """Sealed resources in the order of `ids`, as far as their bodies fit (at least one), and how many ids that covers.

    Missing ones are left out. They are opened later, after the connection was returned, because opening takes time.
    """
    if not ids:
        return [], 0
    name = "users_page" if ot == USER else "groups_page"
    rows = await (await conn.cursor(binary=True).execute(SQL[name], (directory.id, uuids(ids), bytes_max))).fetchall()
    found: list[SealedResource] = []
    for place, obj, body_seq, etag_rv, created, updated, ct, wrapped, active in rows:
        if ct is None:  # the budget ends before it
            return found, place - 1
        found.append(SealedResource(obj, body_seq, etag_rv, created, updated, ct, wrapped, active))
    return found, len(ids)


def unsealed(kek: Kek, directory: Directory, ot: str, sealed: SealedResource, work: Work) -> Resource:
    """Open a sealed resource. Raises as Work.spend does."""
    work.spend(reading(len(sealed.ct)))
    place = (ot, sealed.id, sealed.body_seq)
    document, size = readable(kek, directory, place, sealed.ct, sealed.wrapped, active=sealed.active)
    work.spend(max(0, reading(size) - reading(len(sealed.ct))))
    return Resource(ot, sealed.id, document, sealed.etag_rv, sealed.created_at, sealed.updated_at, size)


async def candidates(conn: Connection, directory: Directory, ot: str, atoms: Iterable[Atom]) -> list[UUID]:
    """The ids of resources that satisfy at least one of the equalities: a superset of the matches of a filter with this cover."""
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


def blind(directory: Directory, kind: str, value: str) -> bytes:
    """The HMAC that a value is looked up by. A userName is casefolded first, an externalId is not."""
    return mac(directory.index_key, _MAC_KINDS[kind], value)


async def owners(conn: Connection, directory: Directory, kind: str, macs: Sequence[bytes]) -> dict[bytes, tuple[UUID, int]]:
    """For each HMAC of a userName or externalId that is in use: a user that has it, and how many users have it."""
    name = "owners_of_user_names" if kind == "userName" else "owners_of_external_ids"
    rows = await (await conn.cursor(binary=True).execute(SQL[name], (directory.id, byteas(macs)))).fetchall()
    return {bytes(key): (user, many) for key, user, many in rows}


async def ids_among(conn: Connection, directory: Directory, ids: Sequence[UUID]) -> set[UUID]:
    """The ids that belong to a user or group of the directory."""
    if not ids:
        return set()
    rows = await (await conn.cursor(binary=True).execute(SQL["ids_among"], (directory.id, uuids(ids)))).fetchall()
    return {row[0] for row in rows}


class Listed(NamedTuple):
    """A current user or group without its attributes. `created_at`: µs since the epoch. Groups are always active."""

    id: UUID
    active: bool
    body_seq: Seq
    created_at: int


async def listed_after(conn: Connection, directory: Directory, ot: str, *, after: UUID | None, limit: int) -> list[Listed]:
    """All users or groups by id, after an id."""
    name = "users_after" if ot == USER else "groups_after"
    params = (directory.id, after or UUID(int=0), limit)
    return [Listed(*row) for row in await (await conn.cursor(binary=True).execute(SQL[name], params)).fetchall()]


async def listed_among(
    conn: Connection, directory: Directory, ot: str, ids: Sequence[UUID], *, after: UUID | None, limit: int
) -> list[Listed]:
    """Those among some ids, in the same way. Ids of other directories are left out."""
    name = "users_among" if ot == USER else "groups_among"
    params = (directory.id, uuids(ids), after or UUID(int=0), limit)
    return [Listed(*row) for row in await (await conn.cursor(binary=True).execute(SQL[name], params)).fetchall()]


_MAC_KINDS: Final = {"userName": USER_NAME, "externalId": EXTERNAL_ID, "displayName": DISPLAY_NAME, "emails.value": EMAIL}


@dataclass(frozen=True, slots=True)
class Members:
    """The stored members of a group in the order they were added. Packed: 37 bytes for each, instead of a kilobyte as an object."""

    ids: str = ""  # 36 characters each
    types: str = ""  # one digit each: MEMBER_TYPES

    def __len__(self) -> int:
        return len(self.types)

    def __iter__(self) -> Iterator[tuple[str, str]]:
        """Each member's id and type."""
        return ((self.ids[36 * n : 36 * n + 36], MEMBER_TYPE_NAMES[int(digit)]) for n, digit in enumerate(self.types))


async def members_of(conn: Connection, directory: Directory, groups: Sequence[UUID]) -> dict[UUID, Members]:
    """The stored members of groups. Groups without members are left out."""
    params = (int4s([directory.id] * len(groups)), uuids(groups))
    rows = await (await conn.cursor(binary=True).execute(SQL["open_members"], params)).fetchall()
    return {group: Members(ids, types) for group, ids, types in rows}


async def members_among(
    conn: Connection, directory: Directory, groups: Sequence[UUID], members: Sequence[UUID]
) -> dict[UUID, Members]:
    """The stored members of groups, but only those among some members: what a filter on members needs, even of a large group."""
    rows = await (
        await conn.cursor(binary=True).execute(SQL["open_members_among"], (directory.id, uuids(groups), uuids(members)))
    ).fetchall()
    return {group: Members(ids, types) for group, ids, types in rows}
