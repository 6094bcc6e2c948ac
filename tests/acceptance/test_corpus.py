"""Recorded dialogues of identity providers, replayed against a real service: the shared ones, and our own in the same format."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.acceptance.conftest import ROOT, Service

CORPUS = ROOT.parent / "shared" / "corpus"
OURS = Path(__file__).parent / "dialogues"
pytestmark = pytest.mark.skipif(not CORPUS.exists(), reason="the runner and the shared dialogues are not part of the repository")


def _run(base: str, token: str, dialogues: Path, report: Path) -> None:
    command = [sys.executable, str(CORPUS / "runner.py"), "--base", base, "--token", token, "--require-all"]
    run = subprocess.run([*command, "--json", str(report), str(dialogues)], capture_output=True, text=True, timeout=280)
    outcomes = json.loads(report.read_text())["dialogues"]
    failed = {o["name"]: o["reason"] for o in outcomes if o["outcome"] != "pass"}  # a skipped step is a failure too
    assert not failed, run.stdout
    assert len(outcomes) == len(list(dialogues.glob("*.json"))) > 0


@pytest.mark.parametrize("dialogues", [CORPUS / "dev", OURS / "generic"], ids=["shared", "ours"])
@pytest.mark.long
def test_every_dialogue_passes(service: Service, tmp_path: Path, dialogues: Path) -> None:
    _run(service.scim, service.first_run["tokens"]["scim"], dialogues, tmp_path / "report.json")


@pytest.mark.parametrize(
    ("name", "profile"),
    [("entra", "entra"), ("onelogin", "onelogin"), ("generic-externalid", "generic-externalid"), ("extensions", "generic")],
)
def test_every_dialogue_passes_in_a_directory_with_its_profile(service: Service, tmp_path: Path, name: str, profile: str) -> None:
    """These are our dialogues that need a profile, or extension schemas: `schemas/NAME.TYPE.json` beside them."""
    slug = f"ours-{name}"
    assert service.cli("directory", "create", slug, "--profile", profile).returncode == 0
    for schema in sorted((OURS / name).glob("schemas/*.json")):
        added = service.cli("directory", "schema", "add", slug, str(schema), "--resource-type", schema.stem.rpartition(".")[2])
        assert added.returncode == 0, added.stderr
    token = json.loads(service.cli("token", "issue", "scim", "--directory", slug, "--json").stdout)["token"]
    _run(f"{service.base}/scim/{slug}/v2", token, OURS / name, tmp_path / "report.json")
