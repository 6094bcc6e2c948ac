"""What a directory's users and groups say of the IdP's mapping, for its admin: counts, ids and names of attributes, never values."""

from collections import Counter
from typing import Any, Final, TypedDict
from uuid import UUID

from database.connections import Connection
from database.queries import load_queries
from ledger.directories import Directory
from ledger.event_data import Count
from ledger.ids import Seq
from ledger.sealing import Kek, open_note
from operations.open_ledger import OpenLedger
from projections.history import documents_at
from proofs.keys import WrapError
from scim.profile import is_test_object
from scim.quality import is_email, unknown_attributes
from scim.remedies import is_unknown_member
from scim.schema import GROUP, USER, ResourceType

SQL: Final = load_queries(__file__)
RESOURCES_MAX: Final = 200_000  # users, and groups, that are counted: a statement may take four seconds
USERS_READ_MAX: Final = 500  # newest users whose attributes are opened
GROUPS_READ_MAX: Final = 100
REFUSALS_READ_MAX: Final = 200  # newest refusals whose sentence is opened
REQUESTS_LOOKED_MAX: Final = 200_000  # newest requests that are looked through for them
NAMES_MAX: Final = 20  # unknown attributes that are listed


class SharedValue(TypedDict):
    """A value that several resources have: how many such values, how many resources have them, and the ids of at most 20."""

    values: Count
    resources: Count
    examples: list[UUID]


class UnknownAttribute(TypedDict):
    """An attribute that is in no schema of the directory, and how many of the resources that were read have it."""

    resource_type: str
    attribute: str
    resources: Count


class Quality(TypedDict):
    """What the users and groups say of the IdP's mapping.

    `users`: how many are counted, the newest 200 000. `resources_read`: the newest users and groups, at most 500 and 100, whose attributes
    are looked at; `user_names_without_email` counts among them, and is null where the profile expects no e-mail address.
    `unknown_members`: refused requests about a group with a member that does not exist.
    """

    users: Count
    users_without_external_id: Count
    same_external_id: SharedValue
    same_display_name: SharedValue
    unknown_members: Count
    resources_read: Count
    unknown_attributes: list[UnknownAttribute]
    user_names_without_email: Count | None


async def quality_of(ledger: OpenLedger, directory: Directory, hours: int) -> Quality:
    """The quality of a directory's users and groups, and of the requests about groups in the last hours."""
    async with ledger.turns.connection(directory.id) as conn:
        users, with_id = await _row(conn, "quality_users", directory, RESOURCES_MAX)
        same_id = await _row(conn, "same_external_id", directory, RESOURCES_MAX)
        same_name = await _row(conn, "same_display_name", directory, RESOURCES_MAX)
        user_seqs = await _seqs(conn, "newest_users", directory, USERS_READ_MAX)
        group_seqs = await _seqs(conn, "newest_groups", directory, GROUPS_READ_MAX)
        refused = await _unknown_members(conn, ledger.kek, directory, hours)
    user_names, unknown = await _looked(ledger, directory, directory.user_type, user_seqs)
    group_names, unknown_of_groups = await _looked(ledger, directory, directory.group_type, group_seqs)
    return {
        "users": users,
        "users_without_external_id": users - with_id,
        "same_external_id": _shared(same_id),
        "same_display_name": _shared(same_name),
        "unknown_members": refused,
        "resources_read": len(user_names) + len(group_names),
        "unknown_attributes": [*_most_common(USER.name, unknown), *_most_common(GROUP.name, unknown_of_groups)],
        "user_names_without_email": _without_email(directory, user_names),
    }


def _without_email(directory: Directory, user_names: list[str]) -> int | None:
    """How many userNames are no e-mail address, without those of the IdP's tests; None where the profile expects none."""
    if not directory.profile.file.expected.email_user_names:
        return None
    return sum(bool(name) and not is_email(name) and not is_test_object(directory.profile, name) for name in user_names)


async def _row(conn: Connection, name: str, directory: Directory, limit: int) -> tuple[Any, ...]:
    row = await (await conn.execute(SQL[name], (directory.id, limit))).fetchone()
    assert row is not None
    return row


async def _seqs(conn: Connection, name: str, directory: Directory, limit: int) -> list[Seq]:
    return [row[0] for row in await (await conn.execute(SQL[name], (directory.id, limit))).fetchall()]


async def _unknown_members(conn: Connection, kek: Kek, directory: Directory, hours: int) -> int:
    params = (directory.id, hours, REFUSALS_READ_MAX, REQUESTS_LOOKED_MAX)
    rows = await (await conn.execute(SQL["refused_groups"], params)).fetchall()
    return sum(_says_unknown_member(kek, sealed, request) for sealed, request in rows)


def _says_unknown_member(kek: Kek, sealed: bytes, request: UUID) -> bool:
    try:
        return is_unknown_member(open_note(kek, sealed, kind="refusal", owner=request))
    except WrapError:  # not sealed by this service for this request
        return False


async def _looked(ledger: OpenLedger, directory: Directory, rt: ResourceType, seqs: list[Seq]) -> tuple[list[str], Counter[str]]:
    """Open the documents: their userNames (empty where there is none), and how many of them have each unknown attribute."""
    unknown = Counter[str]()

    def look(_number: int, document: dict[str, Any] | None, _why: str) -> str:
        unknown.update(set(unknown_attributes(rt, document or {})))
        return (document or {}).get("userName", "")

    names = await documents_at(lambda: ledger.turns.connection(directory.id), ledger.kek, directory, seqs, look)
    return names, unknown


def _shared(row: tuple[Any, ...]) -> SharedValue:
    values, resources, examples = row
    return {"values": values, "resources": resources, "examples": examples}


def _most_common(resource_type: str, unknown: Counter[str]) -> list[UnknownAttribute]:
    return [
        {"resource_type": resource_type, "attribute": name, "resources": count} for name, count in unknown.most_common(NAMES_MAX)
    ]


def quality_advice(quality: Quality, *, expects_external_id: bool) -> list[str]:
    """Sentences for the admin of the IdP, worst first."""
    return [*_twins(quality), *_order(quality), *_identity(quality, expected=expects_external_id), *_mapping(quality)]


def _twins(quality: Quality) -> list[str]:
    found: list[str] = []
    groups, users = quality["same_display_name"], quality["same_external_id"]
    if groups["values"]:
        found.append(
            f"{groups['resources']} groups share a displayName with another one, for example when a creation was repeated after a lost answer: "
            "who is taken out of one stays in its twin. Find out which ones the IdP manages, and delete the others; the health report of the directory has some ids."
        )
    if users["values"]:
        found.append(
            f"{users['resources']} users share an externalId with another one: is a person here twice, who leaves only once? Map externalId to an "
            "id of the IdP that is never given again, and delete the users that it no longer manages; the health report of the directory has some ids."
        )
    return found


def _order(quality: Quality) -> list[str]:
    if not quality["unknown_members"]:
        return []
    says = f"{quality['unknown_members']} requests about groups were refused, because a member was not here: groups come before their users."
    return [f"{says} Assign the users to the app first, then push the groups again."]


def _identity(quality: Quality, *, expected: bool) -> list[str]:
    users, without = quality["users"], quality["users_without_external_id"]
    if not without or not (expected or without < users):
        return []
    says = f"{without} of {users} users have no externalId: a renamed person may be created once more."
    return [f"{says} Map externalId to an id of the IdP that never changes."]


def _mapping(quality: Quality) -> list[str]:
    found: list[str] = []
    if quality["unknown_attributes"]:
        names = ", ".join(sorted({row["attribute"] for row in quality["unknown_attributes"]}))
        found.append(
            f"The IdP sends attributes that no schema has: {names}. Correct their names in its mapping, or register an extension schema "
            "(scim-ledger directory schema)."
        )
    if quality["user_names_without_email"]:
        found.append(
            f"{quality['user_names_without_email']} of the newest users have a userName that is no e-mail address, which this IdP usually sends: "
            "check to what the mapping sets userName."
        )
    return found
