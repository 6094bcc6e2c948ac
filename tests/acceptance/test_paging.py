"""Lists page by page with cursors (RFC 9865), while others write."""

import random
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from scim2_models import ListResponse, ServiceProviderConfig, User

from tests.acceptance.conftest import Service

USER = "urn:ietf:params:scim:schemas:core:2.0:User"
GROUP = "urn:ietf:params:scim:schemas:core:2.0:Group"
SEARCH = "urn:ietf:params:scim:api:messages:2.0:SearchRequest"


def _create(client: httpx.Client, service: Service, name: str, **more: Any) -> str:
    answer = client.post(service.scim + "/Users", json={"schemas": [USER], "userName": name, **more})
    assert answer.status_code == 201, answer.text
    return answer.json()["id"]


def _pages(
    client: httpx.Client, url: str, params: dict[str, str], between: Callable[[int], None] | None = None
) -> list[list[str]]:
    pages, cursor = [], ""
    while True:
        answer = client.get(url, params={**params, "cursor": cursor})
        assert answer.status_code == 200, answer.text
        found = answer.json()
        ListResponse[User].model_validate(found)
        assert "startIndex" not in found
        assert found["itemsPerPage"] == len(found["Resources"])
        pages.append([r["id"] for r in found["Resources"]])
        if "nextCursor" not in found:
            return pages
        cursor = found["nextCursor"]
        if between is not None:
            between(len(pages))


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"filter": 'userName sw "{tag}"'},
        {"sortBy": "title"},
        {"filter": "title pr", "sortBy": "userName", "sortOrder": "descending"},
    ],
)
def test_an_importer_sees_everybody_exactly_once(make_service: Callable[..., Service], more: dict[str, str]) -> None:
    service = make_service()
    with service.client("scim") as client:
        stay = [_create(client, service, f"u{n:02}", title=random.choice("abc")) for n in range(12)]
        leave = [_create(client, service, f"u{n:02}x", title=random.choice("abc")) for n in range(12)]

        def churn(n: int) -> None:
            for gone in leave[n * 2 - 2 : n * 2]:
                assert client.delete(f"{service.scim}/Users/{gone}").status_code == 204
            _create(client, service, f"u{random.random()}", title=random.choice("abc"))

        params = {**more, "count": "3"}
        if "filter" in params:
            params["filter"] = params["filter"].format(tag="u")
        seen = [found for page in _pages(client, service.scim + "/Users", params, churn) for found in page]
        assert len(seen) == len(set(seen))
        assert set(stay) <= set(seen)


def test_a_page_begins_after_the_last_resource_even_if_that_was_deleted(service: Service) -> None:
    tag = f"gone-{random.random()}"
    with service.client("scim") as client:
        made = [_create(client, service, f"{tag}{n}", displayName=tag) for n in range(5)]
        for more in ({}, {"sortBy": "userName"}):
            params = {"filter": f'displayName eq "{tag}"', "count": "2", **more}
            first = client.get(service.scim + "/Users", params={**params, "cursor": ""}).json()
            assert first["totalResults"] == len(made)
            assert [r["id"] for r in first["Resources"]] == made[:2]
            client.delete(f"{service.scim}/Users/{made.pop(1)}")
            second = client.get(service.scim + "/Users", params={**params, "cursor": first["nextCursor"]}).json()
            assert [r["id"] for r in second["Resources"]] == made[1:3]
        changed = [{"op": "replace", "path": "title", "value": "x"}]
        patch = {"schemas": ["urn:ietf:params:scim:api:messages:2.0:PatchOp"], "Operations": changed}
        for user in made:
            assert client.patch(f"{service.scim}/Users/{user}", json=patch).status_code == 200
        lost = client.get(service.scim + "/Users", params={**params, "cursor": first["nextCursor"]})
        assert (lost.status_code, lost.json()["scimType"]) == (400, "invalidCursor")
        assert _pages(client, service.scim + "/Users", params) == [made[:2], made[2:]]


def test_searches_and_lists_of_both_types_have_cursors(service: Service) -> None:
    tag = f"both-{random.random()}"
    with service.client("scim") as client:
        user = _create(client, service, tag, displayName=tag)
        group = client.post(service.scim + "/Groups", json={"schemas": [GROUP], "displayName": tag}).json()["id"]
        message = {"schemas": [SEARCH], "filter": f'displayName eq "{tag}"', "count": 1, "cursor": ""}
        first = client.post(service.scim + "/.search", json=message).json()
        second = client.post(service.scim + "/.search", json={**message, "cursor": first["nextCursor"]}).json()
        assert [r["id"] for r in first["Resources"] + second["Resources"]] == [user, group]
        assert "nextCursor" not in second
        refused = client.post(service.scim + "/.search", json={**message, "cursor": 5})
        assert (refused.status_code, refused.json()["scimType"]) == (400, "invalidCursor")
        assert "nextCursor" not in client.post(service.scim + "/.search", json={**message, "cursor": None}).json()
        groups = client.get(service.scim + "/Groups?cursor&count=200").json()
        assert group in [r["id"] for r in groups["Resources"]]


def test_a_cursor_is_valid_for_its_query_only(service: Service) -> None:
    tag = f"tied-{random.random()}"
    with service.client("scim") as client:
        for n in range(3):
            _create(client, service, f"{tag}{n}", displayName=tag)
        params = {"filter": f'displayName eq "{tag}"', "count": "1", "cursor": ""}
        cursor = client.get(service.scim + "/Users", params=params).json()["nextCursor"]
        assert tag not in cursor
        good = {**params, "cursor": cursor}
        assert client.get(service.scim + "/Users", params=good).status_code == 200
        for changed, scim_type in (
            ({"filter": f'displayName eq "{tag}" and active eq true'}, "invalidCursor"),
            ({"sortBy": "userName"}, "invalidCursor"),
            ({"cursor": "nonsense"}, "invalidCursor"),
            ({"cursor": "é\0"}, "invalidCursor"),
            ({"cursor": cursor + "A"}, "invalidCursor"),
            ({"startIndex": "2"}, "invalidCursor"),
            ({"count": "2"}, "invalidCount"),
            ({"count": "many"}, "invalidCount"),
        ):
            answer = client.get(service.scim + "/Users", params={**good, **changed})
            assert (answer.status_code, answer.json()["scimType"]) == (400, scim_type), changed
        assert client.get(service.scim + "/Groups", params=good).json()["scimType"] == "invalidCursor"


@pytest.mark.parametrize("count", [0, -5])
def test_a_count_of_zero_with_a_cursor_is_refused(service: Service, count: int) -> None:
    """An empty page without nextCursor would mean that the walk is over, although resources are left."""
    with service.client("scim") as client:
        for n in range(2):
            _create(client, service, f"none-{n}-{random.random()}")
        following = client.get(service.scim + "/Users", params={"cursor": "", "count": "1"}).json()["nextCursor"]
        for cursor in ("", following):
            for more in ({}, {"filter": "userName pr"}, {"sortBy": "userName"}):
                query = {"cursor": cursor, "count": count, **more}
                message = {"schemas": [SEARCH], **query}
                answers = [
                    client.get(service.scim + "/Users", params=query),
                    client.post(service.scim + "/.search", json=message),
                ]
                for answer in answers:
                    assert (answer.status_code, answer.json()["scimType"]) == (400, "invalidCount"), query
                    assert answer.json()["detail"].startswith("count:")


def test_a_count_of_zero_and_a_count_above_the_maximum(service: Service) -> None:
    with service.client("scim") as client:
        _create(client, service, f"count-{random.random()}")
        for count in ("0", "-5"):
            by_index = client.get(service.scim + "/Users", params={"count": count}).json()
            assert by_index["totalResults"] > 0
            assert by_index["Resources"] == []
        found = client.get(service.scim + "/Users", params={"cursor": "", "count": "100000"}).json()
        assert found["itemsPerPage"] <= 200
        by_index = client.get(service.scim + "/Users", params={"count": "1"}).json()
        assert by_index["startIndex"] == 1
        assert "nextCursor" not in by_index
        config = client.get(service.scim + "/ServiceProviderConfig").json()
        read = ServiceProviderConfig.model_validate(config).pagination
        assert read is not None
        assert (read.cursor, read.index, read.default_page_size, read.max_page_size) == (True, True, 200, 200)
