"""From stored events to what the read models take: the same Recorded events the writer makes. Pure."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import orjson

from ledger.directories import Directory
from ledger.events import BY_NUMBER, GROUP, GROUP_DELETED, USER, USER_DELETED, Recorded
from ledger.sealing import Kek, index_macs, open_payload, unwrap_key


class UnreadableEventError(Exception):
    """An event's body or key is missing, so the read models cannot be recomputed; the text names the event."""


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


def recorded(kek: Kek, directory: Directory, events: Sequence[StoredEvent]) -> list[Recorded]:
    """Read events back as the projections take them. Only the newest body of each resource is unsealed.

    Raises UnreadableEventError.
    """
    newest: dict[UUID, int] = {event.obj: event.seq for event in events if event.mem is None}
    return [_recorded(kek, directory, event, newest.get(event.obj) == event.seq) for event in events]


def _recorded(kek: Kek, directory: Directory, event: StoredEvent, unseal: bool) -> Recorded:
    leaf: dict[str, Any] = orjson.loads(event.leaf)
    kind = BY_NUMBER[event.type]
    macs = None
    if unseal and leaf["ot"] in {USER, GROUP} and kind not in {USER_DELETED, GROUP_DELETED}:
        if event.ct is None or event.wrapped is None:
            raise UnreadableEventError(f"{directory.slug} seq {event.seq}: its sealed body or key is missing. Run replay verify.")
        key = unwrap_key(kek, event.wrapped, directory=directory.uuid, obj=event.obj)
        payload = orjson.loads(open_payload(key, event.ct, directory=directory.uuid, obj=event.obj, seq=event.seq))
        macs = index_macs(directory.index_key, leaf["ot"], payload["key"], payload["data"]["object"])
    return Recorded(
        directory.id, event.seq, kind, event.obj, event.rv, event.etag_rv, leaf["at"], event.mem, leaf.get("mt"), leaf.get("active"), macs
    )  # fmt: skip


def changed(events: Iterable[Recorded]) -> list[tuple[int, UUID]]:
    """The resources whose row a batch of events may write anew."""
    return list(dict.fromkeys((event.directory, event.obj) for event in events if not event.kind.membership))
