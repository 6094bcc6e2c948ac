"""Progress where there is no terminal: for whom a command waits is said once, on standard error."""

import pytest

from runtime.cli.progress import progress_bar


def test_for_whom_it_waits_is_said_once_for_each_text(capsys: pytest.CaptureFixture[str]) -> None:
    with progress_bar("rebuilding") as progress:
        progress(1, 2)
        for text in ("waiting for pid 1", "waiting for pid 1", "waiting for pid 2"):
            progress.waits(text)
    said = capsys.readouterr()
    assert said.err.splitlines() == ["rebuilding: waiting for pid 1", "rebuilding: waiting for pid 2"]
    assert said.out == ""
