"""What is in ops/ for Prometheus and Grafana: promtool accepts rules and figures, and all names are those of the documentation."""

import json
import re
import subprocess
from pathlib import Path

import pytest

from api.metrics import exposition, named_exposition, observe, observe_batch, observe_scim
from tests.debian import program

ROOT = Path(__file__).parents[2]
OPS = ROOT / "ops"
GIVEN = {"up", "ledger_verify_exit_code"}  # by Prometheus, and by the node exporter


@pytest.fixture(scope="module")
def promtool() -> str:
    return program("promtool", "prometheus")


def test_the_alerts_are_rules_that_fire_when_they_must_and_only_then(promtool: str) -> None:
    for words in (["check", "rules", "alerts.yml"], ["test", "rules", "alerts.test.yml"]):
        done = subprocess.run([promtool, *words], cwd=OPS / "prometheus", capture_output=True, text=True, timeout=60)
        assert (done.returncode, "FAILED" in done.stdout) == (0, False), done.stdout + done.stderr


def test_each_alert_is_tested() -> None:
    named = re.findall(r"- alert: (\w+)", (OPS / "prometheus" / "alerts.yml").read_text())
    assert set(named) == set(re.findall(r"alertname: (\w+)", (OPS / "prometheus" / "alerts.test.yml").read_text()))


def test_the_figures_are_as_prometheus_wants_them(promtool: str) -> None:
    observe("GET", "/v1/events", 200, 0.01)
    observe_scim("acme", "POST", "/scim/{directory}/v2/Users", 201)
    observe_batch(3, 0.01)
    done = subprocess.run(
        [promtool, "check", "metrics"], input=exposition(0, 1) + named_exposition(), capture_output=True, timeout=60
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def test_alerts_and_dashboard_ask_for_figures_that_there_are() -> None:
    documented = set(re.findall(r"^\| `(ledger_\w+)`", (ROOT / "docs" / "operations.md").read_text(), re.MULTILINE))
    dashboard = json.loads((OPS / "grafana-dashboard.json").read_text())
    asked = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    asked += re.findall(r"expr: (?:>-)?\s*((?:.+\n)(?:\s+/ .+\n)?)", (OPS / "prometheus" / "alerts.yml").read_text())
    for expression in asked:
        names = set(re.findall(r"\b(?:ledger|process)_\w+\b", expression)) - GIVEN
        bare = {re.sub(r"_(bucket|sum|count)$", "", name) for name in names}
        assert bare <= documented | {"process_resident_memory_bytes"}, expression


def test_each_runbook_of_an_alert_is_a_section_of_the_documentation() -> None:
    for page, anchor in re.findall(r"runbook: (\S+)#(\S+)", (OPS / "prometheus" / "alerts.yml").read_text()):
        titles = re.findall(r"^#+ (.+)$", (ROOT / page).read_text(), re.MULTILINE)
        assert anchor in {re.sub(r"[^\w -]", "", title).lower().replace(" ", "-") for title in titles}, (page, anchor)
