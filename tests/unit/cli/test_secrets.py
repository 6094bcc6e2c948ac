"""A secret in a place where other programs, shells and logs can read it is refused, and is not repeated in the error."""

import sys

import pytest

from runtime.cli.entry import main

TOKEN = "sl_admin_" + "0" * 32 + "_" + "ab" * 36
PASSWORD = "hunter2-canary"


def refused(words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> tuple[str, str]:
    """Everything that a command prints, errors included, when it is refused as a usage error."""
    monkeypatch.setattr(sys, "argv", ["scim-ledger", *words])
    with pytest.raises(SystemExit) as ended:
        main()
    said = capsys.readouterr()
    assert ended.value.code == 2
    return said.out + said.err, said.err


@pytest.mark.parametrize("words", [["token", "revoke", TOKEN], ["token", "issue", f"--name={TOKEN}"], [f"Bearer {TOKEN}"]])
def test_a_token_on_the_command_line_is_refused_before_a_request_is_sent(
    words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    said, error = refused(words, monkeypatch, capsys)
    assert "LEDGER_TOKEN_FILE" in error
    assert TOKEN not in said


@pytest.mark.parametrize("url", [f"http://admin:{PASSWORD}@127.0.0.1:9", f"http://127.0.0.1:{PASSWORD}"])
def test_a_password_in_the_address_is_not_printed(
    url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LEDGER_URL", url)
    monkeypatch.setenv("LEDGER_TOKEN", TOKEN)
    said, error = refused(["token", "list"], monkeypatch, capsys)
    assert "LEDGER_URL" in error
    assert PASSWORD not in said
