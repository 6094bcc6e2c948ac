"""What an answer says about invalid parameters and bodies: the field, the reason, what is allowed; never what was sent."""

import asyncio
from collections.abc import Callable
from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

import httpx
import pytest
from fastapi import APIRouter, FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute
from pydantic import Field

from api import field_reasons
from api.bodies import Body
from api.invalid_fields import InvalidBodyError, StrictRoute, check_members, check_query, refused
from api.problems import problem_of
from operations.refusals import InvalidFieldsError
from tests.served import served


class Sample(Body):
    name: Annotated[str, Field(min_length=1, max_length=5)]
    many: Annotated[tuple[str, ...], Field(max_length=2)] = ()
    days: Annotated[int, Field(ge=1, le=30)] = 1
    seconds: Annotated[int, Field(ge=0)] = 0
    mode: Literal["pull", "webhook"] | None = None
    modes: tuple[Literal["skip", "include"], ...] = ()
    dry_run: bool = False
    of: UUID | None = None
    facts: dict[str, str] | None = None


Post = Callable[..., httpx.Response]
router = APIRouter(route_class=StrictRoute)


@router.post("/v1/x/{number}")
async def sample(
    number: int,
    body: Sample,
    limit: Annotated[int, Query(ge=1, le=1000)] = 10,
    start: Annotated[datetime | None, Query(alias="from")] = None,
) -> dict[str, Any]:
    return {"number": number, "limit": limit, "start": start, **body.model_dump(mode="json")}


@router.post("/v1/pause")
async def pause() -> dict[str, str]:
    return {"state": "paused"}


@pytest.mark.parametrize("body", ["", "{}", " {} "])
def test_a_request_without_fields_may_have_an_empty_body(post: "Post", body: str) -> None:
    assert post("/v1/pause", content=body).status_code == 200


def test_a_field_that_nobody_would_read_is_named(post: "Post") -> None:
    errors = post("/v1/pause", content='{"dry_run": true, "reason": "x"}').json()["errors"]
    assert [error["field"] for error in errors] == ["dry_run", "reason"]
    assert errors[0]["reason"] == "is not a field of this request, which takes none"


@pytest.mark.parametrize("body", ["no JSON", "[]", "x" * 10_000, "[" * 100_000])
def test_a_body_that_nobody_would_read_is_refused(post: "Post", body: str) -> None:
    answer = post("/v1/pause", content=body)
    assert answer.status_code == 400
    assert answer.json()["errors"] == [{"field": "body", "reason": "is not empty, but this request takes no fields"}]


@pytest.fixture
def post() -> Post:
    app = FastAPI()
    app.router.routes.extend(router.routes)

    async def refuse(request: Request, error: Exception) -> JSONResponse:
        if isinstance(error, RequestValidationError):
            error = refused(error.errors(), request.scope["route"], error.body)
        problem = problem_of(error)
        return JSONResponse({"detail": problem.detail, **problem.members}, problem.status)

    for kind in (RequestValidationError, InvalidFieldsError, InvalidBodyError):
        app.add_exception_handler(kind, refuse)

    def post(path: str, **sent: Any) -> httpx.Response:
        async def asked() -> httpx.Response:
            async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://ledger.test") as http:
                return await http.post(path, **sent)

        return asyncio.run(asked())

    return post


@pytest.mark.parametrize(
    ("body", "field", "reason"),
    [
        ('{"days": 2}', "name", "is missing"),
        ('{"name": "a", "days": 0}', "days", "is not a number from 1 to 30"),
        ('{"name": "a", "days": "soon"}', "days", "is not a number from 1 to 30"),
        ('{"name": "a", "days": 1.5}', "days", "is not a number from 1 to 30"),
        ('{"name": "a", "seconds": -1}', "seconds", "is not a number of 0 or more"),
        ('{"name": ""}', "name", "is not text of 1 to 5 characters"),
        ('{"name": "abcdef"}', "name", "is not text of 1 to 5 characters"),
        ('{"name": 7}', "name", "is not text of 1 to 5 characters"),
        ('{"name": "a", "many": ["a", "b", "c"]}', "many", "is not a list of at most 2 items"),
        ('{"name": "a", "many": "a"}', "many", "is not a list"),
        ('{"name": "a", "many": ["a", 7]}', "many.1", "is not text"),
        ('{"name": "a", "mode": "webhok"}', "mode", "is not one of pull, webhook; did you mean `webhook`?"),
        ('{"name": "a", "mode": 7}', "mode", "is not one of pull, webhook"),
        ('{"name": "a", "modes": ["skipp"]}', "modes.0", "is not one of skip, include; did you mean `skip`?"),
        ('{"name": "a", "dry_run": "maybe"}', "dry_run", "is not true or false"),
        ('{"name": "a", "of": "ada"}', "of", "is not an id (a UUID)"),
        ('{"name": "a", "facts": 1}', "facts", "is not an object"),
        ('{"name": "a", "dryrun": true}', "dryrun", "is not a field of this request; did you mean `dry_run`?"),
        ('{"name": "a", "name": "b"}', "name", "is there more than once"),
        ('{"name": "a", "facts": {"b": "1", "b": "2"}}', "b", "is there more than once"),
        ('{"name"', "body", "is not JSON: it ends at character 7"),
        ('{"name": a}', "body", "is not JSON, from character 9 on"),
        ('{"name": "a", "facts": {"\\ud800": "1", "\\ud800": "2"}}', "?", "is there more than once"),
        ('{"name": "a", "days": ' + "1" * 5000 + "}", "body", "has a number with too many digits"),
        ("[" * 100_000, "body", "is nested too deeply"),
        (b'{"name": "\xff"}', "body", "is not UTF-8"),
        ("", "body", "is missing"),
        ("[]", "body", "is not an object"),
    ],
)  # fmt: skip
def test_a_body_that_is_refused(post: Post, body: str | bytes, field: str, reason: str) -> None:
    answer = post("/v1/x/1", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == 400, answer.text
    (error,) = answer.json()["errors"]
    assert (error["field"], error["reason"]) == (field, reason)
    assert answer.json()["detail"].rstrip(".") == f"`{field}` {reason}"


@pytest.mark.parametrize(
    ("query", "field", "reason"),
    [
        ("limit=0", "limit", "is not a number from 1 to 1000"),
        ("limit=ten", "limit", "is not a number from 1 to 1000"),
        ("from=yesterday", "from", "is not a time with its zone, such as 2026-10-01T00:00:00Z"),
        (
            "from=2026-10-01T00:00:00+02:00", "from",
            "is not a time with its zone, such as 2026-10-01T00:00:00Z; in an address a + is a space: write Z, or %2B",
        ),
    ],
)  # fmt: skip
def test_a_parameter_that_is_refused(post: Post, query: str, field: str, reason: str) -> None:
    answer = post(f"/v1/x/1?{query}", json={"name": "a"})
    assert [(error["field"], error["reason"]) for error in answer.json()["errors"]] == [(field, reason)]


def test_a_path_with_another_kind_of_value(post: Post) -> None:
    assert post("/v1/x/one", json={"name": "a"}).json()["errors"] == [{"field": "number", "reason": "is not a number"}]


def test_what_is_allowed_is_listed(post: Post) -> None:
    errors = post("/v1/x/1", json={"name": "a", "mode": "x", "nmae": 1}).json()["errors"]
    assert {error["field"]: error["allowed"] for error in errors} == {
        "mode": ["pull", "webhook"], "nmae": sorted(Sample.model_fields),
    }  # fmt: skip


def test_nothing_that_was_sent_is_quoted(post: Post) -> None:
    sent = {
        "name": 7,
        "days": "ada@example.com",
        "of": "ada@example.com",
        "mode": "ada@example.com",
        "dry_run": "ada@example.com",
    }
    assert "ada@" not in post("/v1/x/1?limit=ada@example.com", json=sent).text


@pytest.mark.parametrize(
    ("query", "said"),
    [
        (b"limit=1&from=x", ""),
        (b"limt=1", "`limt` is not a parameter of this request; did you mean `limit`?"),
        (b"secret=1", "`secret` is not a parameter of this request."),
        (b"limit=1&limit=2", "`limit` is there more than once."),
        (b"limit=1&limit=", "`limit` is there more than once."),
        (b"limit", "`limit` is empty: give it a value, or leave it out."),
        (b"a=1&b=2", "`a` is not a parameter of this request. `b` is not a parameter of this request."),
    ],
)
def test_parameters_that_a_route_does_not_know(query: bytes, said: str) -> None:
    (route, *_) = router.routes
    assert isinstance(route, APIRoute)
    if not said:
        check_query(route, query)
        return
    with pytest.raises(InvalidFieldsError) as wrong:
        check_query(route, query)
    assert wrong.value.detail == said


@router.post("/v1/y")
async def sample_or_nothing(body: Sample | None = None) -> dict[str, Any]:
    return {"body": body}


def test_the_fields_of_a_body_that_may_be_left_out(post: Post) -> None:
    (error,) = post("/v1/y", json={"name": "a", "dayz": 1}).json()["errors"]
    assert (error["reason"], error["allowed"]) == (
        "is not a field of this request; did you mean `days`?",
        sorted(Sample.model_fields),
    )
    assert post("/v1/y", json={"name": "a", "days": 0}).json()["errors"][0]["reason"] == "is not a number from 1 to 30"


def test_only_the_fields_that_are_named_are_compared_with_what_is_allowed(post: Post, monkeypatch: pytest.MonkeyPatch) -> None:
    """A body of 1 MiB has 60 000 fields. Each comparison takes 25 µs, in which nobody else is answered."""
    compared = list[object]()
    monkeypatch.setattr(field_reasons, "did_you_mean", lambda sent, _: compared.append(sent) or "")
    answer = post("/v1/y", json={"name": "a", **{f"x{number}": 1 for number in range(1_000)}}).json()
    assert answer["detail"].endswith("`x9` is not a field of this request. and 990 more.")
    (route, *_) = router.routes
    assert isinstance(route, APIRoute)
    with pytest.raises(InvalidFieldsError, match="and 991 more"):
        check_query(route, b"limit=1&limit=2&" + b"&".join(b"x%d" % number for number in range(1_000)))
    with pytest.raises(InvalidFieldsError, match="and 990 more"):
        check_members({f"x{number}": 1 for number in range(1_000)}, ("name",))
    assert len(compared) == 10 + 9 + 10


def test_members_of_a_body_without_a_model() -> None:
    check_members({"profile": "okta"}, ("profile", "requests"))
    with pytest.raises(InvalidFieldsError, match=r"`profil` is not a field of this request; did you mean `profile`\?"):
        check_members({"profil": "okta"}, ("profile", "requests"))


def test_every_route_of_v1_is_strict() -> None:
    routes = [route for route in served() if getattr(route, "path", "").startswith("/v1/")]
    assert len(routes) >= 60
    assert [route for route in routes if not isinstance(route, StrictRoute)] == []
