"""A run of tests that is going to be killed, see test_orphans.py. pytest does not collect a file with this name by itself."""

import json
import os
import signal
from pathlib import Path

from tests.acceptance.conftest import Service
from tests.conftest import copied


def test_that_never_ends(tmp_path: Path) -> None:
    """It has a service with a PostgreSQL, and prints the pids of their processes and its own."""
    service = Service(copied(Path(os.environ["FIRST_STARTED"]), tmp_path / "ledger")).start()
    assert service.process is not None
    told = Path(os.environ["TOLD"])
    told.with_suffix(".new").write_text(json.dumps([os.getpid(), service.process.pid, service.postmaster()]))
    told.with_suffix(".new").rename(told)
    signal.pause()
