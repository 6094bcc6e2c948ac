"""Errors have a limited length, whatever was sent."""

from fastapi.exceptions import RequestValidationError
from pydantic import TypeAdapter, ValidationError

from api.problems import PLACES_MAX, name_places, problem_of
from api.tokens import TokenBody
from scim.errors import TooManyRequests


def test_an_error_names_at_most_ten_places_and_shortens_each() -> None:
    errors = [{"loc": ("body", f"n{number:05}" + "x" * 10_000)} for number in range(5_000)]
    detail = problem_of(RequestValidationError(errors)).detail
    assert len(detail) < 2_000
    assert detail.count("…") == PLACES_MAX
    assert "and 4990 more" in detail
    assert name_places(["a", "b"]) == "a, b"


def test_retry_after_is_that_of_the_error() -> None:
    assert problem_of(TooManyRequests(retry_after=7)).retry_after == 7
    assert problem_of(TooManyRequests()).retry_after == 1


def test_an_error_about_a_value_names_its_place_and_the_valid_values_but_does_not_repeat_it() -> None:
    def told(body: bytes) -> str:
        try:
            TypeAdapter(TokenBody).validate_json(body)
        except ValidationError as wrong:
            return problem_of(RequestValidationError([{**one, "loc": ("body", *one["loc"])} for one in wrong.errors()])).detail
        raise AssertionError("taken")

    detail = told(b'{"role": "consumer", "name": "n", "expires_in_days": 0, "types": ["a", 7], "sesame": "1"}')
    assert "expires_in_days: Input should be greater than or equal to 1" in detail
    assert "types.1: Input should be a valid string" in detail
    assert "sesame: Extra inputs are not permitted" in detail
    assert "name: Field required" in told(b'{"role": "auditor"}')
    assert "ada@example.com" not in told(b'{"role": "auditor", "name": "n", "expires_in_days": "ada@example.com"}')


def test_a_body_that_is_not_json_is_reported_as_such() -> None:
    broken = {"type": "json_invalid", "loc": ("body", 17), "msg": "JSON decode error"}
    assert problem_of(RequestValidationError([broken])).detail.startswith("The body is not JSON, from character 17 on.")
