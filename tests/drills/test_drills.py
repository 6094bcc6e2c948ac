"""Thirty rounds of `make drills`; a failure prints what happened.

The seed is fixed, so that a failure comes from the change and not from another seed; `make drills` uses random ones.
"""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.drills.faults import FAULTS
from tests.drills.road import Statements

ROOT = Path(__file__).parents[2]
SEED = 4


@pytest.mark.long
def test_thirty_rounds_break_no_promise(tmp_path: Path) -> None:
    asked = ["--rounds", "30", "--seed", str(SEED), "--hold", "1", "--quick", "--work", str(tmp_path)]
    command = [sys.executable, "-m", "tests.drills", *asked]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-20_000:] + done.stderr[-5_000:]
    assert "30 rounds" in done.stdout


def _message(kind: bytes, body: bytes) -> bytes:
    return kind + (len(body) + 4).to_bytes(4, "big") + body


def test_the_road_recognises_each_statement_however_the_bytes_are_split() -> None:
    """Otherwise a drill would cut at one statement, and report another one."""
    startup = (8).to_bytes(4, "big") + b"\0\3\0\0"
    stream = startup + b"".join([
        _message(b"P", b"s1\0-- why\nbegin\0\0\0"), _message(b"B", b"\0s1\0\0\0\0\0\0\0"), _message(b"E", b"\0\0\0\0\0"),
        _message(b"P", b"s2\0insert  into\n events\0\0\0"), _message(b"B", b"\0s2\0\0\0\0\0\0\0"), _message(b"E", b"\0\0\0\0\0"),
        _message(b"S", b""), _message(b"Q", b"commit\0"),
    ])  # fmt: skip
    for step in (1, 3, 7, len(stream)):
        statements, found, counts = Statements(), list[str](), list[int]()
        for start in range(0, len(stream), step):
            for _, executed in statements.split(stream[start : start + step]):
                if executed is not None:
                    found.append(executed)
                    counts.append(statements.count)
        assert found == ["begin", "insert into events", "commit"]
        assert counts == [1, 2, 3]
        assert not statements.open


def test_every_fault_has_a_description() -> None:
    for name, (strike, parts) in FAULTS.items():
        assert strike.__doc__, name
        assert parts > 0
