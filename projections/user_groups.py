"""The groups that users are in, directly or through member groups: the attribute `groups` of a user (RFC 7643 §4.1.2)."""

from collections import OrderedDict
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import lru_cache
from struct import Struct
from typing import Final, NamedTuple, TypeVar
from uuid import UUID

import anyio.to_thread

from database.arrays import int4s, int8s, uuids
from database.connections import Connection
from database.queries import load_queries
from ledger.directories import Directory
from ledger.events import GROUP
from ledger.ids import DirectoryNumber, Seq
from ledger.sealing import MAC_SIZE, Kek
from ledger.turns import Turns
from projections import reads
from projections.reads import ALONE, SHARED_BYTES_MAX, Alone, SealedResource
from proofs.body import PayloadTooLargeError
from scim.errors import TooMany
from scim.work import Work, reading

SQL: Final = load_queries(__file__)
Form = TypeVar("Form")  # the form of a group
SHARED_ROWS_MAX: Final = 2_000  # memberships in a shared query
EDGES_MAX: Final = 500_000  # memberships that are followed for the groups of a page of users; takes a second in the database
NAMES_MAX: Final = 10_000  # names in memory: at most 13 MB
NAME_CHARS_MAX: Final = 256  # longer names are not kept in memory
_ID: Final = 16  # bytes
_IDS_AT_ONCE: Final = 64
_ROW: Final = Struct("!16siq")


class GroupOf(NamedTuple):
    """A group that a user is in, directly (`direct`) or through member groups."""

    id: str
    name: str  # displayName
    direct: bool


class Above(NamedTuple):
    """All groups above some users, packed as the database sends them: as objects, a page of users in many groups would be thousands.

    The id of a group is its 16 bytes. `direct`: the ids of the groups that each user is in directly. `rows`: of each group what finds its
    name, see _unpacked; it begins with the id. `parents`: the groups that a group is a member of. All lists are ordered by seq.
    """

    direct: list[bytes]
    rows: list[bytes]
    parents: dict[bytes, Sequence[bytes]]

    @property
    def edges(self) -> int:
        """The memberships that were followed."""
        return sum(map(len, self.direct)) // _ID + sum(map(len, self.parents.values()))


class Name(NamedTuple):
    """The name of a group, in the form that users show it, and the steps that reading its body costs."""

    group: GroupOf
    steps: int


class Sealed(NamedTuple):
    """What tells the names of some groups: those that are remembered, and the bodies of the others (None: a long one), by id."""

    remembered: Mapping[bytes, Name]
    bodies: Mapping[bytes, bytes | None]


class GroupNames:
    """Opens the displayNames of groups, and remembers the newest of them, because most users of a page are in the same groups.

    A name is found only by its group, the seq of the newest body, the HMAC of the name and the wrapped key, which are read for each
    request: after a change, after a loss of the log's end, and once an erasure has deleted the key, nothing asks for the older name any
    more.
    """

    def __init__(self, kek: Kek) -> None:
        self._kek = kek
        self._names: OrderedDict[bytes, Name] = OrderedDict()  # by row; its methods are atomic: worker threads share it

    def remembered(self, rows: Sequence[bytes]) -> dict[bytes, Name]:
        """Those names that need not be opened. Only these may be relied on: another request may push a name out at any time."""
        known = self._names.get
        return {row[:_ID]: name for row in rows if (name := known(row)) is not None}

    def forget(self, groups: Collection[UUID]) -> None:
        """Forget the names of erased groups."""
        ids = {group.bytes for group in groups}
        for row in [row for row in list(self._names) if row[:_ID] in ids]:
            self._names.pop(row, None)

    def opened(
        self,
        directories: Mapping[DirectoryNumber, Directory],
        rows: Sequence[bytes],
        sealed: Sealed,
        bytes_max: int | None = None,
    ) -> dict[bytes, Name]:
        """The names of groups by id, without those whose body is long or gone. Raises PayloadTooLargeError."""
        names = dict(sealed.remembered)
        if len(names) == len(rows):
            return names
        for row in rows:
            ct = sealed.bodies.get(row[:_ID])
            if ct is not None:
                names[row[:_ID]] = self._opened(directories, row, ct, bytes_max)
        return names

    def _opened(self, directories: Mapping[DirectoryNumber, Directory], row: bytes, ct: bytes, bytes_max: int | None) -> Name:
        obj, directory, body_seq, wrapped = _unpacked(row)
        place = (GROUP, obj, body_seq)
        document, size = reads.readable(self._kek, directories[directory], place, ct, wrapped, bytes_max=bytes_max)
        name = Name(GroupOf(str(obj), document["displayName"], direct=True), reading(size))
        if size and len(name.group.name) <= NAME_CHARS_MAX:  # a damaged body has no size; each read of it is logged
            self._names[row] = name
            if len(self._names) > NAMES_MAX:
                self._names.popitem(last=False)
        return name

    async def long_ones(self, turns: Turns, directory: Directory, groups: Sequence[UUID], work: Work) -> dict[bytes, Name]:
        """The names of groups with long bodies, read one after the other; their steps are spent already."""
        names: dict[bytes, Name] = {}
        while groups:
            async with turns.connection(directory.id) as conn:
                rows, looked_at = await reads.page(conn, directory, GROUP, groups)
            groups = groups[looked_at:]

            def read(rows: Sequence[SealedResource] = rows) -> dict[bytes, Name]:
                opened = (reads.unsealed(self._kek, directory, GROUP, sealed, work) for sealed in rows)
                return {r.id.bytes: Name(GroupOf(str(r.id), r.document["displayName"], direct=True), 0) for r in opened}

            names |= await turns.compute(directory.id, read)
        return names


async def groups_above(conn: Connection, users: Sequence[tuple[Directory, UUID]], edges_max: int) -> Above:
    """All groups above the users, following about `edges_max` memberships at most."""
    params = (int4s([directory.id for directory, _ in users]), uuids([user for _, user in users]), edges_max)
    found = await (await conn.cursor(binary=True).execute(SQL["groups_above"], params)).fetchone()
    assert found is not None
    rows, members, groups = found
    direct = [b""] * len(users)
    for packed in members:
        direct[int.from_bytes(packed[:4], "big") - 1] = packed[4:]
    return Above(direct, rows, {packed[:_ID]: _ids(packed[_ID:]) for packed in groups})


async def sealed_names(conn: Connection, names: GroupNames, rows: Sequence[bytes]) -> Sealed:
    """The names of groups as far as they are remembered, and the sealed bodies of the others."""
    remembered = names.remembered(rows)
    unknown = [row for row in rows if row[:_ID] not in remembered] if len(remembered) < len(rows) else []
    if not unknown:
        return Sealed(remembered, {})
    places = {(number, seq): obj.bytes for obj, number, seq, _ in map(_unpacked, unknown)}
    params = (int4s([number for number, _ in places]), int8s([seq for _, seq in places]), SHARED_BYTES_MAX)
    bodies = await (await conn.cursor(binary=True).execute(SQL["bodies_at"], params)).fetchall()
    return Sealed(remembered, {places[number, seq]: ct for number, seq, ct in bodies})


def as_it_is(group: GroupOf) -> GroupOf:
    """For callers that render nothing."""
    return group


async def groups_together(
    conn: Connection, names: GroupNames, users: Sequence[tuple[Directory, UUID]]
) -> dict[tuple[DirectoryNumber, UUID], list[GroupOf] | Alone]:
    """The groups of users, direct ones first, for several requests at once; ALONE if there are many."""
    by_id = {directory.id: directory for directory, _ in users}
    above = await groups_above(conn, users, SHARED_ROWS_MAX)
    alone: dict[tuple[DirectoryNumber, UUID], list[GroupOf] | Alone] = {(d.id, user): ALONE for d, user in users}
    if above.edges >= SHARED_ROWS_MAX:
        return alone
    sealed = await sealed_names(conn, names, above.rows)
    if None in sealed.bodies.values():
        return alone

    def gather() -> dict[tuple[DirectoryNumber, UUID], list[GroupOf] | Alone]:
        try:
            opened = names.opened(by_id, above.rows, sealed, SHARED_BYTES_MAX)
        except PayloadTooLargeError:
            return alone
        return {(d.id, user): found for (d, user), found in zip(users, gathered(above, opened, as_it_is), strict=True)}

    return gather() if len(above.rows) < 32 and len(users) < 32 else await anyio.to_thread.run_sync(gather)


async def groups_of(
    turns: Turns,
    names: GroupNames,
    directory: Directory,
    users: Sequence[UUID],
    work: Work,
    shown: Callable[[GroupOf], Form],
) -> dict[UUID, list[Form]]:
    """The groups of users of one directory, direct ones first. No connection is held while they are computed.

    `shown` gives the form of a group, once for all users. Users in the same groups share one list. Raises TooMany for more than
    EDGES_MAX memberships.
    """
    async with turns.connection(directory.id) as conn:
        above = await groups_above(conn, [(directory, user) for user in users], EDGES_MAX + 1)
        if above.edges > EDGES_MAX:
            raise TooMany(
                f"These users are in more than {EDGES_MAX} groups together. Ask for fewer, or exclude the attribute groups."
            )
        sealed = await sealed_names(conn, names, above.rows)
    if not above.rows:
        return {}
    long = [UUID(bytes=group) for group, ct in sealed.bodies.items() if ct is None]
    long_ones = await names.long_ones(turns, directory, long, work)

    def gather() -> dict[UUID, list[Form]]:
        opened = names.opened({directory.id: directory}, above.rows, sealed)
        work.spend(sum([name.steps for name in opened.values()]))
        return dict(zip(users, gathered(above, opened | long_ones, shown, work), strict=True))

    return await turns.compute(directory.id, gather)


def gathered(
    above: Above, names: Mapping[bytes, Name], shown: Callable[[GroupOf], Form], work: Work | None = None
) -> list[list[Form]]:
    """For each user the groups above it, as far as they have a name: direct ones first, by seq. Raises as Work.spend does."""
    if work is not None:
        work.spend(above.edges)
    directly = {group: shown(name.group) for group, name in names.items()}
    indirectly: dict[bytes, Form] = {}
    if above.parents:
        indirectly = {group: shown(name.group._replace(direct=False)) for group, name in names.items()}
    shared: dict[bytes, list[Form]] = {}
    for packed in set(above.direct):
        direct = _ids(packed)
        shared[packed] = [group for group in map(directly.get, direct) if group is not None]
        if work is not None:
            work.spend(len(direct))
        if indirectly:
            over = _indirect([group for group in direct if group in names], above.parents, names, work)
            shared[packed] += [indirectly[group] for group in over]
    return [shared[packed] for packed in above.direct]


def _indirect(
    direct: Sequence[bytes], parents: Mapping[bytes, Sequence[bytes]], names: Mapping[bytes, Name], work: Work | None
) -> list[bytes]:
    """The groups above those that a user is in directly, breadth first."""
    ahead = list(direct)
    found = set(ahead)
    for group in ahead:  # `ahead` grows during the loop
        over = parents.get(group, ())
        if work is not None:
            work.spend(len(over))
        for parent in over:
            if parent not in found and parent in names:
                if work is not None:
                    work.spend(1)
                found.add(parent)
                ahead.append(parent)
    return ahead[len(direct) :]


class _Row(NamedTuple):
    id: UUID
    directory: DirectoryNumber
    body_seq: Seq
    wrapped: bytes  # its key


def _unpacked(row: bytes) -> _Row:
    """A row of a group: id, directory, seq of the newest body, wrapped key, HMAC of the name."""
    group, directory, body_seq = _ROW.unpack_from(row)
    return _Row(UUID(bytes=group), directory, body_seq, row[_ROW.size : -MAC_SIZE])


def _ids(packed: bytes) -> Sequence[bytes]:
    if len(packed) <= _ID * _IDS_AT_ONCE:
        return _id_struct(len(packed) // _ID).unpack(packed)
    return [packed[n : n + _ID] for n in range(0, len(packed), _ID)]


@lru_cache(maxsize=_IDS_AT_ONCE + 1)
def _id_struct(count: int) -> Struct:
    """Cuts a text of so many ids in half the time of slices."""
    return Struct(f"{_ID}s" * count)
