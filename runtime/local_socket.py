"""The service's own door: a Unix-domain socket that only its owner can open. Who comes through it is `sys`.

Light to import: every command of the command line looks for it.
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
PATH_BYTES_MAX: Final = 90  # a socket's address takes 108 bytes on Linux, 104 elsewhere; the draft's suffix comes on top
LOCAL_BACKLOG: Final = 128
PROBE_S: Final = 5.0  # a socket of this machine answers at once, or its queue is full
OWNER_ONLY: Final = 0o600
OWNER_DIRECTORY: Final = 0o700
_PASSWORD: Final = re.compile(r"\bpassword\s*=\s*('[^']*'|[^\s&]+)", re.IGNORECASE)


def socket_path(data_dir: Path, database_url: str | None) -> Path:
    """Where the service of a data directory and a database listens for its owner.

    The database is part of the name: a command that is pointed at one must never reach the service of another.
    """
    place = Path(os.path.realpath(data_dir))
    name = f"service-{_fingerprint(database_url)}.sock" if database_url else "service.sock"
    if len(os.fsencode(place / name)) <= PATH_BYTES_MAX:
        return place / name
    return Path(tempfile.gettempdir()) / f"scim-ledger-{_digest(str(place))}" / name


def _fingerprint(url: str) -> str:
    """Of the address without the password: nothing of it may show in a file's name."""
    without = _PASSWORD.sub("", url)
    parts = urlsplit(without)
    if parts.password is not None:
        without = parts._replace(netloc=parts.netloc.replace(f":{parts.password}@", "@", 1)).geturl()
    return _digest(without)


def _digest(text: str) -> str:
    return hashlib.sha256(os.fsencode(text)).hexdigest()[:16]


@contextlib.contextmanager
def local_socket(data_dir: Path, database_url: str | None) -> Generator[socket.socket]:
    """Listen for the owner during the block. Raises OSError where that cannot be done safely.

    A file that a killed service left is replaced; so is the door of a service that still runs, whose commands then find this one.
    """
    path = socket_path(data_dir, database_url)
    _make_private(path.parent, data_dir)
    draft = path.with_name(f"{path.name}.{os.getpid()}")
    with contextlib.closing(socket.socket(socket.AF_UNIX)) as sock:
        draft.unlink(missing_ok=True)
        sock.bind(str(draft))
        try:
            draft.chmod(OWNER_ONLY)  # before it listens: until then nobody can connect
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
                if path.stat().st_ino == own:  # a service that started since has put its own there
                    path.unlink()


def _make_private(directory: Path, data_dir: Path) -> None:
    """The directory of a socket: the data directory, or one below the temporary directory that nobody else may have made."""
    if directory == Path(os.path.realpath(data_dir)):
        return
    directory.mkdir(mode=OWNER_DIRECTORY, exist_ok=True)
    if not _private(directory, {os.geteuid()}):
        raise PermissionError(f"{directory} belongs to somebody else, or others may enter it")


def _private(directory: Path, owners: set[int]) -> bool:
    found = directory.lstat()
    return stat.S_ISDIR(found.st_mode) and found.st_uid in owners and not found.st_mode & 0o077


def marked_local(app: ASGIApp) -> ASGIApp:
    """The application as the owner of this machine's service meets it: `scope["local"]` says who asks. Nothing of a request does."""

    async def local(scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:
        scope["local"] = True
        await app(scope, receive, send)

    return local


def answering(data_dir: Path, database_url: str | None) -> Path | None:
    """The socket of a service that runs on this machine, or None. Raises PermissionError where it is not ours to open."""
    path = socket_path(data_dir, database_url)
    try:
        owner = data_dir.stat().st_uid
        if path.parent != Path(os.path.realpath(data_dir)) and not _private(path.parent, {owner, os.geteuid()}):
            return None
        with contextlib.closing(socket.socket(socket.AF_UNIX)) as probe:
            probe.settimeout(PROBE_S)
            probe.connect(str(path))
    except (FileNotFoundError, NotADirectoryError, ConnectionRefusedError):
        return None  # nobody, or a file that a killed service left
    return path
