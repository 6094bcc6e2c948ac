"""The requests that a command sends, and how it treats the answers, against a real server on loopback."""

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[3]
DETAIL = "Another run of that name goes on. Wait for it, or cancel it."


class Stand:
    """A server that gives one answer to every request, and keeps the requests."""

    def __init__(self) -> None:
        self.answer: tuple[int, Any] = (200, {"object": "list", "data": []})
        self.asked: list[tuple[str, str, dict[str, str], Any]] = []
        stand = self

        class Handler(BaseHTTPRequestHandler):
            def answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                stand.asked.append((self.command, self.path, dict(self.headers), json.loads(body) if body else None))
                status, document = stand.answer
                self.send_response(status)
                raw = json.dumps(document).encode()
                self.send_header("Content-Length", str(len(raw)))
                self.end_headers()
                self.wfile.write(raw)

            do_GET = do_POST = do_PUT = do_DELETE = answer  # noqa: N815  # the library's names

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def cli(self, *words: str, **environment: str) -> "subprocess.CompletedProcess[str]":
        port = self.server.server_address[1]
        env = {"LEDGER_URL": f"http://127.0.0.1:{port}", "LEDGER_TOKEN": "sl_admin_1_2", "NO_PROXY": "*"} | environment
        command = [sys.executable, "-c", "from runtime.cli import main; main()", *words]
        env = {name: value for name, value in env.items() if value}
        return subprocess.run(command, env=env, cwd=ROOT, capture_output=True, text=True, timeout=60)


@pytest.fixture
def stand() -> Iterator[Stand]:
    made = Stand()
    yield made
    made.server.shutdown()
    made.server.server_close()


def test_a_post_has_a_new_key_or_the_given_one(stand: Stand) -> None:
    stand.answer = (201, {"slug": "a", "profile": "generic@1", "scim_base_url": "https://ledger.example.com/scim/a/v2"})
    for words in ((), (), ("--idempotency-key", "mine")):
        assert stand.cli("directory", "create", "a", *words).returncode == 0
    keys = [headers["Idempotency-Key"] for _, _, headers, _ in stand.asked]
    assert len(keys[0]) > 20
    assert len(set(keys)) == 3
    assert keys[2] == "mine"
    method, path, _, body = stand.asked[0]
    assert (method, path, body) == ("POST", "/v1/directories", {"slug": "a", "profile": "generic"})


@pytest.mark.parametrize(("status", "code"), [(400, 2), (413, 2), (401, 4), (403, 4), (404, 4), (409, 4), (429, 4), (503, 3)])
def test_the_exit_code_follows_from_the_answer(stand: Stand, status: int, code: int) -> None:
    """2 usage, 3 cannot reach, 4 refused (not found, not allowed, a conflict)."""
    stand.answer = (status, {"status": status, "code": "x", "detail": DETAIL})
    assert stand.cli("directory", "create", "a").returncode == code


def test_a_refusal_is_printed_unchanged_and_exits_with_4(stand: Stand) -> None:
    stand.answer = (409, {"status": 409, "code": "conflict", "detail": DETAIL})
    told = stand.cli("replay", "pause", "11111111-2222-4333-8444-555555555555")
    assert (told.returncode, told.stdout, told.stderr) == (4, "", f"{DETAIL}\n")
    told = stand.cli("replay", "pause", "11111111-2222-4333-8444-555555555555", "--json")
    assert told.returncode == 4
    assert json.loads(told.stdout) == {"status": 409, "code": "conflict", "detail": DETAIL}
    assert told.stderr == f"{DETAIL}\n"


def test_a_service_that_cannot_answer_now_exits_with_3(stand: Stand) -> None:
    stand.answer = (503, {"status": 503, "code": "database_unavailable", "detail": "The database does not answer."})
    assert stand.cli("token", "list").returncode == 3


@pytest.mark.parametrize("address", ["http://127.0.0.1:9", "http://nobody.invalid"])
def test_a_service_that_cannot_be_reached_is_named_and_exits_with_3(stand: Stand, address: str) -> None:
    told = stand.cli("token", "list", LEDGER_URL=address)
    assert told.returncode == 3
    assert f"{address} cannot be reached" in told.stderr
    assert "Traceback" not in told.stderr


def test_an_address_without_a_token_and_an_invalid_address_are_usage_errors(stand: Stand) -> None:
    assert "set LEDGER_TOKEN" in stand.cli("token", "list", LEDGER_TOKEN="").stderr
    assert stand.cli("token", "list", LEDGER_TOKEN="").returncode == 2
    assert stand.cli("token", "list", LEDGER_URL="ftp://x").returncode == 2
    assert stand.cli("consumer", "show", "..").returncode == 2, "a name that would change the path of the address"
    assert stand.cli("token", "nothing").returncode == 2
    assert stand.asked == []


def test_a_token_comes_from_a_file_that_only_its_owner_should_read(stand: Stand, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("sl_file_token\n")
    file.chmod(0o600)
    told = stand.cli("token", "list", LEDGER_TOKEN="", LEDGER_TOKEN_FILE=str(file))
    assert (told.returncode, told.stderr) == (0, "")
    assert stand.asked[-1][2]["Authorization"] == "Bearer sl_file_token"
    file.chmod(0o640)
    told = stand.cli("token", "list", LEDGER_TOKEN="", LEDGER_TOKEN_FILE=str(file))
    assert told.returncode == 0
    assert "Others can read" in told.stderr
    assert "sl_file_token" not in told.stdout + told.stderr
    for wrong in (tmp_path / "none", tmp_path):
        assert stand.cli("token", "list", LEDGER_TOKEN="", LEDGER_TOKEN_FILE=str(wrong)).returncode == 2
    file.write_text("two words")
    assert stand.cli("token", "list", LEDGER_TOKEN="", LEDGER_TOKEN_FILE=str(file)).returncode == 2


def test_a_name_is_encoded_as_one_path_segment(stand: Stand) -> None:
    stand.answer = (404, {"status": 404, "code": "not_found", "detail": "no"})
    stand.cli("consumer", "show", "a/b?c=d#e")
    assert stand.asked[-1][1] == "/v1/consumers/a%2Fb%3Fc%3Dd%23e"


def test_control_characters_of_an_answer_do_not_reach_a_terminal(stand: Stand) -> None:
    stand.answer = (400, {"status": 400, "code": "refused", "detail": "red \x1b[31m bell \x07"})
    assert "\x1b" not in stand.cli("token", "list").stderr
    stand.answer = (200, {"object": "list", "data": [{"id": "1", "name": "\x1b]0;x\x07"}]})
    assert "\x1b" not in stand.cli("token", "list").stdout


def test_a_list_is_read_to_its_end(stand: Stand) -> None:
    """The answers are single pages; each says where the next one begins."""
    stand.answer = (200, {"object": "list", "data": [{"id": "1"}], "list_metadata": {"after": None}})
    assert len(json.loads(stand.cli("consumer", "list", "--json").stdout)["data"]) == 1
    assert len(stand.asked) == 1
