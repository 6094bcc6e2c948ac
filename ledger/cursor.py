"""Cursors and event ids: opaque places in a feed that notice when the log under them is another one."""

import base64
from dataclasses import dataclass
from struct import Struct
from struct import error as StructError  # noqa: N812  # an exception class in lower case
from typing import Final

_PACKED: Final = Struct("!BIq4s")  # kind, directory, number, first bytes of the leaf hash
_LEDGER, _DIRECTORY = 1, 2


class InvalidCursorError(ValueError):
    """The text is not a cursor of this ledger."""


@dataclass(frozen=True, slots=True)
class Cursor:
    """After event `number`: a position, or with `directory` a seq of it. `mark` is the start of that event's leaf hash."""

    number: int
    mark: bytes
    directory: int = 0

    def encode(self) -> str:
        kind = _DIRECTORY if self.directory else _LEDGER
        packed = _PACKED.pack(kind, self.directory, self.number, self.mark)
        return "c_" + base64.urlsafe_b64encode(packed).decode().rstrip("=")


BEGINNING: Final = b"\0\0\0\0"  # the mark of number 0, where no event stands


def decode_cursor(text: str) -> Cursor:
    """Raises InvalidCursorError."""
    if not text.startswith("c_") or len(text) > 64:
        raise InvalidCursorError
    raw = text[2:]
    try:
        packed = base64.b64decode(raw + "=" * (-len(raw) % 4), altchars=b"-_", validate=True)
        kind, directory, number, mark = _PACKED.unpack(packed)
    except (ValueError, StructError) as broken:
        raise InvalidCursorError from broken
    if kind not in {_LEDGER, _DIRECTORY} or number < 0 or (kind == _DIRECTORY) is not bool(directory):
        raise InvalidCursorError
    cursor = Cursor(number, mark, directory)
    if cursor.encode() != text:
        raise InvalidCursorError  # base64 leaves bits unused: one place has one text
    return cursor


@dataclass(frozen=True, slots=True)
class EventId:
    """evt_<directory>_<seq>_<first 8 hex digits of the leaf hash>: never reused, not even after a restore."""

    slug: str
    seq: int
    mark: bytes

    def __str__(self) -> str:
        return f"evt_{self.slug}_{self.seq}_{self.mark.hex()}"


def parse_event_id(text: str) -> EventId | None:
    """Give the parts of an event id, or None where the text cannot be one."""
    if not text.startswith("evt_") or len(text) > 128:
        return None
    parts = text[4:].rsplit("_", 2)
    if len(parts) != 3 or not (parts[1].isascii() and parts[1].isdigit() and len(parts[1]) < 19):
        return None
    try:
        mark = bytes.fromhex(parts[2])
    except ValueError:
        return None
    return EventId(parts[0], int(parts[1]), mark) if len(mark) == 4 and parts[2] == mark.hex() else None
