"""Programs of Debian that tests run beside the service."""

import os
import shutil
import subprocess

import pytest

PLACES = f"{os.environ.get('PATH', '')}:/usr/sbin"
INSTALL_S = 300


def program(name: str, package: str) -> str:
    """The path of a program, installed if this account may do so. Skips the test where it cannot be had."""
    found = shutil.which(name, path=PLACES)
    if found is None and os.geteuid() == 0 and shutil.which("apt-get"):
        command = ["apt-get", "install", "-y", "-q", "--no-install-recommends", package]
        subprocess.run(command, check=False, capture_output=True, timeout=INSTALL_S)
        found = shutil.which(name, path=PLACES)
    if found is None:
        pytest.skip(f"{name} is not installed, and only root can install it (apt-get install {package})")
    return found
