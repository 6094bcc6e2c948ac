"""The public JSON of an event: put together from its parts, for each reader."""

from uuid import UUID, uuid4

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.cursor import parse_event_id
from ledger.events import MEMBER_ADDED, USER_CREATED
from ledger.rendering import ERASED, NO_DATA, WITHHELD, Event, render

OBJ, MEM = UUID(int=7), UUID(int=8)
LEAF_HASH = bytes(range(32))


def event(data: bytes, *, mem: UUID | None = None, sealed: bool = True, slug: str = "acme", seq: int = 3) -> Event:
    """An event as the feed gives it."""
    kind = USER_CREATED if mem is None else MEMBER_ADDED
    leaf = {
        "seq": seq, "tx": seq, "txn": 1, "type": kind.topic, "rv": 1, "at": 1_700_000_000_000_000, "cause": "idp", "actor": "scim:x",
        "req": str(OBJ), "prof": "generic@1", "ot": kind.subject, "obj": str(OBJ), **({"ct": "00"} if sealed else {}),
        **({"mem": str(mem), "mt": "User", "eff": True} if mem else {}),
    }  # fmt: skip
    found = Event(9, 1, seq, kind.number, OBJ, mem, leaf["at"], seq, kind.bit, LEAF_HASH, slug)
    found.head, found.data = render(found, orjson.dumps(leaf), data)
    return found


def read(event: Event, *, bodies: bool) -> dict[str, object]:
    return orjson.loads(event.json if bodies else event.structure)


documents = st.dictionaries(st.text(), st.text() | st.sampled_from([',"data":', '"held":true}', '{"withheld":true}', "\\"]))


@given(document=documents, held=st.booleans())
def test_a_reader_with_bodies_gets_them_and_another_one_gets_withheld(document: dict[str, str], held: bool) -> None:
    """The values may have any content: the JSON is not searched."""
    found = event(orjson.dumps({"object": document}))
    found.held = held
    shown, hidden = read(found, bodies=True), read(found, bodies=False)
    assert shown.pop("data") == {"object": document}
    assert hidden.pop("data") == {"withheld": True}
    assert shown == hidden
    assert shown.get("held", False) is held


def test_group_and_member_are_structure_and_shown_to_both_readers() -> None:
    found = event(ERASED, mem=MEM, sealed=False)
    assert read(found, bodies=False) == read(found, bodies=True)
    assert read(found, bodies=True)["data"] == {
        "group": {"id": str(OBJ)}, "member": {"type": "User", "id": str(MEM)}, "effective": True,
    }  # fmt: skip


@pytest.mark.parametrize("gone", [WITHHELD, ERASED])
def test_an_event_without_a_body_has_nothing_withheld(gone: bytes) -> None:
    found = event(gone, sealed=False)
    assert found.data == NO_DATA
    assert read(found, bodies=False)["data"] == read(found, bodies=True)["data"] == {}


@given(slug=st.from_regex(r"\A[a-z0-9][a-z0-9-]{0,62}\Z"), seq=st.integers(1, 10**18 - 1))
def test_the_id_of_an_event_is_the_id_in_its_json(slug: str, seq: int) -> None:
    found = event(b"{}", slug=slug, seq=seq)
    assert str(found.id) == read(found, bodies=True)["id"]
    assert parse_event_id(str(found.id)) == found.id


def test_its_size_is_that_of_its_json() -> None:
    found = event(orjson.dumps({"object": {"userName": "zoë"}}))
    assert found.size == len(found.json)


def test_an_event_that_was_not_rendered_has_no_json() -> None:
    bare = Event(9, 1, 3, USER_CREATED.number, uuid4(), None, 0, 3, 1, LEAF_HASH, "acme")
    assert (bare.size, bare.json, bare.structure) == (0, b"", b"")
    assert str(bare.id) == "evt_acme_3_00010203"
