"""Cursors of lists (RFC 9865): where the next page begins, as text without any attribute value.

A list by time of creation goes on after a moment and an id, whoever else comes or goes meanwhile. A sorted list goes on after
the last item of the page that is still there and still as it was: what moved or vanished says nothing about the place.
"""

import base64
import hmac
from collections.abc import Sequence
from dataclasses import dataclass
from struct import Struct
from struct import error as StructError  # noqa: N812  # an exception class in lower case
from typing import Final
from uuid import UUID

from scim.errors import InvalidCursor

ANCHORS: Final = 8  # items a sorted list may go on after
_DIGEST: Final = 8
_HEAD: Final = Struct(f"!B{_DIGEST}sH")  # kind, digest of the query, count
_CREATED: Final = Struct("!q16s")
_ANCHOR: Final = Struct("!16sI")
_BY_CREATION, _BY_ANCHORS = 1, 2
_YEAR_10000: Final = 253_402_300_800_000_000


@dataclass(frozen=True, slots=True)
class Created:
    """After the resource with this id, created then (µs since the epoch)."""

    at: int
    id: UUID


@dataclass(frozen=True, slots=True)
class Sorted:
    """After the last of these that still has this representation version: the ends of the pages shown so far, in their order."""

    anchors: tuple[tuple[UUID, int], ...]


Place = Created | Sorted


def query_digest(key: bytes, parts: Sequence[str | None]) -> bytes:
    """What ties a cursor to its query, keyed so that the values in a filter cannot be guessed from it."""
    text = "\0".join("-" if part is None else f"+{part}" for part in parts)
    return hmac.digest(key, b"cursor\0" + text.encode(), "sha256")[:_DIGEST]


def encode(place: Place, digest: bytes, count: int) -> str:
    """Give the cursor; all its characters are unreserved in URLs."""
    if isinstance(place, Created):
        packed = _HEAD.pack(_BY_CREATION, digest, count) + _CREATED.pack(place.at, place.id.bytes)
    else:
        anchors = place.anchors[-ANCHORS:]
        packed = _HEAD.pack(_BY_ANCHORS, digest, count) + b"".join(_ANCHOR.pack(i.bytes, v) for i, v in anchors)
    return base64.urlsafe_b64encode(packed).decode().rstrip("=")


def decode(text: str, digest: bytes) -> tuple[Place, int]:
    """Give the place and the count of the pages before. Raises InvalidCursor."""
    try:
        packed = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
        kind, tied, count = _HEAD.unpack_from(packed)
        place = _place(kind, packed[_HEAD.size :])
    except (ValueError, StructError) as broken:
        raise InvalidCursor from broken
    if encode(place, tied, count) != text:
        raise InvalidCursor  # base64 leaves bits unused: one place has one text
    if not hmac.compare_digest(tied, digest):
        raise InvalidCursor("The cursor belongs to another query. Send the filter and the order of the first page with it.")
    return place, count


def _place(kind: int, rest: bytes) -> Place:
    if kind == _BY_CREATION:
        at, obj = _CREATED.unpack(rest)
        if not 0 <= at < _YEAR_10000:
            raise InvalidCursor
        return Created(at, UUID(bytes=obj))
    if kind == _BY_ANCHORS and rest:
        return Sorted(tuple((UUID(bytes=obj), version) for obj, version in _ANCHOR.iter_unpack(rest)))
    raise InvalidCursor
