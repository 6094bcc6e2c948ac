"""The measured processes: the service, its peers and their PostgreSQL, each in a temporary directory."""

import contextlib
import itertools
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable
from functools import cached_property
from pathlib import Path
from typing import Any

import httpx
import psycopg

from bench.load import Job, Result, drive, request
from runtime import embedded

ROOT = Path(__file__).parent.parent
USER_SCHEMA = "urn:ietf:params:scim:schemas:core:2.0:User"
GROUP_SCHEMA = "urn:ietf:params:scim:schemas:core:2.0:Group"
PATCH_SCHEMA = "urn:ietf:params:scim:api:messages:2.0:PatchOp"
ENTRY = "from runtime.cli import main; main()"
START_TIMEOUT_S = 120
CLI_TIMEOUT_S = 600
SAMPLE_S = 0.1  # between two looks at the memory of a command
_numbers = itertools.count(1)


def user_name(number: int) -> str:
    return f"person{number}@example.com"


def user_body(number: int) -> bytes:
    """The body that an IdP sends for a new employee."""
    name = user_name(number)
    return json.dumps({
        "schemas": [USER_SCHEMA], "userName": name, "externalId": f"ext-{number}", "displayName": f"Person Number {number}", "active": True,
        "name": {"givenName": "Person", "familyName": f"Number {number}"}, "title": "Engineer",
        "emails": [{"value": name, "type": "work", "primary": True}],
    }).encode()  # fmt: skip


def create_requests(path: str, count: int, token: str = "") -> list[bytes]:
    """Requests that create new users, with names unique in this run."""
    return [request("POST", path, user_body(next(_numbers)), token) for _ in range(count)]


def patch_body(op: str, path: str, *value: Any) -> bytes:
    operation = {"op": op, "path": path, **({"value": value[0]} if value else {})}
    return json.dumps({"schemas": [PATCH_SCHEMA], "Operations": [operation]}).encode()


def add_member_body(user: str) -> bytes:
    return patch_body("add", "members", [{"value": user}])


def group_body(name: str, members: Iterable[str] = ()) -> bytes:
    return json.dumps({"schemas": [GROUP_SCHEMA], "displayName": name, "members": [{"value": m} for m in members]}).encode()


class Peer:
    """An ASGI application of this directory under uvicorn."""

    def __init__(self, module: str, path: str, log: Path, **environment: str) -> None:
        self.path = path
        with socket.socket() as sock:
            sock.bind(("127.0.0.1", 0))
            self.port = sock.getsockname()[1]
        command = [
            sys.executable,
            "-m",
            "uvicorn",
            f"bench.{module}:app",
            "--port",
            str(self.port),
            "--log-level",
            "warning",
            "--no-access-log",
        ]
        with log.open("ab") as out:
            self._process = subprocess.Popen(command, env=_environment(environment), cwd=ROOT, stdout=out, stderr=out)
        _wait_for_port(self.port, self._process, log)

    def creates(self, count: int) -> list[bytes]:
        return create_requests(self.path, count)

    def stop(self) -> None:
        _end(self._process)


class Service:
    """`scim-ledger serve` with its embedded PostgreSQL on a free port, as a customer runs it: durable, one worker."""

    def __init__(self, data_dir: Path, prelude: str = "", **environment: str) -> None:
        self.data_dir = data_dir
        own = {"LEDGER_DATA_DIR": str(data_dir), "LEDGER_PORT": "0", "LEDGER_LOG_FORMAT": "json"}
        self._env = _environment(own | environment)
        self._log = data_dir.with_suffix(".log")
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-c", f"{prelude}\n{ENTRY}", "serve"],
                env=self._env,
                cwd=ROOT,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                start_new_session=True,
            )
        self.port = self._wait()
        self.tokens: dict[str, str] = json.loads((data_dir / "first-run.json").read_text())["tokens"]
        self._scim_tokens = {"acme": self.tokens["scim"]}
        self.http = httpx.Client(base_url=f"http://127.0.0.1:{self.port}", timeout=120, trust_env=False)

    @staticmethod
    def _command() -> list[str]:
        return [sys.executable, "-c", ENTRY]

    def _wait(self) -> int:
        assert self._process.stdout is not None
        port = 0
        for line in self._process.stdout:
            if line.strip().startswith("Provisioning ledger on"):
                port = int(line.rsplit(":", 1)[1])
            if "health" in line:
                return port
        raise RuntimeError(f"the service did not start: {self._log.read_text()[-2000:]}")

    def stop(self) -> None:
        self.http.close()
        assert self._process.stdout is not None
        self._process.stdout.close()
        _end(self._process)

    def cli(self, *words: str) -> Any:
        """Run a command beside the service and give its JSON."""
        done = subprocess.run(
            [*self._command(), *words, "--json"], env=self._env, cwd=ROOT, capture_output=True, text=True, timeout=CLI_TIMEOUT_S
        )
        if done.returncode:
            raise RuntimeError(f"{' '.join(words)}: {done.stderr[-2000:]}")
        return json.loads(done.stdout)

    def command(self, *words: str) -> list[str]:
        """The command line of a command."""
        return [*self._command(), *words]

    def seconds_of(self, command: list[str]) -> float:
        """The seconds that a process takes that uses this service."""
        started = time.perf_counter()
        subprocess.run(command, env=self._env, cwd=ROOT, stdout=subprocess.DEVNULL, check=True, timeout=CLI_TIMEOUT_S)
        return time.perf_counter() - started

    def measured_cli(self, *words: str) -> tuple[Any, float, float]:
        """Run a command; return its JSON, its seconds and the peak of the memory of all its processes together in MiB."""
        started = time.perf_counter()
        out = self.data_dir.with_suffix(".out")
        with out.open("wb") as sink:
            process = subprocess.Popen(
                [*self._command(), *words, "--json"], env=self._env, cwd=ROOT, stdout=sink, stderr=subprocess.DEVNULL
            )
        limit = threading.Timer(CLI_TIMEOUT_S, process.kill)
        limit.start()
        peak = _Peak(process.pid)
        _, status = os.waitpid(process.pid, 0)
        limit.cancel()
        seconds = time.perf_counter() - started
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise RuntimeError(f"{' '.join(words)} ended with {process.returncode}")
        return json.loads(out.read_text().splitlines()[-1]), seconds, peak.finish()

    def directory(self, slug: str) -> None:
        self.cli("directory", "create", slug)
        self._scim_tokens[slug] = self.cli("token", "issue", "scim", "--directory", slug)["token"]

    def owner_url(self) -> str:
        cluster = embedded.running(self.data_dir / "postgres")
        assert cluster is not None
        return cluster.url("ledger_owner", "ledger")

    def memory(self) -> tuple[float, float]:
        """The memory of the serving process now, and its peak since the last call, in MiB."""
        process = Path(f"/proc/{self._process.pid}")
        lines = (process / "status").read_text().splitlines()
        sizes = {
            name: float(rest.split()[0]) / 1024
            for name, _, rest in (line.partition(":") for line in lines)
            if name in {"VmRSS", "VmHWM"}
        }
        (process / "clear_refs").write_text("5")  # resets the peak
        return sizes["VmRSS"], sizes["VmHWM"]

    def events(self) -> int:
        """How many events the log holds."""
        with psycopg.connect(self.owner_url()) as conn:
            row = conn.execute("select count(*) from ledger.events").fetchone()
        assert row is not None
        return row[0]

    def request(self, method: str, path: str, body: bytes = b"", *, directory: str = "acme") -> bytes:
        return request(method, f"/scim/{directory}/v2/{path}", body, self._scim_tokens[directory])

    def creates(self, count: int, *, directory: str = "acme") -> list[bytes]:
        return create_requests(f"/scim/{directory}/v2/Users", count, self._scim_tokens[directory])

    def drive(self, requests: list[bytes], *, connections: int = 32, seconds: float = 600, locations: bool = False) -> Result:
        return drive(Job(self.port, requests, connections, seconds, locations=locations))

    def make_users(self, count: int, *, directory: str = "acme") -> list[str]:
        """Create users and give their ids."""
        return self.drive(self.creates(count, directory=directory), connections=64, locations=True).locations

    def make_groups(self, members: Iterable[Iterable[str]], *, directory: str = "acme", connections: int = 4) -> list[str]:
        """Create a group of each given list of members and give the ids."""
        requests = [
            self.request("POST", "Groups", group_body(f"Group {next(_numbers)}", some), directory=directory) for some in members
        ]
        return self.drive(requests, connections=connections, locations=True).locations

    def call(self, method: str, path: str, body: bytes = b"", *, directory: str = "acme") -> httpx.Response:
        """One SCIM request; the answer must be a success."""
        headers = {"Authorization": f"Bearer {self._scim_tokens[directory]}", "Content-Type": "application/scim+json"}
        answer = self.http.request(method, f"/scim/{directory}/v2/{path}", content=body, headers=headers)
        answer.raise_for_status()
        return answer

    def role(self, name: str) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.tokens[name]}"}


class _Peak(threading.Thread):
    """Samples the memory of a process and its children: proportional set sizes (PSS), in which shared pages count once."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self._pid, self._mib, self._over = pid, 0.0, threading.Event()
        self.start()

    def run(self) -> None:
        while not self._over.wait(SAMPLE_S):
            with contextlib.suppress(OSError):  # a process has ended meanwhile
                children = Path(f"/proc/{self._pid}/task/{self._pid}/children").read_text().split()
                self._mib = max(self._mib, sum(map(_pss_mib, [str(self._pid), *children])))

    def finish(self) -> float:
        self._over.set()
        self.join()
        return self._mib


def _pss_mib(pid: str) -> float:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(float(line.split()[1]) / 1024 for line in lines if line.startswith("Pss:"))


class Stage(contextlib.ExitStack):
    """Everything that a run starts, each once and only when a row needs it. At the end all of it is stopped and removed."""

    def __init__(self, say: Callable[[str], None]) -> None:
        super().__init__()
        self.say = say
        self._place = Path(tempfile.mkdtemp(prefix="ledger-bench-"))
        self._place.chmod(0o755)
        self.callback(shutil.rmtree, self._place, ignore_errors=True)
        self._services = 0

    def service(self, prelude: str = "", **environment: str) -> Service:
        """A new service for one row. `prelude` is Python that runs before it, to measure it without one of its parts;
        `environment` has settings for it.
        """
        self._services += 1
        service = Service(self._place / f"ours{self._services}", prelude, **environment)
        self.callback(service.stop)
        return service

    @cached_property
    def cluster(self) -> str:
        """The URL of a PostgreSQL with the same settings as the service's, for the floor and the bare commit."""
        cluster = embedded.start(self._place / "peer")
        self.callback(embedded.stop, cluster)
        return cluster.url(embedded.SUPERUSER, "postgres")

    @cached_property
    def floor(self) -> Peer:
        return self._peer("floor", "/scim/acme/v2/Users", FLOOR_DSN=self.cluster)

    @cached_property
    def scim2(self) -> Peer:
        return self._peer("peer_scim2", "/v2/Users")

    @cached_property
    def constant(self) -> Peer:
        return self._peer("peer_constant", "/constant/one")

    @cached_property
    def creating(self) -> Service:
        """The service that the create rows measure."""
        return self.service()

    def _peer(self, module: str, path: str, **environment: str) -> Peer:
        peer = Peer(module, path, self._place / f"{module}.log", **environment)
        self.callback(peer.stop)
        return peer


def _environment(more: dict[str, str]) -> dict[str, str]:
    """The environment without LEDGER_ variables of the caller."""
    return {k: v for k, v in os.environ.items() if not k.startswith("LEDGER_")} | more


def _wait_for_port(port: int, process: "subprocess.Popen[bytes]", log: Path) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.05)
    raise RuntimeError(f"a peer did not start: {log.read_text()[-2000:]}")


def _end(process: "subprocess.Popen[Any]") -> None:
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(timeout=90)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
