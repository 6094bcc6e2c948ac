"""From stored rows to the public JSON of events, within a budget of bytes. No IO: it runs in a thread where it is much."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Final
from uuid import UUID

import orjson
import structlog

from ledger.cursor import ID_MARK_SIZE, EventId
from ledger.directories import Directory
from ledger.sealing import Kek, data_of, open_payload, unwrap_key
from proofs.body import BodyError, PayloadTooLargeError
from proofs.keys import WrapError

BODIES_BYTES_MAX: Final = 8 * 2**20  # JSON of a page or request besides its first event (docs/events.md, "How large a page is")
DAMAGED: Final = (BodyError, WrapError, ValueError, LookupError)  # what opening a body that was changed at rest may raise
_UNTRIED: Final = b""  # in the place of a key
_TOLD_MAX: Final = 10_000  # damaged bodies that are remembered as logged
_log = structlog.get_logger("ledger.bodies")


@dataclass(slots=True)
class Event:
    """One event of the log for a reader inside the process. What the public reads of it is put together at the edge, from its parts.

    `head` and `data` are empty where nobody asked for JSON, or where it goes beyond a budget.
    """

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
    slug: str = ""  # of its directory
    head: bytes = b""  # of its JSON: all before the value of `data`
    data: bytes = b""  # that value
    held: bool = False  # the surge brake would hold it back

    @property
    def id(self) -> EventId:
        return EventId(self.slug, self.seq, self.leaf_hash[:ID_MARK_SIZE])

    @property
    def size(self) -> int:
        """Bytes of its JSON, but for the word that it is held; 0 where there is none."""
        return len(self.head) + len(self.data) + 1 if self.head else 0

    @property
    def json(self) -> bytes:
        """Its public JSON (docs/events.md, "One event"), or nothing."""
        return b"".join((self.head, self.data, _END_HELD if self.held else _END)) if self.head else b""

    @property
    def structure(self) -> bytes:
        """The same for a reader who may not see attributes."""
        hidden = self.mem is None and self.data != NO_DATA
        return b"".join((self.head, WITHHELD if hidden else self.data, _END_HELD if self.held else _END)) if self.head else b""


@dataclass(slots=True)
class SealedEvent:
    """An event as it is stored, to be rendered. `ct` or `wrapped` is None where it has no body, or has it no more."""

    event: Event
    directory: Directory
    leaf: bytes
    ct: bytes | None = None
    wrapped: bytes | None = None


@dataclass(slots=True)
class Budget:
    """How much JSON may be made: of the first event alone (None: however large it is), and of all others together."""

    others: int = BODIES_BYTES_MAX
    first: int | None = None
    begun: bool = field(default=False, init=False)

    @property
    def allowed(self) -> int | None:
        """What the next event may have; from 1."""
        return max(self.others, 1) if self.begun else self.first

    def spend(self, size: int) -> bool:
        """Whether an event of that size still goes."""
        if self.begun:
            self.others -= size
            return self.others >= 0
        self.begun = True
        return self.first is None or size <= self.first


def rendered(kek: Kek, events: Sequence[SealedEvent], budget: Budget, *, bodies: bool) -> int:
    """Write the JSON of events in their order until the budget is spent; give how many were written.

    A body that does not open costs its own event only: the place says UNREADABLE, and the log has it once.
    """
    keys: dict[int, bytes | None] = {}  # by the integer of a UUID, whose own hash is computed in Python each time
    gone = ERASED if bodies else WITHHELD  # a reader of bodies is told of one that is gone, another that it may not see it
    for number, sealed in enumerate(events):
        try:
            data = gone if sealed.ct is None or sealed.wrapped is None else _data(kek, sealed, keys, budget.allowed)
        except PayloadTooLargeError:
            return number
        event = sealed.event
        head, data = render(event, sealed.leaf, data)
        if not budget.spend(len(head) + len(data) + 1):
            return number
        event.head, event.data = head, data
    return len(events)


def _data(kek: Kek, sealed: SealedEvent, keys: dict[int, bytes | None], allowed: int | None) -> bytes:
    event, directory = sealed.event, sealed.directory
    assert sealed.ct is not None
    assert sealed.wrapped is not None
    try:
        key = keys.get(event.obj.int, _UNTRIED)
        if key is _UNTRIED:
            key = keys[event.obj.int] = _unwrapped(kek, sealed.wrapped, directory, event.obj)
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


def _unwrapped(kek: Kek, wrapped: bytes, directory: Directory, obj: UUID) -> bytes | None:
    """None where it does not open: it does not for the other events of this resource either."""
    try:
        return unwrap_key(kek, wrapped, directory=directory.uuid, obj=obj)
    except DAMAGED:
        return None


_told: set[tuple[int, int]] = set()


def tell_unreadable(directory: Directory, seq: int) -> None:
    """Log, once in this process, that the body at a place was damaged."""
    if (directory.id, seq) not in _told and len(_told) < _TOLD_MAX:
        _told.add((directory.id, seq))
        _log.error("body_unreadable", directory=directory.slug, seq=seq, do="run `scim-ledger replay verify`")


@lru_cache(maxsize=4096)
def _second(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def rfc3339(micros: int) -> str:
    """RFC 3339 UTC with microseconds."""
    return f"{_second(micros // 1_000_000)}.{micros % 1_000_000:06d}Z"


NO_DATA: Final = b"{}"
WITHHELD: Final = b'{"withheld":true}'
ERASED: Final = b'{"erased":true}'
UNREADABLE: Final = b'{"unreadable":true}'
_END: Final = b"}"
_END_HELD: Final = b',"held":true}'


def render(event: Event, leaf: bytes, data: bytes) -> tuple[bytes, bytes]:
    """Give `head` and `data` of an event (docs/events.md, "One event") from its leaf and the bytes of its body's `data`.

    In the place of `data` stand WITHHELD, ERASED or UNREADABLE where it cannot be shown; the leaf tells which events have
    one (`ct`).
    """
    f: dict[str, Any] = orjson.loads(leaf)
    head = (
        f'{{"object":"event","id":"evt_{event.slug}_{event.seq}_{event.leaf_hash[:4].hex()}","type":"{f["type"]}","directory":"{event.slug}",'
        f'"seq":{f["seq"]},"position":{event.position},"commit":{{"first_seq":{f["tx"]},"size":{f["txn"]}}},"rv":{f["rv"]},'
        f'"time":"{rfc3339(f["at"])}","cause":"{f["cause"]}","actor":"{f["actor"]}","request_id":"{f["req"]}",'
        f'"profile":"{f["prof"]}","subject":{{"type":"{f["ot"]}","id":"{f["obj"]}"}},"data":'
    )
    if f.get("mem"):
        flag = "true" if f["eff"] else "false"
        edge = f'{{"group":{{"id":"{f["obj"]}"}},"member":{{"type":"{f["mt"]}","id":"{f["mem"]}"}},"effective":{flag}}}'
        return head.encode(), edge.encode()
    return head.encode(), NO_DATA if "ct" not in f and data in {WITHHELD, ERASED} else data
