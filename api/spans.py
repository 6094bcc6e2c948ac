"""Spans of requests: where the trace context comes from, and what a span says at its end."""

from typing import Final

from ledger.trace_context import read_traceparent
from ledger.tracing import Attribute, PassedOn, Span

NO_SPAN: Final = PassedOn(None)  # of a request that was refused before its route was known


def parent_of(header: str | None) -> bytes | None:
    """The trace context that a client sent; None without one, or with one that is not valid."""
    return None if header is None else read_traceparent(header)


def end_of_request(span: Span, status: int, directory: str = "") -> None:
    """End the span of a request. Only our own faults are errors of a server, not what a client did wrong."""
    attributes: dict[str, Attribute] = {"http.response.status_code": status}
    if directory:
        attributes["ledger.directory"] = directory
    span.end(f"http_{status}" if status >= 500 else "", attributes)
