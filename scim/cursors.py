"""Cursors of lists (RFC 9865): the position after which the next page begins, as text without any attribute value.

A list by time of creation goes on after a time and an id, whatever is created or deleted meanwhile. A sorted list goes on after the
last item shown that still exists unchanged: one that was changed may stand anywhere in the list now.
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
class AfterCreation:
    """The position after the resource that has this id and was created at this time (µs since the epoch)."""

    at: int
    id: UUID


@dataclass(frozen=True, slots=True)
class AfterAnchors:
    """The position after the last of these items, each by id and representation version, that still has that version.

    They are the last ANCHORS items shown, in the order of the list.
    """

    anchors: tuple[tuple[UUID, int], ...]


ListPosition = AfterCreation | AfterAnchors


def query_digest(key: bytes, parts: Sequence[str | None]) -> bytes:
    """A digest that ties a cursor to its query. It is keyed, so that nobody can find the values of a filter by trying them."""
    text = "\0".join("-" if part is None else f"+{part}" for part in parts)
    return hmac.digest(key, b"cursor\0" + text.encode(), "sha256")[:_DIGEST]


def encode(position: ListPosition, digest: bytes, count: int) -> str:
    """Give the cursor; all its characters are unreserved in URLs."""
    if isinstance(position, AfterCreation):
        packed = _HEAD.pack(_BY_CREATION, digest, count) + _CREATED.pack(position.at, position.id.bytes)
    else:
        anchors = position.anchors[-ANCHORS:]
        packed = _HEAD.pack(_BY_ANCHORS, digest, count) + b"".join(_ANCHOR.pack(i.bytes, v) for i, v in anchors)
    return base64.urlsafe_b64encode(packed).decode().rstrip("=")


def decode(text: str, digest: bytes) -> tuple[ListPosition, int]:
    """Give the position, and the `count` of the first page. Raises InvalidCursor."""
    try:
        packed = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
        kind, tied, count = _HEAD.unpack_from(packed)
        position = _position(kind, packed[_HEAD.size :])
    except (ValueError, StructError) as broken:
        raise InvalidCursor from broken
    if encode(position, tied, count) != text:
        raise InvalidCursor  # base64 leaves bits unused: one position has one text
    if not hmac.compare_digest(tied, digest):
        raise InvalidCursor("The cursor belongs to another query. Send the filter and the order of the first page with it.")
    return position, count


def _position(kind: int, rest: bytes) -> ListPosition:
    if kind == _BY_CREATION:
        at, obj = _CREATED.unpack(rest)
        if not 0 <= at < _YEAR_10000:
            raise InvalidCursor
        return AfterCreation(at, UUID(bytes=obj))
    if kind == _BY_ANCHORS and rest:
        return AfterAnchors(tuple((UUID(bytes=obj), version) for obj, version in _ANCHOR.iter_unpack(rest)))
    raise InvalidCursor
