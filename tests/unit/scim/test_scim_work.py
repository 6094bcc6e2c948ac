"""The budget of steps: every value that is looked at counts, and the same request has the same count each time."""

import pytest

from scim.errors import TooMany
from scim.filter_parser import parse_filter
from scim.filters import matches
from scim.schema import USER
from scim.sorting import sort_key
from scim.work import AbandonedError, Work, reading

PEOPLE = {
    "userName": "a",
    "title": "é" * 100_000,
    "nickName": "n" * 100_000,
    "emails": [{"value": f"{n}@example.com", "type": "work"} for n in range(1_000)],
    "urn:ietf:params:scim:schemas:extension:other:2.0:User": {f"name{n}": "x" for n in range(1_000)},
}
ONE = 1_000_000


def spent(text: str) -> int:
    work = Work(ONE)
    matches(parse_filter(text, USER), PEOPLE, work)
    return ONE - work.left


def test_each_value_counts_for_each_term_of_a_filter():
    one = spent('emails.value eq "x"')
    assert one >= 1_000
    assert spent(" or ".join(['emails.value eq "x"'] * 20)) == 20 * one
    assert spent('emails[value eq "x" or type eq "y"]') >= 2_000
    assert spent("emails.display pr") >= 1_000  # values without the sub-attribute count too
    assert spent("not (emails.value pr)") >= 1_000


def test_a_long_text_counts_by_its_length():
    assert spent('nickName co "x"') >= 100_000 // 256
    assert spent('title co "x"') >= 4 * 100_000 // 256, "letters beyond ASCII cost more to compare"
    assert spent('userName co "x"') < 5


def test_a_name_that_is_looked_up_among_many_counts():
    assert spent("urn:ietf:params:scim:schemas:extension:other:2.0:User:absent pr") >= 100


def test_the_count_is_the_same_each_time_and_the_error_says_what_to_do():
    wanted = parse_filter('emails.value eq "x"', USER)
    cost = spent('emails.value eq "x"')
    matches(wanted, PEOPLE, Work(cost))
    with pytest.raises(TooMany, match="Narrow it"):
        matches(wanted, PEOPLE, Work(cost - 1, "Narrow it."))


def test_work_ends_when_the_client_disconnects():
    with pytest.raises(AbandonedError):
        matches(parse_filter('userName eq "x"', USER), PEOPLE, Work(ONE, gone=True))


def test_a_sort_key_counts_by_its_length_and_by_the_values_from_which_it_is_chosen():
    work = Work(ONE)
    sort_key("nickName", USER)(PEOPLE, work)
    sort_key("emails", USER)(PEOPLE, work)
    assert ONE - work.left >= 100_000 // 32 + 1_000
    assert sort_key("userName", USER)(PEOPLE) == (0, (1, "a"))


def test_reading_counts_bytes():
    assert reading(1_000_000) > 500 * reading(1)


def test_a_long_filter_is_parsed_again_and_not_cached():
    long = " or ".join(f'id eq "{n}"' for n in range(100))
    assert parse_filter(long, USER) is not parse_filter(long, USER)
    assert parse_filter('id eq "1"', USER) is parse_filter('id eq "1"', USER)
