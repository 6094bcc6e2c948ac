"""Secrets that stand where other programs, shells and logs can read them are refused, and never said again."""

import sys

import pytest

from runtime.cli.entry import main

TOKEN = "sl_admin_" + "0" * 32 + "_" + "ab" * 36
PASSWORD = "hunter2-canary"


@pytest.mark.parametrize("words", [["token", "revoke", TOKEN], ["token", "issue", f"--name={TOKEN}"], [f"Bearer {TOKEN}"]])
def test_a_token_on_the_command_line_is_refused_before_anything_is_asked(
    words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["scim-ledger", *words])
    with pytest.raises(SystemExit) as ended:
        main()
    said = capsys.readouterr()
    assert ended.value.code == 2
    assert "LEDGER_TOKEN_FILE" in said.err
    assert TOKEN not in said.out + said.err


@pytest.mark.parametrize("url", [f"http://admin:{PASSWORD}@127.0.0.1:9", f"http://127.0.0.1:{PASSWORD}"])
def test_a_password_in_the_address_is_never_said(
    url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LEDGER_URL", url)
    monkeypatch.setenv("LEDGER_TOKEN", TOKEN)
    monkeypatch.setattr(sys, "argv", ["scim-ledger", "token", "list"])
    with pytest.raises(SystemExit) as ended:
        main()
    said = capsys.readouterr()
    assert ended.value.code == 2
    assert "LEDGER_URL" in said.err
    assert PASSWORD not in said.out + said.err
