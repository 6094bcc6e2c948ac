"""A group of many members: it is streamed in bounded parts, one or all members are changed, and members are not read for requests
without them.
"""

import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import psycopg
import pytest

from api.scim.http import PART_BYTES
from api.scim.resources import MEMBERS_PIECE
from runtime import embedded
from tests.acceptance.conftest import Service

USER = "urn:ietf:params:scim:schemas:core:2.0:User"
GROUP = "urn:ietf:params:scim:schemas:core:2.0:Group"
PATCH = "urn:ietf:params:scim:api:messages:2.0:PatchOp"
BULK = "urn:ietf:params:scim:api:messages:2.0:BulkRequest"
MEMBERS = 3_000
MEMBER_BYTES_MAX = 200  # value, type and $ref as JSON


@pytest.fixture(scope="session")  # not "module": a process may run tests of another file in between
def people(service: Service) -> list[str]:
    """Users, twice as many as the group will have as members."""
    ids: list[str] = []
    with service.client("scim") as client:
        for start in range(0, 2 * MEMBERS, 1_000):
            made = [{"schemas": [USER], "userName": f"many-{start + n}"} for n in range(1_000)]
            operations = [{"method": "POST", "path": "/Users", "bulkId": f"b{n}", "data": user} for n, user in enumerate(made)]
            answer = client.post(service.scim + "/Bulk", json={"schemas": [BULK], "Operations": operations})
            ids += [operation["location"].rsplit("/", 1)[1] for operation in answer.json()["Operations"]]
    return ids


@contextmanager
def group_of(service: Service, client: httpx.Client, members: list[str]) -> Iterator[str]:
    """The path of a group with these members."""
    made = client.post(service.scim + "/Groups?excludedAttributes=members", json=_group(members))
    assert made.status_code == 201, made.text
    path = f"/scim/acme/v2/Groups/{made.json()['id']}"
    yield path
    assert client.delete(service.base + path).status_code == 204
    assert client.get(service.base + path).status_code == 404


def _group(members: list[str]) -> dict[str, Any]:
    return {"schemas": [GROUP], "displayName": "Many", "members": [{"value": member} for member in members]}


def _members(client: httpx.Client, url: str) -> list[str]:
    return [member["value"] for member in client.get(url).json().get("members", [])]


def _chunks(service: Service, path: str) -> tuple[bytes, list[bytes]]:
    """(head, chunks) of an answer, as they arrive."""
    token = service.first_run["tokens"]["scim"]
    with socket.create_connection(("127.0.0.1", service.port), timeout=60) as sock, sock.makefile("rb") as answer:
        sock.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n\r\n".encode())
        head, chunks = b"", []
        while (line := answer.readline()) != b"\r\n":
            head += line.lower()
        assert b"transfer-encoding: chunked" in head, head
        while size := int(answer.readline(), 16):
            chunks.append(answer.read(size))
            answer.readline()
    return head, chunks


def test_a_large_group_is_sent_in_parts_of_bounded_size(service: Service, people: list[str]) -> None:
    """However many members the group has, each part has a limited number of them."""
    with service.client("scim") as client, group_of(service, client, people[:MEMBERS]) as path:
        head, chunks = _chunks(service, path)
        assert b"content-length" not in head
        whole = b"".join(chunks)
        assert len(chunks) >= len(whole) / (PART_BYTES + MEMBERS_PIECE * MEMBER_BYTES_MAX) > 1
        assert max(map(len, chunks)) <= PART_BYTES + MEMBERS_PIECE * MEMBER_BYTES_MAX
        assert [member["value"] for member in json.loads(whole)["members"]] == people[:MEMBERS]


def test_one_and_all_members_of_a_large_group_are_changed(service: Service, people: list[str]) -> None:
    first, others, more = people[:MEMBERS], people[MEMBERS:], people[MEMBERS]

    def change(operation: dict[str, Any]) -> int:
        answer = client.patch(url, json={"schemas": [PATCH], "Operations": [operation]})
        assert answer.status_code == 204, answer.text
        return int(answer.headers["Ledger-Seq"])

    with service.client("scim") as client, group_of(service, client, first) as path:
        url = service.base + path
        added = change({"op": "add", "path": "members", "value": [{"value": more}]})
        assert change({"op": "remove", "path": f'members[value eq "{first[0]}"]'}) == added + 1, "one event for each change"
        assert set(_members(client, url)) == {*first[1:], more}
        replaced = client.put(url, json=_group(others))
        assert int(replaced.headers["Ledger-Seq"]) == added + 1 + 2 * (MEMBERS - 1), (
            "one event for each member that is removed or added"
        )
        assert {member["value"] for member in replaced.json()["members"]} == set(others) == set(_members(client, url))
        for member, found in ((others[7], 1), (first[7], 0)):
            params = {"filter": f'members.value eq "{member}"', "excludedAttributes": "members"}
            page = client.get(service.scim + "/Groups", params=params).json()
            assert page["totalResults"] == found
            assert all("members" not in group for group in page.get("Resources", []))


def test_members_that_are_not_requested_are_not_read(service: Service, people: list[str]) -> None:
    """While the table of memberships is locked and cannot be read, a group without its members can be read."""
    cluster = embedded.running(service.data_dir / "postgres")
    assert cluster is not None
    with service.client("scim") as client, group_of(service, client, people[:10]) as path:
        with psycopg.connect(cluster.url("ledger_owner", "ledger")) as conn:
            conn.execute("lock table ledger.memberships in access exclusive mode")
            one = client.get(service.base + path, params={"excludedAttributes": "members"})
            few = client.get(service.base + path, params={"attributes": "displayName"})
            page = client.get(service.scim + "/Groups", params={"excludedAttributes": "members"})
        assert {answer.status_code for answer in (one, few, page)} == {200}
        assert not any("members" in group for group in (one.json(), few.json(), *page.json()["Resources"]))
