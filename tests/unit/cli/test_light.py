"""A command starts fast because it imports little.

The tests check names of modules, not seconds, so a busy machine does not change the result.
"""

import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest

from runtime.client_settings import ClientSettings, client_settings
from runtime.settings import Settings

ROOT = Path(__file__).parents[3]
HEAVY = {
    "aiohttp", "api", "cryptography", "delivery", "fastapi", "ledger", "operations", "orjson", "projections", "psycopg", "pydantic", "pygments",
    "replay", "rich", "scim", "scim2_models", "starlette", "structlog", "uvicorn", "uvloop",
}  # fmt: skip
PRELUDE = "import atexit, sys; atexit.register(lambda: print(*sys.modules, sep='\\n', file=sys.stderr)); from runtime.cli import main; main()"


def imported(*words: str, **environment: str) -> tuple[int, set[str]]:
    """The exit code of a command, and every top-level module that it imported."""
    command = [sys.executable, "-c", PRELUDE, *words]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60)
    return done.returncode, {line.split(".")[0] for line in done.stderr.splitlines()}


@pytest.mark.parametrize(
    "words", [("--help",), ("token", "--help"), ("directory", "profile", "--help"), ("replay", "rebuild", "--help")]
)
def test_help_imports_nothing_heavy(words: tuple[str, ...]) -> None:
    code, modules = imported(*words)
    assert code == 0
    assert "typer" in modules, "the modules were seen"
    assert HEAVY & modules == set()
    if words == ("--help",):
        assert "httpx" not in modules, "`--help` needs no HTTP client"


def test_a_client_verb_imports_nothing_heavy() -> None:
    """No service listens at that address, but everything that a request needs is imported."""
    code, modules = imported("token", "list", LEDGER_URL="http://127.0.0.1:9", LEDGER_TOKEN="sl_none")
    assert code == 3
    assert "httpx" in modules
    assert HEAVY & modules == set()


def test_the_settings_of_a_command_are_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are read without pydantic for speed, but have the same names and the same defaults as the settings of the service."""
    for name in Settings.model_fields:
        monkeypatch.delenv(f"LEDGER_{name.upper()}", raising=False)
    here, there = client_settings(), Settings()
    for field in dataclasses.fields(ClientSettings):
        assert getattr(here, field.name) == getattr(there, field.name)
        monkeypatch.setenv(f"LEDGER_{field.name.upper()}", "/a-place")
        assert str(getattr(client_settings(), field.name)) == "/a-place"
