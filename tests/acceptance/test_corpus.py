"""The recorded dialogues of real identity providers, replayed against a real service."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.acceptance.conftest import ROOT, Service

CORPUS = ROOT.parent / "shared" / "corpus"
# Dialogues about parts that are not advertised yet would be named here; a skip is a failure.
WAITING: set[str] = set()
DIALOGUES = sorted(path.stem for path in (CORPUS / "dev").glob("*.json")) if CORPUS.exists() else []


@pytest.mark.skipif(not DIALOGUES, reason="the dialogues stand beside the project, in ../shared/corpus; this copy has none")
def test_every_dialogue_passes(service: Service, tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    command = [sys.executable, str(CORPUS / "runner.py"), "--base", service.scim, "--token", service.first_run["tokens"]["scim"]]
    run = subprocess.run(
        [*command, "--require-all", "--json", str(report), str(CORPUS / "dev")], capture_output=True, text=True, timeout=300
    )
    outcomes = json.loads(report.read_text())["dialogues"]
    failed = {o["name"]: o["reason"] for o in outcomes if o["outcome"] != "pass" and o["name"] not in WAITING}
    assert not failed, run.stdout
    assert len(outcomes) == len(DIALOGUES)
