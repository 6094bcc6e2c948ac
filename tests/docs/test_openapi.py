"""Outside programs read /openapi.json: a checker, and two that make clients of it (docs/consumers.md, "Generated clients")."""

import compileall
import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.answer_checks import description
from tests.node.programs import ran


@pytest.mark.long
def test_an_outside_checker_finds_no_shortcoming(tmp_path: Path) -> None:
    document = tmp_path / "openapi.json"
    document.write_text(json.dumps(description()))
    checked = ran("redocly", "lint", document, "--format", "json", "--extends", "recommended")
    assert json.loads(checked.stdout)["totals"] == {"errors": 0, "warnings": 0, "ignored": 0}, checked.stdout[:2_000]


@pytest.mark.long
def test_a_client_for_typescript_is_made_of_it_and_compiles(tmp_path: Path) -> None:
    document, made = tmp_path / "openapi.json", tmp_path / "client.ts"
    document.write_text(json.dumps(description()))
    generated = ran("openapi-typescript", document, "-o", made)
    assert generated.returncode == 0, generated.stderr
    assert "warn" not in (generated.stdout + generated.stderr).lower()
    compiled = ran("tsc", "--noEmit", "--strict", made)
    assert compiled.returncode == 0, compiled.stdout


@pytest.mark.long
def test_a_client_for_python_is_made_of_it_and_compiles(tmp_path: Path) -> None:
    document, settings = tmp_path / "openapi.json", tmp_path / "settings.yml"
    document.write_text(json.dumps(description()))
    settings.write_text(
        "content_type_overrides: {application/x-ndjson: application/octet-stream}\npost_hooks: []\n"
    )  # lines of a snapshot
    command = [
        str(Path(sys.executable).parent / "openapi-python-client"),
        "generate",
        "--path",
        str(document),
        "--config",
        str(settings),
        "--output-path",
        str(tmp_path / "made"),
    ]
    generated = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert generated.returncode == 0, generated.stdout + generated.stderr
    assert "warning" not in (generated.stdout + generated.stderr).lower()
    assert compileall.compile_dir(str(tmp_path / "made"), quiet=1)
    models = tmp_path / "made" / "provisioning_ledger_client" / "models"
    for name in ("consumer_status", "replay_plan", "token_list", "directory_health", "user_created_event"):
        assert (models / f"{name}.py").exists()
