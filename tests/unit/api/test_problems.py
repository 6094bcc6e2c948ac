"""Errors are bounded, whatever was sent."""

from fastapi.exceptions import RequestValidationError

from api.problems import PLACES_MAX, name_places, problem_of
from scim.errors import TooManyRequests


def test_an_error_names_ten_places_at_most_and_none_at_length() -> None:
    errors = [{"loc": ("body", f"n{number:05}" + "x" * 10_000)} for number in range(5_000)]
    detail = problem_of(RequestValidationError(errors)).detail
    assert len(detail) < 2_000
    assert detail.count("…") == PLACES_MAX
    assert "and 4990 more" in detail
    assert name_places(["a", "b"]) == "a, b"


def test_retry_after_is_that_of_the_error() -> None:
    assert problem_of(TooManyRequests(retry_after=7)).retry_after == 7
    assert problem_of(TooManyRequests()).retry_after == 1
