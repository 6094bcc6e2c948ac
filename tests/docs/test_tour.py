"""The tour of the README is executed: every `sh` block in order in one shell; its output is compared with the `text` block below
it.
"""

import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.acceptance.conftest import Service, first_started, make_service

__all__ = ["first_started", "make_service"]

ROOT = Path(__file__).parents[2]
BLOCK = re.compile(r"^```(sh|text)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
MARK = "-- end of block --"
ANYTHING = "…"  # stands for ids, times and counts that differ from run to run


def tour() -> list[tuple[str, str]]:
    """The (script, expected output) pairs of the tour."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    section = text.partition("## A tour in five minutes")[2].partition("\n## ")[0]
    pairs: list[tuple[str, str]] = []
    for kind, block in BLOCK.findall(section):
        if kind == "sh":
            pairs.append((block, ""))
        else:
            assert pairs, "a text block shows the output of the sh block above it"
            assert not pairs[-1][1], "one text block for one sh block"
            pairs[-1] = (pairs[-1][0], block)
    return pairs


def as_shown(expected: str) -> "re.Pattern[str]":
    return re.compile(r"[^\n]*".join(re.escape(part) for part in expected.split(ANYTHING)))


def as_script(pairs: list[tuple[str, str]], service: Service) -> str:
    """The blocks as one script that ends at the first failure; only environment variables point it to the service."""
    settings = {"LEDGER_DATA_DIR": str(service.data_dir), "LEDGER_PORT": str(service.port), "no_proxy": "127.0.0.1"}
    exports = [f"export {name}={shlex.quote(value)}" for name, value in settings.items()]
    exports.append(f'export PATH={shlex.quote(str(Path(sys.executable).parent))}:"$PATH"')  # if the environment is not .venv
    prelude = "\n".join(["set -euo pipefail", "unset ${!LEDGER_@}", *exports, ""])
    return prelude + "".join(f"{block}\necho '{MARK}'\n" for block, _ in pairs)


@pytest.mark.skipif(shutil.which("curl") is None or shutil.which("bash") is None, reason="the tour needs curl and bash")
def test_the_tour_of_the_readme_works_as_written(make_service: Callable[..., Service]) -> None:
    """A first page with commands that fail is worse than no first page."""
    service = make_service(fresh=True)
    pairs = tour()
    assert len(pairs) >= 7, "the tour was not found"
    done = subprocess.run(["bash", "-c", as_script(pairs, service)], cwd=ROOT, capture_output=True, text=True, timeout=300)
    shown = done.stdout.split(f"{MARK}\n")
    for place, (block, expected) in enumerate(pairs):
        if place >= len(shown) - 1:
            break  # a command failed in this block: the assertion below says so
        assert as_shown(expected).fullmatch(shown[place]), f"{block}\nsays\n{shown[place]}\nthe README shows\n{expected}"
    assert done.returncode == 0, f"{pairs[len(shown) - 1][0]}\n{shown[-1]}{done.stderr}"
    assert len(shown) == len(pairs) + 1


def test_the_comparison_notices_a_different_output() -> None:
    """Otherwise a tour with any output would pass."""
    assert as_shown("evt_acme_1_…\n").fullmatch("evt_acme_1_5f0c9a1e\n")
    assert not as_shown("evt_acme_1_…\n").fullmatch("evt_acme_2_5f0c9a1e\n")
    assert not as_shown("one …\n").fullmatch("one\ntwo\n")
