"""From a resource and its memberships to the SCIM JSON that a client reads."""

from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any, Final
from uuid import UUID

import orjson

from ledger.events import MEMBER_TYPES
from ledger.feed import rfc3339
from projections.reads import Members, Resource
from projections.user_groups import NAME_CHARS_MAX, NAMES_MAX, GroupOf
from scim.projection import Projection, project

MEMBERS_PIECE: Final = 1_000
Encode = Callable[[dict[str, Any]], bytes]  # a document as JSON: whole, or its members
_ANYBODY: Final = str(UUID(int=0))


def etag(etag_rv: int) -> str:
    """The weak entity tag of a representation version (RFC 7644 §3.14)."""
    return f'W/"{etag_rv}"'


def with_meta(resource: Resource, base: str) -> dict[str, Any]:
    """Add `meta` to a stored document."""
    segment = "Users" if resource.type == "User" else "Groups"
    meta = {
        "resourceType": resource.type, "created": rfc3339(resource.created_at), "lastModified": rfc3339(resource.updated_at),
        "location": f"{base}/{segment}/{resource.id}", "version": etag(resource.etag_rv),
    }  # fmt: skip
    return {**resource.document, "meta": meta}


def shown_members(members: Iterable[tuple[str, str]], base: str) -> list[dict[str, Any]]:
    """`members` of a group: value, type and $ref. The name of a member is not stored with the membership."""
    return [{"value": member, "type": kind, "$ref": f"{base}/{kind}s/{member}"} for member, kind in members]


def object_members(document: Mapping[str, Any]) -> bytes:
    """The members of a JSON object without its braces, for an object that gets one more member, written in pieces."""
    return b",".join([orjson.dumps(name) + b":" + orjson.dumps(value) for name, value in document.items()])


def group_json(head: bytes, projection: Projection, members: Members, base: str) -> Iterator[bytes]:
    """A group as JSON in pieces, with MEMBERS_PIECE members each, which never become documents in memory.

    `head`: `object_members` of the projected group, which does not have `members`.
    """
    shown = member_templates(projection, base) if members else {}
    if not shown:
        yield b"{" + head + b"}"
        return
    yield b"{" + head + b',"members":['
    for start in range(0, len(members), MEMBERS_PIECE):
        ids = members.ids[36 * start : 36 * (start + MEMBERS_PIECE)]
        digits = members.types[start : start + MEMBERS_PIECE]
        piece = ",".join([shown[digit].replace(_ANYBODY, ids[36 * n : 36 * n + 36]) for n, digit in enumerate(digits)])
        yield (piece if start == 0 else "," + piece).encode()
    yield b"]}"


async def each(pieces: Iterable[bytes]) -> AsyncIterator[bytes]:
    """The pieces as an asynchronous iterator."""
    for piece in pieces:
        yield piece


@lru_cache(maxsize=64)
def member_templates(projection: Projection, base: str) -> dict[str, str]:
    """The JSON of a member as the projection shows it, with a placeholder for its id, by the digit of its type."""
    found: dict[str, str] = {}
    for name, number in MEMBER_TYPES.items():
        sample = project(projection, {"members": shown_members([(_ANYBODY, name)], base)}).get("members")
        if sample:
            found[str(number)] = orjson.dumps(sample[0]).decode()
    return found


def shown_groups(groups: Sequence[GroupOf], base: str) -> list[dict[str, Any]]:
    """`groups` of a user (RFC 7643 §4.1.2)."""
    return [shown_group(base, group) for group in groups]


def shown_group(base: str, group: GroupOf) -> dict[str, Any]:
    """An item of `groups`."""
    return {
        "value": group.id, "display": group.name, "type": "direct" if group.direct else "indirect",
        "$ref": f"{base}/Groups/{group.id}",
    }  # fmt: skip


def group_as_json(base: str, group: GroupOf) -> bytes:
    """A group as an item of `groups`, as JSON. Short ones are remembered, as their names are."""
    return (_remembered if len(group.name) <= NAME_CHARS_MAX else _as_json)(base, group)


def _as_json(base: str, group: GroupOf) -> bytes:
    return orjson.dumps(shown_group(base, group))


_remembered = lru_cache(maxsize=NAMES_MAX)(_as_json)


def forget_names() -> None:
    """Forget the groups as JSON: the name of one was erased."""
    _remembered.cache_clear()
