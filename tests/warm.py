"""Processes of `scim-ledger` that start warm: forked from a process that has imported the product, once for all tests of a test process.

Each has its own session, environment, directory and standard streams, like a process with a new interpreter, and ends in the same
way. Only the start of the interpreter and its imports are saved, a second or two each. A test about the start uses a new
interpreter.
"""

import atexit
import contextlib
import ctypes
import fcntl
import gc
import importlib
import json
import multiprocessing.util
import os
import pkgutil
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import IO, NoReturn

ROOT = Path(__file__).parent.parent
ENTRY = "from tests.warm import fork_on_request; fork_on_request()"
PR_SET_CHILD_SUBREAPER = 36  # prctl(2)
SPAWNED = "warm-spawned"  # the name in the kernel of a process that multiprocessing spawned warm
HIGH = 500  # a descriptor above all that a service has open when it spawns


class Process:
    """A warm process, with the methods of subprocess.Popen that tests use."""

    def __init__(self, words: Sequence[str], environment: Mapping[str, str], streams: tuple[int, int, int]) -> None:
        self.args = words
        self.returncode: int | None = None
        self.stdout: IO[str] | None = None
        self._keeper = socket.socket(socket.AF_UNIX)
        self._keeper.connect(_warm_parent())
        request = json.dumps({"words": list(words), "environment": dict(environment), "directory": str(ROOT)}).encode()
        socket.send_fds(self._keeper, [len(request).to_bytes(4, "big")], streams)
        self._keeper.sendall(request)
        self._lines = self._keeper.makefile("r")
        self.pid = int(self._lines.readline())

    def poll(self) -> int | None:
        """Returns the exit code, or None while it runs."""
        if self.returncode is None and select.select([self._keeper], [], [], 0)[0]:
            self._ended()
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Returns the exit code, once it has ended. Raises subprocess.TimeoutExpired."""
        if self.returncode is None:
            if not select.select([self._keeper], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired(list(self.args), timeout or 0.0)
            self._ended()
        assert self.returncode is not None
        return self.returncode

    def _ended(self) -> None:
        self.returncode = int(self._lines.readline())
        self._lines.close()
        self._keeper.close()

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def start(words: Sequence[str], environment: Mapping[str, str], errors: IO[bytes]) -> Process:
    """Start a command whose output is read as it comes, from `stdout`."""
    ours, theirs = os.pipe()
    with Path(os.devnull).open("rb") as nothing:
        process = Process(words, environment, (nothing.fileno(), theirs, errors.fileno()))
    os.close(theirs)
    process.stdout = os.fdopen(ours, "r")
    return process


def run(words: Sequence[str], environment: Mapping[str, str], timeout: float = 120) -> "subprocess.CompletedProcess[str]":
    """Run a command to its end, as subprocess.run does."""
    with Path(os.devnull).open("rb") as nothing, tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as errors:
        process = Process(words, environment, (nothing.fileno(), out.fileno(), errors.fileno()))
        try:
            code = process.wait(timeout)
        except BaseException:
            process.kill()
            process.wait()
            raise
        return subprocess.CompletedProcess(list(words), code, _content(out), _content(errors))


def _content(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode()


@cache
def _warm_parent() -> str:
    """The path of the socket of the warm parent of this test process.

    It is started at its first use, and ends when its standard input does.
    """
    place = tempfile.mkdtemp(prefix="warm-")
    path = f"{place}/socket"
    parent = subprocess.Popen(
        [sys.executable, "-c", ENTRY, path], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
    )
    assert parent.stdin is not None
    assert parent.stdout is not None
    with parent.stdout:
        assert parent.stdout.readline() == b"ready\n"

    def end(stdin: IO[bytes] = parent.stdin) -> None:
        stdin.close()
        parent.wait()
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
        os.rmdir(place)

    atexit.register(end)
    return path


# -- in the warm parent ---------------------------------------------------------------------------------------------------------


def fork_on_request() -> None:
    """Import the product, then fork a keeper for each connection; the process that the keeper forks runs the requested command."""
    _import_everything()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for keepers
    with socket.socket(socket.AF_UNIX) as door:
        door.bind(sys.argv[1])
        door.listen()
        print("ready", flush=True)
        while sys.stdin not in (ready := select.select([door, sys.stdin], [], [])[0]):
            assert door in ready
            keeper, _ = door.accept()
            if os.fork() == 0:
                break
            keeper.close()
        else:
            return
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    _become_command(keeper)
    if sys.argv[1:] == ["serve"]:
        _spawn_warm()
    _end_with(importlib.import_module("runtime.cli").main)


def _import_everything() -> None:
    for name in ("serve", "deliver", "local", "upkeep", "demo"):
        importlib.import_module(f"runtime.{name}")
    for module in pkgutil.iter_modules([str(ROOT / "runtime" / "cli")], "runtime.cli."):
        importlib.import_module(module.name)
    gc.collect()
    gc.freeze()  # a garbage collection in a forked process would copy every page


def _end_with(command: Callable[[], object]) -> NoReturn:
    """Run a command and end as the interpreter does, except that modules are not torn down, which takes longer than most
    commands.
    """
    try:
        command()
        code = 0
    except SystemExit as asked:
        code = asked.code if isinstance(asked.code, int) else int(asked.code is not None)
        if isinstance(asked.code, str):
            print(asked.code, file=sys.stderr)
    except BaseException:
        sys.excepthook(*sys.exc_info())
        code = 1
    threading._shutdown()  # waits for threads that are not daemons
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)


def _become_command(keeper: socket.socket) -> None:
    """Returns in the process of the command; its parent sends the pid and the exit code, and ends."""
    head, streams, _, _ = socket.recv_fds(keeper, 4, 3)
    with keeper.makefile("rb") as lines:
        request = json.loads(lines.read(int.from_bytes(head, "big")))
    pid = os.fork()
    if pid:
        for stream in streams:
            os.close(stream)
        keeper.sendall(b"%d\n" % pid)
        _, status = os.waitpid(pid, 0)
        keeper.sendall(b"%d\n" % os.waitstatus_to_exitcode(status))
        os._exit(0)
    keeper.close()
    os.setsid()
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    os.chdir(request["directory"])
    os.environ.clear()
    os.environ.update(request["environment"])
    sys.argv = ["-c", *request["words"]]


# -- in a service that was started warm -------------------------------------------------------------------------------------------


def spawned(service: int) -> list[int]:
    """The processes that a service has spawned, warm or not, in the order of their start."""
    found: list[int] = []
    for thread in Path(f"/proc/{service}/task").iterdir():  # each child belongs to the thread that made it
        for pid in (thread / "children").read_text().split():
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                place = Path(f"/proc/{pid}")
                if b"spawn_main" in (place / "cmdline").read_bytes() or (place / "comm").read_text().strip() == SPAWNED:
                    found.append(int(pid))
    return found


def _spawn_warm() -> None:
    """Let multiprocessing spawn by a fork of the current process, in place of a new interpreter.

    The fork is made by a helper, which has only one thread. The forked process becomes a child of this process, like a spawned
    one: a helper in between ends at once, and orphans are adopted by the nearest subreaper.
    """
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    ours, theirs = socket.socketpair()
    if os.fork() == 0:
        ours.close()
        _help_spawning(theirs)
    theirs.close()
    one = threading.Lock()

    def spawn(_executable: bytes, words: Sequence[str], streams: Sequence[int]) -> int:
        with one:
            socket.send_fds(
                ours, [json.dumps({"code": words[words.index("-c") + 1], "streams": list(streams)}).encode()], streams
            )
            return int(ours.recv(20))

    multiprocessing.util.spawnv_passfds = spawn


def _help_spawning(service: socket.socket) -> None:
    """Fork on request until the service ends. It returns only in a forked process, through the code that this process runs."""
    while True:
        request, streams, _, _ = socket.recv_fds(service, 10_000, 16)
        if not request:
            os._exit(0)
        if (between := os.fork()) == 0:
            if os.fork():
                os._exit(0)
            service.sendall(b"%d" % os.getpid())
            break
        for stream in streams:
            os.close(stream)
        os.waitpid(between, 0)
    service.detach()
    asked = json.loads(request)
    high = [fcntl.fcntl(stream, fcntl.F_DUPFD, HIGH) for stream in streams]
    os.closerange(3, HIGH)
    for number, stream in zip(asked["streams"], high, strict=True):
        os.dup2(stream, number)
        os.close(stream)
    if "spawn_main" in asked["code"]:
        Path("/proc/self/comm").write_text(SPAWNED)
    sys.argv = ["-c", "--multiprocessing-fork"]
    _end_with(lambda: exec(asked["code"], {"__name__": "__main__"}))
