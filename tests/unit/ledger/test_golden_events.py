"""One stored sample of every event type: the bytes of leaf and sealed body are fixed for ever (docs/events.md, "The leaf", "The body").

Regenerate only for a new type or a new class_version: `python -m tests.unit.ledger.test_golden_events`.
"""

import hashlib
import json
from itertools import count, pairwise
from pathlib import Path
from typing import Any
from uuid import UUID

import orjson
import pytest

from ledger.build import Built, Decided, build
from ledger.clocks import DirectoryTail
from ledger.directories import Directory
from ledger.events import (
    CLIENT,
    CONSUMER,
    DIRECTORY,
    EVENT_TYPES,
    GROUP,
    HOLD,
    KEY,
    OPERATOR,
    REPLAY,
    SURGE,
    TOKEN,
    USER,
    Body,
    Draft,
    EventType,
)
from ledger.sealing import Kek, data_of, open_payload, unwrap_key
from ledger.state import BatchState
from proofs.leaf import check_leaf, leaf_hash
from scim.profile import profile_of

GOLDEN = Path(__file__).parents[2] / "golden" / "events.json"
KEK = Kek.of(bytes(range(32)))
DIRECTORY_UUID = UUID("0d1ec704-0000-4000-8000-000000000001")
OBJ = UUID("0b1ec700-0000-4000-8000-000000000002")
MEM = UUID("0e3be400-0000-4000-8000-000000000003")
REQUEST = UUID("01936000-0000-7000-8000-000000000004")
HERE = Directory(7, DIRECTORY_UUID, "golden", profile_of("generic@1"), bytes(range(32, 64)))
OWNERS = {
    "user": USER,
    "group": GROUP,
    "directory": DIRECTORY,
    "token": TOKEN,
    "client": CLIENT,
    "hold": HOLD,
    "consumer": CONSUMER,
    "delivery": CONSUMER,
    "key": KEY,
    "replay": REPLAY,
}
RELEASES = (0, 21, 41, 44, 48, 49, 52, 53, len(EVENT_TYPES))  # the number of types before each release: where its types begin
DOCUMENT = {"schemas": ["urn:ietf:params:scim:schemas:core:2.0:User"], "userName": "Zoë", "id": str(OBJ), "active": True}


def _draft(kind: EventType) -> Draft:
    ot = SURGE if "surge" in kind.topic else OWNERS[kind.topic.split(".")[0]]
    if kind.membership:
        return Draft(kind, OBJ, GROUP, mem=MEM, mt=USER, eff=True, moves_etag="access" not in kind.topic)
    body = Body(DOCUMENT, [{"path": "active", "from": True, "to": False}], "zoë")
    active = kind.topic in {"user.created", "user.updated", "user.reactivated"} if ot == USER else None
    return Draft(kind, OBJ, ot, cause="idp" if ot in {USER, GROUP} else OPERATOR, active=active, body=body)


def _pieces(piece_events: int) -> list[Built]:
    """All event types, with a counter in place of random bytes. The types of each release have a commit of their own, so that

    the bytes of earlier releases never change.
    """
    numbers = count()

    def counted(size: int) -> bytes:
        start = next(numbers)
        return hashlib.shake_128(start.to_bytes(4, "big")).digest(size)

    state = BatchState(tails={HERE.id: DirectoryTail(seq=40, at=1_700_000_000_000_000, clock=1_700_000_000_123_456)})
    commits = [tuple(_draft(kind) for kind in EVENT_TYPES[first:end]) for first, end in pairwise(RELEASES)]
    return list(build([Decided(HERE, drafts, None, "tok_1", REQUEST) for drafts in commits], state, KEK, counted, piece_events))


def samples() -> dict[str, Any]:
    (built,) = _pieces(1_000)
    rows = {
        BY_NUMBER[stored.recorded.kind.number]: {
            "leaf": stored.leaf.decode(), "leaf_hash": stored.leaf_hash.hex(), "ct": stored.ct.hex() if stored.ct else None,
        }
        for stored in built.stored
    }  # fmt: skip
    return {"wrapped_key": built.new_keys[0].wrapped.hex(), "events": rows}


BY_NUMBER = {kind.number: f"{kind.topic}.v{kind.version}" for kind in EVENT_TYPES}


def test_every_event_type_has_its_golden_sample_byte_for_byte() -> None:
    assert samples() == json.loads(GOLDEN.read_text())


def test_stored_samples_are_read_back_with_the_same_content() -> None:
    golden = json.loads(GOLDEN.read_text())
    key = unwrap_key(KEK, bytes.fromhex(golden["wrapped_key"]), directory=DIRECTORY_UUID, obj=OBJ)
    for sample in golden["events"].values():
        leaf = check_leaf(sample["leaf"].encode())
        assert leaf_hash(sample["leaf"].encode()).hex() == sample["leaf_hash"]
        if sample["ct"] is None:
            assert leaf["mem"] == str(MEM)
            continue
        ct = bytes.fromhex(sample["ct"])
        assert hashlib.sha256(ct).hexdigest() == leaf["ct"]
        payload = open_payload(key, ct, directory=DIRECTORY_UUID, obj=OBJ, seq=int(leaf["seq"]))
        assert orjson.loads(data_of(payload))["object"] == DOCUMENT
        assert list(orjson.loads(payload)) == ["data", "key"], "the feed cuts data out unparsed"


def test_only_access_events_leave_the_etag_unchanged() -> None:
    (built,) = _pieces(1_000)
    by_topic = {stored.recorded.kind.topic: stored.recorded for stored in built.stored}
    assert by_topic["group.member_removed"].etag_rv == by_topic["group.member_removed"].rv
    for topic in ("group.member_access_revoked", "group.member_access_restored"):
        assert by_topic[topic].etag_rv == by_topic["group.member_removed"].rv


@pytest.mark.parametrize("piece_events", [1, 3, 7])
def test_the_size_of_the_pieces_changes_no_byte(piece_events: int) -> None:
    (whole,), pieces = _pieces(1_000), _pieces(piece_events)
    assert [stored for piece in pieces for stored in piece.stored] == whole.stored
    assert [commit for piece in pieces for commit in piece.commits] == whole.commits
    assert [key for piece in pieces for key in piece.new_keys] == whole.new_keys
    assert max(len(piece.stored) for piece in pieces) == piece_events
    seen = 0
    for piece in pieces:
        seen += len(piece.stored)
        assert all(whole.stored[seen - 1].recorded.seq >= commit.last_seq for commit in piece.commits), (
            "a commit is in a piece before its last event"
        )


if __name__ == "__main__":
    GOLDEN.write_text(json.dumps(samples(), indent=1, ensure_ascii=False) + "\n")
