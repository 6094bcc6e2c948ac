"""Profiles over HTTP and from the command line, against a running service."""

import json
import random
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import psycopg
import pytest

from runtime import embedded
from scim.remedies import fix_of
from tests.acceptance.conftest import ROOT, Service
from tests.unit.scim.test_scim_extension import SCHEMA, URN

CORPUS = ROOT.parent / "shared" / "corpus"
CORE = "urn:ietf:params:scim:schemas:core:2.0:"
PATCH = "urn:ietf:params:scim:api:messages:2.0:PatchOp"
ENTERPRISE = "urn:ietf:params:scim:schemas:extension:enterprise:2.0:User"


class Connection:
    """A directory for one test, with a token for its IdP."""

    def __init__(self, service: Service, slug: str, profile: str) -> None:
        self.service, self.slug = service, slug
        made = json.loads(self.cli("directory", "create", slug, "--profile", profile, "--json"))
        self.profile: str = made["profile"]
        self.token: str = json.loads(self.cli("token", "issue", "scim", "--directory", slug, "--json"))["token"]
        self.base = f"{service.base}/scim/{slug}/v2"
        self.client = httpx.Client(headers={"Authorization": f"Bearer {self.token}"}, timeout=60, trust_env=False)

    def cli(self, *words: str, code: int = 0) -> str:
        done = self.service.cli(*words)
        assert done.returncode == code, done.stderr + done.stdout
        return done.stdout or done.stderr

    def send(self, method: str, path: str, **body: Any) -> httpx.Response:
        return self.client.request(method, self.base + path, json=body or None)

    def user(self, name: str, **attributes: Any) -> str:
        made = self.send("POST", "/Users", schemas=[CORE + "User"], userName=name, **attributes)
        assert made.status_code == 201, made.text
        return made.json()["id"]

    def group(self, *members: str) -> httpx.Response:
        listed = [{"value": member} for member in members]
        return self.send("POST", "/Groups", schemas=[CORE + "Group"], displayName="g", members=listed)

    def patch(self, path: str, *operations: dict[str, Any]) -> httpx.Response:
        return self.send("PATCH", path, schemas=[PATCH], Operations=list(operations))

    def members(self, group: str) -> set[str]:
        return {member["value"] for member in self.send("GET", f"/Groups/{group}").json().get("members", [])}

    def found(self, path: str, query: str) -> list[dict[str, Any]]:
        return self.send("GET", f"{path}?filter={quote(query)}").json().get("Resources", [])

    def events(self, **params: str) -> list[dict[str, Any]]:
        with self.service.client("consumer") as client:
            return client.get(f"{self.service.base}/v1/events", params={"directory": self.slug, **params}).json()["data"]


@pytest.fixture(scope="session")  # not "module": a process may run tests of another file in between
def connected(service: Service) -> Iterator[Any]:
    made: dict[str, Connection] = {}

    def connect(slug: str, profile: str) -> Connection:
        if slug not in made:
            made[slug] = Connection(service, slug, profile)
        return made[slug]

    yield connect
    for connection in made.values():
        connection.client.close()


def test_a_changed_profile_takes_effect_at_once_and_old_events_stay_unchanged(connected: Any) -> None:
    idp = connected("moving", "generic")
    user = idp.user("ada")
    off = {"op": "replace", "path": "active", "value": "False"}
    on = {"op": "replace", "path": "active", "value": True}
    assert idp.patch(f"/Users/{user}", off).status_code == 200
    before = idp.events()
    assert idp.cli("directory", "profile", "set", "moving", "okta", "--json") == '{"directory":"moving","profile":"okta@1"}\n'
    with idp.service.client("consumer") as client:  # the event is readable before a request can follow it
        page = client.get(f"{idp.service.base}/v1/events", params={"directory": "moving", "types": "directory.profile_changed"})
    assert [event["data"]["object"]["profile"] for event in page.json()["data"]] == ["okta@1"]
    refused = idp.patch(f"/Users/{user}", off | {"value": "True"})
    for _ in range(200):  # the notification takes a moment, at most a second
        if refused.status_code == 400:
            break
        refused = idp.patch(f"/Users/{user}", off)
    assert refused.status_code == 400
    assert "active" in refused.json()["detail"]
    assert idp.patch(f"/Users/{user}", on).status_code == 200
    after = idp.events()
    assert after[: len(before)] == before
    assert after[-1]["profile"] == "okta@1"


@pytest.mark.parametrize(("profile", "key"), [("generic-externalid", "externalId"), ("generic-username", "userName")])
def test_members_may_be_named_by_another_key_if_the_profile_says_so(connected: Any, profile: str, key: str) -> None:
    idp = connected(profile, profile)
    # The external ids have the form of our ids, as those of Entra ID do.
    alien = ["0e3be400-0000-4000-8000-00000000000a", "0e3be400-0000-4000-8000-00000000000b"]
    ids = [idp.user(f"Ada{n}@corp", externalId=external) for n, external in enumerate(alien)]
    names = alien if key == "externalId" else ["ada0@corp", "ADA1@corp"]
    made = idp.group(names[0])
    assert made.status_code == 201, made.text
    group = made.json()["id"]
    assert idp.members(group) == {ids[0]}
    add = {"op": "add", "path": "members", "value": [{"value": names[1]}, {"value": ids[0]}]}
    assert idp.patch(f"/Groups/{group}", add).status_code == 204
    assert idp.members(group) == set(ids)
    assert idp.patch(f"/Groups/{group}", {"op": "remove", "path": f'members[value eq "{names[1]}"]'}).status_code == 204
    assert idp.members(group) == {ids[0]}
    listed = [{"value": names[1]}]
    assert idp.send("PUT", f"/Groups/{group}", schemas=[CORE + "Group"], displayName="g", members=listed).status_code == 200
    assert idp.members(group) == {ids[1]}
    refused = idp.group("nobody")
    assert (refused.status_code, refused.json()["scimType"]) == (400, "invalidValue")
    assert "nobody" in refused.json()["detail"]


def test_filters_on_members_use_the_other_key_too(connected: Any) -> None:
    idp = connected("filters-by-key", "generic-externalid")
    kept, gone = (idp.user(f"{key}@corp", externalId=key) for key in ("kept", "gone"))
    group = idp.group("kept").json()["id"]

    def removed(selected: str) -> Any:
        add = {"op": "add", "path": "members", "value": [{"value": "gone"}]}
        idp.patch(f"/Groups/{group}", add)
        assert idp.members(group) == {kept, gone}
        return idp.patch(f"/Groups/{group}", {"op": "remove", "path": f"members[{selected}]"})

    for selected in ('value eq "gone" and type eq "User"', 'type eq "User" and not (value eq "kept")', 'value ne "kept"'):
        assert removed(selected).status_code == 204
        assert idp.members(group) == {kept}
    refused = removed('value sw "gone"')
    assert (refused.status_code, refused.json()["scimType"]) == (400, "invalidFilter")
    for query in ('members.value eq "gone"', f'members[value eq "gone"] and displayName pr and members.value eq "{kept}"'):
        assert [found["id"] for found in idp.found("/Groups", query)] == [group]
    assert idp.found("/Groups", 'members.value eq "nobody"') == []


def test_a_key_that_two_users_have_is_refused(connected: Any) -> None:
    idp = connected("generic-externalid", "generic-externalid")
    for name in ("twin-1", "twin-2"):
        idp.user(name, externalId="twin")
    refused = idp.group("twin")
    assert (refused.status_code, refused.json()["scimType"]) == (400, "invalidValue")
    assert "2 users" in refused.json()["detail"]


def test_a_profile_that_refuses_unknown_members_accepts_no_other_key(connected: Any) -> None:
    idp = connected("strict-members", "generic")
    ada = idp.user("ada", externalId="e1")
    named = idp.group("e1")
    assert named.status_code == 400
    assert named.json()["detail"].endswith("It is the externalId of a user of this directory.")
    assert "generic-externalid" in fix_of(400, "invalidValue", named.json()["detail"])
    unknown = idp.group("ada")
    assert unknown.status_code == 400
    assert "externalId" not in unknown.json()["detail"]
    taken = idp.send("POST", "/Users", schemas=[CORE + "User"], userName="ADA")
    assert taken.status_code == 409
    assert f"user {ada} of this directory" in taken.json()["detail"]


def test_the_events_have_the_mapped_user(connected: Any) -> None:
    idp = connected("mapped", "entra")
    roles = [{"value": '{"id":"7","value":"auditor","displayName":"Auditor"}'}]
    body = {"roles": roles, "externalId": "x", ENTERPRISE: {"department": "Payroll", "manager": "26"}}
    user = idp.user("ada", **body)
    (event,) = idp.events(types="user.created")
    assert list(event["data"]) == ["object", "changes", "user"]
    assert event["data"]["user"] == {
        "id": user, "external_id": "x", "user_name": "ada", "active": True, "department": "Payroll", "manager_id": "26",
        "roles": ["auditor"],
    }  # fmt: skip
    assert event["data"]["object"]["roles"] == roles, "what the IdP wrote is what it reads back"


@pytest.mark.parametrize("name", ["entra", "okta"])
@pytest.mark.skipif(not CORPUS.exists(), reason="the recorded dialogues are not part of this copy")
def test_the_dialogues_of_an_idp_pass_with_its_own_profile(connected: Any, tmp_path: Path, name: str) -> None:
    idp = connected(f"dialogues-{name}", name)
    for dialogue in (CORPUS / "dev").glob(f"{name}-*.json"):
        (tmp_path / dialogue.name).write_bytes(dialogue.read_bytes())
    command = [
        sys.executable,
        str(CORPUS / "runner.py"),
        "--base",
        idp.base,
        "--token",
        idp.token,
        "--require-all",
        str(tmp_path),
    ]
    run = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stdout


def test_the_command_line_shows_tries_and_validates(connected: Any, tmp_path: Path) -> None:
    idp = connected("mapped", "entra")
    listed = json.loads(idp.cli("directory", "profile", "list", "--json"))["data"]
    assert {"profile": "entra@1", "title": "Microsoft Entra ID", "shipped": True} in listed
    assert json.loads(idp.cli("directory", "profile", "show", "mapped", "--json"))["profile"] == "entra@1"
    assert "string_booleans" in idp.cli("directory", "profile", "show", "entra")
    assert "There is no profile nope here" in idp.cli("directory", "profile", "show", "nope", code=4)
    assert "There is no profile nope here" in idp.cli("directory", "profile", "set", "mapped", "nope", code=2)

    request = tmp_path / "request.json"
    operation = {"op": "Replace", "path": "active", "value": "False"}
    request.write_text(
        json.dumps({"method": "PATCH", "path": "/Users/1", "body": {"schemas": [PATCH], "Operations": [operation]}})
    )
    tried = json.loads(idp.cli("directory", "profile", "try", "entra", str(request), "--json"))
    assert tried["operations"] == [{"op": "replace", "path": "active", "value": False}]
    assert tried["tolerances"] == ["op_case", "string_booleans"]
    assert '"error"' in idp.cli("directory", "profile", "try", "okta", str(request), code=1)
    request.write_text("[]")
    assert "must hold an object" in idp.cli("directory", "profile", "try", "okta", str(request), code=2)

    shipped = ROOT / "scim" / "profiles" / "okta@1.toml"
    assert json.loads(idp.cli("directory", "profile", "validate", str(shipped), "--json")) == {"valid": True, "profile": "okta@1"}
    broken = tmp_path / "broken.toml"
    broken.write_text(shipped.read_text().replace('"id_in_value"', '"id_in_vlaue"'))
    assert "there is no tolerance id_in_vlaue" in idp.cli("directory", "profile", "validate", str(broken), code=1)


def test_a_ledger_of_a_newer_release_is_refused_at_the_start_with_the_reason(make_service: Callable[..., Service]) -> None:
    service = make_service()
    cluster = embedded.running(service.data_dir / "postgres")
    assert cluster is not None
    with psycopg.connect(cluster.url("ledger_owner", "ledger")) as conn:
        conn.execute("update ledger.directories set profile = 'okta@99' where slug = 'acme'")
    assert service.stop() == 0
    said = r"(?s)ended with 2: .*Directory acme has the profile okta@99, which this release does not know"
    with pytest.raises(AssertionError, match=said):
        service.start()
    assert service.process is not None
    assert service.process.stdout is not None
    service.process.stdout.close()


# ---- over HTTP, and profiles of operators --------------------------------------------------------------------------------------

SHIPPED = ROOT / "scim" / "profiles"


def of_our_own(**changed: Any) -> dict[str, Any]:
    document = {**tomllib.loads((SHIPPED / "okta@1.toml").read_text()), "name": "our-idp", "title": "Our IdP"}
    return {**document, **changed}


def test_profiles_are_listed_and_shown_to_operators_auditors_and_admins(service: Service) -> None:
    with service.client("auditor") as reader, service.client("scim") as client:
        listed = reader.get(service.base + "/v1/profiles").json()["data"]
        assert {"profile": "okta@1", "title": "Okta", "shipped": True} in listed
        shown = reader.get(service.base + "/v1/profiles/okta").json()
        assert (shown["profile"], shown["document"]["unknown_member"]) == ("okta@1", "refuse")
        assert reader.get(service.base + "/v1/profiles/okta@1").json() == shown
        missing = reader.get(service.base + "/v1/profiles/okta@9")
        assert (missing.status_code, missing.json()["code"]) == (404, "not_found")
        assert "okta@1" in missing.json()["detail"]
        own = reader.get(service.base + "/v1/directories/acme/profile").json()
        assert (own["directory"], own["profile"]) == ("acme", "generic@1")
        for path in ("/v1/profiles", "/v1/profiles/okta", "/v1/directories/acme/profile"):
            assert client.get(service.base + path).status_code == 403
        assert reader.get(service.base + "/v1/directories/nowhere/profile").status_code == 403


def test_setting_a_profile_over_http_is_one_event_and_setting_it_again_is_none(connected: Any) -> None:
    idp = connected("over-http", "generic")
    url = f"{idp.service.base}/v1/directories/over-http/profile"
    with idp.service.client("admin") as admin, idp.service.client("operator") as operator:
        assert operator.put(url, json={"profile": "okta"}).status_code == 403
        assert admin.put(url, json={"profile": "okta"}).json()["profile"] == "okta@1"
        assert admin.put(url, json={"profile": "okta@1"}).status_code == 200
        assert operator.get(url).json()["profile"] == "okta@1"
        for wrong in ({"profile": "nope"}, {"profile": 5}, {}, {"profile": {"name": "x"}}):
            refused = admin.put(url, json=wrong)
            assert (refused.status_code, refused.json()["code"]) == (400, "refused"), refused.text
        for path in (url, idp.service.base + "/v1/profiles/validate", idp.service.base + "/v1/profiles/try"):
            refused = admin.request("PUT" if path == url else "POST", path, json={"profile": "okta", "dry_run": True})
            assert [error["field"] for error in refused.json()["errors"]] == ["dry_run"], (
                "what is ignored could change what is meant"
            )
        taken = admin.put(url, json={"profile": of_our_own(name="okta")})
        assert (taken.status_code, taken.json()["code"]) == (409, "name_taken"), taken.text
        assert admin.put(url, content=b" " * (2**18 + 1)).status_code == 413
        assert admin.put(url.replace("over-http", "nowhere"), json={"profile": "okta"}).status_code == 403
    changes = [event["data"]["changes"] for event in idp.events(types="directory.profile_changed")]
    assert changes == [[{"path": "profile", "from": "generic@1", "to": "okta@1"}]]


def test_a_profile_of_an_operator_is_stored_with_its_version_and_survives_a_restart(
    make_service: Callable[..., Service], tmp_path: Path
) -> None:
    service = make_service()
    idp = Connection(service, "ours", "generic")
    file = tmp_path / "ours.json"
    file.write_text(json.dumps(of_our_own(tolerances=["op_case"])))
    assert idp.cli("directory", "profile", "set", "ours", str(file), "--json") == '{"directory":"ours","profile":"our-idp@1"}\n'
    assert json.loads(idp.cli("directory", "profile", "set", "ours", str(file), "--json"))["profile"] == "our-idp@1"
    file.write_text(json.dumps(of_our_own(tolerances=[])))
    assert "would stand for two profiles. Give yours a version" in idp.cli(
        "directory", "profile", "set", "ours", str(file), code=4
    )
    file.write_text(json.dumps(of_our_own(name="generic", version=7)))
    assert "Give yours a name" in idp.cli("directory", "profile", "set", "ours", str(file), code=4)
    for _ in range(200):
        user = idp.user(f"ada{random.random()}")
        op = {"op": "Replace", "path": "active", "value": "False"}
        refused = idp.patch(f"/Users/{user}", op)
        if refused.status_code == 400:
            break
    assert "active" in refused.json()["detail"], "op_case is tolerated, a string as boolean is not"
    assert idp.events()[-1]["profile"] == "our-idp@1"
    assert "our-idp@1" in idp.cli("directory", "profile", "list")
    assert idp.cli("directory", "profile", "show", "our-idp").startswith("our-idp@1: Our IdP")
    assert idp.cli("directory", "profile", "show", "ours").startswith("our-idp@1: Our IdP")
    with service.client("admin") as admin:
        second = of_our_own(version=2, tolerances=["string_booleans"])
        assert admin.put(service.base + "/v1/directories/ours/profile", json={"profile": second}).json()["profile"] == "our-idp@2"
        assert admin.get(service.base + "/v1/profiles/our-idp").json()["document"]["version"] == 2
    idp.client.close()
    assert service.stop() == 0
    service.start()
    another = Connection(service, "another", "our-idp@1")
    another.client.close()
    assert another.profile == "our-idp@1"
    with service.client("auditor") as reader:
        assert reader.get(service.base + "/v1/directories/ours/profile").json()["profile"] == "our-idp@2"


def test_objects_of_a_connection_test_are_counted_separately(connected: Any) -> None:
    idp = connected("tested", "jumpcloud")
    idp.user("ada@corp.example")
    ghost = idp.user("scim-test@corp.example")
    assert idp.patch(f"/Users/{ghost}", {"op": "replace", "path": "active", "value": False}).status_code == 200
    last = idp.send("DELETE", f"/Users/{ghost}")
    assert last.status_code == 204
    with idp.service.client("operator") as operator:
        for _ in range(10_000):  # the journal is written within a second
            page = operator.get(idp.service.base + "/v1/requests", params={"directory": "tested"}).json()["data"]
            if page and page[0]["request_id"] == last.headers["X-Request-Id"]:
                break
        assert [row["tolerances"] for row in page] == [["test_object"]] * 3 + [[]]
        health = operator.get(f"{idp.service.base}/v1/directories/tested/health").json()
    assert (health["test_objects"], health["tolerances"]) == (3, [])


def test_a_dry_run_uses_the_extension_schemas_of_a_directory(connected: Any, tmp_path: Path) -> None:
    idp = connected("schemas", "generic")
    schema, request = tmp_path / "schema.json", tmp_path / "request.json"
    schema.write_text(json.dumps(SCHEMA))
    idp.cli("directory", "schema", "add", "schemas", str(schema))
    body = {"schemas": [CORE + "User"], "userName": "ada", URN: {"number": "A", "floor": "three"}}
    request.write_text(json.dumps({"method": "POST", "path": "/Users", "body": body}))
    assert "error" not in json.loads(idp.cli("directory", "profile", "try", "okta", str(request), "--json"))
    with_schemas = ("directory", "profile", "try", "schemas", str(request), "--directory", "schemas", "--json")
    tried = json.loads(idp.cli(*with_schemas, code=1))
    assert (tried["profile"], tried["error"]["scimType"]) == ("generic@1", "invalidValue")
    wrong = idp.cli("directory", "profile", "try", "okta", str(request), "--directory", "nowhere", code=4)
    assert "There is no directory of that name" in wrong
