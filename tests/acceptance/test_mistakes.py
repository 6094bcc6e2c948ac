"""What people get wrong, and the sentence that they must get: over HTTP and on the command line.

A sentence says what is wrong, where, and what is allowed. On the command line it speaks of commands and options, never of routes.
"""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from ledger.events import TYPE_PATTERNS
from tests import warm
from tests.acceptance.conftest import Service, until

JSON = {"Content-Type": "application/json"}
PLACES = 'Say "beginning", "now", "seq:N" of one directory, an instant such as 2026-10-01T09:10:00Z, a position, an event id or a cursor.'
INSTANT = 'as_of takes "seq:N", "seq:head" or an instant with offset such as 2026-10-01T00:00:00Z. A bare date is ambiguous.'
NO_ROUTE = "There is no such route. /openapi.json lists the routes; none ends with a slash."
A_TIME = "is not a time with its zone, such as 2026-10-01T00:00:00Z"
HTTP: tuple[tuple[str | None, str, str, object, int, str], ...] = (
    # the feed
    ("consumer", "GET", "/v1/events?type=user.deleted", None, 400, "`type` is not a parameter of this request; did you mean `types`?"),
    ("consumer", "GET", "/v1/events?types=user.create", None, 400, "`types` names an event type that does not exist; did you mean `user.created`?"),
    ("consumer", "GET", "/v1/events?directory=acme&directory=x", None, 400, "`directory` is there more than once."),
    ("consumer", "GET", "/v1/events?limit=5000", None, 400, "`limit` is not a number from 1 to 1000."),
    ("consumer", "GET", "/v1/events?limit=", None, 400, "`limit` is empty: give it a value, or leave it out."),
    ("consumer", "GET", "/v1/events?directory=", None, 400, "`directory` is empty: give it a value, or leave it out."),
    ("consumer", "GET", "/v1/events?types=&subject=", None, 400, "`types` is empty: give it a value, or leave it out. `subject` is empty: give it a value, or leave it out."),
    ("consumer", "GET", "/v1/events?range_start=2026-11-02T00:00:00Z&range_end=2026-11-01T00:00:00Z", None, 400, "`range_end` lies before `range_start`: swap them."),
    ("consumer", "GET", "/v1/events?wait=60", None, 400, "`wait` is not a number from 0 to 30."),
    ("consumer", "GET", "/v1/events?after=hello", None, 400, "Take `list_metadata.after` of a page, or the `id` of an event."),
    ("consumer", "GET", "/v1/events?range_start=2026-11-01T00:00:00+01:00", None, 400, f"`range_start` {A_TIME}; in an address a + is a space: write Z, or %2B."),
    ("consumer", "GET", "/v1/events?range_end=soon", None, 400, f"`range_end` {A_TIME}."),
    ("consumer", "GET", "/v1/events?range_start=2026-11-01T00:00:00", None, 400, "`range_start` has no zone: write an instant such as 2026-10-01T00:00:00Z."),
    ("consumer", "GET", "/v1/events?subject=ada", None, 400, "`subject` is not the id of a user or group (a UUID)."),
    ("consumer", "GET", "/v1/events?from=yesterday", None, 400, PLACES),
    ("consumer", "GET", "/v1/events?from=2026-11-01T00:00:00+01:00", None, 400, f"In an address a + is a space: write Z, or %2B. {PLACES}"),
    ("consumer", "POST", "/v1/events", {}, 405, "This route takes GET."),
    ("consumer", "GET", "/v1/event", None, 404, NO_ROUTE),
    ("consumer", "GET", "/v1/events/", None, 404, NO_ROUTE),
    (None, "GET", "/v1/events", None, 401, "Send a token in the header: Authorization: Bearer sl_..."),
    ("scim", "GET", "/v1/events", None, 403, "This needs a token of role consumer, operator, auditor or admin."),
    # consumers
    ("admin", "PUT", "/v1/consumers/crm", b'{"mode"', 400, "`body` is not JSON: it ends at character 7."),
    ("admin", "PUT", "/v1/consumers/crm", b'{"url": "a", "url": "b"}', 400, "`url` is there more than once."),
    ("admin", "PUT", "/v1/consumers/crm", {"mode": "webhok"}, 400, "`mode` is not one of pull, webhook; did you mean `webhook`?"),
    ("admin", "PUT", "/v1/consumers/crm", {"batchmax": 5}, 400, "`batchmax` is not a field of this request; did you mean `batch_max`?"),
    ("admin", "PUT", "/v1/consumers/crm", {"batch_max": 500}, 400, "`batch_max` is not a number from 1 to 100."),
    ("admin", "PUT", "/v1/consumers/crm", {"directories": "acme"}, 400, "`directories` is not a list."),
    ("admin", "PUT", "/v1/consumers/crm", {"directories": ["acne"]}, 400, "`directories` names an unknown directory; did you mean `acme`? GET /v1/directories lists them."),
    ("admin", "PUT", "/v1/consumers/crm", {"mode": "webhook"}, 400, "A webhook needs a `url` of at most 2 000 characters, such as https://app.example.com/hooks."),
    ("admin", "PUT", "/v1/consumers/crm", {"mode": "webhook", "url": "https://127.0.0.1/"}, 400, "`url` leads to a private or loopback address. Start the service with LEDGER_WEBHOOK_ALLOW naming those that webhooks may reach."),
    ("admin", "PUT", "/v1/consumers/crm", {"start": "2026-11-01"}, 400, f"An instant needs a time and an offset. {PLACES}"),
    ("admin", "PUT", "/v1/consumers/CRM", {}, 400, "A consumer's name is 1 to 63 of a-z, 0-9, _, . and -, beginning with a letter or digit."),
    ("admin", "POST", "/v1/consumers/crm", {}, 405, "This route takes DELETE, GET, PUT."),
    ("admin", "GET", "/v1/consumers/crn", None, 404, "There is no consumer of that name, or the token does not reach all that the consumer reads. GET /v1/consumers lists those that it reaches."),
    ("operator", "POST", "/v1/consumers/crm/seek", {"to": "seq:1"}, 400, "`reason` is missing."),
    ("consumer", "POST", "/v1/consumers/crm/ack", {}, 400, "`through` is missing."),
    # tokens and directories
    ("admin", "POST", "/v1/tokens", {"role": "king", "name": "x"}, 400, "`role` is not one of scim, consumer, operator, auditor, admin."),
    ("admin", "POST", "/v1/tokens", {"role": "scim", "name": "x"}, 400, "A scim token belongs to exactly one directory: name it."),
    ("admin", "POST", "/v1/tokens", {"role": "auditor", "name": "x", "expires_in_days": 99999}, 400, "`expires_in_days` is not a number from 1 to 3650."),
    ("admin", "POST", "/v1/tokens", {"role": "auditor", "name": ""}, 400, "`name` is not text of 1 to 200 characters."),
    ("admin", "POST", "/v1/directories", {"slug": "Acme Inc"}, 400, "A directory's name is 1 to 63 of a-z, 0-9 and -, beginning with a letter or digit."),
    ("admin", "POST", "/v1/directories", {"slug": "acme"}, 409, "There is a directory acme already, and names are never reused. Choose another one."),
    ("admin", "POST", "/v1/directories/acme/close", {"reason": "x", "confirm": "acne"}, 400, 'repeat its name: "confirm": "acme".'),
    # audit and replays
    ("auditor", "GET", "/v1/audit/acme/population?as_of=2026-11-30", None, 400, INSTANT),
    ("auditor", "GET", "/v1/audit/acme/population?as_of=2026-11-30T00:00:00+01:00", None, 400, 'In an address a + is a space: write Z, or %2B. as_of takes "seq:N", "seq:head" or an instant with offset such as 2026-10-01T00:00:00Z.'),
    ("auditor", "GET", "/v1/audit/acme/population?as_of=2099-11-30T00:00:00Z", None, 400, "as_of lies in the future. Ask for an instant that has passed."),
    ("auditor", "GET", "/v1/audit/acme/population?asof=seq:head", None, 400, "`asof` is not a parameter of this request; did you mean `as_of`?"),
    ("auditor", "GET", "/v1/audit/acme/population?type=Person", None, 400, "`type` is not one of User, Group."),
    ("operator", "POST", "/v1/replays", {"name": "n", "consumer": "crm", "from": "seq:1", "reason": "x", "dryrun": True}, 400, "`dryrun` is not a field of this request; did you mean `dry_run`?"),
    # SCIM
    ("scim", "GET", "/acme/v2/Users", None, 404, "SCIM lives under /scim/{directory}/v2."),
    (None, "POST", "/nowhere/v2", None, 404, "SCIM lives under /scim/{directory}/v2."),
    ("scim", "GET", "/acme/v3/Users", None, 404, NO_ROUTE),
    ("scim", "GET", "/scim/acme/Users", None, 404, "SCIM lives under /scim/{directory}/v2."),
    ("scim", "GET", "/scim/acme/v2/Users?filter=userName%20eq%20ada", None, 400, "The filter needs a value at character 13: text in double quotes, a number, true, false or null."),
    ("scim", "GET", '/scim/acme/v2/Users?filter=usrName%20eq%20"ada"', None, 400, 'The filter names an attribute "usrName" at character 1 that this resource type does not have.'),
    ("scim", "POST", "/scim/acme/v2/Users", b'{"a"', 400, "The request body is not valid JSON at line 1, column 5."),
    ("scim", "DELETE", "/scim/acme/v2/Users", None, 405, "This endpoint takes GET, POST."),
    ("consumer", "GET", "/scim/acme/v2/Users", None, 403, "This token is not a SCIM token. Give the IdP one of role scim."),
)  # fmt: skip


def asked(service: Service, role: str | None, method: str, path: str, body: object) -> httpx.Response:
    headers = {**JSON, **({"Authorization": f"Bearer {service.first_run['tokens'][role]}"} if role else {})}
    sent: dict[str, Any] = {"content": body} if isinstance(body, bytes) else {"json": body} if body is not None else {}
    return httpx.request(method, service.base + path, headers=headers, trust_env=False, timeout=60, **sent)


@pytest.mark.parametrize(("role", "method", "path", "body", "status", "sentence"), HTTP)
def test_a_mistake_over_http(
    service: Service, role: str | None, method: str, path: str, body: object, status: int, sentence: str
) -> None:
    answer = asked(service, role, method, path, body)
    assert answer.status_code == status, answer.text
    assert answer.json()["detail"].endswith(sentence), answer.json()["detail"]
    if path.startswith("/v1") and answer.json()["code"] == "invalid_parameters":
        assert all({"field", "reason"} <= set(error) for error in answer.json()["errors"])
    if status == 405:
        assert answer.headers["Allow"] in sentence


def test_an_error_about_types_lists_all_of_them(service: Service) -> None:
    wrong = asked(service, "consumer", "GET", "/v1/events?types=user.create", None).json()["errors"][0]
    assert wrong["allowed"] == list(TYPE_PATTERNS)


@pytest.mark.parametrize(
    ("role", "path", "event", "expected"),
    [
        ("consumer", "/v1/events?limit=0", "request_refused", {"route": "/v1/events", "status": 400, "code": "invalid_parameters"}),
        ("consumer", "/v1/consumers/ada.lovelace", "request_refused", {"route": "/v1/consumers/{name}", "status": 404, "code": "not_found"}),
        ("scim", "/v1/tokens", "request_refused", {"route": "/v1/tokens", "status": 403, "code": "forbidden"}),
        (
            "scim", "/scim/acme/v2/Users?filter=ada", "request",
            {"path": "/scim/{directory}/v2/Users", "status": 400, "directory": "acme", "scim_type": "invalidFilter"},
        ),
    ],
)  # fmt: skip
def test_a_refusal_has_a_line_in_the_log(service: Service, role: str, path: str, event: str, expected: dict[str, Any]) -> None:
    answer = asked(service, role, "GET", path, None)
    request, token = answer.headers["X-Request-Id"], service.first_run["tokens"][role].split("_")[2]

    def line() -> dict[str, Any] | None:
        return next((json.loads(text) for text in service.log.read_text().splitlines() if request in text), None)

    until(line)
    found = line()
    assert found is not None
    assert found["event"] == event
    assert {name: found[name] for name in expected} == expected
    assert found["token"].replace("-", "") == token
    assert "ada" not in json.dumps(found)


def test_a_cursor_of_another_form_of_the_feed(service: Service) -> None:
    def feed(query: str) -> dict[str, Any]:
        return asked(service, "consumer", "GET", f"/v1/events?{query}", None).json()

    whole, acme = (feed(query)["list_metadata"]["after"] for query in ("limit=1", "limit=1&directory=acme"))
    assert feed(f"after={acme}")["detail"].startswith(
        "The cursor counts in one directory, so it is understood only with the parameter `directory`"
    )
    assert feed(f"directory=acme&after={whole}")["detail"].startswith(
        "The cursor counts in the whole ledger: leave the parameter `directory` out"
    )


COMMANDS: tuple[tuple[str, int, str], ...] = (
    ("tokn", 2, "No such command 'tokn'."),
    ("token isue", 2, "No such command 'isue'. Did you mean 'issue'?"),
    ("token issue", 2, "Missing argument 'role'."),
    ("token issue king --directory acme", 2, "`role` is not one of scim, consumer, operator, auditor, admin."),
    ("token issue scim --directory acne", 2, "`--directory` names an unknown directory; did you mean `acme`? `scim-ledger directory list` lists them."),
    ("token revoke nope --yes", 4, "There is no token of that id. `scim-ledger token list` lists them."),
    ("token revoke nope", 4, "There is no token of that id. `scim-ledger token list` lists them."),
    ("token list --stat active", 2, "No such option: --stat (Possible options: --state)"),
    ("token list --state sleeping", 2, "`--state` is not one of active, overlapping, expired, revoked."),
    ("directory create Acme", 2, "A directory's name is 1 to 63 of a-z, 0-9 and -, beginning with a letter or digit."),
    ("directory show acne", 4, "There is no directory of that name, or the token does not reach it."),
    ("directory close acme", 2, "Missing option '--reason'."),
    ("directory close acne --reason x", 4, "There is no directory of that name, or the token does not reach it."),
    ("consumer create crm --directory acne", 2, "`--directory` names an unknown directory; did you mean `acme`? `scim-ledger directory list` lists them."),
    ("consumer create crm --directory qqq", 2, "`--directory` names an unknown directory. `scim-ledger directory list` lists them."),
    ("consumer create crm --secret-file /dev/null", 2, "/dev/null exists already. Name a new file, or remove that one first."),
    ("consumer delete crn", 4, "There is no consumer of that name, or the token does not reach all that the consumer reads. `scim-ledger consumer list` lists those that it reaches."),
    ("consumer create crm --types user.create", 2, "`--types` names an event type that does not exist; did you mean `user.created`?"),
    ("consumer create crm --ordering none", 2, "`--ordering` is not one of directory, subject."),
    ("consumer show crn", 4, "There is no consumer of that name, or the token does not reach all that the consumer reads. `scim-ledger consumer list` lists those that it reaches."),
    ("consumer seek crn yesterday --reason x", 4, "There is no consumer of that name, or the token does not reach all that the consumer reads. `scim-ledger consumer list` lists those that it reaches."),
    ("events list --limit 0", 2, "Invalid value for '--limit': 0 is not in the range x>=1."),
    ("events list --type user.created", 2, "No such option: --type (Possible options: --types)"),
    ("events get evt_x", 4, "There is no event of this id, or the token does not reach it."),
    ("audit population acme --as-of tomorrow", 2, INSTANT),
    ("replay rebuild --only peeple", 2, "There is no read model peeple. Choose from directory_states, groups, memberships, states, users."),
)  # fmt: skip


@pytest.mark.parametrize(("words", "code", "sentence"), COMMANDS)
def test_a_mistake_on_the_command_line(service: Service, words: str, code: int, sentence: str) -> None:
    done = service.cli(*words.split())
    assert (done.returncode, done.stdout) == (code, "")
    assert done.stderr.rstrip().endswith(sentence), done.stderr
    assert "/v1" not in done.stderr
    assert "Traceback" not in done.stderr


def test_a_delivery_that_does_not_wait_is_answered_with_the_commands_that_list_those_that_do(service: Service) -> None:
    assert service.cli("consumer", "create", "idle").returncode == 0
    done = service.cli("blocked", "retry", "idle", "evt_acme_1_00000000", "--reason", "x")
    assert done.returncode == 4
    assert done.stderr.rstrip().endswith("`scim-ledger blocked list` and `scim-ledger parked list` list them."), done.stderr


SETTINGS: tuple[tuple[str, dict[str, str], int, str], ...] = (
    ("serve", {"LEDGER_PORT": "abc"}, 2, "LEDGER_PORT is not a number from 0 to 65535."),
    ("serve", {"LEDGER_WORKERS": "0"}, 2, "LEDGER_WORKERS is not a number from 1 to 64."),
    ("serve", {"LEDGER_LOG_FORMAT": "jsno"}, 2, "LEDGER_LOG_FORMAT is not one of console, json; did you mean `json`?"),
    ("serve", {"LEDGER_DATABASE_WAIT_S": "soon"}, 2, "LEDGER_DATABASE_WAIT_S is not a number from 0 to 3600."),
    ("migrate", {"LEDGER_DATABASE_URL": "postgres://u:geheim@localhost:1x/db"}, 2, "LEDGER_DATABASE_URL is not understood"),
    ("token list", {"LEDGER_URL": "http://127.0.0.1:1"}, 2, "LEDGER_URL is set, but no token: set LEDGER_TOKEN, or LEDGER_TOKEN_FILE."),
    ("token list", {"LEDGER_URL": "127.0.0.1:1", "LEDGER_TOKEN": "x"}, 2, "LEDGER_URL is not understood: it begins with http:// or https://."),
    ("settings", {"LEDGER_URL": "127.0.0.1:1"}, 2, "LEDGER_URL begins with http:// or https://."),
    ("serve", {"LEDGER_PUBLIC_URL": "ledger.example.com"}, 2, "LEDGER_PUBLIC_URL begins with http:// or https://."),
    ("serve", {"LEDGER_PUBLIC_URL": "https://l.example.com/x?y"}, 2, "LEDGER_PUBLIC_URL has a query or a fragment: paths are added to its end."),
    ("serve", {"LEDGER_WEBHOOK_ALLOW": "10.0.0.0/8, 127.0.0.1/99"}, 2, "LEDGER_WEBHOOK_ALLOW has `127.0.0.1/99`, which is no network, no address and no host name."),
    ("serve", {"LEDGER_WEBHOOK_ALLOW": "999.1.1.1"}, 2, "LEDGER_WEBHOOK_ALLOW has `999.1.1.1`, which is no network"),
    ("serve", {"LEDGER_HOST": "999.1.1.1"}, 2, "Set LEDGER_HOST to an address of this machine"),
    ("serve", {"LEDGER_HOST": "192.0.2.1", "LEDGER_PORT": "0"}, 2, "Set LEDGER_HOST to an address of this machine"),
    ("serve", {"LEDGER_MIGRATE_URL": "postgresql://u:geheim@localhost/db"}, 2, "LEDGER_MIGRATE_URL is set, but LEDGER_DATABASE_URL is not"),
    ("serve", {"LEDGER_TRACING": "on"}, 2, "LEDGER_TRACING is not one of off, otlp"),
    ("token list", {"LEDGER_URL": "http://127.0.0.1:1", "LEDGER_TOKEN": "x"}, 3, "http://127.0.0.1:1 cannot be reached"),
    ("token list", {"LEDGER_URL": "http://127.0.0.1:1", "LEDGER_TOKEN_FILE": "/nope"}, 2, "LEDGER_TOKEN_FILE /nope cannot be read."),
)  # fmt: skip


@pytest.mark.parametrize(("words", "settings", "code", "sentence"), SETTINGS)
def test_a_mistake_in_a_setting(service: Service, words: str, settings: dict[str, str], code: int, sentence: str) -> None:
    done = warm.run(words.split(), {**os.environ, "LEDGER_DATA_DIR": str(service.data_dir), **settings})
    assert done.returncode == code, done.stderr
    assert sentence in done.stderr
    assert "geheim" not in done.stdout + done.stderr
    assert "Traceback" not in done.stderr


def test_a_variable_that_is_no_setting_is_named_at_the_start_without_its_value(make_service: Callable[..., Service]) -> None:
    log = make_service(LEDGER_PROT="geheim", LEDGER_XYZ="geheim").log.read_text()
    told = [line for line in map(json.loads, log.splitlines()) if line["event"] == "unknown_setting"]
    assert [(line["name"], line["did_you_mean"]) for line in told] == [("LEDGER_PROT", "LEDGER_PORT"), ("LEDGER_XYZ", None)]
    assert "geheim" not in log


def test_a_command_on_this_machine_says_that_it_does_not_use_a_service_elsewhere(service: Service) -> None:
    settings = {"LEDGER_DATA_DIR": str(service.data_dir), "LEDGER_URL": "https://ledger.example.com"}
    done = warm.run(["migrate"], {**os.environ, **settings})
    assert (done.returncode, done.stdout) == (0, "The schema is current.\n")
    assert "works on the database of this machine, not on https://ledger.example.com." in done.stderr


DEFINITION = ("directories", "types", "mode", "ordering", "batch_max", "url", "retry_schedule")


def test_create_changes_no_consumer_and_update_changes_only_what_is_named(service: Service) -> None:
    """A changed `--url` once reset types, directories and order: access to everything leaked to a webhook."""

    def shown() -> dict[str, Any]:
        found = json.loads(service.cli("consumer", "show", "gate", "--json").stdout)
        return {field: found[field] for field in DEFINITION}

    assert "There is no consumer of that name yet." in service.cli("consumer", "update", "gate", "--types", "user.*").stderr
    made = service.cli(
        "consumer", "create", "gate", "--directory", "acme", "--types", "user.*", "--ordering", "directory", "--batch-max", "7"
    )
    assert made.returncode == 0, made.stderr
    before = shown()
    again = service.cli("consumer", "create", "gate", "--url", "https://gate.example.com/")
    assert (again.returncode, again.stderr) == (
        4,
        "There is a consumer of that name already. Nothing was changed: update it, or choose another name.\n",
    )
    assert shown() == before
    for option, value, field, changed in (
        ("--types", "group.created", "types", ["group.created"]), ("--batch-max", "9", "batch_max", 9), ("--ordering", "subject", "ordering", "subject"),
    ):  # fmt: skip
        before = shown()
        assert service.cli("consumer", "update", "gate", option, value).returncode == 0
        assert {name: now for name, now in shown().items() if now != before[name]} == {field: changed}
    nothing = service.cli("consumer", "update", "gate")
    assert (nothing.returncode, nothing.stderr[:28]) == (2, "Name what is to change: --di")
    assert service.cli("consumer", "delete", "gate", "--yes").returncode == 0


def test_a_port_that_is_taken_is_reported_before_anything_is_made(service: Service, tmp_path: Path) -> None:
    settings = {"LEDGER_DATA_DIR": str(tmp_path / "new"), "LEDGER_PORT": str(service.port)}
    done = warm.run(["serve"], {**os.environ, **settings})
    assert done.returncode == 2, done.stderr
    assert "LEDGER_PORT" in done.stderr
    assert not (tmp_path / "new").exists()


def test_settings_are_those_of_the_service_and_not_of_the_shell(service: Service) -> None:
    settings = {
        "LEDGER_DATA_DIR": str(service.data_dir),
        "LEDGER_PORT": "1",
        "LEDGER_WORKERS": "7",
        "LEDGER_URL": "http://127.0.0.1:1",
    }
    done = warm.run(["settings", "--json"], {**os.environ, **settings})
    shown = {row["setting"]: (row["value"], row["source"]) for row in json.loads(done.stdout)["data"]}
    assert shown["LEDGER_PORT"] == (str(service.port), "service")
    assert shown["LEDGER_WORKERS"] == ("1", "service")
    assert shown["LEDGER_URL"] == ("http://127.0.0.1:1", "environment")  # of the command line alone


def test_an_event_beyond_the_end_is_answered_in_the_seqs_of_its_directory(service: Service) -> None:
    """The number in an event's id is a seq, so the end that it is compared with is one too."""
    assert asked(service, "admin", "PUT", "/v1/consumers/ahead", {"start": "now"}).status_code in {200, 201}
    before = asked(service, "admin", "GET", "/v1/events?directory=acme&limit=1", None).json()["head_position"]
    answer = asked(service, "consumer", "POST", "/v1/consumers/ahead/ack", {"through": "evt_acme_99999999_00000000"})
    after = asked(service, "admin", "GET", "/v1/events?directory=acme&limit=1", None).json()["head_position"]
    assert (answer.status_code, answer.json()["code"], answer.json()["cursor"]) == (409, "cursor_ahead", 99999999)
    assert before <= answer.json()["head"] <= after
    unknown = asked(service, "consumer", "POST", "/v1/consumers/ahead/ack", {"through": "evt_acne_1_00000000"})
    assert (unknown.status_code, unknown.json()["code"]) == (400, "invalid_cursor")


def test_the_plan_of_a_replay_to_a_consumer_that_pulls_says_that_it_cannot_be_run(service: Service) -> None:
    assert asked(service, "admin", "PUT", "/v1/consumers/puller", {"start": "now"}).status_code in {200, 201}
    plan = asked(
        service, "operator", "POST", "/v1/replays", {"consumer": "puller", "from": "beginning", "reason": "r", "dry_run": True}
    )
    assert plan.status_code == 200
    assert plan.json()["warnings"][0].startswith("A replay sends to webhooks only, so this plan cannot be run")
    shown = service.cli("replay", "plan", "puller", "--from", "beginning").stdout
    assert "`scim-ledger consumer seek` lets it read again." in shown
