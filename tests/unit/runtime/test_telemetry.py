"""LEDGER_TRACING without the packages that it needs."""

import pytest

from runtime.bootstrap import StartError
from runtime.telemetry import check_tracing


def test_a_start_with_tracing_but_without_the_extra_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runtime.telemetry.find_spec", lambda _: None)
    check_tracing("off")
    with pytest.raises(StartError, match=r"Install scim-ledger\[otel\], or unset LEDGER_TRACING\. Nothing was started"):
        check_tracing("otlp")
