"""Commands on a terminal: they ask before they take something away, and 80 columns cut no value.

Without a terminal and without --yes such a command does nothing.
"""

import json
import os
import pty
import select

import pytest

from tests import warm
from tests.acceptance.conftest import Service

EVENT = "evt_acme_1_00000000"
ASKING = (
    ("consumer delete kept", "This deletes consumer kept with its place in the feed."),
    ("consumer seek kept now --reason r", "This moves consumer kept forward past"),
    ("token revoke {token}", "This revokes token {token} (auditor, to keep; never used) for ever."),
    (f"blocked skip kept {EVENT} --reason r", f"Consumer kept will never get event {EVENT}."),
    (f"parked skip kept {EVENT} --reason r", f"Consumer kept will never get event {EVENT}."),
    (f"consumer skip kept {EVENT} --reason r", f"Consumer kept will never get event {EVENT}."),
)


@pytest.fixture(scope="module")
def kept(service: Service) -> Service:
    made = service.cli("consumer", "create", "kept", "--directory", "acme")
    assert made.returncode == 0, made.stderr
    return service


@pytest.fixture(scope="module")
def token(service: Service) -> str:
    """The id of a token that nobody revokes."""
    return json.loads(service.cli("token", "issue", "auditor", "--name", "to keep", "--json").stdout)["id"]


def on_a_terminal(service: Service, *words: str, typed: str) -> tuple[int, str]:
    """The exit code of a command, and what a terminal of 80 columns shows of it. `typed` is the answer to its question."""
    ours, theirs = pty.openpty()
    environment = {**os.environ, "LEDGER_DATA_DIR": str(service.data_dir), "COLUMNS": "80"}
    process = warm.Process(words, environment, (theirs, theirs, theirs))
    os.close(theirs)
    os.write(ours, typed.encode())
    shown = b""
    while select.select([ours], [], [], 60)[0]:
        try:
            shown += os.read(ours, 4096)
        except OSError:  # EIO: the last process has closed the terminal
            break
    os.close(ours)
    return process.wait(60), shown.decode()


def state(service: Service) -> dict[str, object]:
    return json.loads(service.cli("consumer", "show", "kept", "--json").stdout)


@pytest.mark.parametrize(("words", "effect"), ASKING)
def test_without_a_terminal_nothing_is_done_without_yes(kept: Service, token: str, words: str, effect: str) -> None:
    done = kept.cli(*words.format(token=token).split())
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(effect.format(token=token))
    assert done.stderr.endswith("Nothing was done, because nobody can be asked here: add --yes.\n")
    assert state(kept)["acked_position"] == 0


@pytest.mark.parametrize(("words", "effect"), ASKING)
def test_on_a_terminal_anything_but_yes_does_nothing(kept: Service, token: str, words: str, effect: str) -> None:
    code, shown = on_a_terminal(kept, *words.format(token=token).split(), typed="\n")
    assert code == 2
    assert effect.format(token=token) in shown
    assert "Go on? [y/N]" in shown
    assert shown.rstrip().endswith("Nothing was done.")
    assert state(kept)["acked_position"] == 0
    assert json.loads(kept.cli("token", "show", token, "--json").stdout)["state"] == "active"


def test_a_seek_back_and_a_dry_run_do_not_ask(kept: Service) -> None:
    assert kept.cli("consumer", "seek", "kept", "now", "--reason", "r", "--dry-run").returncode == 0
    assert kept.cli("consumer", "seek", "kept", "beginning", "--reason", "r").returncode == 0


def test_y_on_the_terminal_and_yes_as_an_option_go_on(service: Service) -> None:
    for name, typed, option in (("first", "y\n", ()), ("second", "", ("--yes",))):
        assert service.cli("consumer", "create", name).returncode == 0
        code, shown = on_a_terminal(service, "consumer", "delete", name, *option, typed=typed)
        assert (code, f"Deleted {name}." in shown, "[y/N]" in shown) == (0, True, not option)
        assert service.cli("consumer", "show", name).returncode == 4


def test_a_directory_is_closed_by_its_name_only(service: Service) -> None:
    assert service.cli("directory", "create", "ending").returncode == 0
    unasked = service.cli("directory", "close", "ending", "--reason", "over")
    assert unasked.returncode == 2
    assert unasked.stderr.endswith("Nothing was done, because nobody can be asked here: add --confirm ending.\n")
    assert on_a_terminal(service, "directory", "close", "ending", "--reason", "over", typed="y\n")[0] == 2
    assert json.loads(service.cli("directory", "show", "ending", "--json").stdout)["state"] == "active"
    code, shown = on_a_terminal(service, "directory", "close", "ending", "--reason", "over", typed="ending\n")
    assert (code, "Directory ending is closed" in shown) == (0, True)


def test_80_columns_cut_no_id(service: Service) -> None:
    """Rows that are too wide for the terminal become records."""
    listed = json.loads(service.cli("token", "list", "--json").stdout)["data"]
    code, shown = on_a_terminal(service, "token", "list", typed="")
    lines = shown.splitlines()
    assert code == 0
    assert [line.split()[1] for line in lines if line.split()[:1] == ["id"]] == [row["id"] for row in listed]
    assert max(map(len, lines)) <= 80
    events = [event["id"] for event in json.loads(service.cli("events", "list", "--json").stdout)["data"]]
    code, shown = on_a_terminal(service, "events", "list", typed="")
    assert code == 0
    assert all(f" {event}" in shown for event in events)


def test_a_new_directory_is_made_with_the_url_for_its_idp_and_profiles_are_aligned(service: Service) -> None:
    made = service.cli("directory", "create", "with-url")
    assert f"the URL {service.base}/scim/with-url/v2\n" in made.stdout
    listed = on_a_terminal(service, "directory", "profile", "list", typed="")[1].splitlines()
    start = listed[0].index("title")
    assert all(line[start - 1] == " " and line[start] != " " for line in listed)
