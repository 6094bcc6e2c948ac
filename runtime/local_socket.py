"""The local socket of the service: a Unix-domain socket that only its owner can open. A caller through it is `sys`.

Imports little, because every command looks for the socket.
"""

import contextlib
import hashlib
import os
import re
import socket
import stat
import tempfile
from collections.abc import Awaitable, Callable, Generator, MutableMapping
from pathlib import Path
from typing import Any, Final, TypeAlias
from urllib.parse import urlsplit

ASGIApp: TypeAlias = Callable[[MutableMapping[str, Any], Any, Any], Awaitable[None]]
PATH_BYTES_MAX: Final = 90  # a socket path may have 108 bytes on Linux, 104 elsewhere; the temporary name has a suffix
LOCAL_BACKLOG: Final = 128
PROBE_S: Final = 5.0  # seconds; a socket on this machine answers at once, unless its queue is full
OWNER_ONLY: Final = 0o600
OWNER_DIRECTORY: Final = 0o700
_PASSWORD: Final = re.compile(r"\bpassword\s*=\s*('[^']*'|[^\s&]+)", re.IGNORECASE)


def socket_path(data_dir: Path, database_url: str | None) -> Path:
    """The path of the socket of a service, by data directory and database.

    The database is part of the name, so that a command for one database never reaches the service of another.
    """
    name = f"{service_name(database_url)}.sock"
    return place_of(data_dir, name) / name


def place_of(data_dir: Path, name: str) -> Path:
    """The directory for a socket of that name: the data directory, or one in the temporary directory if the path would be too long."""
    place = Path(os.path.realpath(data_dir))
    if len(os.fsencode(place / name)) <= PATH_BYTES_MAX:
        return place
    return Path(tempfile.gettempdir()) / f"scim-ledger-{_digest(str(place))}"


def service_name(database_url: str | None) -> str:
    """What the files of a service are called in its data directory."""
    return f"service-{_fingerprint(database_url)}" if database_url else "service"


def _fingerprint(url: str) -> str:
    """A hash of the URL without its password, so that nothing of the password is in a file name."""
    without = _PASSWORD.sub("", url)
    parts = urlsplit(without)
    if parts.password is not None:
        without = parts._replace(netloc=parts.netloc.replace(f":{parts.password}@", "@", 1)).geturl()
    return _digest(without)


def _digest(text: str) -> str:
    return hashlib.sha256(os.fsencode(text)).hexdigest()[:16]


@contextlib.contextmanager
def local_socket(data_dir: Path, database_url: str | None) -> Generator[socket.socket]:
    """Listen on the socket during the block. Raises OSError if that is not safely possible.

    A file that a killed service left is replaced. So is the socket of a running service; commands then reach this one.
    """
    path = socket_path(data_dir, database_url)
    make_private(path.parent, data_dir)
    draft = path.with_name(f"{path.name}.{os.getpid()}")
    with contextlib.closing(socket.socket(socket.AF_UNIX)) as sock:
        draft.unlink(missing_ok=True)
        sock.bind(str(draft))
        try:
            draft.chmod(OWNER_ONLY)  # before listen(), because nobody can connect until then
            sock.listen(LOCAL_BACKLOG)
            own = draft.stat().st_ino
            draft.replace(path)
        except OSError:
            draft.unlink(missing_ok=True)
            raise
        try:
            yield sock
        finally:
            with contextlib.suppress(FileNotFoundError):
                if path.stat().st_ino == own:  # not if a service that started later has replaced it
                    path.unlink()


def make_private(directory: Path, data_dir: Path) -> None:
    """Check or create the directory of the socket: the data directory, or one in the temporary directory that only this account owns."""
    if directory == Path(os.path.realpath(data_dir)):
        return
    directory.mkdir(mode=OWNER_DIRECTORY, exist_ok=True)
    if not _private(directory, {os.geteuid()}):
        raise PermissionError(f"{directory} belongs to somebody else, or others may enter it")


def _private(directory: Path, owners: set[int]) -> bool:
    found = directory.lstat()
    return stat.S_ISDIR(found.st_mode) and found.st_uid in owners and not found.st_mode & 0o077


def marked_local(app: ASGIApp) -> ASGIApp:
    """The application with `scope["local"]` set, which makes the caller `sys`. No request can set it."""

    async def local(scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:
        scope["local"] = True
        await app(scope, receive, send)

    return local


def answering(data_dir: Path, database_url: str | None) -> Path | None:
    """The socket of a service that runs on this machine, or None. Raises PermissionError if this account may not open it."""
    path = socket_path(data_dir, database_url)
    try:
        owner = data_dir.stat().st_uid
        if path.parent != Path(os.path.realpath(data_dir)) and not _private(path.parent, {owner, os.geteuid()}):
            return None
        with contextlib.closing(socket.socket(socket.AF_UNIX)) as probe:
            probe.settimeout(PROBE_S)
            probe.connect(str(path))
    except (FileNotFoundError, NotADirectoryError, ConnectionRefusedError):
        return None  # no service, or a file that a killed service left
    return path
