"""The health of a directory on a terminal of 80 columns: short enough to be read, and nothing twice."""

from typing import Any

import pytest

from runtime.cli.health import print_health
from scim.mistakes import Mistake

AT = "2026-11-30T23:10:05.5Z"
MISTAKES = [
    {
        "mistake": str(one),
        "token": "3f0e9c52-8d1b-4a77-9b60-2f1c5a7e4d10",
        "count": 3,
        "last": AT,
        "meaning": one.detail,
        "fix": one.fix,
    }
    for one in (Mistake.NO_BEARER, Mistake.NO_V2, Mistake.WRONG_SLUG, Mistake.IN_QUOTES)
]
OPERATION = {
    "method": "PATCH",
    "path": "/Groups/{id}",
    "requests": 12345,
    "errors": 123,
    "too_many_requests": 12,
    "p50_us": 1250,
    "last": AT,
}
FIX = "A required attribute is empty for this user: fill it in the IdP, or map another attribute to it, and let the IdP send the user again."
REFUSAL = {
    "status": 400,
    "scim_type": "invalidValue",
    "detail": "userName is required: " + "words " * 12,
    "count": 25,
    "last": AT,
    "fix": FIX,
}
TOLERANCE = {"tolerance": "string_booleans", "requests": 7, "meaning": "This IdP sends booleans such as active as strings."}


def report(**more: Any) -> dict[str, Any]:
    return {
        "directory": "acme", "profile": "okta@1", "hours": 24, "since": None, "last_request": AT, "last_change": AT, "state": "active",
        "state_since": None, "advice": [f"{one['meaning']} (3, the last …) {one['fix']}" for one in MISTAKES], "operations": [OPERATION] * 9,
        "mistakes": MISTAKES, "refusals": [REFUSAL] * 5, "tolerances": [TOLERANCE] * 4, **more,
    }  # fmt: skip


def shown(found: dict[str, Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> list[str]:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "80")
    print_health(found)
    return capsys.readouterr().out.splitlines()


def test_four_findings_fit_on_40_lines_of_80_columns(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    lines = shown(report(), monkeypatch, capsys)
    text = " ".join(" ".join(lines).split())
    assert len(lines) < 40
    assert max(map(len, lines)) <= 80
    assert [text.count(one) for one in (*(row["fix"] for row in MISTAKES), FIX)] == [1] * 5
    assert next(line.split() for line in lines if line.startswith("PATCH")) == [
        "PATCH", "/Groups/{id}", "12345", "123", "12", "1.2", "2026-11-30T23:10:05Z",
    ]  # fmt: skip
    assert lines[0] == "acme (okta@1): last request 2026-11-30T23:10:05Z"
    assert "and 3 more: --json" in lines
    assert "and 2 more: scim-ledger requests list --directory acme --refused" in lines


def test_a_mistake_without_advice_is_mended(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    lines = shown(report(advice=[], mistakes=MISTAKES[:1]), monkeypatch, capsys)
    assert lines[-2:] == ["mended of the last 24 hours", "no_bearer (3), last 2026-11-30T23:10:05Z"]


@pytest.mark.parametrize("state", ["closed", "deleted"])
def test_a_directory_that_ended_is_told_first(
    state: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = shown(report(state=state, state_since=AT, advice=[]), monkeypatch, capsys)
    assert lines[0].startswith("acme: Closed since 2026-11-30T23:10:05Z")
    assert "its IdP is answered 401" in " ".join(lines)
