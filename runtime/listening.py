"""Listening sockets, and enough open files for the connections."""

import errno
import resource
import socket
from typing import Final

import structlog

from runtime.bootstrap import StartError

_log = structlog.get_logger("runtime.listening")
BACKLOG: Final = 2048
OTHER_FILES: Final = 256  # open files besides connections: database, logs, imports, connections that are being refused
DEAD_PEER_S: Final = 75  # seconds after which a connection to a vanished host is closed, even if it only waits for events


def listen(host: str, port: int, setting: str) -> socket.socket:
    """Bind an address. Raises StartError, which names the setting, if it is taken."""
    sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    _notice_dead_peers(sock)
    try:
        sock.bind((host, port))
        sock.listen(BACKLOG)
    except OSError as taken:
        sock.close()
        raise StartError(f"Cannot listen on {host}:{port}: {taken.strerror}. {_remedy(taken, setting)}") from taken
    return sock


def _remedy(refused: OSError, setting: str) -> str:
    if isinstance(refused, socket.gaierror) or refused.errno == errno.EADDRNOTAVAIL:
        return "Set LEDGER_HOST to an address of this machine, such as 127.0.0.1 or 0.0.0.0."
    return f"Set {setting} to a free port."


def _notice_dead_peers(sock: socket.socket) -> None:
    """Set keepalives, which connections inherit. Without them the system keeps a connection to a vanished host for hours."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (("TCP_KEEPIDLE", DEAD_PEER_S - 30), ("TCP_KEEPINTVL", 10), ("TCP_KEEPCNT", 3), ("TCP_USER_TIMEOUT", DEAD_PEER_S * 1_000)):  # fmt: skip
        if hasattr(socket, name):  # not every system has all of them
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def make_room(connections: int) -> None:
    """Allow this process the open files that its connections need: the usual soft limit is 1 024."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = connections + OTHER_FILES
    if soft != resource.RLIM_INFINITY and soft < needed:
        soft = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        if soft < needed:
            _log.warning("open_files_limited", limit=soft, needed=needed, do="raise `ulimit -n`, or lower LEDGER_CONNECTIONS")
