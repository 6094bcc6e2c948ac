"""A run of tests that is killed leaves no process behind."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.acceptance.conftest import ROOT, until

RUN = (sys.executable, "-m", "pytest", "-q", "-n", "1", "-p", "no:cacheprovider", "tests/acceptance/endless.py")


@pytest.mark.parametrize(("number", "times"), [(signal.SIGKILL, 1), (signal.SIGINT, 2)], ids=["killed", "interrupted twice"])
def test_no_process_outlives_a_run(first_started: Path, tmp_path: Path, number: int, times: int) -> None:
    """Earlier, such processes took memory and CPU time from every later run, until somebody noticed."""
    told = tmp_path / "told"
    own = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    own |= {"FIRST_STARTED": str(first_started), "TOLD": str(told), "PYTEST_DEBUG_TEMPROOT": str(tmp_path)}
    with (tmp_path / "output").open("wb") as output:
        run = subprocess.Popen(RUN, cwd=ROOT, env=own, stdout=output, stderr=output, start_new_session=True)
    until(lambda: told.exists() or run.poll() is not None, 60)
    assert run.poll() is None, (tmp_path / "output").read_text()
    processes = json.loads(told.read_text())
    assert all(map(_runs, processes))
    for _ in range(times):
        os.kill(run.pid, number)
    run.wait(60)
    until(lambda: not any(map(_runs, processes)))


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
