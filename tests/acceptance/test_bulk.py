"""Bulk, /.search and sorting over HTTP, in the cases that the recorded dialogues do not cover."""

import random

from tests.acceptance.conftest import Service

USER = "urn:ietf:params:scim:schemas:core:2.0:User"
GROUP = "urn:ietf:params:scim:schemas:core:2.0:Group"
ENTERPRISE = "urn:ietf:params:scim:schemas:extension:enterprise:2.0:User"
BULK = "urn:ietf:params:scim:api:messages:2.0:BulkRequest"


def _bulk(service: Service, *operations: dict, **more) -> tuple[int, dict]:
    with service.client("scim") as client:
        answer = client.post(service.scim + "/Bulk", json={"schemas": [BULK], "Operations": list(operations), **more})
        return answer.status_code, answer.json()


def _user(bulk_id: str, name: str) -> dict:
    return {"method": "POST", "path": "/Users", "bulkId": bulk_id, "data": {"schemas": [USER], "userName": name}}


def _group(bulk_id: str, *members: str) -> dict:
    data = {"schemas": [GROUP], "displayName": bulk_id, "members": [{"value": f"bulkId:{m}"} for m in members]}
    return {"method": "POST", "path": "/Groups", "bulkId": bulk_id, "data": data}


def test_groups_in_a_circle_have_each_other_as_members_in_the_end(service: Service) -> None:
    status, answer = _bulk(service, _group("a", "b"), _group("b", "c"), _group("c", "a"))
    assert status == 200
    assert [o["status"] for o in answer["Operations"]] == ["201", "201", "201"]
    with service.client("scim") as client:
        found = [client.get(o["location"]) for o in answer["Operations"]]
    ids = [o["location"].rsplit("/", 1)[1] for o in answer["Operations"]]
    assert [[m["value"] for m in g.json()["members"]] for g in found] == [[ids[1]], [ids[2]], [ids[0]]]
    assert [o["version"] for o in answer["Operations"]] == [g.headers["ETag"] for g in found]


def test_each_operation_is_its_own_commit_and_a_failing_one_fails_alone(service: Service) -> None:
    name = f"bulk-{random.random()}"
    status, answer = _bulk(service, _user("1", name), _user("2", name), _user("3", name + "b"), _group("g", "2"))
    assert status == 200
    assert [o["status"] for o in answer["Operations"]] == ["201", "409", "201", "400"]
    assert answer["Operations"][1]["response"]["scimType"] == "uniqueness"
    with service.client("consumer") as reader:
        events = reader.get(
            service.base + "/v1/events", params={"directory": "acme", "limit": 1000, "types": "user.created"}
        ).json()["data"]
    mine = [e for e in events if e["data"]["object"]["userName"].startswith(name)]
    assert [e["commit"]["size"] for e in mine] == [1, 1]
    assert len({e["request_id"] for e in mine}) == 1


def test_an_unreadable_operation_and_one_that_refers_to_a_failure_fail_alone(service: Service) -> None:
    name = f"alone-{random.random()}"
    rename = {"op": "replace", "path": "title", "value": "see bulkId:1"}
    status, answer = _bulk(
        service,
        _user("1", name),
        {"method": "GET", "path": "/Users", "bulkId": "read"},
        {"method": "POST", "path": "/Devices", "bulkId": "3", "data": {}},
        _user("2", name),
        _group("g", "2"),
        {**_user("4", name + "b"), "data": {"schemas": [USER], "userName": name + "b", "manager": {"value": "bulkId:2"}}},
        {
            "method": "PATCH",
            "path": "/Users/bulkId:1",
            "data": {"schemas": ["urn:ietf:params:scim:api:messages:2.0:PatchOp"], "Operations": [rename]},
        },
        {"method": "DELETE", "path": "/Users/bulkId:1"},
    )
    assert status == 200
    done = answer["Operations"]
    assert [o["status"] for o in done] == ["201", "400", "404", "409", "400", "400", "200", "204"]
    assert "whose creation failed" in done[4]["response"]["detail"]
    assert done[0]["location"] == done[6]["location"] == done[7]["location"]
    assert (done[1]["method"], done[1]["bulkId"]) == ("GET", "read")


def test_after_fail_on_errors_the_remaining_operations_are_not_done(service: Service) -> None:
    name = f"stop-{random.random()}"
    _, answer = _bulk(service, _user("1", name), _user("2", name), _user("3", name + "b"), failOnErrors=1)
    assert [o["status"] for o in answer["Operations"]] == ["201", "409"]
    with service.client("scim") as client:
        assert client.get(service.scim + "/Users", params={"filter": f'userName eq "{name}b"'}).json()["totalResults"] == 0


def test_versions_and_missing_resources_are_answered_per_operation(service: Service) -> None:
    _, made = _bulk(service, _user("1", f"v-{random.random()}"))
    path = made["Operations"][0]["location"].removeprefix(service.scim)
    data = {"schemas": [USER], "userName": f"v-{random.random()}"}
    ghost = "/Users/11111111-2222-4333-8444-555555555555"
    _, answer = _bulk(
        service,
        {"method": "PUT", "path": path, "version": 'W/"99"', "data": data},
        {"method": "PUT", "path": path, "version": 'W/"1"', "data": data},
        {"method": "DELETE", "path": ghost},
        {"method": "PUT", "path": path, "data": None},
        {"method": "PATCH", "path": "/Groups/bulkId:nothing", "data": {}},
    )
    assert [o["status"] for o in answer["Operations"]] == ["412", "200", "404", "400", "400"]
    assert [o["location"] for o in answer["Operations"]] == [
        service.scim + place for place in (path, path, ghost, path, "/Groups/bulkId%3Anothing")
    ]


def test_limits_are_413(service: Service) -> None:
    operations = [_user(str(n), f"x{n}") for n in range(1_001)]
    assert _bulk(service, *operations)[0] == 413
    with service.client("scim") as client:
        assert client.post(service.scim + "/Bulk", content=b"{" + b" " * (16 * 2**20) + b"}").status_code == 413


def test_sorting_is_stable_over_pages_and_types(service: Service) -> None:
    tag = f"sort-{random.random()}"
    with service.client("scim") as client:
        for n in (3, 1, 2):
            client.post(
                service.scim + "/Users",
                json={"schemas": [USER], "userName": f"{tag}{n}", "displayName": tag, "title": str(n % 2)},
            )
        params = {"filter": f'displayName eq "{tag}"', "sortBy": "title", "count": "1"}
        pages = [
            client.get(service.scim + "/Users", params={**params, "startIndex": n}).json()["Resources"][0]["userName"]
            for n in (1, 2, 3)
        ]
        assert pages == [f"{tag}2", f"{tag}3", f"{tag}1"]
        refused = client.get(service.scim + "/Users", params={"sortBy": "colour"})
        assert (refused.status_code, refused.json()["scimType"]) == (400, "invalidPath")
        assert client.get(service.scim + "/Users", params={"sortBy": "title", "sortOrder": "up"}).status_code == 400
        message = {
            "schemas": ["urn:ietf:params:scim:api:messages:2.0:SearchRequest"],
            "filter": f'displayName eq "{tag}"',
            "sortBy": "userName",
            "sortOrder": "descending",
        }
        found = client.post(service.scim + "/.search", json=message).json()["Resources"]
        assert [r["userName"] for r in found] == [f"{tag}{n}" for n in (3, 2, 1)]
        for broken in (
            {"filter": "x"},
            {**message, "filter": 5},
            {**message, "attributes": "userName"},
            {**message, "count": "many"},
        ):
            assert client.post(service.scim + "/.search", json=broken).status_code == 400


def _managed(bulk_id: str, name: str, manager: str) -> dict:
    made = _user(bulk_id, name)
    made["data"] |= {"schemas": [USER, ENTERPRISE], ENTERPRISE: {"manager": {"value": f"bulkId:{manager}"}}}
    return made


def _found(service: Service, kind: str, query: str) -> list[dict]:
    with service.client("scim") as client:
        return client.get(service.scim + f"/{kind}", params={"filter": query}).json().get("Resources", [])


def test_users_who_manage_each_other_have_each_others_ids(service: Service) -> None:
    name = f"pair-{random.random()}"
    _, answer = _bulk(service, _managed("a", name + "a", "b"), _managed("b", name + "b", "a"))
    assert [o["status"] for o in answer["Operations"]] == ["201", "201"]
    found = {u["userName"]: u for u in _found(service, "Users", f'userName sw "{name}"')}
    assert found[name + "a"][ENTERPRISE]["manager"]["value"] == found[name + "b"]["id"]
    assert found[name + "b"][ENTERPRISE]["manager"]["value"] == found[name + "a"]["id"]


def test_no_user_keeps_a_manager_who_was_not_created(service: Service) -> None:
    name = f"orphan-{random.random()}"
    _bulk(service, _user("taken", name + "b"))
    for operations in (
        [_managed("a", name + "a", "b"), _user("b", name + "b")],
        [_managed("a", name + "a", "b"), _managed("b", name + "b", "a")],
    ):
        _, answer = _bulk(service, *operations)
        assert [(o["bulkId"], o["status"], "location" in o) for o in answer["Operations"]] == [
            ("a", "400", False), ("b", "409", False),
        ]  # fmt: skip
        assert "whose creation failed" in answer["Operations"][0]["response"]["detail"]
        assert _found(service, "Users", f'userName eq "{name}a"') == []


def test_of_a_circle_with_a_failure_nothing_is_left_and_other_groups_are_complete(service: Service) -> None:
    tag = f"ring-{random.random()}"
    nameless = _group("c", "a")
    del nameless["data"]["displayName"]
    ring = [_group("a", "b"), _group("b", "c"), nameless]
    pair = [_group("x", "y", "u"), _group("y", "x")]
    for made in (*ring[:2], *pair):
        made["data"]["displayName"] = tag + made["bulkId"]
    _, answer = _bulk(service, *ring, *pair, _user("u", tag), _group("above", "x"))
    statuses = {o["bulkId"]: (o["status"], "location" in o, "version" in o) for o in answer["Operations"]}
    refused, created = ("400", False, False), ("201", True, True)
    assert statuses == dict.fromkeys("abc", refused) | dict.fromkeys(("x", "y", "u", "above"), created)
    groups = {g["displayName"].removeprefix(tag): g for g in _found(service, "Groups", f'displayName sw "{tag}"')}
    assert {name: len(g["members"]) for name, g in groups.items()} == {"x": 2, "y": 1}


def test_a_circle_is_complete_or_deleted_when_fail_on_errors_is_reached(service: Service) -> None:
    tag = f"limit-{random.random()}"

    def ring() -> list[dict]:
        pair = [_group("a", "b"), _group("b", "a")]
        for made in pair:
            made["data"]["displayName"] = tag
        return pair

    nameless = {"method": "POST", "path": "/Groups", "bulkId": "n", "data": {"schemas": [GROUP]}}
    _, answer = _bulk(service, *ring(), nameless, _user("u", tag), failOnErrors=1)
    assert [(o["bulkId"], o["status"]) for o in answer["Operations"]] == [("a", "201"), ("b", "201"), ("n", "400")]
    assert [len(g["members"]) for g in _found(service, "Groups", f'displayName eq "{tag}"')] == [1, 1]

    tag += "-2"
    first, second = ring()
    second["data"]["members"].append({"value": "nobody"})
    third = _group("c", "a")
    first["data"]["members"].append({"value": "bulkId:c"})
    _, answer = _bulk(service, first, second, third, _user("u", tag), failOnErrors=1)
    assert [(o["bulkId"], o["status"]) for o in answer["Operations"]] == [("a", "400"), ("b", "400")]
    assert _found(service, "Groups", f'displayName eq "{tag}"') == []


def test_text_that_only_looks_like_a_reference_is_kept(service: Service) -> None:
    name = f"text-{random.random()}"
    made = _user("n", name)
    made["data"]["title"] = "bulkId: see note"
    _, answer = _bulk(service, made)
    assert answer["Operations"][0]["status"] == "201"
    assert _found(service, "Users", f'userName eq "{name}"')[0]["title"] == "bulkId: see note"


def test_a_circle_may_have_its_attributes_under_the_core_urn(service: Service) -> None:
    tag = f"urn-{random.random()}"
    ring = [_group("a", "b"), _group("b", "a")]
    for made in ring:
        made["data"] = {"schemas": [GROUP], GROUP: {"displayName": tag, "members": made["data"]["members"]}}
    _, answer = _bulk(service, *ring)
    assert [o["status"] for o in answer["Operations"]] == ["201", "201"]
    assert [len(g["members"]) for g in _found(service, "Groups", f'displayName eq "{tag}"')] == [1, 1]


def test_a_group_that_has_itself_as_a_member_is_refused_with_the_reason(service: Service) -> None:
    _, answer = _bulk(service, _group("own", "own"))
    assert answer["Operations"][0]["status"] == "400"
    assert "member of itself" in answer["Operations"][0]["response"]["detail"]


def test_an_invalid_operation_does_not_occupy_the_bulk_id_of_a_creation(service: Service) -> None:
    faulty = {"method": "PUT", "path": "/Nowhere/1", "bulkId": "u", "data": {}}
    _, answer = _bulk(service, _user("u", f"id-{random.random()}"), faulty, _group("g", "u"))
    assert [o["status"] for o in answer["Operations"]] == ["201", "404", "201"]
