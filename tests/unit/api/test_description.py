"""/openapi.json names every operation of /v1 with its sentence, its tag, who may use it, and its errors."""

import json
from collections import Counter
from collections.abc import Iterator
from typing import Any

import jsonschema_rs

from api.description import described
from api.scim.app import ROUTES, SEARCHES
from operations.permissions import TABLE, open_to_strangers
from tests.served import served

DOCUMENT = described(served())
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


def test_each_parameter_and_each_document_has_an_example_that_its_schema_allows() -> None:
    components = {"components": DOCUMENT["components"]}
    for place, operation in operations():
        for parameter in operation.get("parameters", ()):
            assert parameter["description"].endswith("."), (place, parameter["name"])
            assert parameter["example"] is not None, (place, parameter["name"])
        for part in (operation.get("requestBody", {}), *operation["responses"].values()):
            for media, content in part.get("content", {}).items():
                if media.endswith("json") and media != "application/x-ndjson":
                    jsonschema_rs.validate(content["schema"] | components, content["example"], validate_formats=True)


def test_no_example_is_a_word_that_says_nothing() -> None:
    assert '"text"' not in [part for _, operation in operations() for part in json.dumps(operation).split(", ")]
