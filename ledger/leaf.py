"""Building the leaf of an event: the bytes that are hashed (docs/events.md, "The leaf"). A leaf holds no personal data."""

from typing import Any, Final, NamedTuple
from uuid import UUID

import orjson

from ledger.events import Draft
from ledger.ids import DirectoryUuid, Seq

LEAF_VERSION: Final = 1


class Commit(NamedTuple):
    """The fields that all events of one commit share."""

    directory: DirectoryUuid
    first_seq: Seq
    size: int
    at: int  # µs since the epoch, the database's clock
    actor: str
    request: UUID
    profile: str


def leaf_of(draft: Draft, commit: Commit, seq: Seq, rv: int, cmt: bytes | None, ct: bytes | None) -> bytes:
    """Encode a leaf. Sorted orjson equals RFC 8785 on this profile: ASCII keys, no floats, integers below 2^53; UUIDs in lower case."""
    fields: dict[str, Any] = {
        "v": LEAF_VERSION, "cv": draft.kind.version, "dir": commit.directory, "seq": seq, "tx": commit.first_seq,
        "txn": commit.size, "type": draft.kind.topic, "obj": draft.obj, "ot": draft.ot, "rv": rv, "cause": draft.cause,
        "at": commit.at, "actor": commit.actor, "req": commit.request, "prof": commit.profile,
    }  # fmt: skip
    if draft.mem is not None:
        fields["mem"] = draft.mem
        fields["mt"] = draft.mt
        fields["eff"] = draft.eff
    if draft.active is not None:
        fields["active"] = draft.active
    if cmt is not None and ct is not None:
        fields["cmt"] = cmt.hex()
        fields["ct"] = ct.hex()
    # Copied, because a result of orjson keeps its 8 KB buffer alive, and a giant commit holds 200 000 leaves at once.
    return bytes(memoryview(orjson.dumps(fields, option=orjson.OPT_SORT_KEYS)))
