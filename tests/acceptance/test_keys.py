"""The life of a key epoch on a running service: made, moved into, destroyed, while an IdP writes and consumers read."""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.conftest import Service
from tests.acceptance.receiver import receiver
from tests.acceptance.test_backup import Writer, run
from tests.conftest import copied

pytestmark = pytest.mark.long


def said(service: Service, *words: str) -> Any:
    done = service.cli(*words, "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout)


def events_of(service: Service) -> list[dict[str, Any]]:
    with service.client("admin") as admin:
        found: list[dict[str, Any]] = []
        after: dict[str, Any] = {}
        while True:
            page = admin.get(f"{service.base}/v1/events", params={"limit": 1000, **after}).json()
            found += page["data"]
            after = {"after": page["list_metadata"]["after"]}
            if not page["has_more"]:
                return found


@pytest.fixture
def lived(tmp_path: Path, first_started: Path) -> Iterator[tuple[Path, Service, list[str]]]:
    """A service whose epoch 1 was destroyed while everybody worked; `before` and `after` are backups from before and after."""
    place = tmp_path
    service = Service(copied(first_started, place / "ledger"), LEDGER_WORKERS="2", LEDGER_WEBHOOK_ALLOW="127.0.0.0/8").start()
    service.note_address()
    shutil.copy(place / "ledger" / "kek", place / "kek-of-before")
    with receiver() as hook, service.client("operator") as operator:
        terms = {"mode": "webhook", "url": hook.url, "directories": ["acme"], "types": ["user.*"]}
        made = operator.put(f"{service.base}/v1/consumers/hook", json=terms).json()
        hook.secrets = [made["secret"]]
        writer = Writer(service)
        writer.start()
        assert writer.some.wait(30)
        said(service, "backup", str(place / "before"), "--no-trial")
        assert said(service, "key", "rotate")["epoch"] == 2
        rewrapped = said(service, "key", "rewrap")
        assert rewrapped["keys"] > 20
        assert rewrapped["unreadable"] == 0
        said(service, "backup", str(place / "after"), "--no-trial")
        assert said(service, "key", "destroy", "1", "--yes")["epoch"] == 1
        count = len(writer.created)
        hook.wait(lambda: len(writer.created) > count + 5)
        writer.stop()
        names = [name for name, _ in writer.created]
        hook.wait(lambda: {e["data"]["object"]["userName"] for e in hook.accepted if e["type"] == "user.created"} >= set(names))
    yield place, service, names
    assert service.stop() == 0


def nothing_is_refused_or_lost_while_keys_rotate(lived: tuple[Path, Service, list[str]]) -> None:
    _, service, names = lived
    assert service.user_names() >= set(names)
    created = [event for event in events_of(service) if event["type"] == "user.created"]
    assert {event["data"]["object"]["userName"] for event in created} >= set(names)
    assert service.cli("replay", "verify").returncode == 0


def the_epochs_and_their_events_tell_what_happened(lived: tuple[Path, Service, list[str]]) -> None:
    _, service, _ = lived
    first, second = said(service, "key", "list")["data"]
    assert (first["state"], second["state"]) == ("destroyed", "current")
    with service.client("admin") as admin:
        page = admin.get(f"{service.base}/v1/events", params={"directory": "_system", "types": "key.*"}).json()
    told = [(event["type"], event["data"]["object"]["epoch"], event["actor"]) for event in page["data"]]
    assert told == [("key.rotated", 2, "sys"), ("key.rewrapped", 2, "sys"), ("key.destroyed", 1, "sys")]


def a_backup_from_before_cannot_be_opened_any_more_and_one_from_after_can(
    lived: tuple[Path, Service, list[str]], tmp_path: Path, make_service: Callable[..., Service]
) -> None:
    place, _, names = lived
    for backup in ("before", "after"):
        (tmp_path / backup).mkdir(parents=True)
        shutil.copy(place / "ledger" / "kek", tmp_path / backup / "kek")
    refused = run(tmp_path / "before", "restore", str(place / "before"))
    assert refused.returncode != 0
    assert "Root key 1" in refused.stderr
    assert "was destroyed" in refused.stderr
    assert not (tmp_path / "before" / "postgres" / "data").exists()
    shutil.copy(place / "kek-of-before", tmp_path / "before" / "kek")  # the control: it is the root key that is missing
    assert run(tmp_path / "before", "restore", str(place / "before")).returncode == 0
    assert run(tmp_path / "after", "restore", str(place / "after")).returncode == 0
    shutil.copy(place / "ledger" / "first-run.json", tmp_path / "after")
    service = make_service("restored/after")
    assert set(names) & service.user_names(), "those of before the backup can be read"
    assert service.cli("replay", "verify").returncode == 0


def test_keys_are_rotated_moved_and_destroyed_while_everybody_works(
    lived: tuple[Path, Service, list[str]], tmp_path: Path, make_service: Callable[..., Service]
) -> None:
    """One test, because what it looks at takes half a minute to make."""
    nothing_is_refused_or_lost_while_keys_rotate(lived)
    the_epochs_and_their_events_tell_what_happened(lived)
    a_backup_from_before_cannot_be_opened_any_more_and_one_from_after_can(lived, tmp_path / "restored", make_service)
