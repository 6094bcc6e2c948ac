"""Cursors and event ids: opaque places in a feed that notice when the log under them is another one."""

import base64
from dataclasses import dataclass
from struct import Struct
from struct import error as StructError  # noqa: N812  # an exception class in lower case
from typing import Final

_PACKED: Final = Struct("!BIq8s")  # kind, directory, number, mark
_PACKED_BEFORE: Final = Struct("!BIq4s")
_LEDGER_BEFORE, _DIRECTORY_BEFORE, _LEDGER, _DIRECTORY = 1, 2, 3, 4
MARK_SIZE_BEFORE: Final = 4  # of cursors whose mark is the start of a leaf hash: clients hold them, none is made any more


class InvalidCursorError(ValueError):
    """The text is not a cursor of this ledger."""


@dataclass(frozen=True, slots=True)
class Cursor:
    """After event `number`: a position, or with `directory` a seq of it. `mark` tells that event from any other, to us alone."""

    number: int
    mark: bytes
    directory: int = 0

    def encode(self) -> str:
        if len(self.mark) == MARK_SIZE_BEFORE:
            kind = _DIRECTORY_BEFORE if self.directory else _LEDGER_BEFORE
            packed = _PACKED_BEFORE.pack(kind, self.directory, self.number, self.mark)
        else:
            kind = _DIRECTORY if self.directory else _LEDGER
            packed = _PACKED.pack(kind, self.directory, self.number, self.mark)
        return "c_" + base64.urlsafe_b64encode(packed).decode().rstrip("=")


BEGINNING: Final = bytes(8)  # the mark of number 0, where no event stands


def decode_cursor(text: str) -> Cursor:
    """Raises InvalidCursorError."""
    if not text.startswith("c_") or len(text) > 64:
        raise InvalidCursorError
    raw = text[2:]
    try:
        packed = base64.b64decode(raw + "=" * (-len(raw) % 4), altchars=b"-_", validate=True)
        form = _PACKED if packed[:1] in {bytes((_LEDGER,)), bytes((_DIRECTORY,))} else _PACKED_BEFORE
        kind, directory, number, mark = form.unpack(packed)
    except (ValueError, StructError) as broken:
        raise InvalidCursorError from broken
    cursor = Cursor(number, mark, directory)
    # `kind` says nothing that directory and form do not; base64 leaves bits unused: one place has one text.
    if kind not in {_LEDGER_BEFORE, _DIRECTORY_BEFORE, _LEDGER, _DIRECTORY} or number < 0 or cursor.encode() != text:
        raise InvalidCursorError
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
