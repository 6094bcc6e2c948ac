"""What is counted of a request to a receiver."""

from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from delivery.attempts import ERRORS, attempt, outcome_word
from delivery.lanes import Item
from delivery.transport import Accepted, Gone, Outcome, Retry, Rewind
from ledger.ids import DirectoryNumber, Position, Seq

WORDS = {"accepted", "gone", "rewound", "http_4xx", "http_5xx", "other", *ERRORS}


def item(at_s: float, replay: UUID | None = None) -> Item:
    return Item(Position(1), DirectoryNumber(1), Seq(1), 1, UUID(int=1), at=round(at_s * 1e6), replay=replay)


@pytest.mark.parametrize(
    ("outcome", "word"),
    [
        (Accepted(), "accepted"), (Gone(), "gone"), (Rewind(Seq(1), Retry("http_409")), "rewound"), (Retry("http_404"), "http_4xx"),
        (Retry("http_599"), "http_5xx"), (Retry("http_700"), "other"), (Retry("http_4040"), "other"), (Retry("timeout"), "timeout"),
        (Retry("a word of another transport"), "other"),
    ],
)  # fmt: skip
def test_each_outcome_has_its_word(outcome: Outcome, word: str) -> None:
    assert outcome_word(outcome) == word


@given(st.one_of(st.text(), st.integers(0, 9_999).map("http_{}".format)))
def test_whatever_a_receiver_answers_the_words_are_few(error: str) -> None:
    assert outcome_word(Retry(error)) in WORDS


def test_events_of_replays_have_no_latency_and_a_clock_that_is_behind_gives_none_below_zero() -> None:
    events = [item(10.0), item(12.5), item(1.0, replay=UUID(int=7))]
    assert attempt("app", events, Accepted(), 0.25, now=12.0) == ("app", "accepted", 0.25, 3, [2.0, 0.0])
    assert attempt("app", events, Retry("timeout"), 3.0, now=12.0) == ("app", "timeout", 3.0, 0, ())
