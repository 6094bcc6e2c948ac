"""The rules of RFC 7644 about methods, headers and parameters, over HTTP."""

from collections.abc import Iterator
from uuid import uuid4

import httpx
import pytest

from tests.acceptance.conftest import Service

USER = "urn:ietf:params:scim:schemas:core:2.0:User"
GROUP = "urn:ietf:params:scim:schemas:core:2.0:Group"
PATCH = "urn:ietf:params:scim:api:messages:2.0:PatchOp"
BOTH = {"attributes": "userName", "excludedAttributes": "name"}


@pytest.fixture
def client(service: Service) -> Iterator[httpx.Client]:
    with service.client("scim") as client:
        client.base_url = service.scim
        yield client


def _user() -> dict:
    return {"schemas": [USER], "userName": f"http-{uuid4()}"}


def _rename(name: str) -> dict:
    return {"schemas": [PATCH], "Operations": [{"op": "replace", "path": "displayName", "value": name}]}


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("PUT", "/Users", "GET, POST"), ("POST", "/Users/1", "GET, PUT, PATCH, DELETE"), ("GET", "/Bulk", "POST"),
        ("GET", "/Groups/.search", "POST"), ("DELETE", "/Schemas", "GET"), ("OPTIONS", "/Users", "GET, POST"),
    ],
)  # fmt: skip
def test_405_lists_the_allowed_methods(client: httpx.Client, method: str, path: str, allowed: str) -> None:
    answer = client.request(method, path)
    assert (answer.status_code, answer.headers["Allow"]) == (405, allowed)
    assert answer.json()["status"] == "405"


@pytest.mark.parametrize("path", ["/ServiceProviderConfig", "/Schemas", "/ResourceTypes", "/ResourceTypes/User"])
def test_discovery_takes_no_filter(client: httpx.Client, path: str) -> None:
    assert client.get(path, params={"filter": "id pr"}).status_code == 403
    assert client.get(path, params={"count": "1", "sortBy": "id"}).status_code == 200


def test_a_write_with_parameters_that_exclude_each_other_changes_nothing(client: httpx.Client) -> None:
    sent = _user()
    assert client.post("/Users", json=sent, params=BOTH).status_code == 400
    made = client.post("/Users", json=sent)
    assert made.status_code == 201
    url = made.headers["Location"]
    assert client.put(url, json=_user(), params=BOTH).status_code == 400
    assert client.patch(url, json=_rename("x"), params=BOTH).status_code == 400
    assert client.get(url).headers["ETag"] == made.headers["ETag"]


def test_a_group_patch_with_attributes_is_answered_with_them(client: httpx.Client) -> None:
    """RFC 7644 §3.5.2: the server MUST return 200 if `attributes` is specified."""
    member = client.post("/Users", json=_user()).json()["id"]
    made = client.post("/Groups", json={"schemas": [GROUP], "displayName": "a", "members": [{"value": member}]})
    url = made.headers["Location"]
    asked = client.patch(url, json=_rename("b"), params={"attributes": "displayName,members.value"})
    assert (asked.status_code, asked.headers["ETag"]) == (200, client.get(url).headers["ETag"])
    assert "Ledger-Seq" in asked.headers
    shown = {name: asked.json().get(name) for name in ("displayName", "members", "meta")}
    assert shown == {"displayName": "b", "members": [{"value": member}], "meta": None}
    for params in ({}, {"attributes": ""}, {"excludedAttributes": "members"}):
        assert client.patch(url, json=_rename(str(params)), params=params).status_code == 204


def test_every_answer_with_one_resource_has_its_location(client: httpx.Client) -> None:
    """The examples of RFC 7644 §3.4.1 and §3.5.1 show it."""
    sent = _user()
    made = client.post("/Users", json=sent)
    url = made.json()["meta"]["location"]
    answers = [made, client.get(url), client.put(url, json=sent), client.patch(url, json=_rename("x"))]
    assert [answer.headers["Location"] for answer in answers] == [url] * 4


def test_a_user_has_the_groups_above_its_groups_as_indirect(service: Service) -> None:
    """RFC 7643 §4.1.2: direct membership, or through nested groups; circles and diamonds end."""
    with service.client("scim") as client:

        def made(kind: str, **more: object) -> str:
            return client.post(service.scim + kind, json=more).json()["id"]

        user = made("/Users", schemas=[USER], userName="nested")
        below = made("/Groups", schemas=[GROUP], displayName="below", members=[{"value": user}])
        left, right = (
            made("/Groups", schemas=[GROUP], displayName=name, members=[{"value": below}]) for name in ("left", "right")
        )
        top = made("/Groups", schemas=[GROUP], displayName="top", members=[{"value": left}, {"value": right}, {"value": user}])
        circle = {"op": "add", "path": "members", "value": [{"value": top}]}
        client.patch(service.scim + f"/Groups/{below}", json={"schemas": [PATCH], "Operations": [circle]})

        def groups(answer: dict) -> dict[str, str]:
            return {group["value"]: group["type"] for group in answer.get("groups", [])}

        expected = {below: "direct", top: "direct", left: "indirect", right: "indirect"}
        for query in ({"filter": 'userName eq "nested"'}, {"filter": f'groups[value eq "{left}" and type eq "indirect"]'}):
            (found,) = client.get(service.scim + "/Users", params=query).json()["Resources"]
            assert groups(found) == expected
        whole = client.get(service.scim + f"/Users/{user}").json()
        assert groups(whole) == expected
        assert {group["value"]: group["display"] for group in whole["groups"]}[left] == "left"
        newest = {"filter": "active eq true", "sortBy": "meta.created", "sortOrder": "descending"}  # a page has 200 users at most
        for asked, names in (
            ({}, {"value", "display", "type", "$ref"}),
            ({"attributes": "groups.value"}, {"value"}),
            ({"excludedAttributes": "groups.display,groups.$ref"}, {"value", "type"}),
        ):
            page = client.get(service.scim + "/Users", params={**newest, **asked}).json()
            (listed,) = (found for found in page["Resources"] if found["id"] == user)
            assert listed["groups"] == [{name: group[name] for name in group if name in names} for group in whole["groups"]]

        client.delete(service.scim + f"/Groups/{below}")
        assert groups(client.get(service.scim + f"/Users/{user}").json()) == {top: "direct"}
