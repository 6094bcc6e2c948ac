"""The schemas of events: every type has one, stored samples and documented examples validate, and what is not an event does not."""

import json
import re
from copy import deepcopy
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import jsonschema_rs
import orjson
import pytest

from api.asyncapi import asyncapi_document
from api.event_schemas import definitions, name_of, schema_of_event, schema_of_events
from ledger.event_data import MappedUser
from ledger.events import BY_TOPIC, EVENT_TYPES, USER, Fact
from ledger.ids import DirectoryNumber, Position, Seq, Slug
from ledger.rendering import WITHHELD, Event, render
from ledger.sealing import Kek, data_of, open_payload, unwrap_key
from proofs.leaf import leaf_hash
from scim.profile import UserPaths
from tests.event_checks import check, watch_httpx

ROOT = Path(__file__).parents[3]
GOLDEN = json.loads((ROOT / "tests" / "golden" / "events.json").read_text())
EXAMPLE = re.compile(r"^### `([\w.]+)`\n\n.*?```json\n(.*?)```", re.MULTILINE | re.DOTALL)


def examples() -> dict[str, dict[str, Any]]:
    """The example of each type in docs/events.md, as a reader got it."""
    return {topic: json.loads(text) for topic, text in EXAMPLE.findall((ROOT / "docs" / "events.md").read_text())}


def golden_event(sample: dict[str, Any], data: bytes) -> dict[str, Any]:
    leaf = sample["leaf"].encode()
    obj = UUID(json.loads(leaf)["obj"])
    seq = Seq(json.loads(leaf)["seq"])
    hashed = leaf_hash(leaf)
    event = Event(Position(seq), DirectoryNumber(7), seq, 0, obj, None, 0, seq, 0, hashed, Slug("golden"))
    event.head, event.data = render(event, leaf, data)
    return json.loads(event.json)


def test_each_document_is_a_valid_schema_of_2020_12() -> None:
    for document in [schema_of_events(), *map(schema_of_event, EVENT_TYPES)]:
        assert document["$schema"] == "https://json-schema.org/draft/2020-12/schema"
        jsonschema_rs.meta.validate(document)
    assert {one["$ref"] for one in schema_of_events()["oneOf"]} == {f"#/$defs/{name_of(kind)}" for kind in EVENT_TYPES}


@pytest.mark.parametrize("topic", BY_TOPIC)
def test_the_documented_example_of_each_type_validates(topic: str) -> None:
    check(examples()[topic])
    jsonschema_rs.validate(schema_of_events(), examples()[topic])


@pytest.mark.parametrize("topic", BY_TOPIC)
def test_the_golden_sample_of_each_type_validates(topic: str) -> None:
    """Withheld for each type; whole for users, because the stored samples of all types have the attributes of a user."""
    sample = GOLDEN["events"][f"{topic}.v1"]
    check(golden_event(sample, WITHHELD))
    leaf = json.loads(sample["leaf"])
    if BY_TOPIC[topic].subject == USER:
        uuid = UUID(leaf["dir"])
        key = unwrap_key(Kek.of(bytes(range(32))), bytes.fromhex(GOLDEN["wrapped_key"]), directory=uuid, obj=UUID(leaf["obj"]))
        payload = open_payload(key, bytes.fromhex(sample["ct"]), directory=uuid, obj=UUID(leaf["obj"]), seq=Seq(leaf["seq"]))
        check(golden_event(sample, data_of(payload)))


@pytest.mark.parametrize("kind", EVENT_TYPES, ids=lambda kind: kind.topic)
def test_data_that_a_reader_does_not_get_validates(kind) -> None:
    event = golden_event(GOLDEN["events"][f"{kind.topic}.v1"], WITHHELD)
    for data in ({"withheld": True}, {"erased": True}, {"unreadable": True}):
        if kind.membership:
            with pytest.raises(AssertionError):
                check(event | {"data": data})
        else:
            check(event | {"data": data})
    if Fact.ENDS_RESOURCE in kind.facts:
        check(event | {"data": {}})


def test_other_events_are_refused() -> None:
    event = examples()["group.member_added"]
    wrong: list[dict[str, Any]] = [
        {"seq": 0},
        {"time": "yesterday"},
        {"cause": "whim"},
        {"subject": {"type": "User", "id": event["subject"]["id"]}},
    ]
    wrong += [{"more": 1}, {"data": event["data"] | {"effective": None}}, {"data": {}}, {"id": "evt_acme_0_00000000"}]
    for change in wrong:
        with pytest.raises(AssertionError):
            check(event | change)
    for name in event:
        with pytest.raises(AssertionError if name != "type" else KeyError):
            check({field: value for field, value in event.items() if field != name})


def test_new_fields_do_not_break_a_client_that_validates() -> None:
    """The published schemas are open: a later release may add fields (docs/versioning.md)."""
    event: dict[str, Any] = deepcopy(examples()["user.updated"])
    event["new"] = event["data"]["new"] = event["commit"]["new"] = event["data"]["user"]["new"] = 1
    jsonschema_rs.validate(schema_of_event(BY_TOPIC["user.updated"]), event)


def test_the_mapped_user_has_the_names_of_the_profiles() -> None:
    assert set(MappedUser.__annotations__) == set(UserPaths.model_fields) - {"extensions", "json_roles"}


def test_a_document_holds_all_that_it_refers_to_and_nothing_else() -> None:
    for kind in EVENT_TYPES:
        document = schema_of_event(kind)
        used = {ref.decode() for ref in re.findall(rb'"#/\$defs/(\w+)"', orjson.dumps(document))}
        assert used == set(document["$defs"])
        assert used < set(definitions())


def test_asyncapi_names_each_event_type_in_the_stream() -> None:
    document = asyncapi_document()
    assert set(document["channels"]["stream"]["messages"]) == {*BY_TOPIC, "covered", "error"}
    text = orjson.dumps(document).decode()
    assert "$defs" not in text
    for ref in re.findall(r'"\$ref":"#/([^"]+)"', text):
        found: Any = document
        for step in ref.split("/"):
            found = found[step]


def test_the_tests_of_the_service_notice_an_event_that_is_not_as_its_schema_says() -> None:
    watch_httpx()
    event = examples()["user.created"] | {"unheard": 1}
    text = json.dumps(event, separators=(",", ":"))
    for document in (text, f'{{"object":"list","data":[{text}]}}'):
        answer = httpx.Response(200, headers={"content-type": "application/json"}, stream=httpx.ByteStream(document.encode()))
        with pytest.raises(AssertionError, match="unheard"):
            answer.read()
    streamed = httpx.Response(
        200, headers={"content-type": "text/event-stream"}, stream=httpx.ByteStream(f"data: {text}\n\n".encode())
    )
    with pytest.raises(AssertionError, match="unheard"):
        list(streamed.iter_lines())
