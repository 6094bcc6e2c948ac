"""Dialogues of identity providers, replayed against a real service: the shared ones, and ours in the same format."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.acceptance.conftest import ROOT, Service

CORPUS = ROOT.parent / "shared" / "corpus"
OURS = Path(__file__).parent / "dialogues"


@pytest.mark.skipif(not CORPUS.exists(), reason="the runner stands beside the project, in ../shared/corpus; this copy has none")
@pytest.mark.parametrize("directory", [CORPUS / "dev", OURS], ids=["shared", "ours"])
def test_every_dialogue_passes(service: Service, tmp_path: Path, directory: Path) -> None:
    report = tmp_path / "report.json"
    command = [sys.executable, str(CORPUS / "runner.py"), "--base", service.scim, "--token", service.first_run["tokens"]["scim"]]
    run = subprocess.run(
        [*command, "--require-all", "--json", str(report), str(directory)], capture_output=True, text=True, timeout=280
    )
    outcomes = json.loads(report.read_text())["dialogues"]
    failed = {o["name"]: o["reason"] for o in outcomes if o["outcome"] != "pass"}  # a skip too
    assert not failed, run.stdout
    assert len(outcomes) == len(list(directory.glob("*.json"))) > 0
