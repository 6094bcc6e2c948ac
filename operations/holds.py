"""Legal holds: place, list, show, release (docs/operations.md, "Erasure")."""

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Final, Literal, TypeAlias, TypedDict
from uuid import UUID

from msgspec import Meta

from database.connections import Connection
from ledger.commands import parse_id
from ledger.directories import Directory
from ledger.event_data import Id, Instant
from ledger.events import GROUP, USER
from ledger.holds import Hold, hold_by_id, holds_of, placed, released
from ledger.receipts import erasure_of
from ledger.refused import StateError
from ledger.sealing import open_optional, seal_note
from ledger.tokens import database_clock
from operations.admin_commands import record
from operations.admission import on_directory
from operations.caller import Caller
from operations.open_ledger import OpenLedger
from operations.refusals import NotFoundError, invalid
from projections.history import ever_existed

NO_HOLD: Final = "The directory has no hold of that id. GET …/holds lists them."
HOLD_STATES: Final = ("open", "released", "ended")
HoldState: TypeAlias = Annotated[str, Meta(extra_json_schema={"enum": list(HOLD_STATES)})]
SubjectType = Literal["User", "Group"]


class SubjectOf(TypedDict):
    """A user or group of a directory."""

    type: SubjectType
    id: Id


class ShownHold(TypedDict):
    """A legal hold. `ended`: its `until` has passed. `matter` is null once the subject was erased."""

    object: Literal["hold"]
    id: Id
    directory: str
    subject: SubjectOf
    matter: str | None
    until: Instant | None
    state: HoldState
    placed_at: Instant
    placed_by: str
    released_at: Instant | None
    released_by: str | None


async def subject_in(conn: Connection, directory: Directory, ot: str, text: str) -> UUID:
    """The id of a user or group that the directory has or had. Raises NotFoundError."""
    subject = parse_id(text)
    if subject is None or not await ever_existed(conn, directory, ot, subject):
        raise NotFoundError(f"The directory never had a {'user' if ot == USER else 'group'} of this id.")
    return subject


@on_directory("holds.place")
async def place(
    ledger: OpenLedger, caller: Caller, directory: Directory, ot: str, subject: str, matter: str, until: datetime | None
) -> ShownHold:
    """Place a legal hold: until it is released or over, the user or group is not erased.

    Raises NotFoundError for an unknown subject, StateError for an erased one, InvalidFieldsError for an `until` in the past.
    """
    hold = ledger.new_id()
    async with ledger.connection() as conn:
        obj = await subject_in(conn, directory, ot, subject)
        if await erasure_of(conn, directory.id, obj) is not None:
            raise StateError("It was erased already, so there is nothing to hold.", "subject_erased")
        if until is not None and until <= await database_clock(conn):
            raise invalid("until", "has passed: give an instant in the future, or none")
    sealed = seal_note(ledger.kek, matter, kind="matter", owner=hold, random=ledger.entropy)
    await record(ledger, caller, placed(directory, hold, ot, obj, sealed, until, caller.actor))
    return await _shown_now(ledger, directory, hold)


@on_directory("holds.list")
async def list_all(
    ledger: OpenLedger,
    _caller: Caller,
    directory: Directory,
    *,
    subject: str | None,
    state: str | None,
    after: str | None,
    limit: int,
) -> tuple[Sequence[ShownHold], str | None]:
    """The legal holds of a directory in the order they were placed, and where the next page begins."""
    async with ledger.connection() as conn:
        obj = None if subject is None else parse_id(subject) or UUID(int=0)
        rows = await holds_of(conn, directory.id, obj=obj, state=state, after=_hold_after(after), limit=limit)
    return [_shown(ledger, row) for row in rows], str(rows[-1].id) if len(rows) == limit else None


def _hold_after(after: str | None) -> UUID | None:
    found = None if after is None else parse_id(after)
    if after is not None and found is None:
        raise invalid("after", "is not the `list_metadata.after` of a page")
    return found


@on_directory("holds.show")
async def show(ledger: OpenLedger, _caller: Caller, directory: Directory, hold: str) -> ShownHold:
    """One legal hold."""
    return _shown(ledger, await _hold(ledger, directory, hold))


@on_directory("holds.release")
async def release_hold(ledger: OpenLedger, caller: Caller, directory: Directory, hold: str) -> None:
    """Release a legal hold. Again makes no event."""
    found = await _hold(ledger, directory, hold)
    if found.released_at is None:
        await record(ledger, caller, released(directory, found, caller.actor))


async def _hold(ledger: OpenLedger, directory: Directory, text: str) -> Hold:
    number = parse_id(text)
    async with ledger.connection() as conn:
        found = None if number is None else await hold_by_id(conn, directory.id, number)
    if found is None:
        raise NotFoundError(NO_HOLD)
    return found


async def _shown_now(ledger: OpenLedger, directory: Directory, hold: UUID) -> ShownHold:
    return _shown(ledger, await _hold(ledger, directory, str(hold)))


def _shown(ledger: OpenLedger, hold: Hold) -> ShownHold:
    matter = open_optional(ledger.kek, hold.sealed_matter, kind="matter", owner=hold.id)
    return {
        "object": "hold", "id": str(hold.id), "directory": hold.slug, "subject": {"type": "Group" if hold.ot == GROUP else "User", "id": str(hold.obj)},
        "matter": matter, "until": hold.until, "state": hold.state, "placed_at": hold.placed_at, "placed_by": hold.placed_by,
        "released_at": hold.released_at, "released_by": hold.released_by,
    }  # fmt: skip
