"""Render stored rows as the public JSON of events, within a budget of bytes. No IO, so it can run in a worker thread."""

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
from ledger.events import GROUP_DELETED, GROUP_ERASED, OPERATOR, USER_DELETED, USER_ERASED, USER_WAS_ERASED
from ledger.ids import DirectoryNumber, Position, Seq, Slug
from ledger.sealing import Kek, data_of, open_payload, unwrap_key
from ledger.trace_context import traceparent
from proofs.body import BodyError, PayloadTooLargeError
from proofs.keys import WrapError

BODIES_BYTES_MAX: Final = 8 * 2**20  # JSON of a page or request besides its first event (docs/events.md, "How large a page is")
# errors of opening a body that was damaged or changed in the database
DAMAGED: Final = (BodyError, WrapError, ValueError, LookupError)
_NOT_UNWRAPPED: Final = b""  # in the place of a key
_TOLD_MAX: Final = 10_000  # damaged bodies of which the process remembers that it logged them
_log = structlog.get_logger("ledger.bodies")


@dataclass(slots=True)
class Event:
    """One event of the log for a reader inside the process. `json` is the public form, put together where it is read.

    `head` and `data` are its two parts, empty until they are rendered.
    """

    position: Position
    directory: DirectoryNumber
    seq: Seq
    kind: int  # number of its type
    obj: UUID
    mem: UUID | None
    at: int  # µs since the epoch
    commit: Seq  # first seq of its commit
    types: int  # bits of all event types in its commit
    leaf_hash: bytes
    slug: Slug  # of its directory
    head: bytes = b""  # its JSON before the value of `data`
    data: bytes = b""  # the value of `data`
    trace: bytes | None = None  # the trace context of its commit
    held: bool = False  # the surge brake would hold its delivery

    @property
    def id(self) -> EventId:
        return EventId(self.slug, self.seq, self.leaf_hash[:ID_MARK_SIZE])

    @property
    def size(self) -> int:
        """Bytes of its JSON without the member `held`; 0 until it is rendered."""
        return len(self.head) + len(self.data) + 1 if self.head else 0

    @property
    def json(self) -> bytes:
        """Its public JSON (docs/events.md, "One event"); empty until it is rendered."""
        return b"".join((self.head, self.data, _END_HELD if self.held else _END)) if self.head else b""

    @property
    def structure(self) -> bytes:
        """The same for a reader who may not see attributes: `data` is WITHHELD if it has any."""
        hidden = self.mem is None and self.data != NO_DATA
        return b"".join((self.head, WITHHELD if hidden else self.data, _END_HELD if self.held else _END)) if self.head else b""


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
    keys: dict[int, bytes | None] = {}  # by UUID.int: the hash of a UUID is computed in Python at each lookup
    gone = ERASED if bodies else WITHHELD  # a reader without attributes must not learn that the body was erased
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
        key = keys.get(event.obj.int, _NOT_UNWRAPPED)
        if key is _NOT_UNWRAPPED:
            keys[event.obj.int] = None  # a damaged key is damaged for all events of the resource
            key = keys[event.obj.int] = unwrap_key(kek, sealed.wrapped, directory=directory.uuid, obj=event.obj)
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


_told = set[tuple[DirectoryNumber, Seq]]()


def tell_unreadable(directory: Directory, seq: Seq) -> None:
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


NO_DATA: Final = b"{}"
WITHHELD: Final = b'{"withheld":true}'
ERASED: Final = b'{"erased":true}'
UNREADABLE: Final = b'{"unreadable":true}'
_END: Final = b"}"
_END_HELD: Final = b',"held":true}'


def render(event: Event, leaf: bytes, data: bytes) -> tuple[bytes, bytes]:
    """Give `head` and `data` of an event (docs/events.md, "One event") from its leaf and the bytes of its body's `data`.

    `data` is WITHHELD, ERASED or UNREADABLE if it cannot be shown. Events with a body have `ct` in their leaf.
    """
    f: dict[str, Any] = orjson.loads(leaf)
    slug = event.slug
    trace = f'"traceparent":"{traceparent(event.trace)}",' if event.trace else ""
    head = (
        f'{{"object":"event","id":"evt_{slug}_{event.seq}_{event.leaf_hash[:4].hex()}","type":"{f["type"]}","directory":"{slug}",'
        f'"seq":{f["seq"]},"position":{event.position},"commit":{{"first_seq":{f["tx"]},"size":{f["txn"]}}},"rv":{f["rv"]},'
        f'"time":"{rfc3339(f["at"])}","cause":"{f["cause"]}","actor":"{f["actor"]}","request_id":"{f["req"]}",{trace}'
        f'"profile":"{f["prof"]}","subject":{{"type":"{f["ot"]}","id":"{f["obj"]}"}},"data":'
    )
    if f.get("mem"):
        flag = "true" if f["eff"] else "false"
        edge = f'{{"group":{{"id":"{f["obj"]}"}},"member":{{"type":"{f["mt"]}","id":"{f["mem"]}"}},"effective":{flag}}}'
        return head.encode(), edge.encode()
    if "ct" not in f and data in {WITHHELD, ERASED} and not _born_erased(f):
        return head.encode(), NO_DATA
    return head.encode(), data


def _born_erased(leaf: dict[str, Any]) -> bool:
    """Whether the event never had a body because its commit erased the resource (decide.py)."""
    return leaf["type"] in _ERASED or (leaf["type"] in _DELETED and leaf["cause"] in {USER_WAS_ERASED, OPERATOR})


_ERASED: Final = {USER_ERASED.topic, GROUP_ERASED.topic}
_DELETED: Final = {USER_DELETED.topic, GROUP_DELETED.topic}
