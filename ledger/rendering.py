"""Render stored rows as the public JSON of events, within a budget of bytes. No IO, so it can run in a worker thread."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Final
from uuid import UUID

import orjson
import structlog

from ledger.directories import Directory
from ledger.sealing import Kek, data_of, open_payload, unwrap_key
from proofs.body import BodyError, PayloadTooLargeError
from proofs.keys import WrapError

BODIES_BYTES_MAX: Final = 8 * 2**20  # JSON of a page or request besides its first event (docs/events.md, "How large a page is")
# errors of opening a body that was damaged or changed in the database
DAMAGED: Final = (BodyError, WrapError, ValueError, LookupError)
_TOLD_MAX: Final = 10_000  # damaged bodies of which the process remembers that it logged them
_log = structlog.get_logger("ledger.bodies")


@dataclass(slots=True)
class Event:
    """One event of the log for a reader inside the process. `json` is the public form, empty until it is rendered."""

    position: int
    directory: int
    seq: int
    kind: int  # number of its type
    obj: UUID
    mem: UUID | None
    at: int  # µs since the epoch
    commit: int  # first seq of its commit
    types: int  # bits of all event types in its commit
    leaf_hash: bytes = b""
    json: bytes = b""


@dataclass(slots=True)
class SealedEvent:
    """A stored event before rendering. `ct` or `wrapped` is None if the event has no body, or its body or key was deleted."""

    event: Event
    directory: Directory
    leaf: bytes
    ct: bytes | None = None
    wrapped: bytes | None = None


@dataclass(slots=True)
class Budget:
    """How many bytes of JSON may be made: `first` for the first event (None: unlimited), `others` for the rest together."""

    others: int = BODIES_BYTES_MAX
    first: int | None = None
    begun: bool = field(default=False, init=False)

    @property
    def allowed(self) -> int | None:
        """The bytes that the next event may take, at least 1."""
        return max(self.others, 1) if self.begun else self.first

    def spend(self, size: int) -> bool:
        """Take `size` bytes from the budget; False if they do not fit."""
        if self.begun:
            self.others -= size
            return self.others >= 0
        self.begun = True
        return self.first is None or size <= self.first


def rendered(kek: Kek, events: Sequence[SealedEvent], budget: Budget, *, bodies: bool) -> int:
    """Render events in their order until the budget is spent. Returns how many were rendered.

    A body that cannot be opened affects only its own event: its `data` becomes UNREADABLE, and it is logged once.
    """
    keys: dict[UUID, bytes | None] = {}
    gone = ERASED if bodies else WITHHELD  # a reader without attributes must not learn that the body was erased
    for number, sealed in enumerate(events):
        try:
            data = gone if sealed.ct is None or sealed.wrapped is None else _data(kek, sealed, keys, budget.allowed)
        except PayloadTooLargeError:
            return number
        event = sealed.event
        json = render(sealed.directory.slug, sealed.leaf, event.leaf_hash, event.position, data)
        if not budget.spend(len(json)):
            return number
        event.json = json
    return len(events)


def _data(kek: Kek, sealed: SealedEvent, keys: dict[UUID, bytes | None], allowed: int | None) -> bytes:
    event, directory = sealed.event, sealed.directory
    assert sealed.ct is not None
    assert sealed.wrapped is not None
    try:
        if event.obj not in keys:
            keys[event.obj] = None  # the other events of the resource have the same damaged key
            keys[event.obj] = unwrap_key(kek, sealed.wrapped, directory=directory.uuid, obj=event.obj)
        key = keys[event.obj]
        if key is None:
            raise WrapError
        return data_of(open_payload(key, sealed.ct, directory=directory.uuid, obj=event.obj, seq=event.seq, payload_max=allowed))
    except PayloadTooLargeError:
        if allowed is not None:
            raise
        tell_unreadable(directory, event.seq)
    except DAMAGED:
        tell_unreadable(directory, event.seq)
    return UNREADABLE


_told: set[tuple[int, int]] = set()


def tell_unreadable(directory: Directory, seq: int) -> None:
    """Log once in this process that the body at a place is damaged."""
    if (directory.id, seq) not in _told and len(_told) < _TOLD_MAX:
        _told.add((directory.id, seq))
        _log.error("body_unreadable", directory=directory.slug, seq=seq, do="run `scim-ledger replay verify`")


@lru_cache(maxsize=4096)
def _second(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def rfc3339(micros: int) -> str:
    """Format µs since the epoch as RFC 3339 in UTC, with microseconds."""
    return f"{_second(micros // 1_000_000)}.{micros % 1_000_000:06d}Z"


_DATA: Final = b',"data":'  # no earlier part of a rendered event comes from a request, so the first match is the right one
_NO_DATA: Final = _DATA + b"{}}"
WITHHELD: Final = b'{"withheld":true}'
ERASED: Final = b'{"erased":true}'
UNREADABLE: Final = b'{"unreadable":true}'


def render(slug: str, leaf: bytes, leaf_hash: bytes, position: int, data: bytes) -> bytes:
    """Give the public JSON of an event (docs/events.md, "One event") from its leaf and the bytes of its body's `data`.

    `data` is WITHHELD, ERASED or UNREADABLE if it cannot be shown. Events with a body have `ct` in their leaf.
    """
    f: dict[str, Any] = orjson.loads(leaf)
    head = (
        f'{{"object":"event","id":"evt_{slug}_{f["seq"]}_{leaf_hash[:4].hex()}","type":"{f["type"]}","directory":"{slug}",'
        f'"seq":{f["seq"]},"position":{position},"commit":{{"first_seq":{f["tx"]},"size":{f["txn"]}}},"rv":{f["rv"]},'
        f'"time":"{rfc3339(f["at"])}","cause":"{f["cause"]}","actor":"{f["actor"]}","request_id":"{f["req"]}",'
        f'"profile":"{f["prof"]}","subject":{{"type":"{f["ot"]}","id":"{f["obj"]}"}},"data":'
    )
    if f.get("mem"):
        flag = "true" if f["eff"] else "false"
        edge = f'{{"group":{{"id":"{f["obj"]}"}},"member":{{"type":"{f["mt"]}","id":"{f["mem"]}"}},"effective":{flag}}}}}'
        return (head + edge).encode()
    shown = b"{}" if "ct" not in f and data in {WITHHELD, ERASED} else data
    return b"".join((head.encode(), shown, b"}"))


def withheld(event: Event) -> bytes:
    """Replace `data` in a rendered event by WITHHELD, for a reader who may not see attributes."""
    if event.mem is not None or event.json.endswith(_NO_DATA):
        return event.json
    return event.json[: event.json.index(_DATA)] + _DATA + WITHHELD + b"}"
