"""Turn stored events into Recorded events, as the writer gives them to the read models. Pure."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple
from uuid import UUID

import orjson

from ledger.directories import Directory
from ledger.events import BY_NUMBER, EVENT_TYPES, GROUP, USER, Fact, Macs, Recorded
from ledger.ids import DirectoryNumber, DirectoryUuid, Seq, Slug
from ledger.rendering import DAMAGED
from ledger.sealing import Kek, index_macs, open_payload, unwrap_key
from proofs.keys import WrapError

Leaf = Mapping[str, Any]
_SEARCHED = frozenset({USER, GROUP})
_ENDING = frozenset(kind.number for kind in EVENT_TYPES if Fact.ENDS_RESOURCE in kind.facts)


class Finding(NamedTuple):
    """One difference: its place, and what was expected and found. Never contains attributes."""

    place: str
    problem: str


class UnreadableEventError(Exception):
    """An event's body or key is missing or damaged, so the read models cannot be recomputed from it."""

    def __init__(self, finding: Finding) -> None:
        super().__init__(f"{finding.place}: {finding.problem}. Run replay verify.")


class Origin(NamedTuple):
    """The fields of a directory that reading its events needs; small, because it is sent to other processes."""

    id: DirectoryNumber
    uuid: DirectoryUuid
    slug: Slug
    index_key: bytes

    @classmethod
    def of(cls, directory: Directory) -> "Origin":
        return cls(directory.id, directory.uuid, directory.slug, directory.index_key)


class StoredEvent(NamedTuple):
    """One row of `events_with_keys`."""

    seq: Seq
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
    kek: Kek, origin: Origin, events: Sequence[StoredEvent], leaves: Sequence[Leaf], erased: frozenset[UUID], *, verifies: bool
) -> tuple[list[Recorded], list[Finding]]:
    """The events for the projections, and those whose body cannot be opened, which get HMACs of empty values.

    Only the newest body of each resource is opened; with `verifies` also that of deleted resources, because audits read it. The body of an
    `erased` resource is gone, and its row too once all events are applied; until then its id stands where HMACs must be unique.
    """
    newest: dict[UUID, int] = {event.obj: event.seq for event in events if event.mem is None}
    bodies = _Bodies(kek, origin)
    found: list[Recorded] = []
    for event, leaf in zip(events, leaves, strict=True):
        kind, macs = BY_NUMBER[event.type], None
        if newest.get(event.obj) == event.seq:
            if event.ct is None and event.obj in erased:
                macs = Macs(event.obj.bytes)
            elif leaf["ot"] in _SEARCHED and event.type not in _ENDING:
                macs = bodies.macs(event, leaf["ot"])
            elif verifies and event.ct is not None:
                bodies.opened(event)
        found.append(Recorded(
            origin.id, event.seq, kind, event.obj, event.rv, event.etag_rv, leaf["at"], event.mem, leaf.get("mt"), leaf.get("active"), macs
        ))  # fmt: skip
    return found, bodies.unreadable


class _Bodies:
    """Opens bodies of events. The key of each resource is unwrapped once."""

    def __init__(self, kek: Kek, origin: Origin) -> None:
        self.unreadable: list[Finding] = []
        self._kek, self._origin = kek, origin
        self._keys: dict[bytes, bytes] = {}

    def macs(self, event: StoredEvent, ot: str) -> Macs:
        payload = self.opened(event)
        return Macs(b"") if payload is None else index_macs(self._origin.index_key, ot, payload["key"], payload["data"]["object"])

    def opened(self, event: StoredEvent) -> dict[str, Any] | None:
        """The payload of an event. If it cannot be opened: None, and the event is added to the unreadable ones."""
        if event.ct is None or event.wrapped is None:
            return self._note(event, "its sealed body or key is missing")
        try:
            key = self._keys.get(event.wrapped)
            if key is None:
                key = self._keys[event.wrapped] = unwrap_key(self._kek, event.wrapped, directory=self._origin.uuid, obj=event.obj)
            return orjson.loads(open_payload(key, event.ct, directory=self._origin.uuid, obj=event.obj, seq=event.seq))
        except WrapError:
            return self._note(event, "the key of its sealed body is damaged, or wrapped with another one")
        except DAMAGED:
            return self._note(event, "its sealed body is damaged")

    def _note(self, event: StoredEvent, problem: str) -> None:
        self.unreadable.append(Finding(f"{self._origin.slug} seq {event.seq}", problem))
