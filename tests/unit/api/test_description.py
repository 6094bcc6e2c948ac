"""/openapi.json names every operation of /v1 with its sentence, its tag, who may use it, and its errors."""

import json
from collections import Counter
from collections.abc import Iterator
from typing import Any

import jsonschema_rs
import pytest

from api.description import described
from api.error_codes import CODES, type_of
from api.error_examples import ERRORS
from api.scim.app import ROUTES, SEARCHES
from operations.permissions import TABLE, open_to_strangers
from scim.errors import ScimError, Unavailable
from tests.served import served

DOCUMENT = described(served())
CODES_OF = {status: {code.code for code in CODES if code.status == status} for status in {code.status for code in CODES}}
METHODS = {"get", "put", "post", "delete", "patch"}


def operations() -> Iterator[tuple[str, dict[str, Any]]]:
    for path, item in DOCUMENT["paths"].items():
        for method, operation in item.items():
            assert method in METHODS
            yield f"{method} {path}", operation


def test_every_route_is_described() -> None:
    routes = {(method.lower(), route.path) for route in served() for method in (route.methods or set()) - {"HEAD"}}
    described = {tuple(place.split(" ", 1)) for place, operation in operations() if operation["tags"] != ["scim"]}
    assert described == routes - {
        ("get", "/openapi.json"),
        ("get", "/docs/errors"),
        ("get", "/asyncapi.json"),
    }


def test_ids_are_stable_and_unique() -> None:
    ids = [operation["operationId"] for _, operation in operations()]
    assert len(set(ids)) == len(ids)
    assert {"consumers_put", "events_list", "tokens_issue", "deliveries_parked_retry", "audit_population"} <= set(ids)


def test_each_operation_says_in_a_sentence_what_it_does_and_who_may() -> None:
    for place, operation in operations():
        sentence = operation["summary"]
        assert sentence[0].isupper(), place
        assert sentence.endswith("."), place
        assert "`start` names" not in sentence
        assert len(sentence) < 160, place
        assert operation["tags"][0] in {tag["name"] for tag in DOCUMENT["tags"]}
        assert bool(operation["security"]) != ("Needs no token." in operation["description"]), place


def test_each_operation_has_the_form_of_its_errors_and_none_that_it_does_not_send() -> None:
    for place, operation in operations():
        assert "422" not in operation["responses"], place
        media = "application/scim+json" if operation["tags"] == ["scim"] else "application/problem+json"
        for errors in ("4XX", "5XX"):
            assert media in operation["responses"][errors]["content"], place
    schemas = DOCUMENT["components"]["schemas"]
    assert not [name for name in schemas if "ValidationError" in name]
    assert schemas["Problem"]["required"] == ["type", "title", "status", "code", "detail", "request_id"]


def test_who_needs_a_token_is_what_the_permission_table_says() -> None:
    named = {route.name for route in served() if not open_to_strangers(route.name)}
    secured = sum(bool(operation["security"]) for _, operation in operations() if operation["tags"] != ["scim"])
    assert secured == sum(1 for route in served() if route.name in named and route.path != "/openapi.json")
    assert named < set(TABLE)


def test_every_body_that_is_read_is_described() -> None:
    with_body = {place for place, operation in operations() if "requestBody" in operation}
    assert {"put /v1/directories/{directory}/profile", "post /v1/directories/{directory}/schemas", "post /v1/tokens"} <= with_body


def test_words_that_can_be_listed_are_listed() -> None:
    consumer = DOCUMENT["components"]["schemas"]["ConsumerBody"]["properties"]
    assert consumer["mode"]["anyOf"][0]["enum"] == ["pull", "webhook"]
    assert DOCUMENT["components"]["schemas"]["TokenBody"]["properties"]["role"]["enum"] == [
        "scim",
        "consumer",
        "operator",
        "auditor",
        "admin",
    ]


def test_every_scim_route_but_me_is_described() -> None:
    described = Counter(
        place.split(" ", 1)[1].removeprefix("/scim/{directory}/v2")
        for place, operation in operations()
        if operation["tags"] == ["scim"]
    )
    segments = {(first, number): len(methods) for (first, number), methods in ROUTES.items() if first != "Me"}
    wanted = {
        ("/" + first if number else "") + ("/{id}" if number == 2 else ""): count for (first, number), count in segments.items()
    }
    assert described == wanted | {f"/{first}/.search": len(methods) for first, methods in SEARCHES.items()}


COMPONENTS = {"components": DOCUMENT["components"]}
EMPTY: tuple[Any, ...] = ({}, [], "", None)


def checked(content: dict[str, Any], example: Any) -> None:
    jsonschema_rs.validate(content["schema"] | COMPONENTS, example, validate_formats=True)


def empties(example: Any) -> list[Any]:
    """The empty values in an example."""
    inner = example.values() if isinstance(example, dict) else example if isinstance(example, list) else ()
    return [example] * (example in EMPTY) + [empty for part in inner for empty in empties(part)]


def test_each_parameter_has_a_sentence_and_an_example() -> None:
    for place, operation in operations():
        for parameter in operation.get("parameters", ()):
            assert parameter["description"].endswith("."), (place, parameter["name"])
            assert parameter["example"] not in EMPTY, (place, parameter["name"])
            checked(parameter, parameter["example"])


def test_each_body_has_an_example_that_its_schema_allows_and_nothing_in_it_is_empty() -> None:
    for place, operation in operations():
        for content in operation.get("requestBody", {}).get("content", {}).values():
            checked(content, content["example"])
            assert empties(content["example"]) == [], place


def test_each_answer_has_an_example_that_its_schema_allows() -> None:
    shown = [
        (place, content)
        for place, operation in operations()
        for status, answer in operation["responses"].items()
        if status not in ERRORS
        for media, content in answer.get("content", {}).items()
        if media.endswith("json")
    ]
    for place, content in shown:
        checked(content, content["example"])
        assert content["example"] not in EMPTY, place


def test_the_lines_of_a_snapshot_are_shown() -> None:
    (content,) = DOCUMENT["paths"]["/v1/directories/{directory}/snapshot"]["get"]["responses"]["200"]["content"].values()
    lines = [json.loads(line) for line in content["example"].splitlines()]
    assert [line["object"] for line in lines] == ["snapshot", "user", "group", "membership", "end"]


def test_each_error_has_examples_of_answers_that_it_really_has() -> None:
    """Status, code, title and type of an example agree with each other and with the key of the response."""
    shown = DOCUMENT["components"]["examples"]
    seen: set[str] = set()
    for place, operation in operations():
        for key in ERRORS:
            (content,) = operation["responses"][key]["content"].values()
            names = [part["$ref"].removeprefix("#/components/examples/") for part in content["examples"].values()]
            assert names, (place, key)
            for name in names:
                value = shown[name]["value"]
                checked(content, value)
                assert f"{str(value['status'])[0]}XX" == key, (place, name)
                assert operation["tags"] == ["scim"] or name in CODES_OF[value["status"]], (place, name)
            seen.update(names)
    assert seen == shown.keys(), "an example that nothing refers to"


@pytest.mark.parametrize("name", [name for name in DOCUMENT["components"]["examples"] if not name.startswith("scim_")])
def test_an_example_of_a_problem_agrees_with_the_table_of_codes(name: str) -> None:
    value = DOCUMENT["components"]["examples"][name]["value"]
    assert (value["code"], value["type"], value["title"]) == (name, type_of(name), name.replace("_", " "))
    assert name in CODES_OF[value["status"]]
    assert len(value["detail"]) > 20


def test_an_example_of_an_error_of_scim_has_a_type_that_its_status_has() -> None:
    classes = {(str(kind.status), kind.scim_type) for kind in (ScimError, *ScimError.__subclasses__(), Unavailable)}
    values = [part["value"] for name, part in DOCUMENT["components"]["examples"].items() if name.startswith("scim_")]
    assert {(value["status"], value.get("scimType")) for value in values} <= classes


def test_no_example_is_a_word_that_says_nothing() -> None:
    assert '"text"' not in [part for _, operation in operations() for part in json.dumps(operation).split(", ")]
