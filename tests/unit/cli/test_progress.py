"""Progress without a terminal: a command says once, on standard error, for whom it waits."""

import pytest

from runtime.cli.progress import progress_bar


def test_the_text_about_a_wait_is_printed_once(capsys: pytest.CaptureFixture[str]) -> None:
    with progress_bar("rebuilding") as progress:
        progress(1, 2)
        for text in ("waiting for pid 1", "waiting for pid 1", "waiting for pid 2"):
            progress.waits(text)
    said = capsys.readouterr()
    assert said.err.splitlines() == ["rebuilding: waiting for pid 1", "rebuilding: waiting for pid 2"]
    assert said.out == ""
