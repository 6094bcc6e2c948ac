"""Exit codes of the command line, one meaning each, whether a person or a program asks."""

import json
import os

import pytest

from tests import warm
from tests.acceptance.conftest import Service

NOBODY = "11111111-2222-4333-8444-555555555555"
DONE, FINDING, USAGE, UNREACHABLE, REFUSED = range(5)
AWAY = {"LEDGER_URL": "http://127.0.0.1:1", "LEDGER_TOKEN": "sl_none"}
CODES: tuple[tuple[str, dict[str, str], int], ...] = (
    # done
    ("--version", {}, DONE),
    ("--help", {}, DONE),
    ("token --help", {}, DONE),
    ("completion bash", {}, DONE),
    ("directory list", {}, DONE),
    ("requests list --status 599", {}, DONE),
    # a finding
    ("directory doctor found-out", {}, FINDING),
    ("doctor", {}, FINDING),
    ("directory profile validate {broken}", {}, FINDING),
    # usage
    ("", {}, USAGE),
    ("tokn", {}, USAGE),
    ("token", {}, USAGE),
    ("token show", {}, USAGE),
    ("token list --stat active", {}, USAGE),
    ("token list --state sleeping", {}, USAGE),
    ("consumer create Door", {}, USAGE),
    ("consumer delete found-out", {}, USAGE),  # nobody can be asked
    ("completion tcsh", {}, USAGE),
    ("directory profile validate /nope", {}, USAGE),
    ("token list", {"LEDGER_URL": "http://127.0.0.1:1"}, USAGE),
    ("serve", {"LEDGER_PORT": "many"}, USAGE),
    # not reached
    ("token list", AWAY, UNREACHABLE),
    ("events tail", AWAY, UNREACHABLE),
    ("doctor", AWAY, UNREACHABLE),
    ("migrate", {"LEDGER_DATABASE_URL": "postgresql://nobody@127.0.0.1:1/none"}, UNREACHABLE),
    # refused: not found, not allowed, a conflict
    (f"token show {NOBODY}", {}, REFUSED),
    (f"token revoke {NOBODY} --yes", {}, REFUSED),
    ("consumer show nobody", {}, REFUSED),
    ("consumer delete nobody --yes", {}, REFUSED),
    ("consumer delete nobody", {}, REFUSED),
    ("directory show nowhere", {}, REFUSED),
    ("directory doctor nowhere", {}, REFUSED),
    ("directory profile show nowhere", {}, REFUSED),
    (f"replay status {NOBODY}", {}, REFUSED),
    ("events get evt_acme_1_00000000", {}, REFUSED),
    (f"audit user acme {NOBODY}", {}, REFUSED),
    ("directory create acme", {}, REFUSED),
    ("token list", {"LEDGER_TOKEN": "sl_nobody"}, REFUSED),
)


@pytest.fixture(scope="session")
def found_out(service: Service, tmp_path_factory: pytest.TempPathFactory) -> tuple[Service, str]:
    """A service that has something to report, and the path of a broken profile."""
    assert service.cli("directory", "create", "found-out").returncode == 0
    assert service.cli("consumer", "create", "found-out", "--directory", "found-out").returncode == 0
    broken = tmp_path_factory.mktemp("profile") / "broken.toml"
    broken.write_text('name = "broken"\n')
    return service, str(broken)


@pytest.mark.parametrize(("words", "settings", "code"), CODES)
def test_the_exit_code(found_out: tuple[Service, str], words: str, settings: dict[str, str], code: int) -> None:
    service, broken = found_out
    environment = {**os.environ, "LEDGER_DATA_DIR": str(service.data_dir), **settings}
    done = warm.run(words.format(broken=broken).split(), environment)
    assert done.returncode == code, done.stdout + done.stderr
    assert (done.stderr != "") is (code in {USAGE, UNREACHABLE, REFUSED})
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(("words", "settings", "code"), [row for row in CODES if row[2] == REFUSED])
def test_a_refusal_has_the_same_code_with_json(
    found_out: tuple[Service, str], words: str, settings: dict[str, str], code: int
) -> None:
    environment = {**os.environ, "LEDGER_DATA_DIR": str(found_out[0].data_dir), **settings}
    done = warm.run([*words.split(), "--json"], environment)
    assert done.returncode == code
    assert json.loads(done.stdout)["code"], "the problem document"
