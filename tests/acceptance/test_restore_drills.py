"""The drills of docs/operations.md for a PostgreSQL of one's own: a dump, and a base backup with archived WAL, before and after a rotation."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest

from runtime import embedded
from runtime.bootstrap import DATABASE, Urls, embedded_urls
from tests import warm
from tests.acceptance.conftest import Service
from tests.acceptance.test_key_providers import write
from tests.acceptance.test_keys import said

pytestmark = pytest.mark.long


@contextmanager
def postgres(place: Path, **settings: str) -> Iterator[embedded.Cluster]:
    """A PostgreSQL of one's own: the service knows it by URL only."""
    cluster = embedded.start(place, settings=settings, report=lambda _: None)
    try:
        yield cluster
    finally:
        embedded.stop(cluster)


def by_url(urls: Urls) -> dict[str, str]:
    return {"LEDGER_DATABASE_URL": urls.serve, "LEDGER_MIGRATE_URL": urls.migrate}


@contextmanager
def serving(data_dir: Path, urls: Urls) -> Iterator[Service]:
    service = Service(data_dir, **by_url(urls)).start()
    try:
        yield service
    finally:
        assert service.stop() == 0


def run(program: str, cluster: embedded.Cluster, *words: str) -> None:
    command = [
        str(embedded.program(program)),
        f"--host={cluster.socket_dir}",
        f"--port={cluster.port}",
        f"--username={embedded.SUPERUSER}",
        *words,
    ]
    subprocess.run(command, check=True, capture_output=True, timeout=120)


def dump(cluster: embedded.Cluster, target: Path) -> None:
    run("pg_dump", cluster, "--format=custom", f"--file={target}", DATABASE)


def loaded(cluster: embedded.Cluster, source: Path) -> Urls:
    """As the runbook says: the roles, an empty database, pg_restore."""
    urls = embedded_urls(cluster)
    run("pg_restore", cluster, "--exit-on-error", f"--dbname={DATABASE}", str(source))
    return urls


def elsewhere(place: Path, source: Service) -> Path:
    """Another host: with the key file of now, and the tokens of the first start."""
    place.mkdir()
    for name in ("kek", "first-run.json"):
        shutil.copy(source.data_dir / name, place / name)
    return place


def refused(data_dir: Path, urls: Urls) -> str:
    done = warm.run(["serve"], {**os.environ, "LEDGER_DATA_DIR": str(data_dir), "LEDGER_PORT": "0", **by_url(urls)})
    assert done.returncode == 2, done.stdout + done.stderr
    return done.stderr


def owner_of(path: Path) -> tuple[int, int]:
    return path.stat().st_uid, path.stat().st_gid


def rotated(service: Service) -> None:
    said(service, "key", "rotate")
    said(service, "key", "rewrap")


def test_a_dump_is_restored_and_one_from_before_a_destroyed_epoch_cannot_be_opened(tmp_path: Path) -> None:
    with postgres(tmp_path / "one") as first:
        with serving(tmp_path / "here", embedded_urls(first)) as service:
            before = write(service)
            dump(first, tmp_path / "before.dump")
            rotated(service)
            after = write(service)
            dump(first, tmp_path / "after.dump")
            said(service, "key", "destroy", "1", "--yes")
    with postgres(tmp_path / "two") as second:
        there = elsewhere(tmp_path / "there", service)
        with serving(there, loaded(second, tmp_path / "after.dump")) as restored:
            restored.note_address()
            assert restored.user_names() == {before, after}
            assert restored.cli("replay", "verify").returncode == 0
            write(restored)
    with postgres(tmp_path / "three") as third:
        assert "was destroyed" in refused(there, loaded(third, tmp_path / "before.dump"))


def test_a_base_backup_is_rolled_forward_by_archived_wal(tmp_path: Path) -> None:
    # relative to the data directory: the account of the server may not pass through the directories of a test
    settings = {"archive_mode": "on", "archive_command": "cp %p ../archive/%f", "max_wal_senders": "4"}
    archive = tmp_path / "one" / "archive"
    with postgres(tmp_path / "one", **settings) as first:
        (tmp_path / "one").chmod(0o711)
        archive.mkdir()
        os.chown(archive, *owner_of(tmp_path / "one" / "data"))
        with serving(tmp_path / "here", embedded_urls(first)) as service:
            names = {write(service)}
            run("pg_basebackup", first, f"--pgdata={tmp_path / 'base'}", "--wal-method=none", "--checkpoint=fast")
            names.add(write(service))
            rotated(service)
            names.add(write(service))
            with psycopg.connect(first.url(embedded.SUPERUSER, "postgres"), autocommit=True) as conn:
                conn.execute("select pg_switch_wal()")
    place = tmp_path / "two"
    place.mkdir(mode=0o711)
    shutil.move(tmp_path / "base", place / "data")
    shutil.move(archive, place / "archive")
    (place / "data" / "recovery.signal").touch()
    embedded.adopt(place / "data")
    with postgres(place, archive_mode="off", hot_standby="off", restore_command="cp ../archive/%f %p") as second:
        urls = embedded_urls(second)
        with serving(elsewhere(tmp_path / "there", service), urls) as restored:
            restored.note_address()
            assert restored.user_names() == names
            assert restored.cli("replay", "verify").returncode == 0
            assert [row["state"] for row in said(restored, "key", "list")["data"]] == ["earlier", "current"]
