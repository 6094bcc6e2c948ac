"""A directory that is paused, resumed and closed, as its IdP, an auditor and an application see it."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import httpx
import orjson
import pytest

from tests.acceptance.conftest import Service
from tests.acceptance.model import GROUP, USER, Fold
from tests.acceptance.operators import arrives, close, events_of, pause, resume

BULK = "urn:ietf:params:scim:api:messages:2.0:BulkRequest"
SEARCH = "urn:ietf:params:scim:api:messages:2.0:SearchRequest"


def bulk(*users: str) -> dict[str, Any]:
    operations = [{"method": "POST", "path": "/Users", "bulkId": u, "data": {"schemas": [USER], "userName": u}} for u in users]
    return {"schemas": [BULK], "Operations": operations}


def test_a_paused_directory_answers_503_to_writes_and_can_still_be_read(make_service: Callable[..., Service]) -> None:
    service = make_service()
    with service.client("scim") as idp:
        user = idp.post(service.scim + "/Users", json={"schemas": [USER], "userName": "ann"}).json()
        pause(service)
        writes = [
            ("POST", "/Users", {"schemas": [USER], "userName": "bob"}), ("PUT", f"/Users/{user['id']}", user),
            ("DELETE", f"/Users/{user['id']}", None), ("POST", "/Groups", {"schemas": [GROUP], "displayName": "g"}), ("POST", "/Bulk", bulk("c")),
        ]  # fmt: skip
        for method, path, body in writes:
            refused = idp.request(method, service.scim + path, json=body)
            assert (refused.status_code, refused.headers.get("Retry-After")) == (503, "60"), (path, refused.text)
            assert "An operator paused this directory" in refused.json()["detail"]
        assert idp.get(user["meta"]["location"]).json()["userName"] == "ann"
        search = {"schemas": [SEARCH], "filter": 'userName eq "ann"'}
        assert idp.post(service.scim + "/.search", json=search).json()["totalResults"] == 1
        resume(service)
        assert idp.post(service.scim + "/Users", json=bulk("d")["Operations"][0]["data"]).status_code == 201
        assert idp.post(service.scim + "/Bulk", json=bulk("e")).status_code == 200
    assert [e["type"] for e in events_of(service)[2:]] == [
        "directory.paused",
        "directory.resumed",
        "user.created",
        "user.created",
    ]


@pytest.mark.long
def test_a_clean_up_that_is_killed_continues_and_every_answer_says_that_access_ended(
    make_service: Callable[..., Service],
) -> None:
    service = make_service()
    group, users, before = _fill(service, 3_000)
    close(service)
    with service.client("scim") as idp:
        refused = idp.get(f"{service.scim}/Users/{users[0]}")
        assert refused.status_code == 401, "its token ended with it"
        assert idp.post(service.scim + "/Users", json={"schemas": [USER], "userName": "late"}).status_code in {401, 403}
    arrives(service, "group.member_removed")
    service.kill_everything()
    killed = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%S.%fZ}"
    service.start()  # and it goes on at once
    done = sum(event["time"] < killed for event in _cleaned(service))
    assert 500 <= done < 6_001, "killed in the middle"
    _nobody_has_access(service, group, users[-1])
    assert _population(service, f"seq:{before}") == (3_000, 3_000), "answers about the past are unchanged"
    arrives(service, "directory.deleted")
    fold = Fold()
    for event in events_of(service):
        fold.apply(event)
    assert (fold.directory, fold.users, fold.groups, fold.access) == ("deleted", {}, {}, set())
    assert len(_cleaned(service)) == 3_000 + 3_000 + 1 + 1, "each resource is ended once"
    assert _population(service, "seq:head") == (0, 0)
    assert _population(service, f"seq:{before}") == (3_000, 3_000)
    assert service.cli("replay", "verify").returncode == 0


def _fill(service: Service, count: int) -> tuple[str, list[str], int]:
    users: list[str] = []
    with service.client("scim") as idp:
        for start in range(0, count, 1_000):
            answer = idp.post(service.scim + "/Bulk", json=bulk(*(f"u{n}" for n in range(start, start + 1_000)))).json()
            users += [operation["location"].rpartition("/")[2] for operation in answer["Operations"]]
        body = {"schemas": [GROUP], "displayName": "all", "members": [{"value": user} for user in users]}
        made = idp.post(service.scim + "/Groups", json=body, params={"attributes": "id"})
    return made.json()["id"], users, int(made.headers["Ledger-Seq"])


def _cleaned(service: Service) -> list[dict[str, Any]]:
    return [e for e in events_of(service) if e["cause"] == "directory_closed"]


def _ask(service: Service, path: str, **params: str) -> httpx.Response:
    with service.client("auditor") as auditor:
        return auditor.get(f"{service.base}/v1/audit/acme{path}", params=params)


def _population(service: Service, as_of: str) -> tuple[int, int]:
    """The number of users that existed, and the number of active ones."""
    people: list[dict[str, Any]] = []
    after = None
    while True:
        page = _ask(service, "/population", as_of=as_of, **({"after": after} if after else {})).json()
        people += page["data"]
        after = page["list_metadata"]["after"]
        if after is None:
            return len(people), sum(person["active"] for person in people)


def _nobody_has_access(service: Service, group: str, user: str) -> None:
    """During the clean-up no answer of any route shows access; `user` is one of the users that may still exist."""
    (closing,) = events_of(service, types="directory.closed")
    as_of = f"seq:{closing['seq']}"
    assert _population(service, as_of) == (3_000, 0)
    members = _ask(service, f"/groups/{group}/members", as_of=as_of).json()["data"]
    assert len(members) == 3_000
    assert not any(member["effective"] for member in members)
    assert _ask(service, f"/users/{user}/access", as_of=as_of).json()["data"] == []
    assert _ask(service, f"/users/{user}", as_of=as_of).json()["data"]["active"] is False
    lost = _ask(service, "/diff", **{"from": f"seq:{closing['seq'] - 1}", "to": as_of}).json()["data"]
    assert {(row["change"], row["seq"]) for row in lost} == {("deactivated", closing["seq"])}
    assert len(lost) == 3_000
    with service.client("consumer") as reader:
        lines = [orjson.loads(line) for line in reader.get(f"{service.base}/v1/directories/acme/snapshot").iter_lines()]
    people = [line for line in lines if line["object"] == "user"]
    assert not any(p["active"] or p["data"]["object"]["active"] or p["data"]["user"]["active"] for p in people)
    assert not any(line["effective"] for line in lines if line["object"] == "membership")
