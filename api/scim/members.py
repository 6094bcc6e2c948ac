"""Group members that an IdP names by another key than our id, where its profile says so."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import replace

from database.connections import Connection
from ledger.commands import parse_id
from ledger.directories import Directory
from ledger.events import GROUP, USER
from ledger.sealing import Kek
from projections import reads
from scim.edges import EdgeOperation
from scim.errors import InvalidValue
from scim.filters import Atom, fold
from scim.mentions import named_members, with_member_ids
from scim.patch import Patch


async def meant(conn: Connection, kek: Kek, directory: Directory, values: Iterable[str], used: set[str]) -> dict[str, str]:
    """The ids of the users that these values name by the key that the profile of the directory says; none where it refuses them.

    An id of ours stays what it is, and what is nobody's is left for the decision to refuse by name; both are not in the answer.
    Raises InvalidValue for a value that several users have: a guess would give one of them the other's access.
    """
    key = directory.speaks.unknown_member
    if key == "refuse":
        return {}
    unknown = await _unknown(conn, directory, dict.fromkeys(values))
    if not unknown:
        return {}
    folded = {value: fold(value) if key == "userName" else value for value in unknown}
    ids = await reads.candidates(conn, directory, USER, [Atom(key, value) for value in dict.fromkeys(folded.values())])
    owners: dict[str, list[str]] = defaultdict(list)
    for (_, user), resource in (await reads.resources(conn, kek, USER, [(directory, user) for user in ids])).items():
        held = resource.document.get(key)
        if isinstance(held, str):
            owners[fold(held) if key == "userName" else held].append(str(user))
    found: dict[str, str] = {}
    for value, sought in folded.items():
        users = owners.get(sought, [])
        if len(users) > 1:
            raise InvalidValue(f"members: {len(users)} users of this directory have this {key}. Name the member by its id.")
        if users:
            found[value] = users[0]
    if found:
        used.add("unknown_member")
    return found


async def _unknown(conn: Connection, directory: Directory, values: Iterable[str]) -> list[str]:
    """Those that are no id of a user or group here; another service's ids may look like ours."""
    like_ids = {value: parsed for value in values if (parsed := parse_id(value)) is not None}
    atoms = [Atom("id", value) for value in like_ids]
    ours = {found for ot in (USER, GROUP) if atoms for found in await reads.candidates(conn, directory, ot, atoms)}
    return [value for value in values if like_ids.get(value) not in ours]


def named_in(patch: Patch) -> list[str]:
    """The members that a patch names, in values and in the filters of its paths."""
    named = [member for edge in patch.edges for member, _ in edge.members]
    return [*named, *(member for edge in patch.edges if edge.filter for member in named_members(edge.filter, within=True))]


def with_ids(patch: Patch, found: dict[str, str]) -> Patch:
    """The patch with ids in place of the keys that were found."""
    return Patch(patch.operations, tuple(_with_ids(edge, found) for edge in patch.edges))


def _with_ids(edge: EdgeOperation, found: dict[str, str]) -> EdgeOperation:
    # A key that nobody has is merely absent here: whom it named was deleted, and is a member of nothing. One with white space
    # around it is left for the decision to refuse: what it was meant for may be a member still.
    absent = (
        {m for m, _ in edge.members if m not in found and parse_id(m) is None and m == m.strip()} if edge.kind == "remove" else ()
    )
    members = tuple((found.get(member, member), kind) for member, kind in edge.members if member not in absent)
    return replace(edge, members=members, filter=edge.filter and with_member_ids(edge.filter, found, within=True))
