"""Extension schemas per directory, registered while the service runs."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.acceptance.conftest import Service
from tests.unit.scim.test_scim_extension import SCHEMA, URN

USER = "urn:ietf:params:scim:schemas:core:2.0:User"
PATCH = "urn:ietf:params:scim:api:messages:2.0:PatchOp"


def test_a_schema_registered_over_http_is_enforced_at_once(make_service: Callable[..., Service]) -> None:
    service = make_service()
    url = service.base + "/v1/directories/acme/schemas"
    with service.client("scim") as client, service.client("admin") as admin:
        before = client.post(
            service.scim + "/Users", json={"schemas": [USER, URN], "userName": "old", URN: {"floor": "third"}}
        ).json()
        body: dict[str, Any] = {"resource_type": "User", "schema": SCHEMA}
        registered = admin.post(url, json=body)
        assert registered.status_code == 201, registered.text
        assert registered.json()["data"] == [body]
        assert admin.post(url, json=body).status_code == 200
        changed = {**body, "schema": {**SCHEMA, "name": "Other"}}
        taken = admin.post(url, json=changed)
        assert (taken.status_code, taken.json()["code"]) == (409, "name_taken"), taken.text
        for refused in (
            {"schema": 5},
            {**body, "resource_type": "Thing"},
            {"schema": {"id": "x"}},
            {"schema": {**SCHEMA, "id": USER}},
        ):
            answer = admin.post(url, json=refused)
            assert (answer.status_code, answer.json()["code"]) == (400, "refused"), answer.text
        assert admin.get(url).json()["data"] == [body]
        assert admin.post(url.replace("acme", "nowhere"), json=body).status_code == 403
        assert admin.post(url, content=b" " * (2**20 + 1)).status_code == 413
        assert client.post(url, json=body).status_code == 403

        assert client.get(f"{service.scim}/Schemas/{URN}").json()["name"] == "Badge"
        assert {"schema": URN, "required": False} in client.get(service.scim + "/ResourceTypes/User").json()["schemaExtensions"]

        def create(name: str, inner: dict[str, Any]) -> Any:
            return client.post(service.scim + "/Users", json={"schemas": [USER, URN], "userName": name, URN: inner})

        made = create("new", {"number": "A1", "floor": 3, "issuer": "x", "pin": "1", "note": "n"})
        assert made.status_code == 201, made.text
        # attributes that are returned on request were sent in this request
        assert made.json()[URN] == {"number": "A1", "floor": 3, "note": "n"}
        assert client.get(made.headers["Location"]).json()[URN] == {"number": "A1", "floor": 3}
        assert create("wrong", {"number": "A1", "floor": "three"}).json()["scimType"] == "invalidValue"
        assert create("wrong", {"floor": 3}).json()["scimType"] == "invalidValue"
        user = made.json()["meta"]["location"]
        operation = {"op": "replace", "path": f"{URN}:number", "value": "B"}
        answer = client.patch(user, json={"schemas": [PATCH], "Operations": [operation]})
        assert (answer.status_code, answer.json()["scimType"]) == (400, "mutability")
        for name, shown in (("floor", {"number": "A1", "floor": 3}), ("note", {"number": "A1", "floor": 3, "note": 3})):
            operation = {"op": "replace", "path": f"{URN}:{name}", "value": 3 if name == "floor" else "3"}
            answer = client.patch(user, json={"schemas": [PATCH], "Operations": [operation]})
            assert json.dumps(answer.json()[URN]) == json.dumps(shown).replace('"note": 3', '"note": "3"')
        put = {"schemas": [USER, URN], "userName": "new", URN: {"number": "B"}}
        assert client.put(user, json=put).json()["scimType"] == "mutability"
        assert client.put(user, json={**put, URN: {"number": "A1", "floor": 4}}).status_code == 200
        bulk = {
            "method": "POST",
            "path": "/Users",
            "bulkId": "1",
            "data": {"schemas": [USER, URN], "userName": "b", URN: {"floor": 1}},
        }
        message = {"schemas": ["urn:ietf:params:scim:api:messages:2.0:BulkRequest"], "Operations": [bulk]}
        assert client.post(service.scim + "/Bulk", json=message).json()["Operations"][0]["status"] == "400"
        for endpoint in ("/Users", ""):
            found = client.get(
                service.scim + endpoint, params={"filter": f'{URN}:number eq "A1"', "sortBy": f"{URN}:floor"}
            ).json()
            assert [r["userName"] for r in found["Resources"]] == ["new"]
        assert client.get(service.scim + "/Users", params={"filter": f"{URN}:nothing pr"}).json()["scimType"] == "invalidFilter"

        old = client.get(before["meta"]["location"]).json()
        assert (old[URN], old["meta"]["version"]) == ({"floor": "third"}, 'W/"1"')
        title = {"schemas": [PATCH], "Operations": [{"op": "add", "path": "title", "value": "t"}]}
        assert client.patch(before["meta"]["location"], json=title).json()[URN] == {"floor": "third"}
    with service.client("consumer") as reader:
        params = {"directory": "acme", "types": "directory.schema_registered"}
        events = reader.get(service.base + "/v1/events", params=params).json()["data"]
        assert [e["data"]["changes"] for e in events] == [[{"path": "schemas", "to": URN}]]


def test_the_command_line_registers_a_schema_for_one_directory_and_the_service_uses_it(
    make_service: Callable[..., Service], tmp_path: Path
) -> None:
    service = make_service()
    file = tmp_path / "badge.json"
    group_urn = "urn:example:badge:Group"
    file.write_text(json.dumps({**SCHEMA, "id": group_urn}))
    assert service.cli("directory", "create", "beta").returncode == 0
    added = service.cli("directory", "schema", "add", "acme", str(file), "--resource-type", "Group")
    assert added.returncode == 0, added.stderr
    deadline = time.monotonic() + 2
    with service.client("scim") as client:
        while client.get(f"{service.scim}/Schemas/{group_urn}").status_code != 200:
            assert time.monotonic() < deadline
        groups = client.get(service.scim + "/ResourceTypes/Group").json()
        assert groups["schemaExtensions"] == [{"schema": group_urn, "required": False}]
        wrong = {"schemas": ["urn:ietf:params:scim:schemas:core:2.0:Group"], "displayName": "g", group_urn: {"floor": 1}}
        assert client.post(service.scim + "/Groups", json=wrong).status_code == 400
        right = client.post(service.scim + "/Groups", json={**wrong, group_urn: {"number": "1"}}).json()
        assert (
            client.put(right["meta"]["location"], json={**wrong, group_urn: {"number": "2"}}).json()["scimType"] == "mutability"
        )
    listed = json.loads(service.cli("directory", "schema", "list", "acme", "--json").stdout)["data"]
    assert [(row["resource_type"], row["schema"]["id"]) for row in listed] == [("Group", group_urn)]
    assert json.loads(service.cli("directory", "schema", "list", "beta", "--json").stdout)["data"] == []
    file.write_text("{}")
    for code, words in (
        (2, ("add", "acme", str(file))),
        (2, ("add", "acme", str(tmp_path / "none"))),
        (4, ("add", "nowhere", str(file))),
        (4, ("list", "nowhere")),
    ):
        refused = service.cli("directory", "schema", *words)
        assert refused.returncode == code, refused
        assert "Traceback" not in refused.stderr
