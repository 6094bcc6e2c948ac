"""Tokens: issued by the command line, refused from the next request after their revocation, and limited to their role and
directory.
"""

import json
import random

import pytest

from tests import warm
from tests.acceptance.conftest import Service

USER = "urn:ietf:params:scim:schemas:core:2.0:User"


def _bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def _issue(service: Service, *words: str) -> str:
    made = service.cli("token", "issue", *words, "--json")
    assert made.returncode == 0, made.stderr
    return json.loads(made.stdout)["token"]


def test_a_revoked_token_is_refused_from_the_next_request_on(service: Service) -> None:
    """The command line is another process: no cache of the service keeps the token valid, neither for reads nor for writes."""
    token = _issue(service, "scim", "--directory", "acme", "--name", "short-lived")
    name = f"written-before-{random.random()}"
    with service.client("scim") as client:
        assert (
            client.post(service.scim + "/Users", json={"schemas": [USER], "userName": name}, headers=_bearer(token)).status_code
            == 201
        )
        assert client.get(service.scim + "/Users", headers=_bearer(token)).status_code == 200
        listed = json.loads(service.cli("token", "list", "--json").stdout)["data"]
        mine = next(row for row in listed if row["name"] == "short-lived")
        assert service.cli("token", "revoke", mine["id"], "--yes").returncode == 0
        refused = client.post(service.scim + "/Users", json={"schemas": [USER], "userName": "after"}, headers=_bearer(token))
        assert refused.status_code == 401
        assert client.get(service.scim + "/Users", headers=_bearer(token)).status_code == 401
        found = client.get(service.scim + "/Users", params={"filter": 'userName eq "after"'}).json()
        assert found["totalResults"] == 0
    assert token not in service.log.read_text()


@pytest.mark.parametrize("scheme", ["BEARER", "bearer", "bEaReR"])
def test_the_letter_case_of_the_scheme_is_ignored(service: Service, scheme: str) -> None:
    """RFC 9110 §11.1: this covers SCIM, the rest of the API, and streams, which read the header once more."""
    with service.client("scim") as client, service.client("operator") as operator:
        for each in (client, operator):
            each.headers["Authorization"] = each.headers["Authorization"].replace("Bearer", scheme)
        assert client.get(service.scim + "/Users").status_code == 200
        assert operator.get(service.base + "/v1/requests").status_code == 200
        with operator.stream("GET", service.base + "/v1/events/stream") as stream:
            assert stream.status_code == 200


def test_revoking_twice_is_one_event_and_an_unknown_id_is_refused(service: Service) -> None:
    _issue(service, "auditor", "--name", "twice")
    mine = next(row for row in json.loads(service.cli("token", "list", "--json").stdout)["data"] if row["name"] == "twice")
    assert service.cli("token", "revoke", mine["id"], "--yes").returncode == 0
    assert service.cli("token", "revoke", mine["id"], "--yes").returncode == 0
    with service.client("admin") as admin:
        events = admin.get(
            service.base + "/v1/events",
            params={"directory": "_system", "types": "token.revoked", "subject": mine["id"], "limit": 1000},
        )
    assert len(events.json()["data"]) == 1
    assert service.cli("token", "revoke", "11111111-2222-4333-8444-555555555555", "--yes").returncode == 4


def test_a_token_of_one_directory_does_not_reach_another(service: Service) -> None:
    assert service.cli("directory", "create", "other").returncode == 0
    assert service.cli("directory", "create", "other").returncode == 4, "names are never reused"
    assert service.cli("directory", "create", "Not a slug").returncode == 2
    token = _issue(service, "scim", "--directory", "other")
    with service.client("scim") as client:
        url = f"{service.base}/scim/other/v2/Users"
        assert client.post(url, json={"schemas": [USER], "userName": "same"}, headers=_bearer(token)).status_code == 201
        assert client.get(url).status_code == 403
        assert client.get(service.scim + "/Users", headers=_bearer(token)).status_code == 403
    consumer = _issue(service, "consumer", "--directory", "other")
    with service.client("consumer") as reader:
        events = reader.get(service.base + "/v1/events", params={"limit": 1000}, headers=_bearer(consumer)).json()
        assert {e["directory"] for e in events["data"]} == {"other"}
        assert reader.get(service.base + "/v1/events", params={"directory": "acme"}, headers=_bearer(consumer)).status_code == 403


def test_a_scim_token_needs_one_directory_and_an_unknown_role_is_refused(service: Service) -> None:
    assert service.cli("token", "issue", "scim").returncode == 2
    assert service.cli("token", "issue", "scim", "--directory", "nowhere").returncode == 2
    assert "is not one of scim," in service.cli("token", "issue", "king").stderr


def test_settings_directories_and_probes_answer(service: Service) -> None:
    assert {"_system", "acme"} <= {
        row["directory"] for row in json.loads(service.cli("directory", "list", "--json").stdout)["data"]
    }
    with service.client("scim") as client:
        assert client.get(service.base + "/healthz").status_code == 200
        assert client.get(service.base + "/readyz").json() == {"status": "ready"}
        metrics = client.get(service.base + "/metrics").text
    for name in (
        "ledger_http_requests_total",
        "ledger_write_batch_commands",
        "ledger_head_position",
        "ledger_write_queue_commands",
    ):
        assert name in metrics


def test_a_command_that_cannot_reach_its_database_exits_with_3(service: Service) -> None:
    environment = {"LEDGER_DATABASE_URL": "postgresql://nobody@127.0.0.1:1/none", "PATH": "/usr/bin:/bin"}
    run = warm.run(["directory", "list"], environment)
    assert run.returncode == 3, run.stderr
    assert "cannot be reached" in run.stderr


def test_a_command_without_a_ledger_says_so_and_creates_none(tmp_path) -> None:
    service = Service(tmp_path / "nothing")
    for words in (("replay", "verify"), ("directory", "list"), ("audit", "population", "acme")):
        run = service.cli(*words)
        assert run.returncode == 2
        assert "There is no ledger in" in run.stderr
    assert not (tmp_path / "nothing").exists()
