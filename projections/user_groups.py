"""The groups that users are in, directly or through member groups: the attribute `groups` of a user (RFC 7643 §4.1.2)."""

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple
from uuid import UUID

import anyio.to_thread

from database.arrays import int4s, int8s, uuids
from database.connections import Connection
from database.queries import load_queries
from ledger.directories import Directory
from ledger.events import GROUP
from ledger.ids import DirectoryNumber, Seq
from ledger.sealing import Kek
from ledger.turns import Turns
from projections import reads
from projections.reads import ALONE, SHARED_BYTES_MAX, Alone, SealedResource
from proofs.body import PayloadTooLargeError
from scim.errors import TooMany
from scim.work import Work, reading

SQL: Final = load_queries(__file__)
SHARED_ROWS_MAX: Final = 2_000  # memberships in a shared query
EDGES_MAX: Final = 500_000  # memberships that are followed for the groups of a page of users; takes a second in the database
NAMES_MAX: Final = 10_000  # names in memory: at most 13 MB
NAME_CHARS_MAX: Final = 256  # longer names are not kept in memory


class GroupOf(NamedTuple):
    """A group that a user is in, directly (`direct`) or through member groups."""

    id: UUID
    name: str  # displayName
    direct: bool


class Holding(NamedTuple):
    """A group that at least one of the users is in.

    `users` are places in the list of users, from 1, of those that are direct members, and `users_since` the seqs of their events.
    `member_groups` are those of its member groups that lead to it, and `groups_since` the same of these.
    """

    directory: DirectoryNumber
    group: UUID
    body_seq: Seq
    leaf_hash: bytes  # of the event with that seq
    wrapped: bytes
    users: list[int]
    users_since: list[Seq]
    member_groups: list[UUID]
    groups_since: list[Seq]

    @property
    def edges(self) -> int:
        return len(self.users) + len(self.member_groups)


Name = tuple[str, int]  # displayName, and the bytes of the body that it was read from


class Sealed(NamedTuple):
    """What tells the names of some groups: those that are remembered, and the bodies of the others (None: a long one)."""

    remembered: Mapping[UUID, Name]
    bodies: Mapping[UUID, bytes | None]


class GroupNames:
    """Opens the displayNames of groups, and remembers the newest of them, because most users of a page are in the same groups.

    A name is found only by its group, the leaf hash of the event that has its body, and the wrapped key, which are read for each request:
    after a change, after a loss of the log's end, and once an erasure has deleted the key, nothing asks for the older name any more.
    """

    def __init__(self, kek: Kek) -> None:
        self._kek = kek
        self._names: OrderedDict[tuple[UUID, bytes, bytes], Name] = (
            OrderedDict()
        )  # its methods are atomic: worker threads share it

    def remembered(self, found: Sequence[Holding]) -> dict[UUID, Name]:
        """Those names that need not be opened. Only these may be relied on: another request may push a name out at any time."""
        known = ((held.group, self._names.get((held.group, held.leaf_hash, held.wrapped))) for held in found)
        return {group: name for group, name in known if name is not None}

    def name(self, directory: Directory, held: Holding, sealed: Sealed, bytes_max: int | None = None) -> Name | None:
        """The name of a group; None where its body is long or gone. Raises PayloadTooLargeError."""
        known, ct = sealed.remembered.get(held.group), sealed.bodies.get(held.group)
        if known is not None or ct is None:
            return known
        document, size = reads.readable(
            self._kek, directory, (GROUP, held.group, held.body_seq), ct, held.wrapped, bytes_max=bytes_max
        )
        name = document["displayName"]
        if size and len(name) <= NAME_CHARS_MAX:  # a damaged body has no size; each read of it is logged
            self._names[held.group, held.leaf_hash, held.wrapped] = (name, size)
            if len(self._names) > NAMES_MAX:
                self._names.popitem(last=False)
        return name, size

    async def long_ones(self, turns: Turns, directory: Directory, groups: Sequence[UUID], work: Work) -> dict[UUID, str]:
        """The names of groups with long bodies, read one after the other."""
        names: dict[UUID, str] = {}
        while groups:
            async with turns.connection(directory.id) as conn:
                rows, looked_at = await reads.page(conn, directory, GROUP, groups)
            groups = groups[looked_at:]

            def read(rows: Sequence[SealedResource] = rows) -> dict[UUID, str]:
                opened = (reads.unsealed(self._kek, directory, GROUP, sealed, work) for sealed in rows)
                return {resource.id: resource.document["displayName"] for resource in opened}

            names |= await turns.compute(directory.id, read)
        return names


async def holdings(conn: Connection, users: Sequence[tuple[Directory, UUID]], edges_max: int) -> list[Holding]:
    """All groups above the users, following at most `edges_max` memberships."""
    params = (int4s([directory.id for directory, _ in users]), uuids([user for _, user in users]), edges_max)
    rows = await (await conn.cursor(binary=True).execute(SQL["groups_above"], params)).fetchall()
    return [Holding(*row) for row in rows]


async def sealed_names(conn: Connection, names: GroupNames, found: Sequence[Holding]) -> Sealed:
    """The names of groups as far as they are remembered, and the sealed bodies of the others."""
    remembered = names.remembered(found)
    unknown = {(held.directory, held.body_seq): held.group for held in found if held.group not in remembered}
    if not unknown:
        return Sealed(remembered, {})
    params = (int4s([number for number, _ in unknown]), int8s([seq for _, seq in unknown]), SHARED_BYTES_MAX)
    rows = await (await conn.cursor(binary=True).execute(SQL["bodies_at"], params)).fetchall()
    return Sealed(remembered, {unknown[number, seq]: ct for number, seq, ct in rows})


async def groups_together(
    conn: Connection, names: GroupNames, users: Sequence[tuple[Directory, UUID]]
) -> dict[tuple[DirectoryNumber, UUID], list[GroupOf] | Alone]:
    """The groups of users, direct ones first, for several requests at once; ALONE if there are many."""
    by_id = {directory.id: directory for directory, _ in users}
    found = await holdings(conn, users, SHARED_ROWS_MAX)
    alone: dict[tuple[DirectoryNumber, UUID], list[GroupOf] | Alone] = {(d.id, user): ALONE for d, user in users}
    if sum(held.edges for held in found) >= SHARED_ROWS_MAX:
        return alone
    sealed = await sealed_names(conn, names, found)
    if None in sealed.bodies.values():
        return alone

    def gather() -> dict[tuple[DirectoryNumber, UUID], list[GroupOf] | Alone]:
        try:
            opened = [(held, names.name(by_id[held.directory], held, sealed, SHARED_BYTES_MAX)) for held in found]
        except PayloadTooLargeError:
            return alone
        named = [(held, name[0]) for held, name in opened if name is not None]
        lists = gathered([held for held, _ in named], [name for _, name in named], len(users))
        return {(d.id, user): groups for (d, user), groups in zip(users, lists, strict=True)}

    return gather() if len(found) < 32 and len(users) < 32 else await anyio.to_thread.run_sync(gather)


async def groups_of(
    turns: Turns, names: GroupNames, directory: Directory, users: Sequence[UUID], work: Work
) -> dict[UUID, list[GroupOf]]:
    """The groups of users of one directory, direct ones first. No connection is held while they are computed.

    Users in the same groups share one list, and each group is one GroupOf in all lists. Raises TooMany for more than EDGES_MAX
    memberships.
    """
    async with turns.connection(directory.id) as conn:
        found = await holdings(conn, [(directory, user) for user in users], EDGES_MAX + 1)
        if sum(held.edges for held in found) > EDGES_MAX:
            raise TooMany(
                f"These users are in more than {EDGES_MAX} groups together. Ask for fewer, or exclude the attribute groups."
            )
        sealed = await sealed_names(conn, names, found)
    if not found:
        return {}
    long_names = await names.long_ones(turns, directory, [group for group, ct in sealed.bodies.items() if ct is None], work)

    def gather() -> dict[UUID, list[GroupOf]]:
        known: list[Holding] = []
        texts: list[str] = []
        for held in found:
            name = names.name(directory, held, sealed)
            if name is not None:
                work.spend(reading(name[1]))
            text = long_names.get(held.group) if name is None else name[0]
            if text is not None:  # a group with a long body may have been deleted meanwhile
                known.append(held)
                texts.append(text)
        return dict(zip(users, gathered(known, texts, len(users), work), strict=True))

    return await turns.compute(directory.id, gather)


def gathered(found: Sequence[Holding], names: Sequence[str], users: int, work: Work | None = None) -> list[list[GroupOf]]:
    """For each of so many users the groups above it, direct ones first and by their seqs. Raises as Work.spend does.

    Groups are numbers here, their places in `found`, because a UUID is hashed in Python.
    """
    direct = _direct_groups(found, users, work)
    parents = _parents(found)
    directly = [GroupOf(held.group, name, True) for held, name in zip(found, names, strict=True)]
    indirectly = [group._replace(direct=False) for group in directly] if parents else []
    shared: dict[tuple[int, ...], list[GroupOf]] = {}
    for begin in set(direct):
        above = _above(begin, parents, work)
        shared[begin] = [directly[n] for n in begin] + [indirectly[n] for n in above]
    return [shared[begin] for begin in direct]


def _direct_groups(found: Sequence[Holding], users: int, work: Work | None) -> list[tuple[int, ...]]:
    """The direct groups of each user, by seq."""
    pairs: list[list[tuple[Seq, int]]] = [[] for _ in range(users)]
    for n, held in enumerate(found):
        if work is not None:
            work.spend(held.edges)
        for place, seq in zip(held.users, held.users_since, strict=True):
            pairs[place - 1].append((seq, n))
    for each in pairs:
        each.sort()
    return [tuple([n for _, n in each]) for each in pairs]


def _parents(found: Sequence[Holding]) -> dict[int, list[int]]:
    """The groups that a group is a member of, by seq."""
    above = [held for held in found if held.member_groups]
    if not above:
        return {}
    numbers = {held.group: n for n, held in enumerate(found)}
    pairs: dict[int, list[tuple[Seq, int]]] = {}
    for held in above:
        for group, seq in zip(held.member_groups, held.groups_since, strict=True):
            if group in numbers:
                pairs.setdefault(numbers[group], []).append((seq, numbers[held.group]))
    return {n: [parent for _, parent in sorted(each)] for n, each in pairs.items()}


def _above(begin: Sequence[int], parents: Mapping[int, Sequence[int]], work: Work | None) -> list[int]:
    """The groups above those that a user is in directly, breadth first."""
    if work is not None:
        work.spend(len(begin))
    if not parents:
        return []
    ahead = list(begin)
    found = set(ahead)
    for group in ahead:  # `ahead` grows during the loop
        over = parents.get(group, ())
        if work is not None:
            work.spend(len(over))
        for parent in over:
            if parent not in found:
                if work is not None:
                    work.spend(1)
                found.add(parent)
                ahead.append(parent)
    return ahead[len(begin) :]
