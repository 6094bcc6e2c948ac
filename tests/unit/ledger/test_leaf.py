"""The writer's leaf is the canonical leaf: it equals the output of the slow, strict encoder that auditors use."""

from typing import Any
from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from ledger.events import EVENT_TYPES, Draft
from ledger.leaf import Commit, leaf_of
from proofs.leaf import INTEGER_MAX, check_leaf, encode_leaf

numbers = st.integers(1, INTEGER_MAX)
names = st.text(st.characters(codec="ascii", exclude_characters="\0"), max_size=20)
hashes = st.none() | st.tuples(st.binary(min_size=32, max_size=32), st.binary(min_size=32, max_size=32))
drafts = st.builds(
    Draft,
    kind=st.sampled_from(EVENT_TYPES),
    obj=st.uuids(),
    ot=names,
    cause=names,
    mem=st.none() | st.uuids(),
    mt=st.sampled_from(["User", "Group"]),
    eff=st.booleans(),
    active=st.none() | st.booleans(),
    body=st.none(),
)
commits = st.builds(
    Commit, directory=st.uuids(), first_seq=numbers, size=numbers, at=numbers, actor=names, request=st.uuids(), profile=names
)


def fields_of(draft: Draft, commit: Commit, seq: int, rv: int, sealed: tuple[bytes, bytes] | None) -> dict[str, Any]:
    """The content of a leaf, written a second time from its published description."""
    optional: dict[str, Any] = {"active": draft.active}
    if draft.mem is not None:
        optional |= {"mem": str(draft.mem), "mt": draft.mt, "eff": draft.eff}
    if sealed is not None:
        optional |= {"cmt": sealed[0].hex(), "ct": sealed[1].hex()}
    return {
        "v": 1, "cv": draft.kind.version, "dir": str(commit.directory), "seq": seq, "tx": commit.first_seq, "txn": commit.size,
        "type": draft.kind.topic, "obj": str(draft.obj), "ot": draft.ot, "rv": rv, "cause": draft.cause, "at": commit.at,
        "actor": commit.actor, "req": str(commit.request), "prof": commit.profile,
        **{key: value for key, value in optional.items() if value is not None},
    }  # fmt: skip


@given(drafts, commits, numbers, numbers, hashes)
def test_the_stored_leaf_is_the_canonical_one(
    draft: Draft, commit: Commit, seq: int, rv: int, sealed: tuple[bytes, bytes] | None
) -> None:
    """The writer encodes with orjson for speed; if one byte differed, every proof would fail for ever."""
    raw = leaf_of(draft, commit, seq, rv, *(sealed or (None, None)))
    fields = fields_of(draft, commit, seq, rv, sealed)
    assert raw == encode_leaf(fields)
    assert check_leaf(raw) == fields


def test_every_event_type_makes_a_leaf_that_is_accepted() -> None:
    """The property test chooses types at random; this one covers each type."""
    commit = Commit(UUID(int=1), 1, 1, 1, "sys", UUID(int=2), "generic@1")
    for kind in EVENT_TYPES:
        assert check_leaf(leaf_of(Draft(kind, UUID(int=3), "User"), commit, 1, 1, None, None))["type"] == kind.topic


def test_numbers_and_topics_of_event_types_are_unique_and_fit_into_the_bit_mask() -> None:
    """Number and topic are stored; `commits.types` has one bit for each, in a signed 64-bit column."""
    assert len({kind.topic for kind in EVENT_TYPES}) == len({kind.number for kind in EVENT_TYPES}) == len(EVENT_TYPES)
    assert all(0 <= kind.number < 63 for kind in EVENT_TYPES)
