"""Backups of the embedded PostgreSQL: made while an IdP writes, restored with their key, refused without it or with a damaged file."""

import hashlib
import json
import os
import shutil
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from tests import warm
from tests.acceptance.conftest import Service, until
from tests.conftest import copied

USER = "urn:ietf:params:scim:schemas:core:2.0:User"


def run(data_dir: Path, *words: str, **environment: str) -> Any:
    return warm.run(words, {**os.environ, "LEDGER_DATA_DIR": str(data_dir), **environment})


class Writer(threading.Thread):
    """An IdP that creates users until told to stop; `created` has the (name, seq) of each."""

    def __init__(self, service: Service) -> None:
        super().__init__(daemon=True)
        self.service, self.created, self.some, self._over = service, list[tuple[str, int]](), threading.Event(), False

    def run(self) -> None:
        with self.service.client("scim") as idp:
            while not self._over:
                name = uuid4().hex
                answer = idp.post(f"{self.service.scim}/Users", json={"schemas": [USER], "userName": name})
                assert answer.status_code == 201, answer.text
                self.created.append((name, int(answer.headers["ledger-seq"])))
                if len(self.created) == 20:
                    self.some.set()

    def stop(self) -> None:
        self._over = True
        self.join(30)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, first_started: Path) -> Iterator[tuple[Path, Path, list[str], dict[str, Any]]]:
    """(backup, the key, names that were created before it began, what the command said), while the service went on."""
    place = tmp_path_factory.mktemp("backup")
    service = Service(copied(first_started, place / "ledger")).start()
    service.note_address()
    writer = Writer(service)
    writer.start()
    try:
        assert writer.some.wait(30)
        before = [name for name, _ in writer.created]
        done = service.cli("backup", str(place / "backup"), "--json")
        count = len(writer.created)
        assert done.returncode == 0, done.stdout + done.stderr
    finally:
        writer.stop()
    assert len(writer.created) >= count > len(before), "writes went on"
    assert service.stop() == 0
    said = json.loads(done.stdout)
    yield place / "backup", place / "ledger" / "kek", before, said


def restored(made: Any, data_dir: Path) -> Any:
    backup, key, _, _ = made
    data_dir.mkdir(parents=True)
    shutil.copy(key, data_dir / "kek")
    return run(data_dir, "restore", str(backup))


def test_a_backup_of_a_running_service_has_every_event_from_before_it(
    made: Any, tmp_path: Path, make_service: Callable[..., Service]
) -> None:
    backup, key, before, said = made
    done = restored(made, tmp_path / "elsewhere")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "the log ends at position" in done.stdout
    shutil.copy(key.parent / "first-run.json", tmp_path / "elsewhere" / "first-run.json")  # its tokens are in the backup
    service = make_service("elsewhere")
    assert service.user_names() >= set(before)
    with service.client("operator") as operator:
        head = operator.get(f"{service.base}/v1/events", params={"limit": 1}).json()["head_position"]
    assert head >= said["position"]
    verified = service.cli("replay", "verify")
    assert verified.returncode == 0, verified.stdout + verified.stderr
    with service.client("scim") as idp:
        assert idp.post(f"{service.scim}/Users", json={"schemas": [USER], "userName": "after"}).status_code == 201
    assert sorted(path.name for path in backup.iterdir()) == ["backup.json", "data"], "nothing else is left"


def test_a_backup_names_its_key_and_holds_none(made: Any) -> None:
    backup, key, _, said = made
    assert said["key_id"] in json.dumps(json.loads((backup / "backup.json").read_text()))
    secret = bytes.fromhex(key.read_text().strip())
    for path in backup.rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            assert secret not in content
            assert secret.hex().encode() not in content
    assert (backup / "backup.json").stat().st_mode & 0o777 == 0o600
    assert backup.stat().st_mode & 0o777 == 0o700


def test_nothing_is_restored_over_a_ledger(made: Any, tmp_path: Path) -> None:
    assert restored(made, tmp_path / "twice").returncode == 0
    again = run(tmp_path / "twice", "restore", str(made[0]))
    assert again.returncode == 2
    assert "There is a ledger in" in again.stderr


@pytest.mark.parametrize("key", ["missing", "another"])
def test_without_its_key_a_backup_is_refused_before_anything_is_copied(made: Any, tmp_path: Path, key: str) -> None:
    data_dir = tmp_path / "keyless"
    data_dir.mkdir()
    if key == "another":
        (data_dir / "kek").write_text("ab" * 32 + "\n")
    done = run(data_dir, "restore", str(made[0]))
    assert done.returncode == 2
    assert ("is missing" if key == "missing" else "does not open this ledger") in done.stderr
    assert not (data_dir / "postgres" / "data").exists()


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def _largest(backup: Path, below: str) -> Path:
    return max((path for path in (backup / "data" / below).rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)


DAMAGES: dict[str, Callable[[Path], None]] = {
    "a flipped bit": lambda backup: _flip(_largest(backup, "base")),
    "a missing file": lambda backup: _largest(backup, "base").unlink(),
    "broken WAL": lambda backup: (backup / "data" / "pg_wal" / min(os.listdir(backup / "data" / "pg_wal"))).write_bytes(b"\0" * 2**24),
    "another manifest": lambda backup: _flip(backup / "data" / "backup_manifest"),
    "no backup.json": lambda backup: (backup / "backup.json").unlink(),
    "a position that is a text": lambda backup: (backup / "backup.json").write_text(
        json.dumps({**json.loads((backup / "backup.json").read_text()), "position": "x"})
    ),
    "a later format": lambda backup: (backup / "backup.json").write_text(
        json.dumps({**json.loads((backup / "backup.json").read_text()), "format": 99})
    ),
}  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_backup_is_a_finding_and_nothing_is_restored(made: Any, tmp_path: Path, damage: str) -> None:
    backup = copied(made[0], tmp_path / "damaged")
    DAMAGES[damage](backup)
    done = restored((backup, *made[1:]), tmp_path / "from-damaged")
    assert done.returncode == 1, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "from-damaged" / "postgres" / "data").exists()


def test_settings_that_no_manifest_covers_are_not_restored(made: Any, tmp_path: Path) -> None:
    """They would make the server run commands of whoever could write into the backup."""
    backup, marks = copied(made[0], tmp_path / "armed"), tmp_path / "ran"
    (backup / "data" / "postgresql.auto.conf").write_text(
        f"restore_command = 'touch {marks}; false'\narchive_cleanup_command = 'touch {marks}'\n"
    )
    (backup / "data" / "recovery.signal").touch()
    done = restored((backup, *made[1:]), tmp_path / "from-armed")
    assert done.returncode == 0, done.stdout + done.stderr
    data = tmp_path / "from-armed" / "postgres" / "data"
    assert (data / "postgresql.auto.conf").read_text() == ""
    assert not (data / "recovery.signal").exists()
    assert not marks.exists()


def test_a_backup_with_a_link_is_refused(made: Any, tmp_path: Path) -> None:
    backup = copied(made[0], tmp_path / "linked")
    (backup / "data" / "pg_tblspc" / "16400").symlink_to("/etc")
    done = restored((backup, *made[1:]), tmp_path / "from-linked")
    assert done.returncode == 1
    assert "has a link" in done.stderr
    assert not (tmp_path / "from-linked" / "postgres" / "data").exists()


def test_a_file_that_was_changed_with_its_manifest_is_refused(made: Any, tmp_path: Path) -> None:
    """The manifest is no signature: whoever can write into a backup can make it fit. The MAC of backup.json is one."""
    backup = copied(made[0], tmp_path / "forged")
    conf, manifest = backup / "data" / "postgresql.conf", backup / "data" / "backup_manifest"
    conf.write_text(conf.read_text() + "\narchive_mode = on\narchive_command = 'touch /nowhere'\n")
    listed = json.loads(manifest.read_text())
    (entry,) = [file for file in listed["Files"] if file["Path"] == "postgresql.conf"]
    entry |= {"Size": conf.stat().st_size, "Checksum": hashlib.sha256(conf.read_bytes()).hexdigest()}
    head = (
        json.dumps({key: value for key, value in listed.items() if key != "Manifest-Checksum"}, separators=(",", ":"))[:-1]
        + ",\n"
    )
    checksum = hashlib.sha256(head.encode()).hexdigest()
    manifest.write_text(f'{head}"Manifest-Checksum": "{checksum}"}}\n')
    done = restored((backup, *made[1:]), tmp_path / "from-forged")
    assert done.returncode == 1
    assert "was not made with this ledger's key" in done.stderr, done.stderr
    assert not (tmp_path / "from-forged" / "postgres" / "data").exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_an_interrupted_backup_leaves_nothing_behind(made: Any, tmp_path: Path, number: signal.Signals) -> None:
    assert restored(made, tmp_path / "ledger").returncode == 0
    environment = {**os.environ, "LEDGER_DATA_DIR": str(tmp_path / "ledger")}
    with (tmp_path / "log").open("wb") as log:
        process = warm.start(["backup", str(tmp_path / "backup")], environment, log)
    until(lambda: any(path.name.startswith(".backup.") for path in tmp_path.iterdir()))
    process.send_signal(number)
    assert process.wait(timeout=60) != 0
    assert process.stdout is not None
    process.stdout.close()
    assert not any("backup" in path.name for path in tmp_path.iterdir())
    again = run(tmp_path / "ledger", "backup", str(tmp_path / "backup"), "--no-trial")
    assert again.returncode == 0, again.stdout + again.stderr


def test_what_stands_beside_a_backup_is_not_touched(made: Any, tmp_path: Path) -> None:
    assert restored(made, tmp_path / "ledger").returncode == 0
    (tmp_path / "one.part").mkdir()
    (tmp_path / "one.part" / "mine").touch()
    assert run(tmp_path / "ledger", "backup", str(tmp_path / "one"), "--no-trial").returncode == 0
    assert (tmp_path / "one.part" / "mine").exists()


def test_a_trial_start_archives_nothing(made: Any, tmp_path: Path) -> None:
    """It would write its own WAL under names that the real server archives too."""
    assert restored(made, tmp_path / "ledger").returncode == 0
    data = tmp_path / "ledger" / "postgres" / "data"
    with (data / "postgresql.auto.conf").open("a") as conf:
        conf.write(f"archive_mode = on\narchive_command = 'echo %f >> {tmp_path / 'archived'}; true'\n")
    tmp_path.chmod(0o777)
    done = run(tmp_path / "ledger", "backup", str(tmp_path / "backup"))
    assert done.returncode == 0, done.stdout + done.stderr
    archived = (tmp_path / "archived").read_text().split() if (tmp_path / "archived").exists() else []
    assert len(archived) == len(set(archived)), "no segment is archived twice"


def test_a_changed_backup_json_is_refused(made: Any, tmp_path: Path) -> None:
    backup = copied(made[0], tmp_path / "mixed")
    facts = json.loads((backup / "backup.json").read_text())
    (backup / "backup.json").write_text(json.dumps({**facts, "leaf_hash": "00" * 32}))
    done = restored((backup, *made[1:]), tmp_path / "from-mixed")
    assert done.returncode == 1
    assert "was not made with this ledger's key" in done.stderr
    assert not (tmp_path / "from-mixed" / "postgres" / "data").exists()


def test_a_backup_replaces_nothing_and_leaves_nothing_when_it_is_refused(made: Any, tmp_path: Path, service: Service) -> None:
    taken = tmp_path / "taken"
    taken.mkdir()
    done = service.cli("backup", str(taken))
    assert (done.returncode, list(taken.iterdir())) == (2, [])
    assert "a backup never replaces another one" in done.stderr
    nowhere = service.cli("backup", str(tmp_path / "no" / "where"))
    assert nowhere.returncode == 2
    assert list(tmp_path.iterdir()) == [taken]


def test_a_stopped_service_is_backed_up_too(made: Any, tmp_path: Path) -> None:
    assert restored(made, tmp_path / "stopped").returncode == 0
    done = run(tmp_path / "stopped", "backup", str(tmp_path / "again"), "--no-trial")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "; checked." in done.stdout
    assert (tmp_path / "again" / "data" / "backup_manifest").exists()


def test_a_ledger_by_url_is_backed_up_with_its_own_tools(tmp_path: Path) -> None:
    for words in (("backup", str(tmp_path / "b")), ("restore", str(tmp_path))):
        done = run(tmp_path, *words, LEDGER_DATABASE_URL="postgresql://u@127.0.0.1:1/x")
        assert done.returncode == 2
        assert "use pg_basebackup or pg_dump there" in done.stderr
