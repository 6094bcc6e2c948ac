"""A real service: `scim-ledger serve` as a process, with the embedded PostgreSQL, on a free port of loopback."""

import contextlib
import json
import os
import random
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

import httpx
import pytest

from tests import answer_checks, warm
from tests.conftest import copied
from tests.event_checks import watch_httpx

watch_httpx(
    answer_checks.check
)  # each event and each answer that a test of this folder reads is checked against what is published

ROOT = Path(__file__).parent.parent.parent


def wait_briefly() -> None:
    """Pause between two questions about something that only another process knows; without a pause, the test takes the CPU from
    the process that it waits for.
    """
    select.select([], [], [], 0.02)


def until(done: Callable[[], bool], seconds: float = 30.0) -> float:
    """Ask until a condition holds; returns how long it took. The question itself takes time."""
    began = time.monotonic()
    while not done():
        assert time.monotonic() - began < seconds, f"not within {seconds} s"
        wait_briefly()
    return time.monotonic() - began


def free_port() -> int:
    """A free port outside the range that the kernel assigns: so nobody takes it before it is used."""
    while True:
        port = random.randrange(20_000, 30_000)
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port


class Service:
    """A service process, and everything that a client needs to talk to it."""

    def __init__(self, data_dir: Path, **environment: str) -> None:
        self.data_dir = data_dir
        self.environment = environment
        self.process: subprocess.Popen[str] | warm.Process | None = None
        self.port = 0
        self.log = data_dir.with_suffix(".log")
        self.root = ROOT  # the code that it runs; other code needs an interpreter of its own
        self.cold = False  # whether each process starts with a new interpreter, as outside of tests

    def start(self) -> "Service":
        """Start, and wait until it says that it listens (connections made from then on are served)."""
        env = {k: v for k, v in os.environ.items() if not k.startswith("LEDGER_")}
        # The port of the first start is kept, so that a restarted service has its old address.
        env |= {
            "LEDGER_DATA_DIR": str(self.data_dir),
            "LEDGER_PORT": str(self.port),
            "LEDGER_LOG_FORMAT": "json",
            **self.environment,
        }
        with self.log.open("ab") as log:
            self.process = self._new_process(env, log) if self.cold or self.root != ROOT else warm.start(["serve"], env, log)
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.strip().startswith("Provisioning ledger on"):
                self.port = int(line.rsplit(":", 1)[1])
            if "health" in line:
                return self
        self.process.stdout.close()
        raise AssertionError(f"the service ended with {self.process.wait()}: {self.log.read_text()[-2000:]}")

    def _new_process(self, env: dict[str, str], log: IO[bytes]) -> "subprocess.Popen[str]":
        command = [sys.executable, "-c", "from runtime.cli import main; main()", "serve"]
        return subprocess.Popen(
            command, env=env, cwd=self.root, stdout=subprocess.PIPE, stderr=log, text=True, start_new_session=True
        )

    def stop(self) -> int:
        """Send SIGTERM; returns the exit code."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(timeout=60)
        assert self.process.stdout is not None
        self.process.stdout.close()
        return code

    def kill_everything(self) -> None:
        """SIGKILL the service and every process of its PostgreSQL, at once."""
        assert self.process is not None
        postmaster = self.postmaster()
        children = children_of(postmaster)
        for pid in (self.process.pid, postmaster, *children):
            with_suppressed_kill(pid)
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()

    def postmaster(self) -> int:
        return int((self.data_dir / "postgres" / "data" / "postmaster.pid").read_text().splitlines()[0])

    def cli(self, *words: str) -> "subprocess.CompletedProcess[str]":
        """Run a scim-ledger command while the service runs."""
        env = {**os.environ, "LEDGER_DATA_DIR": str(self.data_dir), "LEDGER_PORT": str(self.port), **self.environment}
        if not self.cold:
            return warm.run(words, env)
        command = [sys.executable, "-c", "from runtime.cli import main; main()", *words]
        return subprocess.run(command, env=env, cwd=ROOT, capture_output=True, text=True, timeout=120)

    def note_address(self) -> None:
        """The first-run.json of a copy has the address of the first service; replace it by its own."""
        path = self.data_dir / "first-run.json"
        if path.exists():
            path.write_text(json.dumps({**self.first_run, "base_url": self.base, "scim_base_url": self.scim}))

    @property
    def first_run(self) -> dict:
        return json.loads((self.data_dir / "first-run.json").read_text())

    @property
    def base(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def scim(self) -> str:
        return f"{self.base}/scim/acme/v2"

    def user_names(self) -> set[str]:
        """The names of all users of directory acme, read from the list."""
        found = set[str]()
        with self.client("scim") as client:
            while True:
                page = client.get(self.scim + "/Users", params={"startIndex": len(found) + 1, "attributes": "userName"}).json()
                found |= {user["userName"] for user in page.get("Resources", [])}
                if len(found) >= page["totalResults"]:
                    return found

    def client(self, role: str) -> httpx.Client:
        """An HTTP client with the first-run token of a role."""
        headers = {"Authorization": f"Bearer {self.first_run['tokens'][role]}", "Content-Type": "application/scim+json"}
        return httpx.Client(headers=headers, timeout=60, trust_env=False)


def with_suppressed_kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass


def children_of(pid: int) -> list[int]:
    try:
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except FileNotFoundError:
        return []


@pytest.fixture(scope="session")
def first_started(made_once: Callable[[str, Callable[[Path], None]], Path]) -> Path:
    """The data directory of a service after its first start: the services of tests begin with a copy, which takes half of the
    time.
    """
    return made_once("first", _start_and_stop)


def _start_and_stop(data_dir: Path) -> None:
    service = Service(data_dir)
    service.cold = True
    service.start()
    assert service.stop() == 0


@pytest.fixture
def make_service(tmp_path: Path, first_started: Path) -> Iterator[Callable[..., Service]]:
    """Makes services for one test, and stops them after it. `fresh`: the test is about the first start."""
    made: list[Service] = []

    def make(name: str = "ledger", *, fresh: bool = False, **environment: str) -> Service:
        service = Service(tmp_path / name, **environment)
        service.cold = fresh
        if not fresh and not service.data_dir.exists() and "LEDGER_DATABASE_URL" not in environment:
            copied(first_started, service.data_dir)
        made.append(service.start())
        service.note_address()
        return service

    yield make
    for service in made:
        if service.process is not None and service.process.poll() is None:
            service.stop()


@pytest.fixture(scope="session")
def service(tmp_path_factory: pytest.TempPathFactory, first_started: Path) -> Iterator[Service]:
    """One service for the tests that do not break it."""
    running = Service(copied(first_started, tmp_path_factory.mktemp("service") / "ledger")).start()
    running.note_address()
    yield running
    assert running.stop() == 0
