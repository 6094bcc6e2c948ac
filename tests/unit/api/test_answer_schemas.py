"""The schemas of answers: each route says by its type what it answers, and answers of the tests are checked against that."""

import json
from typing import Any

import jsonschema_rs
import pytest
from fastapi.routing import APIRoute

from api.answer_schemas import AnswerSchemas
from tests.answer_checks import description, faults_of
from tests.served import served

SURGE = {
    "object": "surge", "directory": "acme", "per_hour": 100, "action": "alarm", "released_through_seq": 0, "revocations_last_hour": 0, "surging": False,
}  # fmt: skip
PLACE = "/v1/directories/acme/surge"


def faults(document: Any, *, status: int = 200, media: str = "application/json") -> list[str]:
    return faults_of("GET", PLACE, status, media, json.dumps(document).encode())


def test_each_schema_is_one_and_each_reference_leads_somewhere() -> None:
    components = description()["components"]["schemas"]
    for schema in components.values():
        jsonschema_rs.meta.validate(schema)
    named = {part.rpartition("/")[2] for part in json.dumps(description()).split('"') if part.startswith("#/components/schemas/")}
    assert named <= components.keys()


def test_each_route_says_what_it_answers() -> None:
    shown = [route for route in served() if isinstance(route, APIRoute) and route.include_in_schema]
    schemas = AnswerSchemas(route.endpoint for route in shown)
    for route in shown:
        assert schemas.of(route.endpoint), route.path
        for status, answer in schemas.of(route.endpoint).items():
            assert ("content" in answer) is (status != "204"), route.path


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"per_hour": -1}, "per_hour"),
        ({"action": "stop"}, "action"),
        ({"unheard": 1}, "unheard"),
        ({"surging": None}, "surging"),
    ],
)
def test_an_answer_that_differs_from_its_schema_is_noticed(change: dict[str, Any], fault: str) -> None:
    assert faults(SURGE) == []
    assert fault in str(faults(SURGE | change))


def test_a_status_or_a_form_that_is_not_described_is_noticed() -> None:
    assert faults(SURGE, status=202) == ["202 is not described"]
    assert faults(SURGE, media="text/plain") == ["text/plain is not described for 200"]
    assert "code" in str(faults({"title": "x"}, status=404, media="application/problem+json"))
