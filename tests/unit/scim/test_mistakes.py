"""Mistakes in URLs and tokens belong to the directories that the requests were meant for, and to no other."""

from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scim.mistakes import Mistake, known_mistake, meant, mistake_in

NUMBERS = st.none() | st.integers(1, 3)


@pytest.mark.parametrize(
    ("authorization", "found"),
    [
        (None, (Mistake.NO_TOKEN, None)),
        ("", (Mistake.NO_TOKEN, None)),
        ("Bearer eyJhbGciOi", (Mistake.NOT_A_TOKEN, None)),
        (f"Bearer sl_scim_{'a' * 31}_00", (Mistake.NOT_A_TOKEN, None)),
        (f"Bearer sl_scim_{'a' * 33}_00", (Mistake.NOT_A_TOKEN, None)),
        (f"Bearer sl_scim_{'a' * 32}_00", (Mistake.WRONG_SECRET, UUID("a" * 32))),
        (f"BEARER  sl_scim_{'a' * 32}_00", (Mistake.WRONG_SECRET, UUID("a" * 32))),
        (f"sl_scim_{'a' * 32}", (Mistake.NO_BEARER, UUID("a" * 32))),
        (f"Basic sl_scim_{'a' * 32}", (Mistake.NO_BEARER, UUID("a" * 32))),
        (f"Bearer: sl_scim_{'a' * 32}", (Mistake.NO_BEARER, UUID("a" * 32))),
        (f"Bearersl_scim_{'a' * 32}", (Mistake.NO_BEARER, UUID("a" * 32))),
        (f"Bearer\tsl_scim_{'a' * 32}", (Mistake.NO_BEARER, UUID("a" * 32))),
        (f"Bearer Bearer sl_scim_{'a' * 32}", (Mistake.BEARER_TWICE, UUID("a" * 32))),
        (f"Bearer bearer bearer sl_scim_{'a' * 32}", (Mistake.BEARER_TWICE, UUID("a" * 32))),
        (f"Bearer 'sl_scim_{'a' * 32}'", (Mistake.IN_QUOTES, UUID("a" * 32))),
        (f'Bearer "sl_scim_{"a" * 32}"', (Mistake.IN_QUOTES, UUID("a" * 32))),
        (f'"Bearer sl_scim_{"a" * 32}"', (Mistake.IN_QUOTES, UUID("a" * 32))),
        (f"Bearer \u201csl_scim_{'a' * 32}\u201d".encode().decode("latin-1"), (Mistake.IN_QUOTES, UUID("a" * 32))),
        (" " * 200 + f"sl_scim_{'a' * 32}", (Mistake.NOT_A_TOKEN, None)),
    ],
)
def test_a_refused_header_is_explained(authorization: str | None, found: tuple[Mistake, UUID | None]) -> None:
    assert mistake_in(authorization) == found


@given(st.sampled_from(Mistake), NUMBERS, NUMBERS)
def test_only_the_directories_of_url_and_token_are_told(mistake: Mistake, placed: int | None, owner: int | None) -> None:
    told = dict(meant(mistake, placed, owner))
    assert set(told) == {placed, owner} - {None}
    if None not in {placed, owner} and placed != owner:
        assert told == {placed: Mistake.FOREIGN_TOKEN, owner: Mistake.WRONG_SLUG}
    if placed == owner and placed is not None:
        assert told == {placed: mistake}
    if owner is None:
        of_a_token = {Mistake.WRONG_SECRET, Mistake.NO_BEARER, Mistake.BEARER_TWICE, Mistake.IN_QUOTES}
        assert not of_a_token & {*told.values()}, "nobody has this token"


def test_names_are_found_again() -> None:
    assert [known_mistake(mistake.value) for mistake in Mistake] == list(Mistake)
    assert known_mistake("of_another_release") is None


@pytest.mark.parametrize(
    ("mistake", "placed", "owner", "found"),
    [
        (Mistake.WRONG_SECRET, 1, None, [(1, Mistake.NOT_A_TOKEN)]),
        (Mistake.NO_TOKEN, 1, None, [(1, Mistake.NO_TOKEN)]),
        (Mistake.NO_TOKEN, None, None, []),
        (Mistake.WRONG_SECRET, 1, 1, [(1, Mistake.WRONG_SECRET)]),
        (Mistake.NO_V2, None, 2, [(2, Mistake.NO_V2)]),
        (Mistake.NO_SCIM, None, 2, [(2, Mistake.NO_SCIM)]),
        (Mistake.NO_SCIM, 1, None, [(1, Mistake.NO_SCIM)]),
        (Mistake.WRONG_SECRET, None, 2, [(2, Mistake.WRONG_SLUG)]),
        (Mistake.WRONG_SECRET, 1, 2, [(1, Mistake.FOREIGN_TOKEN), (2, Mistake.WRONG_SLUG)]),
    ],
)
def test_a_request_was_meant_for_the_directory_of_its_url_and_for_that_of_its_token(
    mistake: Mistake, placed: int | None, owner: int | None, found: list[tuple[int, Mistake]]
) -> None:
    assert meant(mistake, placed, owner) == found


def test_a_mistake_of_another_release_is_not_known() -> None:
    assert known_mistake("no_token") is Mistake.NO_TOKEN
    assert known_mistake("unheard") is None
