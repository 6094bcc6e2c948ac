"""The tracer of a process, as LEDGER_TRACING says. Without the setting nothing of OpenTelemetry is imported."""

import contextlib
from collections.abc import Generator
from importlib.util import find_spec
from typing import Final

from ledger.tracing import UNTRACED, Tracer
from runtime.bootstrap import StartError

_MISSING: Final = (
    "LEDGER_TRACING=otlp needs the extra `otel`. Install scim-ledger[otel], or unset LEDGER_TRACING. Nothing was started."
)


def check_tracing(tracing: str) -> None:
    """Raises StartError if the setting asks for packages that are not installed."""
    if tracing == "otlp" and (find_spec("opentelemetry") is None or find_spec("opentelemetry.exporter.otlp.proto.http") is None):
        raise StartError(_MISSING)


@contextlib.contextmanager
def open_tracer(tracing: str, process: str) -> Generator[Tracer]:
    """The tracer of one process; at the end its last spans are sent. `process`: what tells it from the others of the service."""
    if tracing != "otlp":
        yield UNTRACED
        return
    from runtime.otlp import exporting

    with exporting(process) as tracer:
        yield tracer
