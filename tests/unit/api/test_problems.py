"""Errors have a limited length, whatever was sent."""

from api.problems import name_places, problem_of
from operations.refusals import PLACES_MAX, InvalidField, InvalidFieldsError
from scim.errors import TooManyRequests


def test_an_error_names_at_most_ten_fields_and_shortens_each() -> None:
    wrong = [InvalidField(f"n{number:05}" + "x" * 10_000, "is missing") for number in range(5_000)]
    problem = problem_of(InvalidFieldsError(wrong))
    assert len(problem.detail) < 2_000
    assert problem.detail.count("…") == PLACES_MAX == len(problem.members["errors"])
    assert max(len(error["field"]) for error in problem.members["errors"]) < 200
    assert "and 4990 more" in problem.detail
    assert name_places(["a", "b"]) == "a, b"


def test_retry_after_is_that_of_the_error() -> None:
    assert problem_of(TooManyRequests(retry_after=7)).retry_after == 7
    assert problem_of(TooManyRequests()).retry_after == 1
