"""All state of a directory as of one seq, read line by line, to begin with."""

import json
from collections.abc import Iterator
from typing import Any, Literal, NotRequired, TypeAlias, TypedDict, cast

from scim_ledger_client.errors import IncompleteSnapshotError
from scim_ledger_client.events import (
    Erased,
    GroupReference,
    MappedUser,
    MemberReference,
    ScimGroup,
    ScimUser,
    Unreadable,
    Withheld,
)


class SnapshotUserData(TypedDict):
    object: ScimUser
    user: MappedUser


class SnapshotUser(TypedDict):
    object: Literal["user"]
    id: str
    active: bool
    data: SnapshotUserData | Withheld | Erased | Unreadable


class SnapshotGroupData(TypedDict):
    object: ScimGroup


class SnapshotGroup(TypedDict):
    object: Literal["group"]
    id: str
    data: SnapshotGroupData | Withheld | Erased | Unreadable


class SnapshotMembership(TypedDict):
    """A direct membership; `effective` is false while the member is inactive."""

    object: Literal["membership"]
    group: GroupReference
    member: MemberReference
    effective: bool


SnapshotLine: TypeAlias = SnapshotUser | SnapshotGroup | SnapshotMembership


class _Head(TypedDict):
    directory: str
    seq: int
    time: str
    after: str
    clock: NotRequired[str]


class Snapshot:
    """The lines of a snapshot. `after` is the cursor from which the feed of the directory continues: no event is missed or repeated."""

    def __init__(self, lines: Iterator[str]) -> None:
        """Read the first line. Raises IncompleteSnapshotError if there is none."""
        head = cast("_Head", _line_of(next(lines, "")))
        self.directory = head["directory"]
        self.seq = head["seq"]
        self.time = head["time"]
        self.after = head["after"]
        self._lines = lines

    def __iter__(self) -> Iterator[SnapshotLine]:
        """Users, and groups with their memberships. Raises IncompleteSnapshotError if the last line is missing."""
        for text in self._lines:
            line = _line_of(text)
            if line.get("object") == "end":
                return
            yield cast("SnapshotLine", line)
        raise IncompleteSnapshotError("The snapshot ended before its last line: read it again.")


def _line_of(text: str) -> dict[str, Any]:
    try:
        return json.loads(text)
    except json.JSONDecodeError as cut:
        raise IncompleteSnapshotError("The snapshot ended inside a line: read it again.") from cut
