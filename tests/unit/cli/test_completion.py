"""Completion in bash, zsh and fish, and the version."""

import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

PROGRAM = Path(sys.executable).with_name("scim-ledger")
TYPED = (
    ("dir", ["directory"]),
    ("directory prof", ["profile"]),
    ("directory profile s", ["show", "set"]),
    ("consumer delete --y", ["--yes"]),
    ("completion f", ["fish"]),
    ("consumer sk", []),  # an older name is hidden
)


def run(*words: str, **environment: str) -> str:
    done = subprocess.run([PROGRAM, *words], env={**os.environ, **environment}, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize(("typed", "offered"), TYPED)
def test_bash_completes(typed: str, offered: list[str]) -> None:
    """The script is sourced by a real bash, which then asks as if Tab was pressed."""
    words = ["scim-ledger", *typed.split()]
    ask = f"COMP_WORDS=({' '.join(words)}); COMP_CWORD={len(words) - 1}; _scim_ledger_completion {PROGRAM}; printf '%s\\n' \"${{COMPREPLY[@]}}\""
    done = subprocess.run(
        ["bash", "--norc", "-c", f"{run('completion', 'bash')}\n{ask}"], capture_output=True, text=True, timeout=60
    )
    assert done.stdout.split() == offered, done.stderr


@pytest.mark.parametrize(("typed", "offered"), TYPED)
def test_zsh_and_fish_are_answered(typed: str, offered: list[str]) -> None:
    """They may not be installed here, so the test asks with the variables that their scripts set."""
    line = f"scim-ledger {typed}"
    zsh = run(_SCIM_LEDGER_COMPLETE="complete_zsh", _TYPER_COMPLETE_ARGS=line)
    fish = run(_SCIM_LEDGER_COMPLETE="complete_fish", _TYPER_COMPLETE_FISH_ACTION="get-args", _TYPER_COMPLETE_ARGS=line)
    for word in offered:
        assert f'"{word}"' in zsh.replace("\\", "")
        assert word in [row.split("\t")[0] for row in fish.splitlines()]
    if not offered:
        assert "skip" not in zsh + fish


@pytest.mark.parametrize(("shell", "mark"), [("zsh", "#compdef scim-ledger"), ("fish", "complete --command scim-ledger")])
def test_the_scripts_of_zsh_and_fish(shell: str, mark: str) -> None:
    script = run("completion", shell)
    assert script.startswith(mark)
    assert f"_SCIM_LEDGER_COMPLETE=complete_{shell}" in script


def test_the_version() -> None:
    assert run("--version") == f"scim-ledger {version('scim-ledger')}\n"
