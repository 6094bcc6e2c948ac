"""The command line as a client: of the service on this machine as `sys`, of any service with a token, and of the application in
its own process.
"""

import json
import os
import re
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from runtime.cli import main
from runtime.cli.verbs import VERBS
from runtime.local_socket import answering, socket_path
from tests import warm
from tests.acceptance.conftest import ROOT, Service

USER = "urn:ietf:params:scim:schemas:core:2.0:User"
GROUP = "urn:ietf:params:scim:schemas:core:2.0:Group"


def run(*words: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    env = {name: value for name, value in os.environ.items() if not name.startswith("LEDGER_")} | environment
    return warm.run(words, env)


def door(service: Service) -> httpx.Client:
    """A client of the socket of the service on this machine."""
    transport = httpx.HTTPTransport(uds=str(socket_path(service.data_dir, None)))
    return httpx.Client(transport=transport, base_url="http://localhost", timeout=60)


def system_acts(service: Service, kind: str) -> list[dict]:
    with service.client("admin") as admin:
        query = {"directory": "_system", "types": kind, "limit": 1000}
        return admin.get(service.base + "/v1/events", params=query).json()["data"]


def test_a_command_on_the_machine_of_its_service_acts_as_sys(service: Service) -> None:
    assert service.cli("token", "issue", "auditor", "--name", "made-here").returncode == 0
    assert system_acts(service, "token.issued")[-1]["actor"] == "sys"


def test_only_a_request_through_the_socket_is_sys_and_only_the_owner_can_open_it(service: Service) -> None:
    path = socket_path(service.data_dir, None)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with door(service) as here:
        assert here.get("/v1/tokens").status_code == 200
        assert here.get("/scim/acme/v2/Users").status_code == 401, "SCIM is for IdPs, with their token"
        wrong = here.get("/v1/tokens", headers={"Authorization": "Bearer sl_nobody"})
        assert wrong.status_code == 401, "with a token the caller is that token"
    for headers in ({}, {"local": "true"}, {"scope": "local"}, {"X-Forwarded-For": "127.0.0.1", "Forwarded": "for=unix"}):
        assert httpx.get(service.base + "/v1/tokens", headers=headers, trust_env=False).status_code == 401


def test_with_an_address_and_a_token_a_command_has_the_rights_of_the_token(service: Service, tmp_path: Path) -> None:
    """It works from anywhere, and does not use the data directory."""
    tokens = service.first_run["tokens"]
    there = {"LEDGER_URL": service.base, "LEDGER_DATA_DIR": str(tmp_path / "none"), "NO_PROXY": "127.0.0.1"}
    admin = run("token", "list", "--json", **there, LEDGER_TOKEN=tokens["admin"])
    assert admin.returncode == 0, admin.stderr
    assert "first-run scim" in admin.stdout
    refused = run("token", "list", "--json", **there, LEDGER_TOKEN=tokens["auditor"])
    assert (refused.returncode, json.loads(refused.stdout)["code"]) == (4, "forbidden")
    assert run("token", "list", **there, LEDGER_TOKEN="sl_nobody").returncode == 4
    asked = run("audit", "population", "acme", "--json", **there, LEDGER_TOKEN=tokens["auditor"])
    assert asked.returncode == 0, asked.stderr
    assert not (tmp_path / "none").exists()


def test_without_a_service_a_command_gets_the_same_answers_from_its_own_process(make_service: Callable[..., Service]) -> None:
    """The service is killed, so the file of its socket is left: it does not disturb commands, and the next start replaces it."""
    service = make_service()
    before = json.loads(service.cli("token", "list", "--json").stdout)["data"]
    service.kill_everything()
    assert socket_path(service.data_dir, None).exists()
    assert answering(service.data_dir, None) is None
    alone = service.cli("token", "list", "--json")
    assert alone.returncode == 0, alone.stderr
    assert [row["id"] for row in json.loads(alone.stdout)["data"]] == [row["id"] for row in before]
    made = service.cli("directory", "create", "alone", "--json")
    assert made.returncode == 0, made.stderr
    refused = service.cli("directory", "create", "alone")
    assert refused.returncode == 4
    assert "names are never reused" in refused.stderr
    service.start()
    assert answering(service.data_dir, None) is not None
    assert "alone" in service.cli("directory", "list").stdout
    assert service.stop() == 0
    assert not socket_path(service.data_dir, None).exists()


def test_a_command_without_a_service_takes_what_the_service_decides_from_its_last_start(
    make_service: Callable[..., Service],
) -> None:
    """The shell of the caller has other values, for a service elsewhere."""
    service = make_service(LEDGER_PUBLIC_URL="https://ledger.example.com:443")
    service.kill_everything()
    shell = {"LEDGER_DATA_DIR": str(service.data_dir), "LEDGER_PORT": "1", "LEDGER_PUBLIC_URL": "https://other.example.com",
             "LEDGER_KEK_FILE": "/nope", "LEDGER_WEBHOOK_ALLOW": "127.0.0.0/8"}  # fmt: skip
    shown = run("directory", "show", "acme", "--json", **shell)
    assert shown.returncode == 0, shown.stderr
    assert json.loads(shown.stdout)["scim_base_url"] == "https://ledger.example.com:443/scim/acme/v2"
    refused = run("consumer", "create", "inward", "--url", "http://127.0.0.1:9/", **shell)
    assert (refused.returncode, "127.0.0.1" in refused.stderr or "loopback" in refused.stderr) == (2, True), refused.stderr
    noted = service.data_dir / "service.json"
    assert stat.S_IMODE(noted.stat().st_mode) == 0o600
    noted.write_text("{")
    damaged = run("directory", "list", **shell)
    assert (damaged.returncode, "Start the service: it writes the file anew." in damaged.stderr) == (2, True), damaged.stderr


def test_several_workers_share_the_socket(make_service: Callable[..., Service]) -> None:
    service = make_service(LEDGER_WORKERS="2")
    with socket.socket(socket.AF_UNIX) as probe:
        probe.connect(str(socket_path(service.data_dir, None)))
    for _ in range(6):
        with door(service) as here:
            assert here.get("/v1/directories").status_code == 200


def test_a_service_that_does_not_answer_is_named(tmp_path: Path) -> None:
    """The owner of the socket hangs: the command ends, and its error names the socket."""
    with socket.socket(socket.AF_UNIX) as mute:
        mute.bind(str(socket_path(tmp_path, None)))
        mute.listen()
        prelude = "from runtime.cli import client, main; client.READ_S = 0.5; main()"
        done = subprocess.run(
            [sys.executable, "-c", prelude, "token", "list"], env={"LEDGER_DATA_DIR": str(tmp_path), "PATH": "/usr/bin:/bin"},
            cwd=ROOT, capture_output=True, text=True, timeout=60,
        )  # fmt: skip
    assert done.returncode == 3
    assert f"{tmp_path / 'service.sock'} does not answer in time" in done.stderr


def test_an_invalid_setting_is_a_usage_error() -> None:
    told = run("settings", LEDGER_PORT="many")
    assert (told.returncode, "LEDGER_PORT" in told.stderr, "Traceback" in told.stderr) == (2, True, False)


def test_the_same_idempotency_key_gives_the_same_answer_and_does_nothing_twice(service: Service) -> None:
    words = ("token", "issue", "auditor", "--name", "once", "--idempotency-key", "cli-key-1", "--json")
    first, second = service.cli(*words), service.cli(*words)
    assert (first.returncode, second.returncode) == (0, 0), first.stderr + second.stderr
    assert json.loads(first.stdout)["id"] == json.loads(second.stdout)["id"]
    listed = json.loads(service.cli("token", "list", "--json").stdout)["data"]
    assert len([row for row in listed if row["name"] == "once"]) == 1


@pytest.fixture
def told(service: Service, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Run a command in the test's own process, which saves a second each; returns its output."""
    monkeypatch.setenv("LEDGER_DATA_DIR", str(service.data_dir))

    def run(*words: str, code: int | None = 0) -> str:
        monkeypatch.setattr(sys, "argv", ["scim-ledger", *words])
        with pytest.raises(SystemExit) as ended:
            main()
        shown = capsys.readouterr()
        assert code is None or (ended.value.code or 0) == code, (words, shown.err, shown.out)
        return shown.out

    return run


def test_the_verbs_of_tokens_and_directories(told: Callable[..., str]) -> None:
    def done(*words: str, code: int = 0) -> dict:
        return json.loads(told(*words, "--json", code=code))

    issued = done("token", "issue", "consumer", "--name", "to-rotate", "--types", "user.*", "--directory", "acme")
    shown = done("token", "show", issued["id"])
    assert (shown["types"], shown["directories"], shown.get("token")) == (["user.*"], ["acme"], None)
    successor = done("token", "rotate", issued["id"], "--overlap", "60")
    assert successor["supersedes"] == issued["id"]
    assert done("token", "show", issued["id"])["state"] == "overlapping"
    assert done("token", "revoke", successor["id"], "--reason", "tried", "--yes")["revoked"] == successor["id"]
    assert done("token", "show", successor["id"])["state"] == "revoked"
    assert done("directory", "create", "verbs", "--profile", "okta")["profile"] == "okta@1"
    assert done("directory", "pause", "verbs", "--reason", "moving")["state"] == "paused"
    assert done("directory", "resume", "verbs", "--reason", "moved")["state"] == "active"
    assert done("directory", "close", "verbs", "--reason", "over", "--confirm", "verb", code=2)["code"]
    done("directory", "close", "verbs", "--reason", "over", "--confirm", "verbs")
    assert done("directory", "show", "verbs")["state"] in {"closed", "deleted"}


def test_every_verb_that_reads_answers_in_text_and_in_json(service: Service, told: Callable[..., str]) -> None:
    with service.client("scim") as client:
        user = {"schemas": ["urn:ietf:params:scim:schemas:core:2.0:User"], "userName": "reader@verbs.example"}
        made = client.post(service.scim + "/Users", json=user).json()["id"]
    told("consumer", "create", "reading", "--directory", "acme")
    event = json.loads(told("events", "list", "--directory", "acme", "--limit", "1", "--json"))["data"][0]["id"]
    for words in (
        ("directory", "list"), ("directory", "show", "acme"), ("directory", "snapshot", "acme"), ("directory", "profile", "list"),
        ("directory", "profile", "show", "acme"), ("directory", "schema", "list", "acme"), ("directory", "surge", "show", "acme"),
        ("token", "list"), ("events", "list", "--from", "now", "--directory", "acme"), ("events", "list", "--from", "seq:1", "--directory", "acme"),
        ("events", "list", "--from", "2020-01-01T00:00:00Z"), ("events", "get", event), ("events", "list", "--directory", "_system"), ("consumer", "list"), ("consumer", "show", "reading"),
        ("consumer", "pull", "reading"), ("consumer", "audit", "reading"), ("blocked", "list", "reading"), ("parked", "list", "reading"),
        ("consumer", "blocked", "reading"), ("replay", "list"), ("replay", "status"), ("requests", "list"), ("audit", "population", "acme"),
        ("audit", "user", "acme", made), ("audit", "access", "acme", made), ("audit", "diff", "acme", "--from", "seq:1"),
    ):  # fmt: skip
        text = told(*words)
        if words[0] != "requests":  # the journal quotes what other tests have sent
            assert not re.search(r"\b(None|True|False)\b|\['", text), "values are in the words of people"
        for line in told(*words, "--json").splitlines():
            json.loads(line)
    told("directory", "create", "attended")
    assert "attended" in told("doctor", code=1), "it has no token yet"
    assert "No valid SCIM token" in told("directory", "doctor", "attended", code=1)


LISTS = {
    "doctor": (), "settings": (), "replay status": (), "events list": (), "consumer list": (), "token list": (), "client list": (), "key list": (), "directory list": (), "requests list": (),
    "replay list": (), "directory profile list": (), "directory schema list": ("acme",), "blocked list": ("{consumer}",), "parked list": ("{consumer}",),
    "consumer pull": ("{consumer}",), "audit population": ("acme",), "audit members": ("acme", "{group}"), "audit access": ("acme", "{user}"),
    "audit diff": ("acme", "--from", "seq:1"), "user list": ("acme",), "group list": ("acme",), "erase list": ("acme",), "hold list": ("acme",),
}  # fmt: skip


def test_every_list_has_the_form_of_the_service(service: Service, told: Callable[..., str]) -> None:
    assert {verb for verb in VERBS if verb.endswith(" list")} <= set(LISTS), "each list of the command line is in the table"
    with service.client("scim") as client:
        user = client.post(service.scim + "/Users", json={"schemas": [USER], "userName": "in-a-list@verbs.example"}).json()["id"]
        members = {"schemas": [GROUP], "displayName": "in a list", "members": [{"value": user}]}
        group = client.post(service.scim + "/Groups", json=members).json()["id"]
    told("consumer", "create", "listing", "--directory", "acme")
    for verb, words in LISTS.items():
        named = [word.format(consumer="listing", user=user, group=group) for word in words]
        found = json.loads(told(*verb.split(), *named, "--json", code=None))
        assert found["object"] == "list", verb
        assert {"data", "list_metadata", "has_more"} <= set(found), verb
        assert isinstance(found["data"], list), verb
        assert found["has_more"] in {True, False}, verb
        assert set(found["list_metadata"]) == {"after"}, verb
        assert found["list_metadata"]["after"] or not found["has_more"], verb


def test_a_list_with_a_limit_says_that_it_goes_on(service: Service, told: Callable[..., str]) -> None:
    found = json.loads(told("events", "list", "--directory", "_system", "--limit", "2", "--json"))
    assert (len(found["data"]), found["has_more"]) == (2, True)
    with service.client("admin") as admin:
        query = {"directory": "_system", "after": found["list_metadata"]["after"], "limit": 1}
        again = admin.get(service.base + "/v1/events", params=query)
    assert again.json()["data"][0]["seq"] == 3


@pytest.mark.parametrize("deep", [False, True])
def test_a_service_is_found_however_long_the_path_of_its_socket_is(deep: bool) -> None:
    with tempfile.TemporaryDirectory() as place:  # pytest's own directories have long paths already
        _found_and_gone(Service(Path(place) / ("x" * 90 if deep else "short")).start(), deep)


def _found_and_gone(service: Service, deep: bool) -> None:
    path = answering(service.data_dir, None)
    assert path is not None
    assert (path.parent == service.data_dir) is not deep
    assert service.cli("directory", "list").returncode == 0
    assert service.stop() == 0
    assert not path.exists()


COMPLETED = (
    ("consumer show compl", "completed-consumer"), ("consumer update compl", "completed-consumer"), ("blocked list compl", "completed-consumer"),
    ("replay run compl", "completed-consumer"), ("token issue consumer --consumer compl", "completed-consumer"), ("consumer create compl", ""),
    ("directory show compl", "completed-directory"), ("audit population compl", "completed-directory"), ("user list compl", "completed-directory"),
    ("events list --directory compl", "completed-directory"), ("consumer create x --directory compl", "completed-directory"), ("directory surge show compl", "completed-directory"),
    ("directory show nothing-like-it", ""),
)  # fmt: skip


def test_a_shell_completes_directories_and_consumers(service: Service, told: Callable[..., str], tmp_path: Path) -> None:
    told("directory", "create", "completed-directory")
    told("consumer", "create", "completed-consumer", "--directory", "completed-directory")

    def completed(words: str, **environment: str) -> str:
        asked = {
            "_SCIM_LEDGER_COMPLETE": "complete_bash",
            "COMP_WORDS": f"scim-ledger {words}",
            "COMP_CWORD": str(len(words.split())),
        }
        done = run(**{**asked, "LEDGER_DATA_DIR": str(service.data_dir), **environment})
        assert done.stderr == ""
        return done.stdout.strip()

    for words, offered in COMPLETED:
        assert completed(words) == offered, words
    # without a service, or without the right to ask, nothing is said and no ledger is started
    assert completed("directory show compl", LEDGER_DATA_DIR=str(tmp_path / "none")) == ""
    assert not (tmp_path / "none").exists()
    assert completed("directory show compl", LEDGER_URL=service.base, LEDGER_TOKEN="sl_nobody") == ""
    assert completed("directory show compl", LEDGER_URL="http://127.0.0.1:1", LEDGER_TOKEN="sl_nobody") == ""
