"""W3C Trace Context §3.2 and §4: which headers are read, and what is written."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ledger.trace_context import packed, read_traceparent, shared_context, traceparent, unpacked
from ledger.tracing import UNTRACED

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


@pytest.mark.parametrize(
    ("header", "written"),
    [
        (f"00-{TRACE}-{PARENT}-01", f"00-{TRACE}-{PARENT}-01"),
        (f"  00-{TRACE}-{PARENT}-00 ", f"00-{TRACE}-{PARENT}-00"),
        (f"00-{TRACE}-{PARENT}-ff", f"00-{TRACE}-{PARENT}-01"),  # only `sampled` is defined; the other flags are dropped
        (f"01-{TRACE}-{PARENT}-02", f"00-{TRACE}-{PARENT}-00"),
        (f"cc-{TRACE}-{PARENT}-01-what-comes-later", f"00-{TRACE}-{PARENT}-01"),
    ],
)
def test_a_valid_header_is_written_in_version_00(header: str, written: str) -> None:
    context = read_traceparent(header)
    assert context is not None
    assert traceparent(context) == written


@pytest.mark.parametrize(
    "header",
    [
        "",
        f"00-{TRACE}-{PARENT}",
        f"00-{TRACE}-{PARENT}-01-more",
        f"00-{TRACE}-{PARENT}-01.",
        f"cc-{TRACE}-{PARENT}-01.more",
        f"ff-{TRACE}-{PARENT}-01",
        f"00-{'0' * 32}-{PARENT}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE.upper()}-{PARENT}-01",
        f"00-{TRACE[1:]}-{PARENT}-01",
        f"00-{TRACE}-{PARENT}-0x",
        f"00-{TRACE}-{PARENT}-٠١",
        f"00_{TRACE}_{PARENT}_01",
    ],
)
def test_a_header_that_is_not_valid_is_ignored(header: str) -> None:
    assert read_traceparent(header) is None


@example(1, 2**64 - 1, 3)
@given(st.integers(1, 2**128 - 1), st.integers(1, 2**64 - 1), st.integers(0, 255))
def test_a_context_comes_back_as_it_was_stored(trace_id: int, parent_id: int, flags: int) -> None:
    context = packed(trace_id, parent_id, flags)
    assert len(context) == 25
    assert unpacked(context) == (trace_id, parent_id, flags & 1)
    assert read_traceparent(traceparent(context)) == context


def test_a_batch_has_a_context_only_if_its_events_have_the_same() -> None:
    one, other = packed(1, 1, 1), packed(2, 1, 1)
    assert shared_context([one, one]) == one
    assert shared_context([one, other]) is None
    assert shared_context([one, None]) is None
    assert shared_context([]) is None


def test_without_a_tracer_a_context_is_passed_on() -> None:
    span = UNTRACED.begin("deliver", "producer", packed(1, 2, 1))
    assert span.context == packed(1, 2, 1)
    span.end("timeout", {"ledger.events": 1})
