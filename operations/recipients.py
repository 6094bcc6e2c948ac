"""Who was sent a user or group: consumers, by what is stored of their progress, and tokens that could read it (GDPR Art. 19)."""

from collections import defaultdict
from collections.abc import Sequence
from typing import Final, Literal, NamedTuple, TypedDict
from uuid import UUID

from database.arrays import int4s, uuids
from database.connections import Connection
from database.queries import load_queries
from delivery.audit import Readings, readings_of
from delivery.consumers import Consumer, consumers_ever
from ledger.clocks import microseconds
from ledger.directories import Directory
from ledger.ids import DirectoryNumber, Position
from ledger.tokens import find_all
from operations.open_ledger import OpenLedger

SQL: Final = load_queries(__file__)
EVENTS_MAX: Final = 1_000  # newest events with attributes of a subject that are compared with a consumer's progress
_NOT_SENT: Final = frozenset({"to_come", "before_start", "filtered_out", "sought_over"})
_READERS: Final = frozenset({"consumer", "auditor", "admin"})


class Recipient(TypedDict):
    """Somebody who has, or may have, the attributes. `certainty`: a consumer acknowledged them; or it was sent them, or a token could read them.

    `kind` is `consumer` with its name, or `token` with its id.
    """

    kind: Literal["consumer", "token"]
    name: str
    id: str
    certainty: Literal["acknowledged", "possible"]


class _Sent(NamedTuple):
    position: Position
    directory: DirectoryNumber
    kind: int
    at: int


async def recipients_of(ledger: OpenLedger, subjects: Sequence[tuple[Directory, UUID]]) -> dict[UUID, list[Recipient]]:
    """The recipients of each subject, by its events with attributes."""
    async with ledger.connection() as conn:
        sent = await _sent(conn, subjects)
        directories = await ledger.directories.all(conn)
        read = [(consumer, await readings_of(conn, ledger.kek, consumer, directories)) for consumer in await consumers_ever(conn)]
        tokens = [token for token in await find_all(conn) if token.role in _READERS and token.bodies and token.last_used_at]
    found: dict[UUID, list[Recipient]] = {}
    for directory, subject in subjects:
        events = sent[subject]
        first = min((event.at for event in events), default=0)
        some = [one for consumer, readings in read if (one := _consumer(consumer, readings, events)) is not None]
        some += [
            Recipient(kind="token", name=token.name, id=str(token.id), certainty="possible")
            for token in tokens
            if events
            and ({"*", directory.slug} & set(token.directories))
            and token.last_used_at
            and microseconds(token.last_used_at) >= first
        ]
        found[subject] = some
    return found


def _consumer(consumer: Consumer, readings: Readings, events: Sequence[_Sent]) -> Recipient | None:
    verdicts = (
        {readings.verdict(event.position, event.directory, event.kind)[0] for event in events} if readings.epochs else set[str]()
    )
    if not verdicts - _NOT_SENT:
        return None
    certainty = "acknowledged" if None in verdicts else "possible"
    return {"kind": "consumer", "name": consumer.name, "id": str(consumer.uuid), "certainty": certainty}


async def _sent(conn: Connection, subjects: Sequence[tuple[Directory, UUID]]) -> "defaultdict[UUID, list[_Sent]]":
    """The events of each subject that had attributes when they were sent."""
    found = defaultdict[UUID, list[_Sent]](list)
    params = int4s([directory.id for directory, _ in subjects]), uuids([subject for _, subject in subjects]), EVENTS_MAX
    for subject, *rest in await (await conn.cursor(binary=True).execute(SQL["events_with_attributes"], params)).fetchall():
        found[subject].append(_Sent(*rest))
    return found
