"""From stored events to what the read models take: the same Recorded events the writer makes. Pure."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import orjson

from ledger.directories import Directory
from ledger.events import BY_NUMBER, GROUP, USER, Fact, Macs, Recorded
from ledger.rendering import DAMAGED
from ledger.sealing import Kek, index_macs, open_payload, unwrap_key
from proofs.keys import WrapError


class UnreadableEventError(Exception):
    """An event's body or key is missing or damaged, so the read models cannot be recomputed from it."""

    def __init__(self, place: str, problem: str) -> None:
        super().__init__(f"{place}: {problem}. Run replay verify.")
        self.place, self.problem = place, problem


@dataclass(frozen=True, slots=True)
class StoredEvent:
    """One row of `events_with_keys`."""

    seq: int
    type: int
    rv: int
    etag_rv: int
    obj: UUID
    mem: UUID | None
    leaf: bytes
    leaf_hash: bytes
    ct: bytes | None
    wrapped: bytes | None


def recorded(
    kek: Kek, directory: Directory, events: Sequence[StoredEvent], unreadable: list[UnreadableEventError] | None = None
) -> list[Recorded]:
    """Read events back as the projections take them. Only the newest body of each resource is unsealed.

    Raises UnreadableEventError; with `unreadable` those are gathered there, and the others go on with blind keys of nothing.
    """
    newest: dict[UUID, int] = {event.obj: event.seq for event in events if event.mem is None}
    return [_recorded(kek, directory, event, newest.get(event.obj) == event.seq, unreadable) for event in events]


def _recorded(
    kek: Kek, directory: Directory, event: StoredEvent, unseal: bool, unreadable: list[UnreadableEventError] | None
) -> Recorded:
    leaf: dict[str, Any] = orjson.loads(event.leaf)
    kind = BY_NUMBER[event.type]
    macs = None
    if unseal and leaf["ot"] in {USER, GROUP} and Fact.ENDS_RESOURCE not in kind.facts:
        try:
            macs = _macs(kek, directory, event, leaf["ot"])
        except UnreadableEventError as found:
            if unreadable is None:
                raise
            unreadable.append(found)
            macs = Macs(b"")
    elif (
        unseal and unreadable is not None and event.ct is not None
    ):  # recomputing needs it not, but somebody will want to read it
        try:
            _payload(kek, directory, event)
        except UnreadableEventError as found:
            unreadable.append(found)
    return Recorded(
        directory.id, event.seq, kind, event.obj, event.rv, event.etag_rv, leaf["at"], event.mem, leaf.get("mt"), leaf.get("active"), macs
    )  # fmt: skip


def _macs(kek: Kek, directory: Directory, event: StoredEvent, ot: str) -> Macs:
    payload = _payload(kek, directory, event)
    return index_macs(directory.index_key, ot, payload["key"], payload["data"]["object"])


def _payload(kek: Kek, directory: Directory, event: StoredEvent) -> dict[str, Any]:
    place = f"{directory.slug} seq {event.seq}"
    if event.ct is None or event.wrapped is None:
        raise UnreadableEventError(place, "its sealed body or key is missing")
    try:
        key = unwrap_key(kek, event.wrapped, directory=directory.uuid, obj=event.obj)
        return orjson.loads(open_payload(key, event.ct, directory=directory.uuid, obj=event.obj, seq=event.seq))
    except WrapError as damaged:
        raise UnreadableEventError(place, "the key of its sealed body is damaged, or wrapped with another one") from damaged
    except DAMAGED as damaged:
        raise UnreadableEventError(place, "its sealed body is damaged") from damaged


def changed(events: Iterable[Recorded]) -> list[tuple[int, UUID]]:
    """The resources whose row a batch of events may write anew."""
    return list(dict.fromkeys((event.directory, event.obj) for event in events if not event.kind.membership))
