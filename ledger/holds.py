"""Legal holds: while one is open, its user or group is not erased. Placing and releasing are events of `_system`.

The matter is sealed in the row and not in the event, so that it goes with the subject. A hold ends by itself at `until`.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final, NamedTuple
from uuid import UUID

from database.connections import Connection
from database.queries import load_queries
from ledger.clocks import microseconds
from ledger.commands import RecordFacts, Statement
from ledger.directories import Directory
from ledger.events import HOLD, HOLD_PLACED, HOLD_RELEASED, MEMBER_TYPE_NAMES, MEMBER_TYPES, OPERATOR, Body, Draft, EventType
from ledger.feed import rfc3339
from ledger.ids import DirectoryNumber

SQL: Final = load_queries(__file__)


class Hold(NamedTuple):
    """A row of `holds`. `over`: `until` has passed, by the database's clock."""

    id: UUID
    directory: DirectoryNumber
    slug: str
    obj: UUID
    ot: str
    sealed_matter: bytes | None
    until: datetime | None
    placed_at: datetime
    placed_by: str
    released_at: datetime | None
    released_by: str | None
    over: bool

    @property
    def state(self) -> str:
        """`open`, `released` by somebody, or `ended` by itself."""
        return "released" if self.released_at is not None else "ended" if self.over else "open"


def _hold(row: Sequence[Any]) -> Hold:
    hold = Hold._make(row)
    return hold._replace(ot=MEMBER_TYPE_NAMES[int(hold.ot)])


async def hold_by_id(conn: Connection, directory: DirectoryNumber, hold: UUID) -> Hold | None:
    """One hold of a directory."""
    row = await (await conn.execute(SQL["hold_by_id"], (directory, hold))).fetchone()
    return None if row is None else _hold(row)


async def holds_of(
    conn: Connection, directory: DirectoryNumber, *, obj: UUID | None, state: str | None, after: UUID | None, limit: int
) -> list[Hold]:
    """Holds of a directory in the order they were placed, after one of them."""
    rows = await (await conn.execute(SQL["holds_of"], (directory, obj, after, state, limit))).fetchall()
    return [_hold(row) for row in rows]


def placed(
    directory: Directory, hold: UUID, ot: str, obj: UUID, sealed: bytes | None, until: datetime | None, actor: str
) -> RecordFacts:
    """The act of placing a hold. It applies while the subject exists in the directory and was not erased."""
    insert: Statement = SQL["insert_hold"], (hold, directory.id, obj, MEMBER_TYPES[ot], sealed, until, actor)
    facts = _facts(directory, hold, ot, obj) | {"until": None if until is None else rfc3339(microseconds(until))}
    return RecordFacts(
        (_event_of(HOLD_PLACED, hold, facts),),
        (insert,),
        stands=(SQL["may_be_held"], (directory.id, obj, MEMBER_TYPES[ot])),
        subject=obj,
    )


def released(directory: Directory, hold: Hold, actor: str) -> RecordFacts:
    """The act of releasing a hold. It applies while the hold was not released."""
    update: Statement = SQL["release_hold"], (hold.id, actor)
    facts = _facts(directory, hold.id, hold.ot, hold.obj)
    return RecordFacts(
        (_event_of(HOLD_RELEASED, hold.id, facts),), (update,), stands=(SQL["not_released"], (hold.id,)), subject=hold.obj
    )


def _facts(directory: Directory, hold: UUID, ot: str, obj: UUID) -> dict[str, Any]:
    return {"id": str(hold), "directory": directory.slug, "subject": {"type": ot, "id": str(obj)}}


def _event_of(kind: EventType, hold: UUID, facts: dict[str, Any]) -> Draft:
    return Draft(kind, hold, HOLD, cause=OPERATOR, body=Body(facts, []))
