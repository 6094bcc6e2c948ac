"""Group members that an IdP names by another key than our id, where its profile says so."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Final, NamedTuple
from uuid import UUID

from ledger.commands import parse_id
from ledger.directories import Directory
from ledger.turns import Turns
from projections import reads
from scim.casefolding import casefold
from scim.errors import InvalidValue
from scim.filter_dependencies import named_members, with_member_ids
from scim.leniency import Leniency, Tolerance
from scim.member_operations import EdgeOperation
from scim.patch import Patch

MEANT_AT_ONCE: Final = 2_000  # members looked up by one statement: others have the connection between two of them
FEW: Final = 50  # whose keys are made on the event loop: a fifth of a millisecond


class _Keys(NamedTuple):
    """What to look for: the ids among the values, and each value's blind key."""

    ids: dict[str, UUID]
    macs: dict[str, bytes]


async def meant(turns: Turns, directory: Directory, values: Sequence[str], leniency: Leniency) -> dict[str, str]:
    """The ids of the users that these values name by the key that the profile of the directory says; none where it refuses them.

    An id of ours stays what it is, another service's may look like one; what is nobody's is left for the decision to refuse by
    name: neither is in the answer. Nothing is unsealed, and no connection is held while keys are made.
    Raises InvalidValue for a value that several users have: a guess would give one of them the other's access.
    """
    key = directory.speaks.unknown_member
    found: dict[str, str] = {}
    if key == "refuse":
        return found
    for start in range(0, len(values), MEANT_AT_ONCE):
        some = list(dict.fromkeys(values[start : start + MEANT_AT_ONCE]))
        keys = await turns.computed(directory.id, partial(_keys, directory, key, some), large=len(some) > FEW)
        async with turns.connection(directory.id) as conn:
            ours = await reads.ids_among(conn, directory, list(keys.ids.values()))
            owners = await reads.owners(conn, directory, key, list(keys.macs.values()))
        found |= await turns.computed(directory.id, partial(_owned, key, keys, ours, owners), large=len(some) > FEW)
    if found:
        leniency.note(Tolerance.UNKNOWN_MEMBER)
    return found


def _keys(directory: Directory, key: str, values: Sequence[str]) -> _Keys:
    ids = {value: parsed for value in values if (parsed := parse_id(value)) is not None}
    return _Keys(ids, {value: reads.blind(directory, key, casefold(value) if key == "userName" else value) for value in values})


def _owned(key: str, keys: _Keys, ours: set[UUID], owners: Mapping[bytes, tuple[UUID, int]]) -> dict[str, str]:
    found: dict[str, str] = {}
    for value, mac in keys.macs.items():
        owner = owners.get(mac) if keys.ids.get(value) not in ours else None
        if owner is not None:
            if owner[1] > 1:
                raise InvalidValue(f"members: {owner[1]} users of this directory have this {key}. Name the member by its id.")
            found[value] = str(owner[0])
    return found


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
