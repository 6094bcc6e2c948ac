"""Cursors and event ids: opaque places in a feed. They carry a mark, so that a restored or replaced log is recognised."""

import base64
from dataclasses import dataclass
from struct import Struct
from struct import error as StructError  # noqa: N812  # an exception class in lower case
from typing import Final, NamedTuple

from ledger.ids import NO_DIRECTORY, DirectoryNumber, Number, Position, Seq, Slug

_PACKED: Final = Struct("!BIq8s")  # kind, directory, number, mark
_PACKED_BEFORE: Final = Struct("!BIq4s")
_PACKED_READING: Final = Struct("!BIq8s8s")  # the same, and the generation of a consumer's reading
_LEDGER_BEFORE, _DIRECTORY_BEFORE, _LEDGER, _DIRECTORY, _READING = 1, 2, 3, 4, 5
_FORMS: Final = {
    _LEDGER_BEFORE: _PACKED_BEFORE, _DIRECTORY_BEFORE: _PACKED_BEFORE, _LEDGER: _PACKED, _DIRECTORY: _PACKED, _READING: _PACKED_READING,
}  # fmt: skip
# of older cursors, whose mark is the start of a leaf hash: clients still hold them, new ones are not made
MARK_SIZE_BEFORE: Final = 4
ID_MARK_SIZE: Final = 4  # bytes of a leaf hash that an event id shows


class InvalidCursorError(ValueError):
    """The text is not a cursor of this ledger, or not one for this form of the feed; then the text of the error says which one."""


OF_ONE_DIRECTORY: Final = (
    "The cursor counts in one directory, so it is understood only with the parameter `directory` that it was read with."
)
OF_A_DIRECTORY_FEED: Final = "The cursor counts in one directory, and a consumer's place is in the whole ledger. Take a cursor that GET …/events of the consumer returned."
OF_THE_WHOLE_LEDGER: Final = (
    "The cursor counts in the whole ledger: leave the parameter `directory` out, or begin without `after`. Or it was read with another "
    "`directory`."
)


@dataclass(frozen=True, slots=True)
class Cursor:
    """The place after event `number`, which is a position, or a seq if `directory` is not 0.

    `mark` is a keyed hash of that event: only the ledger can tell from it whether the same event is still there. `generation` is
    set in cursors of a consumer's pages and identifies the reading: a seek, a new filter, or a new consumer of the same name starts
    a new reading. It is empty in cursors of the feed.
    """

    number: Number
    mark: bytes
    directory: DirectoryNumber = NO_DIRECTORY
    generation: bytes = b""

    def encode(self) -> str:
        if self.generation:
            packed = _PACKED_READING.pack(_READING, self.directory, self.number, self.mark, self.generation)
        elif len(self.mark) == MARK_SIZE_BEFORE:
            kind = _DIRECTORY_BEFORE if self.directory else _LEDGER_BEFORE
            packed = _PACKED_BEFORE.pack(kind, self.directory, self.number, self.mark)
        else:
            kind = _DIRECTORY if self.directory else _LEDGER
            packed = _PACKED.pack(kind, self.directory, self.number, self.mark)
        return "c_" + base64.urlsafe_b64encode(packed).decode().rstrip("=")


@dataclass(frozen=True, slots=True)
class Anchor:
    """A position and the leaf hash of the event there. A reader that comes back compares the hash.

    After a restore, or after the promotion of a standby that lagged, that position has another event or none. Position 0 never has
    an event.
    """

    position: Position
    leaf_hash: bytes = b""


START: Final = Anchor(Position(0))
BEGINNING: Final = bytes(8)  # the mark of number 0, which has no event


def decode_cursor(text: str) -> Cursor:
    """Parse a cursor. Raises InvalidCursorError."""
    if not text.startswith("c_") or len(text) > 64:
        raise InvalidCursorError
    raw = text[2:]
    try:
        packed = base64.b64decode(raw + "=" * (-len(raw) % 4), altchars=b"-_", validate=True)
        _, directory, number, mark, *reading = _FORMS[packed[0]].unpack(packed)
    except (ValueError, IndexError, KeyError, StructError) as broken:
        raise InvalidCursorError from broken
    cursor = Cursor(number, mark, directory, *reading)
    # base64 leaves bits unused, so several texts could mean one place; only the text that encode() makes is accepted.
    if number < 0 or (reading and directory) or cursor.encode() != text:
        raise InvalidCursorError
    return cursor


class EventId(NamedTuple):
    """`evt_<directory>_<seq>_<first 8 hex digits of the leaf hash>`. An id is never reused, not even after a restore. `mark`: ID_MARK_SIZE bytes."""

    slug: Slug
    seq: Seq
    mark: bytes

    def __str__(self) -> str:
        return f"evt_{self.slug}_{self.seq}_{self.mark.hex()}"


def parse_event_id(text: str) -> EventId | None:
    """Parse an event id; None if the text cannot be one."""
    if not text.startswith("evt_") or len(text) > 128:
        return None
    parts = text[4:].rsplit("_", 2)
    if len(parts) != 3 or not (parts[1].isascii() and parts[1].isdigit() and len(parts[1]) < 19):
        return None
    try:
        mark = bytes.fromhex(parts[2])
    except ValueError:
        return None
    return EventId(Slug(parts[0]), Seq(int(parts[1])), mark) if len(mark) == ID_MARK_SIZE and parts[2] == mark.hex() else None
