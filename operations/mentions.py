"""Where else a directory names a user or group: the bodies of other resources, which an erasure leaves, and groups that it was in.

Bodies are sealed, so they are opened one after the other, those of the past too, and searched for the ids. What stands in them about
somebody else (the id of a manager) is the other's data: the receipt lists it, and whoever wants it gone changes it at the IdP.
"""

import asyncio
import re
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any, Final, NamedTuple, TypedDict
from uuid import UUID

import orjson

from database.arrays import uuids
from database.queries import load_queries
from ledger.directories import Directory
from ledger.event_data import Count, Id
from ledger.ids import Seq
from ledger.rendering import DAMAGED
from ledger.sealing import Kek, open_payload, unwrap_key
from operations.open_ledger import OpenLedger

SQL: Final = load_queries(__file__)
LISTED_MAX: Final = 1_000  # places that a receipt lists; all are counted
BODIES_PAGE: Final = 500  # bodies
BODIES_PAGE_BYTES: Final = 4 * 2**20  # ciphertext of a page besides its first body
_ID: Final = re.compile(rb"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")


class Mention(TypedDict):
    """A place that names the subject. `current`: also now, not only in the past."""

    type: str
    id: Id
    path: str
    current: bool


class Mentions(TypedDict):
    """Places that name the subject. `count` of all, of which `data` lists the first. `complete`: everything was looked through."""

    data: list[Mention]
    count: Count
    complete: bool


class _Seen(NamedTuple):
    """A place in a body: the subject, the resource that the body is of, its type, the path, the body's seq.

    `stands`: in the attributes after the event, not only in what it changed.
    """

    subject: UUID
    owner: UUID
    ot: str
    path: str
    seq: Seq
    stands: bool


Spent = Callable[[], bool]


async def mentions_of(
    ledger: OpenLedger, directory: Directory, subjects: Collection[UUID], *, gently: bool, spent: Spent = lambda: False
) -> dict[UUID, Mentions]:
    """The mentions of subjects. `gently`: it rests as long as it works. `spent`: asked after each page, whether it must end."""
    seen, complete = set[_Seen](), True
    after = 0
    while (page := await _bodies(ledger, directory, after)) is not None:
        began = asyncio.get_running_loop().time()
        after, rows = page
        seen |= await ledger.turns.compute(directory.id, lambda rows=rows: set(_found(ledger.kek, directory, rows, subjects)))
        if spent():
            complete = False
            break
        if gently:
            await asyncio.sleep(asyncio.get_running_loop().time() - began)
    return await _counted(ledger, directory, subjects, seen, complete=complete)


async def _bodies(ledger: OpenLedger, directory: Directory, after: int) -> tuple[int, Sequence[tuple[Any, ...]]] | None:
    """The next bodies of a directory: the seq of the last, and (seq, owner, type, ciphertext, key) of each. None at the end."""
    async with ledger.turns.connection(directory.id) as conn:
        rows = await (
            await conn.cursor(binary=True).execute(SQL["bodies_after"], (directory.id, after, BODIES_PAGE, BODIES_PAGE_BYTES))
        ).fetchall()
    return (rows[-1][0], rows) if rows else None


def _found(kek: Kek, directory: Directory, rows: Sequence[tuple[Any, ...]], subjects: Collection[UUID]) -> Iterator[_Seen]:
    wanted = {str(subject).encode(): subject for subject in subjects}
    keys = dict[bytes, bytes]()
    for seq, owner, ct, wrapped in rows:
        if wrapped is None or owner in subjects:
            continue
        try:
            key = keys.get(wrapped)
            if key is None:
                key = keys[wrapped] = unwrap_key(kek, wrapped, directory=directory.uuid, obj=owner)
            payload = open_payload(key, ct, directory=directory.uuid, obj=owner, seq=seq)
        except DAMAGED:  # `replay verify` reports it
            continue
        named = {found.lower() for found in _ID.findall(payload)} & wanted.keys()
        if named:
            yield from _places(orjson.loads(payload)["data"], named, wanted, owner, seq)


def _places(data: dict[str, Any], named: Collection[bytes], wanted: dict[bytes, UUID], owner: UUID, seq: Seq) -> Iterator[_Seen]:
    ot = "User" if "userName" in data["object"] else "Group"
    for text in named:
        told = text.decode()
        paths = dict.fromkeys(_paths(data["object"], "", told))
        changed = [change["path"] for change in data["changes"] if told in orjson.dumps(change).decode().lower()]
        for path in paths or dict.fromkeys(changed or ["data"]):
            yield _Seen(wanted[text], owner, ot, path, seq, bool(paths))


def _paths(value: Any, path: str, told: str) -> Iterator[str]:
    """The paths of the texts in a document that hold an id, as in a PATCH (RFC 7644 §3.5.2), without indexes of lists."""
    if isinstance(value, str):
        if told in value.lower():
            yield path.removesuffix(".")
    elif isinstance(value, dict):
        for name, inner in value.items():  # pyright: ignore[reportUnknownVariableType]
            extension = not path and str(name).startswith("urn:")  # pyright: ignore[reportUnknownArgumentType]
            yield from _paths(inner, f"{path}{name}{':' if extension else '.'}", told)  # pyright: ignore[reportUnknownArgumentType]
    elif isinstance(value, list):
        for inner in value:  # pyright: ignore[reportUnknownVariableType]
            yield from _paths(inner, path, told)


async def _counted(
    ledger: OpenLedger, directory: Directory, subjects: Collection[UUID], seen: Collection[_Seen], *, complete: bool
) -> dict[UUID, Mentions]:
    owners = list({one.owner for one in seen})
    async with ledger.turns.connection(directory.id) as conn:
        cursor = conn.cursor(binary=True)
        newest = dict(await (await cursor.execute(SQL["newest_bodies"], (directory.id, uuids(owners)))).fetchall())
        held = await (await cursor.execute(SQL["groups_ever"], (directory.id, uuids(list(subjects)), LISTED_MAX + 1))).fetchall()
    places = defaultdict[UUID, dict[tuple[str, UUID, str], bool]](dict)
    for one in seen:
        place = (one.ot, one.owner, one.path)
        places[one.subject][place] = places[one.subject].get(place, False) or (one.stands and newest.get(one.owner) == one.seq)
    for subject, group in held:
        places[subject]["Group", group, "members.value"] = False
    return {subject: _mentions(places[subject], complete=complete) for subject in subjects}


def _mentions(places: dict[tuple[str, UUID, str], bool], *, complete: bool) -> Mentions:
    in_order = sorted(places.items(), key=lambda item: (not item[1], item[0][0], item[0][1].bytes, item[0][2]))
    data: list[Mention] = [
        {"type": ot, "id": str(owner), "path": path, "current": now} for (ot, owner, path), now in in_order[:LISTED_MAX]
    ]
    return {"data": data, "count": len(places), "complete": complete}
