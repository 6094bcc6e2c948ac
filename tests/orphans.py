"""Ends the processes that a run of tests leaves: services, PostgreSQL servers and test processes, also if the run is killed.

A separate process watches a pipe that only the run holds open. When the run ends, in whatever way, the pipe is closed. Processes
of the run are recognised by its mark in their environment, or by a working directory within the temporary directory of the run
(PostgreSQL has another environment, but works in its data directory); their children are ended with them.
"""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from select import select

MARK = "SCIM_LEDGER_TEST_RUN"  # environment variable
QUIT_S = 5.0  # for PostgreSQL to free its shared memory
ROUND_S = 0.05


class Watch:
    """Watches the run that makes it."""

    def __init__(self, mark: str, place: Path) -> None:
        command = [sys.executable, "-I", "-S", __file__, mark, str(place)]
        self._watcher = subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)

    def end(self) -> None:
        """End the remaining processes, and wait for their end."""
        assert self._watcher.stdin is not None
        self._watcher.stdin.write(b"ended in order")
        self._watcher.stdin.close()
        self._watcher.wait()


def _watch(mark: str, place: str) -> None:
    in_order = sys.stdin.buffer.read()
    rounds = 0
    while left := _left(mark, place):
        for pid in left:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGQUIT if rounds * ROUND_S < QUIT_S and _is_postgres(pid) else signal.SIGKILL)
        select([], [], [], ROUND_S)
        rounds += 1
    if not in_order:
        shutil.rmtree(place, ignore_errors=True)


def _left(mark: str, place: str) -> set[int]:
    """The processes of the run and all below them, except this one."""
    parents = dict(_parents())
    found = {pid for pid in parents if _belongs(pid, mark, place)}
    while more := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= more
    return found - {os.getpid()}


def _parents() -> Iterator[tuple[int, int]]:
    for name in os.listdir("/proc"):
        with suppress(OSError):
            if name.isdigit():
                state, parent = Path(f"/proc/{name}/stat").read_text().rpartition(")")[2].split()[:2]
                if state != "Z":  # it has ended, but its parent has not waited for it yet
                    yield int(name), int(parent)


def _belongs(pid: int, mark: str, place: str) -> bool:
    with suppress(OSError):  # it has ended, or belongs to another user
        directory = os.readlink(f"/proc/{pid}/cwd")
        if mark in directory or f"{directory}/".startswith(f"{place}/"):
            return True
        return f"{MARK}={mark}".encode() in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    return False


def _is_postgres(pid: int) -> bool:
    with suppress(OSError):
        return os.path.basename(os.readlink(f"/proc/{pid}/exe")) == "postgres"
    return False


if __name__ == "__main__":
    _watch(*sys.argv[1:])
