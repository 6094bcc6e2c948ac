"""What is in ops/ for Prometheus and Grafana: promtool accepts rules and figures, and all names are those of the documentation."""

import json
import re
import subprocess
from pathlib import Path

import pytest

from api.delivery_metrics import delivery_figures, observe_attempt
from api.exposition import merged, text_of
from api.ledger_figures import named_families, nameless_families, revocation_seconds
from api.metrics import observe, observe_batch, observe_scim, serving_figures
from delivery.attempts import ERRORS, Attempt
from operations.figures import ConsumerFigures, DirectoryFigures, TokenFigures
from tests.debian import program

ROOT = Path(__file__).parents[2]
OPS = ROOT / "ops"
GIVEN = {"up", "ledger_verify_exit_code", "ledger_verify_time_seconds"}  # by Prometheus, and by the node exporter


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


@pytest.fixture(scope="module")
def scrape() -> bytes:
    """A scrape in which each figure has a value."""
    observe("GET", "/v1/events", 200, 0.01)
    observe_scim("acme", "POST", "/scim/{directory}/v2/Users", 201)
    observe_batch(3, 0.01)
    observe_attempt(Attempt("app", "accepted", 0.01, 1, [0.02]))
    revocations = revocation_seconds()
    revocations.observe("app", 0.5)
    families = [
        *nameless_families({"serve-1": True, "deliver-1": True}, 1),
        *named_families(
            [ConsumerFigures("app", "active", 1, 0.5, {"blocked": 1}, 0, forked=False)],
            [DirectoryFigures("acme", 0, surging=False, silent_s=1.0)],
            [TokenFigures("scim", "okta", 1.0)],
        ),
        *revocations.collect(),
    ]
    return merged([*serving_figures("serve-1"), *serving_figures("serve-2"), *delivery_figures("deliver-1"), text_of(families)])


def documented() -> set[str]:
    return set(re.findall(r"^\| `(ledger_\w+)`", (ROOT / "docs" / "operations.md").read_text(), re.MULTILINE))


def test_the_figures_are_as_prometheus_wants_them(promtool: str, scrape: bytes) -> None:
    done = subprocess.run([promtool, "check", "metrics"], input=scrape, capture_output=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def test_the_documentation_has_each_figure_and_each_outcome_of_deliveries(scrape: bytes) -> None:
    assert set(re.findall(r"^# TYPE (ledger_\w+)", scrape.decode(), re.MULTILINE)) == documented()
    row = re.search(r"^\| `ledger_deliveries_total` .*", (ROOT / "docs" / "operations.md").read_text(), re.MULTILINE)
    assert row is not None
    assert {*ERRORS, "accepted", "rewound", "gone", "http_4xx", "http_5xx", "other"} <= set(re.findall(r"`(\w+)`", row[0]))


def test_alerts_and_dashboard_ask_for_figures_that_there_are() -> None:
    dashboard = json.loads((OPS / "grafana-dashboard.json").read_text())
    asked = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    asked += re.findall(r"expr: (?:>-)?\s*((?:.+\n)(?:\s+/ .+\n)?)", (OPS / "prometheus" / "alerts.yml").read_text())
    for expression in asked:
        names = set(re.findall(r"\b(?:ledger|process)_\w+\b", expression)) - GIVEN
        bare = {re.sub(r"_(bucket|sum|count)$", "", name) for name in names}
        assert bare <= documented() | {"process_resident_memory_bytes"}, expression


def test_each_runbook_of_an_alert_is_a_section_of_the_documentation() -> None:
    for page, anchor in re.findall(r"runbook: (\S+)#(\S+)", (OPS / "prometheus" / "alerts.yml").read_text()):
        titles = re.findall(r"^#+ (.+)$", (ROOT / page).read_text(), re.MULTILINE)
        assert anchor in {re.sub(r"[^\w -]", "", title).lower().replace(" ", "-") for title in titles}, (page, anchor)
