"""Programs in Node.js that tests run, installed once from the lock file beside this module."""

import fcntl
import hashlib
import os
import shutil
import subprocess
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent
_BIN = FOLDER / "node_modules" / ".bin"
_INSTALLED = (
    FOLDER / "node_modules" / "installed"
)  # the digest of the lock file, written last: an interrupted installation is done again
INSTALL_S, RUN_S = 280, 120


def program(name: str) -> Path:
    """The path of a program. Skips the test where there is no Node.js; the first test of a machine waits for the installation."""
    npm = shutil.which("npm")
    if npm is None or shutil.which("node") is None:
        pytest.skip("node and npm are not installed")
    _install(npm)
    return _BIN / name


def _install(npm: str) -> None:
    digest = hashlib.sha256((FOLDER / "package-lock.json").read_bytes()).hexdigest()
    with (FOLDER / "package-lock.json").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not _INSTALLED.exists() or _INSTALLED.read_text() != digest:
            command = [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
            subprocess.run(command, cwd=FOLDER, check=True, capture_output=True, timeout=INSTALL_S)
            _INSTALLED.write_text(digest)


def ran(name: str, *arguments: str | Path) -> "subprocess.CompletedProcess[str]":
    """Run a program to its end. `CI` keeps the checker of AsyncAPI from reporting its use."""
    command = [program(name), *arguments]
    return subprocess.run(command, cwd=FOLDER, capture_output=True, text=True, timeout=RUN_S, env={**os.environ, "CI": "true"})


if __name__ == "__main__":  # before the tests, beside the gates, which leave a core idle
    found = shutil.which("npm")
    if found is not None:
        _install(found)
