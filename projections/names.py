"""Names of users and groups as of events: what membership events carry on request (docs/events.md, "Names in membership events")."""

from collections.abc import Sequence
from typing import Any, Final, NamedTuple
from uuid import UUID

import anyio.to_thread

from database.arrays import int4s, int8s, uuids
from database.connections import Connection
from database.queries import load_queries
from ledger.directories import Directory
from ledger.feed import Connecting
from ledger.ids import DirectoryNumber, Seq
from ledger.rendering import BODIES_BYTES_MAX, Budget
from ledger.sealing import Kek
from projections.history import LATER, open_within

SQL: Final = load_queries(__file__)
_NAMES: Final = {"user_name": "userName", "display_name": "displayName", "external_id": "externalId"}
Names = dict[str, Any]
_Place = tuple[DirectoryNumber, Seq]


class Then(NamedTuple):
    """A user or group as of a seq."""

    directory: Directory
    id: UUID
    seq: Seq


async def names_then(connection: Connecting, kek: Kek, asked: Sequence[Then], *, budget: int = BODIES_BYTES_MAX) -> list[Names]:
    """The names of each, in order, until bodies of `budget` bytes besides the first were opened; a body counts once.

    Attributes that a resource does not have are left out. Erased ones have `erased`, damaged ones `unreadable`.
    """
    async with connection() as conn:
        places = await _places(conn, asked)
        bodies = await _sealed_at(conn, asked, places, budget)

    def opened() -> list[Names]:
        found, known, left = list[Names](), dict[_Place, Names](), Budget(budget)
        for then, place in zip(asked, places, strict=True):
            if place is not None and place not in known:
                if place not in bodies:
                    return found
                document, why = open_within(kek, then.directory, place[1], bodies[place], left)
                if why == LATER:
                    return found
                known[place] = {why: True} if document is None else _named(document)
            found.append({"erased": True} if place is None else known[place])
        return found

    return await anyio.to_thread.run_sync(opened)


def _named(document: dict[str, Any]) -> Names:
    return {name: document[attribute] for name, attribute in _NAMES.items() if attribute in document}


async def _places(conn: Connection, asked: Sequence[Then]) -> list[_Place | None]:
    """Where the body of each stands: its directory and the seq of the event that wrote it."""
    places: list[_Place | None] = [None] * len(asked)
    params = int4s([then.directory.id for then in asked]), uuids([then.id for then in asked]), int8s([then.seq for then in asked])
    for number, body_seq in await (await conn.cursor(binary=True).execute(SQL["body_seqs_then"], params)).fetchall():
        places[number - 1] = asked[number - 1].directory.id, body_seq
    return places


async def _sealed_at(
    conn: Connection, asked: Sequence[Then], places: Sequence[_Place | None], budget: int
) -> dict[_Place, tuple[UUID, int, bytes | None, bytes] | None]:
    """The sealed bodies at different places, in order, up to the budget; None for one that was erased."""
    owners = {place: then.id for then, place in zip(asked, places, strict=True) if place is not None}
    params = int4s([d for d, _ in owners]), int8s([seq for _, seq in owners]), uuids(list(owners.values())), budget
    rows = await (await conn.cursor(binary=True).execute(SQL["sealed_at_places"], params)).fetchall()
    found: dict[_Place, tuple[UUID, int, bytes | None, bytes] | None] = {}
    for (place, owner), (fits, ct, wrapped) in zip(owners.items(), rows, strict=True):
        if not fits:
            break
        found[place] = None if ct is None or wrapped is None else (owner, len(ct), ct, wrapped)
    return found
