"""The service of the demo: a running one, or its own in a temporary directory, and a small HTTP client."""

import contextlib
import multiprocessing
import multiprocessing.connection
import os
import tempfile
from collections.abc import Generator
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import orjson

from runtime.bootstrap import StartError
from runtime.serve import serve
from runtime.settings import Settings

TIMEOUT_S = 60
LOOK_INTERVAL_S = 0.05  # between two checks for the first-run file of a starting service
DEMO_LOG_LINES_SHOWN = 8


class DemoError(Exception):
    """The demo cannot continue; the text says why and what to do."""


class UnreachableError(DemoError):
    """No service answers at the address."""


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer: its JSON, and the last seq of the commit if the request made one."""

    body: Any
    seq: int | None


@dataclass(frozen=True, slots=True)
class Client:
    """A client of one service, with one token for each role."""

    base_url: str
    directory: str = ""
    tokens: dict[str, str] = field(default_factory=dict[str, str], repr=False)

    def call(self, role: str, method: str, path: str, document: object = None) -> Reply:
        """Send a request, without a token if `role` is empty. Raises UnreachableError, and DemoError for any answer but 2xx."""
        url = urlsplit(self.base_url)
        connect = HTTPSConnection if url.scheme == "https" else HTTPConnection
        body = None if document is None else orjson.dumps(document)
        headers = {"Content-Type": "application/scim+json"}
        if role:
            headers["Authorization"] = f"Bearer {self.tokens[role]}"
        try:
            with contextlib.closing(connect(url.netloc, timeout=TIMEOUT_S)) as conn:
                conn.request(method, url.path + path, body, headers)
                answer = conn.getresponse()
                raw, seq = answer.read(), answer.getheader("Ledger-Seq")
        except (OSError, HTTPException) as away:
            raise UnreachableError(
                f"No service answers at {self.base_url}. Start a service there (make run), or unset LEDGER_URL: the demo then starts its own."
            ) from away
        found = _json(raw)
        if not 200 <= answer.status < 300:
            why = found.get("detail", "no reason given") if isinstance(found, dict) else "no reason given"
            raise DemoError(f"{method} {path} was answered with {answer.status}: {why}")
        return Reply(found, int(seq) if seq else None)

    def scim(self, method: str, path: str, document: object = None) -> Reply:
        """Send a request as the IdP; `path` is relative to the SCIM base URL."""
        return self.call("scim", method, f"/scim/{self.directory}/v2{path}", document)


def _json(raw: bytes) -> Any:
    with contextlib.suppress(orjson.JSONDecodeError):
        return orjson.loads(raw)
    return None


def client_of(settings: Settings, base_url: str) -> Client:
    """A client with the tokens of the first start. Raises DemoError if their file is missing."""
    path = settings.first_run_path
    try:
        found = orjson.loads(path.read_bytes())
    except (OSError, orjson.JSONDecodeError) as missing:
        raise DemoError(f"{path} is missing or broken: the demo takes its tokens from there. Set LEDGER_DATA_DIR.") from missing
    return Client(base_url.rstrip("/"), found["directory"], found["tokens"])


@contextlib.contextmanager
def own_service(settings: Settings) -> Generator[tuple[Settings, Client]]:
    """Start a service with an embedded PostgreSQL in a temporary directory, and stop and remove both at the end."""
    with tempfile.TemporaryDirectory(prefix="scim-ledger-demo-") as name:
        data_dir = Path(name) / "var"
        changes = {"data_dir": data_dir, "port": 0, "host": "127.0.0.1", "workers": 1}
        unset = dict.fromkeys(("database_url", "migrate_url", "public_url", "kek_file", "url"))
        own = settings.model_copy(update={**changes, **unset})
        process = multiprocessing.get_context("spawn").Process(target=_serve, args=(own, Path(name) / "log"))
        process.start()
        try:
            _await_first_run(process, own, Path(name) / "log")
            yield own, client_of(own, orjson.loads(own.first_run_path.read_bytes())["base_url"])
        finally:
            process.terminate()
            process.join()


def _serve(settings: Settings, log: Path) -> None:
    with log.open("ab") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    try:
        serve(settings)
    except StartError as refused:
        os.write(2, f"{refused}\n".encode())
        raise SystemExit(2) from refused


def _await_first_run(process: BaseProcess, settings: Settings, log: Path) -> None:
    """Wait for the first-run file. The socket listens before the file is written, so requests are served from then on."""
    while not settings.first_run_path.exists():
        if multiprocessing.connection.wait([process.sentinel], timeout=LOOK_INTERVAL_S):
            told = "\n".join(log.read_text(encoding="utf-8").splitlines()[-DEMO_LOG_LINES_SHOWN:])
            raise DemoError(f"The demo's own service did not start:\n{told}")
