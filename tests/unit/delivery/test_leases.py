"""Which holders of leases are alive, as another process sees it: by changes of the row alone, whatever clocks say; time in which
nobody looked does not count.
"""

from hypothesis import given
from hypothesis import strategies as st

from delivery.leases import GAP_MAX_S, Signs

LEASE_S = 20.0
looks = st.lists(st.tuples(st.floats(0.1, 300), st.booleans()), min_size=1, max_size=80)


@given(looks)
def test_a_lease_is_quiet_for_as_long_as_it_was_seen_unchanged(drawn: list[tuple[float, bool]]) -> None:
    signs, now, sign, quiet = Signs[int](), 1_000.0, 0, 0.0
    signs.look({1: sign}, now)
    for gap, renewed in drawn:
        now += gap
        sign += renewed
        quiet = 0.0 if renewed else quiet + min(gap, GAP_MAX_S)
        signs.look({1: sign}, now)
        assert abs(signs.quiet_s(1) - quiet) < 1e-6


@given(st.lists(st.floats(-1e9, 1e9), min_size=1, max_size=50))
def test_no_step_of_the_databases_clock_makes_a_living_holder_quiet(steps: list[float]) -> None:
    """The holder writes some time of the database, renewed each second: only a difference from the last value counts."""
    signs, clock = Signs[int](), 0.0
    for second, step in enumerate(steps):
        clock += 1.0 + step
        signs.look({1: (7, second, clock)}, float(second))
        assert signs.quiet_s(1) == 0.0


def test_a_process_that_was_stopped_itself_takes_no_holder_for_dead_when_it_continues() -> None:
    signs = Signs[int]()
    signs.look({1: "a"}, 0.0)
    signs.look({1: "a"}, 3_600.0)
    assert signs.quiet_s(1) < LEASE_S
    signs.look({1: "b"}, 3_601.0)
    assert signs.quiet_s(1) == 0.0


def test_a_holder_that_returns_or_is_new_is_watched_from_the_beginning() -> None:
    signs = Signs[int]()
    for second in range(30):
        signs.look({1: "a"}, float(second))
    signs.look({}, 30.0)
    signs.look({1: "a", 2: "x"}, 31.0)
    assert (signs.quiet_s(1), signs.quiet_s(2)) == (0.0, 0.0)
