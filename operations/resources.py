"""The current users and groups of a directory: what the ids in events stand for (docs/events.md, "What an id stands for").

Whoever may not read attributes gets structure, and cannot search by attributes either: whether a search finds something tells the
attribute.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Final, NotRequired, TypeAlias, TypedDict
from uuid import UUID

from msgspec import Meta

from ledger.commands import parse_id
from ledger.directories import Directory
from ledger.event_data import Id, Time
from ledger.events import GROUP, USER
from ledger.rendering import rfc3339
from operations.admission import on_directory
from operations.caller import Caller
from operations.open_ledger import OpenLedger
from operations.refusals import ForbiddenError, NotFoundError, invalid
from projections import reads
from projections.history import documents_at, shown
from projections.reads import Listed
from scim.casefolding import casefold
from scim.filter_index import Atom, AtomKind
from scim.profile import mapped_user

ResourceWord: TypeAlias = Annotated[str, Meta(extra_json_schema={"enum": [USER.lower(), GROUP.lower()]})]
RESOURCES_PAGE_MAX: Final = 1_000


class Attributes(TypedDict, total=False):
    """`object` in the form of SCIM; for a user also `user`, in words that are the same for every IdP. Or why there are none.

    `withheld`: the token may not read them. `erased`: they were erased. `unreadable`: they are damaged.
    """

    object: dict[str, Any]
    user: dict[str, Any]
    withheld: bool
    erased: bool
    unreadable: bool


class ShownResource(TypedDict):
    """A user or group as of now. `active` is of users only."""

    object: ResourceWord
    id: Id
    active: NotRequired[bool]
    created_at: Time
    data: Attributes


Resources = list[ShownResource]
_PLURAL: Final = {USER: "users", GROUP: "groups"}


@on_directory("users.list")
async def list_users(
    ledger: OpenLedger, caller: Caller, directory: Directory, *, external_id: str | None, user_name: str | None, after: str | None, limit: int
) -> tuple[Resources, str | None]:  # fmt: skip
    """The current users by id, after an id: at most `limit`, fewer if their attributes are large.

    Also returns the id after which the next page begins, or None at the end. Raises ForbiddenError for a token that does not read all
    events of users, and for one that searches by attributes and does not see them.
    """
    return await _list(ledger, caller, directory, USER, {"externalId": external_id, "userName": user_name}, after, limit)


@on_directory("groups.list")
async def list_groups(
    ledger: OpenLedger, caller: Caller, directory: Directory, *, external_id: str | None, display_name: str | None, after: str | None, limit: int
) -> tuple[Resources, str | None]:  # fmt: skip
    """The current groups, in the same way."""
    return await _list(ledger, caller, directory, GROUP, {"externalId": external_id, "displayName": display_name}, after, limit)


@on_directory("users.show")
async def show_user(ledger: OpenLedger, caller: Caller, directory: Directory, user_id: str) -> ShownResource:
    """One current user. Raises NotFoundError, the same for an id of another directory and for one that nothing has."""
    return await _show(ledger, caller, directory, USER, user_id)


@on_directory("groups.show")
async def show_group(ledger: OpenLedger, caller: Caller, directory: Directory, group_id: str) -> ShownResource:
    """One current group, in the same way."""
    return await _show(ledger, caller, directory, GROUP, group_id)


def sees(caller: Caller, ot: str) -> bool:
    """Whether a caller may see the attributes of all users, or of all groups: it reads each event about them, with attributes."""
    return caller.token.bodies and caller.token.reads((f"{ot.lower()}.*",))


def _check_types(caller: Caller, ot: str) -> None:
    if not caller.token.reads((f"{ot.lower()}.*",)):
        raise ForbiddenError(f"This shows all {_PLURAL[ot]}: it needs a token for the event types {ot.lower()}.*.")


async def _list(
    ledger: OpenLedger, caller: Caller, directory: Directory, ot: str, wanted: Mapping[AtomKind, str | None], after: str | None, limit: int
) -> tuple[Resources, str | None]:  # fmt: skip
    _check_types(caller, ot)
    atoms = [
        Atom(kind, value if kind == "externalId" else casefold(value)) for kind, value in wanted.items() if value is not None
    ]
    if atoms and not caller.token.bodies:  # before anything is looked up: its time would tell the attribute, too
        raise ForbiddenError(
            f"This token does not see attributes, so it cannot search by them. It lists all {_PLURAL[ot]}, and shows one by its id."
        )
    start = _after(after)
    async with ledger.turns.connection(directory.id) as conn:
        if atoms:
            found = [set(await reads.candidates(conn, directory, ot, [atom])) for atom in atoms]
            rows = await reads.listed_among(conn, directory, ot, list(set.intersection(*found)), after=start, limit=limit + 1)
        else:
            rows = await reads.listed_after(conn, directory, ot, after=start, limit=limit + 1)
    page = await _documents(ledger, caller, directory, ot, rows[:limit])
    return page, page[-1]["id"] if page and len(page) < len(rows) else None


def _after(text: str | None) -> UUID | None:
    found = parse_id(text) if text is not None else None
    if text is not None and found is None:
        raise invalid("after", "is not the `list_metadata.after` of a page")
    return found


async def _show(ledger: OpenLedger, caller: Caller, directory: Directory, ot: str, text: str) -> ShownResource:
    _check_types(caller, ot)
    number = parse_id(text)
    rows: list[Listed] = []
    if number is not None:
        async with ledger.turns.connection(directory.id) as conn:
            rows = await reads.listed_among(conn, directory, ot, [number], after=None, limit=1)
    if not rows:
        raise NotFoundError(
            f"There is no {ot.lower()} of this id in this directory now. GET /v1/directories/{{directory}}/{_PLURAL[ot]} lists those that there are."
        )
    return (await _documents(ledger, caller, directory, ot, rows))[0]


async def _documents(ledger: OpenLedger, caller: Caller, directory: Directory, ot: str, rows: list[Listed]) -> Resources:
    """The rows in the form of the snapshot, up to the budget of a page."""

    def write(number: int, document: dict[str, Any] | None, why: str) -> ShownResource:
        row = rows[number]
        own: ShownResource = {
            "object": ot.lower(), "id": str(row.id), "created_at": rfc3339(row.created_at), "data": _absent(why),
        }  # fmt: skip
        if ot == USER:
            own["active"] = row.active
        if document is None:
            return own
        if ot != USER:
            return {**own, "data": {"object": document}}
        document = shown(document, active=row.active)
        return {**own, "data": {"object": document, "user": mapped_user(directory.profile, document)}}

    if not caller.token.bodies:
        return [write(number, None, "withheld") for number in range(len(rows))]
    seqs = [row.body_seq for row in rows]
    return await documents_at(lambda: ledger.turns.connection(directory.id), ledger.kek, directory, seqs, write)


def _absent(why: str) -> Attributes:
    """The place of attributes that a caller does not get."""
    match why:
        case "withheld":
            return {"withheld": True}
        case "erased":
            return {"erased": True}
        case _:
            return {"unreadable": True}
