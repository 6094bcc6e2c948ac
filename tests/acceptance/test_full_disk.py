"""The embedded PostgreSQL on a disk that becomes full or read-only, or is removed: the error explains it, and the service
recovers by itself.
"""

import errno
import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from runtime import embedded
from runtime.disk import GONE, NEARLY_FULL, Disk
from runtime.embedded import FREE_BYTES_MIN, EmbeddedPostgresError
from tests.acceptance.conftest import Service, until

MIB = 2**20
PATIENCE_S = 60.0  # the service sends this process no signal, so it is asked again and again
USER = "urn:ietf:params:scim:schemas:core:2.0:User"


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system for the test, 600 MiB; the test is skipped if this account may not mount one."""
    place = tmp_path / "disk"
    place.mkdir(mode=0o755)
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=600m,mode=755", "tmpfs", str(place)], capture_output=True)
    if mounted.returncode != 0:
        pytest.skip("this account may not mount a file system; other tests simulate the full disk")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def fill(place: Path, leave: int) -> Path:
    """Fill the disk until this number of bytes is left."""
    file = place / "ballast"
    with file.open("ab") as out:
        while True:
            try:
                os.posix_fallocate(out.fileno(), 0, max(1, file.stat().st_size + embedded.free_bytes(place) - leave))
                return file
            except OSError as taken:  # PostgreSQL took some of it after it was read
                if taken.errno != errno.ENOSPC:
                    raise


def logged(service: Service, event: str) -> list[dict]:
    lines = [json.loads(line) for line in service.log.read_text().splitlines() if line.startswith("{")]
    return [line for line in lines if line["event"] == event]


def create(client: httpx.Client, service: Service, name: str) -> httpx.Response:
    return client.post(f"{service.scim}/Users", json={"schemas": [USER], "userName": name})


def ready(service: Service) -> dict:
    return httpx.get(f"{service.base}/readyz", trust_env=False, timeout=20).json()


def test_a_nearly_full_disk_refuses_writes_with_an_explanation_and_permits_acts_of_operators(disk: Path) -> None:
    """Reads, acts of operators and the end of the service still work; writes go on by themselves once there is room again."""
    service = Service(disk / "ledger").start()
    with service.client("scim") as scim, service.client("admin") as admin:
        assert create(scim, service, "before").status_code == 201
        ballast = fill(disk, FREE_BYTES_MIN - 20 * MIB)
        until(lambda: ready(service)["status"] == "not_ready", PATIENCE_S)
        refused = create(scim, service, "meanwhile")
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "30")
        assert "Less than 256 MiB are free" in refused.json()["detail"]
        assert {key: ready(service)[key] for key in ("part", "reason")} == {"part": "disk", "reason": "disk_nearly_full"}
        assert scim.get(f"{service.scim}/Users").json()["totalResults"] == 1
        token = admin.post(
            f"{service.base}/v1/tokens", json={"role": "scim", "name": "t", "directories": ["acme"]},
            headers={"Content-Type": "application/json"},
        )  # fmt: skip
        assert token.status_code == 201, token.text
        assert admin.delete(f"{service.base}/v1/tokens/{token.json()['id']}").status_code in {200, 204}
        ballast.unlink()
        until(lambda: ready(service)["status"] == "ready", PATIENCE_S)
        assert create(scim, service, "after").status_code == 201
        fill(disk, FREE_BYTES_MIN - 20 * MIB)
        assert service.stop() == 0
    assert service.start().stop() == 0, "it starts on a nearly full disk, too"


def test_a_full_disk_ends_the_database_server_but_not_the_service(disk: Path, tmp_path: Path) -> None:
    """The server cannot even start: the service tries again with pauses, its log says what is missing, and nothing acknowledged
    is lost.
    """
    service = Service(disk / "ledger")
    service.log = tmp_path / "service.log"
    service.start()
    with service.client("scim") as scim:
        assert create(scim, service, "before").status_code == 201
        ballast = fill(disk, 0)
        os.kill(service.postmaster(), signal.SIGKILL)
        until(lambda: bool(ready(service)) and len(logged(service, "postgres_restart_failed")) >= 2, PATIENCE_S)
        assert "MiB are free" in logged(service, "postgres_restart_failed")[-1]["reason"]
        assert create(scim, service, "meanwhile").status_code == 503
        assert ready(service)["reason"] == "disk_nearly_full"
        ballast.unlink()
        until(lambda: ready(service)["status"] == "ready", PATIENCE_S)
        assert create(scim, service, "after").status_code == 201
        found = scim.get(f"{service.scim}/Users").json()["Resources"]
        assert [user["userName"] for user in found] == ["before", "after"]
    assert service.stop() == 0


def test_a_log_file_that_cannot_be_written_stops_nothing(disk: Path) -> None:
    """Standard error is often a file on the same disk."""
    service = Service(disk / "ledger").start()  # its log file is on that disk too
    with service.client("scim") as scim:
        ballast = fill(disk, 0)
        os.kill(service.postmaster(), signal.SIGKILL)
        for number in range(20):
            assert create(scim, service, f"meanwhile-{number}").status_code == 503
        ballast.unlink()
        until(lambda: ready(service)["status"] == "ready", PATIENCE_S)
        assert create(scim, service, "after").status_code == 201
    assert service.stop() == 0


@pytest.mark.long
def test_a_missing_data_directory_is_never_replaced_by_a_new_ledger(tmp_path: Path) -> None:
    """It was unmounted or deleted: a running service waits for it, and never creates a new one."""
    service = Service(tmp_path / "ledger").start()
    data, aside = service.data_dir / "postgres" / "data", service.data_dir / "aside"
    with service.client("scim") as scim:
        assert create(scim, service, "before").status_code == 201
        until(lambda: ready(service)["status"] == "ready", PATIENCE_S)
        postmaster = service.postmaster()
        data.rename(aside)
        os.kill(postmaster, signal.SIGKILL)
        until(lambda: bool(ready(service)) and len(logged(service, "postgres_restart_failed")) >= 1, PATIENCE_S)
        assert "is gone" in logged(service, "postgres_restart_failed")[-1]["reason"]
        assert not data.exists()
        assert create(scim, service, "meanwhile").status_code == 503
        aside.rename(data)
        until(lambda: ready(service)["status"] == "ready", PATIENCE_S)
        assert scim.get(f"{service.scim}/Users").json()["totalResults"] == 1
    service.stop()


def test_a_disk_without_room_for_a_new_ledger_is_refused_at_the_start(disk: Path) -> None:
    fill(disk, 100 * MIB)
    with pytest.raises(EmbeddedPostgresError, match=r"Only 99 MiB are free in .*; a new ledger needs 256"):
        embedded.start(disk / "pg")


def test_the_error_names_a_read_only_data_directory(disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    with pytest.raises(EmbeddedPostgresError, match=r"data directory .* is read-only"):
        embedded.start(disk / "pg")
    ended = subprocess.run(
        ["env", f"LEDGER_DATA_DIR={disk}/ledger", "LEDGER_PORT=0", os.sys.executable, "-c", "from runtime.cli import main; main()", "serve"],
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert ended.returncode == 2
    assert "is read-only" in ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize(
    ("number", "says"),
    [
        (errno.EINVAL, "does not keep what is synced"),
        (errno.ENOSYS, "does not keep what is synced"),
        (errno.ENOSPC, "is full"),
        (errno.EROFS, "is read-only"),
        (errno.EIO, "does not answer, or is damaged"),
        (errno.EMFILE, "cannot be used"),
    ],
)
def test_a_refusal_of_the_file_system_is_reported_in_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, says: str
) -> None:
    """No such file system can be mounted here, so the call that it would refuse is made to fail."""

    def refuse(_descriptor: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("runtime.embedded.os.fsync", refuse)
    with pytest.raises(EmbeddedPostgresError, match=says):
        embedded.start(tmp_path / "pg")


def test_the_error_names_a_file_in_place_of_the_data_directory(tmp_path: Path) -> None:
    (tmp_path / "pg").write_text("")
    with pytest.raises(EmbeddedPostgresError, match="is no directory"):
        embedded.start(tmp_path / "pg")


def test_the_free_space_is_read_now_and_then_and_not_at_each_write(tmp_path: Path) -> None:
    now, free, looks = [0.0], [FREE_BYTES_MIN], [0]

    def look(_place: Path) -> int:
        looks[0] += 1
        if free[0] < 0:
            raise OSError
        return free[0]

    disk = Disk(tmp_path, look, lambda: now[0])
    assert disk.trouble() is None
    free[0] -= 1
    assert [disk.trouble() for _ in range(100)] == [None] * 100
    assert looks == [1]
    now[0] += 1
    assert disk.trouble() is NEARLY_FULL
    free[0] = -1
    now[0] += 1
    assert disk.trouble() is GONE
