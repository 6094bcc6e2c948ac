"""Group members that an IdP names by externalId or userName instead of the id, where its profile says so."""

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
from scim.errors import InvalidValue, UnknownMembers
from scim.filter_dependencies import compared_members, with_member_ids
from scim.leniency import Leniency, Tolerance
from scim.member_operations import MemberOperation
from scim.patch import Patch

LOOKED_UP_AT_ONCE: Final = 2_000  # members in one statement; between two statements other requests can use the connection
FEW: Final = 50  # up to so many HMACs are computed on the event loop: a fifth of a millisecond


class _Keys(NamedTuple):
    """The look-up keys of members, by their text: the ids among them, and the HMAC of each."""

    ids: dict[str, UUID]
    macs: dict[str, bytes]


async def resolve_members(turns: Turns, directory: Directory, values: Sequence[str], leniency: Leniency) -> dict[str, str]:
    """Resolve texts that are externalIds or userNames (the directory's profile says which) to user ids: text -> id.

    Texts that are ids of the directory are not in the result, nor are unknown ones, which the decision refuses by name. No body is
    opened, and no connection is held while the HMACs are computed. Raises InvalidValue for a text that several users have, because the
    wrong one could get the access.
    """
    key = directory.profile.unknown_member
    found: dict[str, str] = {}
    if key == "refuse":
        return found
    for start in range(0, len(values), LOOKED_UP_AT_ONCE):
        some = list(dict.fromkeys(values[start : start + LOOKED_UP_AT_ONCE]))
        keys = await turns.computed(directory.id, partial(_keys, directory, key, some), large=len(some) > FEW)
        async with turns.connection(directory.id) as conn:
            ours = await reads.ids_among(conn, directory, list(keys.ids.values()))
            owners = await reads.owners(conn, directory, key, list(keys.macs.values()))
        found |= await turns.computed(directory.id, partial(_owned, key, keys, ours, owners), large=len(some) > FEW)
    if found:
        leniency.note(Tolerance.UNKNOWN_MEMBER)
    return found


async def with_external_ids(turns: Turns, directory: Directory, refused: UnknownMembers) -> InvalidValue:
    """The refusal; if its members are externalIds of users here, it says so: the IdP's key is another one than the profile's."""
    macs = {reads.blind(directory, "externalId", member): member for member in refused.members}
    async with turns.connection(directory.id) as conn:
        owned = await reads.owners(conn, directory, "externalId", list(macs))
    if not owned:
        return refused
    says = "It is the externalId of a user" if len(refused.members) == 1 else "Among them are externalIds of users"
    return InvalidValue(f"{refused.detail} {says} of this directory.")


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


def members_named_in(patch: Patch) -> list[str]:
    """The texts by which a PATCH names members, in its values and in the filters of its paths."""
    listed = [member for operation in patch.member_operations for member, _ in operation.members]
    filters = [operation.filter for operation in patch.member_operations if operation.filter]
    return [*listed, *(member for f in filters for member in compared_members(f, of_one_member=True))]


def patch_with_ids(patch: Patch, found: dict[str, str]) -> Patch:
    """The PATCH with the id in place of each text that resolve_members found."""
    return Patch(patch.operations, tuple(_with_ids(operation, found) for operation in patch.member_operations))


def _with_ids(operation: MemberOperation, found: dict[str, str]) -> MemberOperation:
    # A removal by a key that nobody has is left out: the user was deleted, and is a member of no group. A key with white space around
    # it stays, for the decision to refuse it: the user whom it was meant for may still be a member.
    absent: set[str] = set()
    if operation.kind == "remove":
        absent = {m for m, _ in operation.members if m not in found and parse_id(m) is None and m == m.strip()}
    members = tuple((found.get(member, member), kind) for member, kind in operation.members if member not in absent)
    selection = operation.filter and with_member_ids(operation.filter, found, of_one_member=True)
    return replace(operation, members=members, filter=selection)
