"""The state of a consumer and what limits it, for every combination of the values that they follow from."""

from itertools import product

import pytest

from delivery.pace import ANSWER_TIME, NAMES, UNLIMITED, Finding
from delivery.standing import LAGGING_S, LIMITS, STATES, Standing, limited_by, shown_state

ASKED = ("active", "paused", "disabled")


def test_the_state_is_what_an_operator_set_or_the_worst_state_of_its_deliveries() -> None:
    found = {
        (asked, blocked, retrying): shown_state(asked, blocked=blocked, retrying=retrying)
        for asked, blocked, retrying in product(ASKED, (0, 1, 20_000), (0, 1, 20_000))
    }
    assert set(found.values()) == set(STATES)
    for (asked, blocked, retrying), state in found.items():
        if asked == "active":
            assert state == ("blocked" if blocked else "retrying" if retrying else "active")
        else:
            assert state == asked


@pytest.mark.parametrize("asked", ASKED)
@pytest.mark.parametrize("pushed", [True, False])
@pytest.mark.parametrize("seconds", [0.0, LAGGING_S - 0.1, LAGGING_S, 1e6])
@pytest.mark.parametrize("moves", [0, 1, 10_000, 30_000])
@pytest.mark.parametrize("limit", [None, UNLIMITED, *NAMES])
def test_a_consumer_that_is_behind_without_waiting_for_an_operator_has_a_limit(
    asked: str, pushed: bool, seconds: float, moves: int, limit: int | None
) -> None:
    seen = None if limit is None else Finding(limit, 0.2, 0.1, 12.34)
    found = limited_by(Standing(asked, pushed, "subject", 1, seconds, moves), seen)
    if asked != "active" or seconds < LAGGING_S or not moves or (pushed and limit == UNLIMITED):
        assert found is None
        return
    assert found is not None
    assert found["what"] in LIMITS
    assert found["what"] == ("application" if not pushed else "no_process" if limit is None else NAMES[limit])
    assert "What helps: " in found["advice"]
    figures = (found["answer_ms"], found["events_per_second"])
    assert figures == ((200.0, 12.3) if pushed and limit is not None else (None, None))


def test_every_limit_has_a_sentence() -> None:
    standings = [Standing("active", pushed, "directory", 100, 60.0, 1) for pushed in (True, False)]
    findings = [None, *(Finding(limit, 0.0, 0.0, 0.0) for limit in NAMES)]
    said = {found["what"] for s, seen in product(standings, findings) if (found := limited_by(s, seen)) is not None}
    assert said == set(LIMITS)
    assert ANSWER_TIME in NAMES
