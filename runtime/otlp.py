"""OpenTelemetry: records spans and sends them to a collector by OTLP over HTTP. Only this module imports its packages, which are an extra.

The exporter and the sampler read their own settings (OTEL_EXPORTER_OTLP_ENDPOINT, OTEL_TRACES_SAMPLER; docs/operations.md). Spans are
sent in batches by a thread of their own; while the collector is away they are dropped, and no request waits.
"""

import contextlib
import socket
from collections.abc import Generator, Mapping, Sequence
from importlib.metadata import version
from typing import Final

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

from ledger.trace_context import packed, unpacked
from ledger.tracing import NOTHING, Attribute, Kind, Span, Tracer

NAME: Final = "scim-ledger"
FLUSH_MS: Final = 3_000  # what a stop may wait for the last spans to be taken
_KINDS: Final = {"server": trace.SpanKind.SERVER, "internal": trace.SpanKind.INTERNAL, "producer": trace.SpanKind.PRODUCER}


@contextlib.contextmanager
def exporting(process: str) -> Generator[Tracer]:
    """A tracer whose spans are sent during the block."""
    named = {"service.name": NAME, "service.version": version(NAME), "service.instance.id": f"{socket.gethostname()}/{process}"}
    resource = Resource.create(named).merge(OTELResourceDetector().detect())  # an operator's OTEL_SERVICE_NAME wins
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(timeout=FLUSH_MS / 1_000)))
    try:
        yield Recording(provider.get_tracer(NAME))
    finally:
        provider.force_flush(FLUSH_MS)
        provider.shutdown()


class Recording:
    """A Tracer that records spans with the SDK. The sampler decides which."""

    def __init__(self, tracer: trace.Tracer) -> None:
        self._tracer = tracer

    def begin(self, name: str, kind: Kind, parent: bytes | None, links: Sequence[bytes] = (), /) -> Span:
        """Begin a span."""
        root = Context()
        above = root if parent is None else trace.set_span_in_context(trace.NonRecordingSpan(_context_of(parent)), root)
        beside = [trace.Link(_context_of(link)) for link in links]
        return _Recorded(self._tracer.start_span(name, above, _KINDS[kind], links=beside))


class _Recorded:
    """A span of the SDK."""

    def __init__(self, span: trace.Span) -> None:
        self._span = span
        found = span.get_span_context()
        self._context = packed(found.trace_id, found.span_id, found.trace_flags)

    @property
    def context(self) -> bytes | None:
        return self._context

    def end(self, error: str = "", attributes: Mapping[str, Attribute] = NOTHING, /) -> None:
        """Set the attributes, and the status if something failed; then end the span."""
        self._span.set_attributes(attributes)
        if error:
            self._span.set_status(trace.Status(trace.StatusCode.ERROR, error))
        self._span.end()


def _context_of(context: bytes) -> trace.SpanContext:
    trace_id, span_id, flags = unpacked(context)
    return trace.SpanContext(trace_id, span_id, is_remote=True, trace_flags=trace.TraceFlags(flags))
