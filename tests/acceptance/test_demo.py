"""`scim-ledger demo`, as a new user runs it."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.acceptance.conftest import Service

CHAPTERS = ("Provisioning", "Moves", "Offboarding", "An outage", "Lost work", "Replay", "An auditor asks", "Summary")


@pytest.mark.long
def test_the_demo_runs_on_a_service_of_its_own(tmp_path: Path) -> None:
    """It must not need anything: no service, no data directory, no setting."""
    told = Service(tmp_path / "unused").cli("demo")
    assert told.returncode == 0, told.stdout + told.stderr
    places = [told.stdout.find(chapter) for chapter in CHAPTERS]
    assert -1 not in places
    assert places == sorted(places)
    for narration in (
        "Okta wrote 30 users and 5 groups",
        "Entra ID wrote 20 users and 3 groups",
        "made no event",
        "group.member_access_revoked",
        "access ended with the deactivation",
        "it is closed",
        "events come again",
        "no hole",
        "swapped them in while serving",
        "events and the read models that follow from them: no difference",
        "before the offboarding: Contractors, Field.",
        "the offboarding: nothing.",
        "knows the same members of all 8 groups as the service",
    ):
        assert narration in told.stdout, narration
    assert not (tmp_path / "unused").exists(), "it works in a temporary directory"


def test_the_demo_can_run_twice_on_a_running_service(make_service: Callable[..., Service]) -> None:
    """Its names differ from run to run, and it does not depend on earlier events in the log."""
    service = make_service()
    service.environment["LEDGER_URL"] = service.base
    for _ in range(2):
        told = service.cli("demo")
        assert told.returncode == 0, told.stdout + told.stderr
        assert f"Using the service at {service.base}." in told.stdout
        assert "swapped them in while serving" in told.stdout
        assert "as the service" in told.stdout


def test_an_address_without_a_service_is_named(tmp_path: Path) -> None:
    told = Service(tmp_path / "unused", LEDGER_URL="http://127.0.0.1:9").cli("demo")
    assert told.returncode == 3
    assert told.stderr.startswith("No service answers at http://127.0.0.1:9.")
    assert "unset LEDGER_URL" in told.stderr


def test_missing_tokens_are_named(service: Service, tmp_path: Path) -> None:
    told = Service(tmp_path / "unused", LEDGER_URL=service.base).cli("demo")
    assert told.returncode == 1
    assert "first-run.json is missing" in told.stderr
