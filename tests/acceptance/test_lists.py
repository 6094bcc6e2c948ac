"""Every list over HTTP has one shape, and is read by one loop."""

from typing import Any

import httpx
import pytest

from tests.acceptance.conftest import Service, until
from tests.served import served

CORE_USER, CORE_GROUP = (f"urn:ietf:params:scim:schemas:core:2.0:{kind}" for kind in ("User", "Group"))
LISTS = (
    "/v1/consumers", "/v1/directories", "/v1/directories/acme/schemas", "/v1/events", "/v1/events?directory=acme", "/v1/profiles", "/v1/replays",
    "/v1/requests", "/v1/tokens", "/v1/clients", "/v1/keys", "/v1/audit/acme/population", "/v1/audit/acme/diff?from=seq:1", "/v1/consumers/listed/blocked",
    "/v1/consumers/listed/parked", "/v1/consumers/listed/events", "/v1/audit/acme/users/{user}/access", "/v1/audit/acme/groups/{group}/members",
    "/v1/directories/acme/users", "/v1/directories/acme/groups",
    "/v1/directories/acme/erasures", "/v1/directories/acme/holds",
)  # fmt: skip


@pytest.fixture(scope="session")
def ids(service: Service) -> dict[str, str]:
    with service.client("admin") as admin:
        assert admin.put(f"{service.base}/v1/consumers/listed", json={"directories": ["acme"]}).status_code in {200, 201}
    with service.client("scim") as idp:
        users = [
            idp.post(f"{service.scim}/Users", json={"schemas": [CORE_USER], "userName": f"of-the-lists-{n}"}).json()["id"]
            for n in range(3)
        ]
        user, members = users[0], [{"value": users[0]}]
        body = {"schemas": [CORE_GROUP], "displayName": "of the lists", "members": members}
        group = idp.post(f"{service.scim}/Groups", json=body).json()["id"]
    until(lambda: len(asked(service, "/v1/requests")["data"]) >= 3)  # the journal is written a moment after the answer
    return {"user": user, "group": group}


def asked(service: Service, path: str) -> dict[str, Any]:
    for role in ("admin", "auditor", "consumer"):
        headers = {"Authorization": f"Bearer {service.first_run['tokens'][role]}"}
        answer = httpx.get(service.base + path, headers=headers, trust_env=False, timeout=60)
        if answer.status_code == 200:
            return answer.json()
    raise AssertionError(answer.text)


@pytest.mark.parametrize("path", LISTS)
def test_a_list_has_data_the_next_place_and_whether_there_is_more(service: Service, ids: dict[str, str], path: str) -> None:
    found = asked(service, path.format_map(ids))
    assert found["object"] == "list"
    assert isinstance(found["data"], list)
    assert set(found["list_metadata"]) == {"after"}
    assert isinstance(found["has_more"], bool)


@pytest.mark.parametrize(
    "path",
    [
        "/v1/requests?limit=200",
        "/v1/audit/acme/population?limit=200",
        "/v1/directories/acme/users?limit=200",
        "/v1/events?limit=1000&directory=acme",
    ],
)
def test_a_loop_until_there_is_no_more_reads_everything_once(service: Service, ids: dict[str, str], path: str) -> None:
    rows: list[dict[str, Any]] = []
    after = ""
    while True:
        page = asked(service, f"{path.format_map(ids)}{after}")
        rows += page["data"]
        if not page["has_more"]:
            break
        after = f"&after={page['list_metadata']['after']}"
    assert len(rows) >= 2
    assert len({row["id"] for row in rows}) == len(rows)


def test_every_route_that_lists_is_tested_here() -> None:
    listing = {
        route.path
        for route in served()
        if route.name.endswith(".list") or route.name.rpartition(".")[2] in {"blocked", "parked", "pull"}
    }
    tested = {path.partition("?")[0].replace("/acme", "/{directory}").replace("/listed", "/{name}") for path in LISTS}
    assert listing <= tested, sorted(listing - tested)
