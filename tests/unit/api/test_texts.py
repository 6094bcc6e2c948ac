"""Every text field of every body under /v1: a text that PostgreSQL cannot store is refused with an error that names the field."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.routing import APIRoute
from pydantic import BaseModel, ValidationError

from api.invalid_fields import refused
from api.problems import problem_of
from tests.served import served

API = Path(__file__).parents[3] / "api"
ROUTES = [route for route in served() if isinstance(route, APIRoute)]
RAW = {"schemas.register", "profiles.set", "profiles.validate", "profiles.try"}  # documents: scim.body.read_json reads them


def models() -> dict[str, type[BaseModel]]:
    """The bodies that routes take, by name."""
    found: dict[str, type[BaseModel]] = {}
    for route in ROUTES:
        for part in route.dependant.body_params:
            kinds = [part.field_info.annotation, *getattr(part.field_info.annotation, "__args__", ())]
            found |= {
                f"{kind.__module__}.{kind.__name__}": kind
                for kind in kinds
                if isinstance(kind, type) and issubclass(kind, BaseModel)
            }
    return found


def texts(model: type[BaseModel]) -> Iterator[tuple[str, bool]]:
    """The fields of a model that take text, and whether the field takes a list of texts."""
    for name, schema in model.model_json_schema(by_alias=True)["properties"].items():
        for form in [schema, *schema.get("anyOf", ())]:
            if "enum" in form:
                continue
            if form.get("type") == "string":
                yield name, False
            elif form.get("type") == "array" and form["items"].get("type") == "string":
                yield name, True


FIELDS = [(name, field, many) for name, model in models().items() for field, many in texts(model)]


@pytest.mark.parametrize(("name", "field", "many"), FIELDS, ids=str)
@pytest.mark.parametrize(("text", "said"), [("a\0b", "NUL"), ("a\ud800b", "surrogate")])
def test_a_text_that_cannot_be_stored_is_refused_with_the_name_of_its_field(
    name: str, field: str, many: bool, text: str, said: str
) -> None:
    sent: dict[str, Any] = {field: ["fine", text] if many else text}
    with pytest.raises(ValidationError) as wrong:
        models()[name].model_validate(sent)
    errors = [{**error, "loc": ("body", *error["loc"])} for error in wrong.value.errors() if error["type"] != "missing"]
    problem = problem_of(refused(errors, None, None))
    assert (problem.status, problem.code) == (400, "invalid_parameters")
    assert f"{field}" in problem.detail, "the field is named"
    assert said in problem.detail


def test_the_walk_over_routes_finds_every_body() -> None:
    taking = {route.name for route in ROUTES if route.dependant.body_params}
    writing = {route.name for route in ROUTES if (route.methods or set()) & {"POST", "PUT", "PATCH"}}
    bare = {"consumers.pause", "consumers.resume", "consumers.ping", "replays.pause", "replays.resume", "replays.cancel"}
    form = {"oauth.token"}  # RFC 6749 sends no JSON
    assert writing - taking == RAW | bare | form
    assert len(FIELDS) > 20
    for name in ("schemas", "profiles"):
        source = (API / f"{name}.py").read_text(encoding="utf-8")
        assert "read_json(raw)" in source
        assert "request.json()" not in source
