"""Tables for people: whole values, in the words of people."""

import os
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.cli.printing import cell, print_record, print_rows, print_text

ID = "3f0e9c52-8d1b-4a77-9b60-2f1c5a7e4d10"
ROWS = [{"id": ID, "name": "x" * 30, "directories": ["acme", "globex"], "live": True, "used": None}] * 2
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text("abc äé"), lambda inner: st.lists(inner) | st.dictionaries(st.text("abc", min_size=1), inner)
)  # fmt: skip


@pytest.mark.parametrize("columns", [20, 80, 200])
@pytest.mark.parametrize("terminal", [True, False])
def test_no_value_is_cut(
    terminal: bool, columns: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: terminal)
    monkeypatch.setenv("COLUMNS", str(columns))
    print_rows(ROWS)
    shown = capsys.readouterr().out
    assert shown.count(ID) == shown.count("x" * 30) == 2
    assert shown.count("acme globex") == 2
    folded = terminal and columns <= 80
    assert (f"id           {ID}" in shown) is folded
    if folded:
        assert max(len(line) for line in shown.splitlines()) <= len("directories  ") + len(ID)


def test_a_document_has_a_field_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    print_record(ROWS[0])
    assert capsys.readouterr().out.splitlines() == [
        f"id           {ID}", f"name         {'x' * 30}", "directories  acme globex", "live         yes", "used",
    ]  # fmt: skip


def test_the_fields_of_an_object_in_a_document_have_a_line_each(capsys: pytest.CaptureFixture[str]) -> None:
    print_record({"name": "door", "blocked_on": {"subject": {"type": "User", "id": "u"}, "attempts": 3}, "forked": {}})
    assert capsys.readouterr().out.splitlines() == [
        "name                     door", "blocked_on.subject.type  User", "blocked_on.subject.id    u", "blocked_on.attempts      3", "forked",
    ]  # fmt: skip


@given(VALUES)
def test_a_value_is_on_one_line_and_not_in_the_notation_of_python(value: object) -> None:
    shown = cell(value)
    assert os.linesep not in shown
    assert not re.search(r"\b(None|True|False)\b|[\[\]{}']", shown)


@pytest.mark.parametrize(
    ("sent", "shown"),
    [
        ("2026-11-30T23:10:05.123456Z", "2026-11-30T23:10:05Z"),
        ("2026-11-30T23:10:05+00:00", "2026-11-30T23:10:05Z"),
        ("2026-12-01T01:10:05+02:00", "2026-11-30T23:10:05Z"),
        ("2026-13-01T01:10:05+02:00", "2026-13-01T01:10:05+02:00"),
        ("0001-01-01T00:00:00+02:00", "0001-01-01T00:00:00+02:00"),
        ("2026-11-30", "2026-11-30"),
    ],
)
def test_a_time_has_its_seconds_and_its_zone(sent: str, shown: str) -> None:
    assert cell(sent) == shown


@pytest.mark.parametrize("terminal", [True, False])
def test_a_text_is_wrapped_on_a_terminal_only(
    terminal: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: terminal)
    monkeypatch.setenv("COLUMNS", "20")
    print_text("aaaa bbbb cccc dddd eeee", "! ", "  ")
    assert capsys.readouterr().out == ("! aaaa bbbb cccc\n  dddd eeee\n" if terminal else "! aaaa bbbb cccc dddd eeee\n")
