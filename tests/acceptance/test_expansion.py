"""Names in membership events on request: as of the event, in the feed, the stream, a pull and one event, for every kind of reader."""

import json
import secrets
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

import httpx
import psycopg
import pytest

from runtime import embedded
from tests.acceptance.conftest import Service, until

USER = "urn:ietf:params:scim:schemas:core:2.0:User"
GROUP = "urn:ietf:params:scim:schemas:core:2.0:Group"
PATCH = "urn:ietf:params:scim:api:messages:2.0:PatchOp"
MEMBERSHIPS = "group.member_added,group.member_removed"


@dataclass
class Named:
    """A directory in which a member and a group get other names, and the member leaves."""

    service: Service
    slug: str
    idp: httpx.Client
    tokens: dict[str, str]
    ids: dict[str, str] = field(default_factory=dict)

    @property
    def scim(self) -> str:
        return f"{self.service.base}/scim/{self.slug}/v2"

    def make(self, path: str, **body: Any) -> str:
        answer = self.idp.post(f"{self.scim}/{path}", json=body)
        assert answer.status_code == 201, answer.text
        return answer.json()["id"]

    def rename(self, path: str, attribute: str, value: str) -> None:
        body = {"schemas": [PATCH], "Operations": [{"op": "replace", "path": attribute, "value": value}]}
        assert self.idp.patch(f"{self.scim}/{path}", json=body).status_code in {200, 204}

    def get(self, path: str, who: str = "consumer", **query: Any) -> httpx.Response:
        headers = {"Authorization": f"Bearer {self.tokens[who]}"}
        return httpx.get(f"{self.service.base}/v1/{path}", params=query, headers=headers, trust_env=False, timeout=60)

    def read(self, who: str = "consumer", path: str = "events", **query: Any) -> list[dict[str, Any]]:
        """All events of the feed, page by page."""
        found: list[dict[str, Any]] = []
        while True:
            answer = self.get(path, who, **query)
            assert answer.status_code == 200, answer.text
            page = answer.json()
            found += page["data"]
            query["after"] = page["list_metadata"]["after"]
            if not page["has_more"]:
                return found


def opened(service: Service) -> Named:
    slug = f"named-{uuid4().hex[:8]}"
    with service.client("admin") as admin:
        assert admin.post(f"{service.base}/v1/directories", json={"slug": slug}).status_code == 201

        def issue(role: str, **narrowed: Any) -> str:
            body = {"role": role, "name": role, "directories": [slug], **narrowed}
            return admin.post(f"{service.base}/v1/tokens", json=body).json()["token"]

        tokens = {role: issue(role) for role in ("consumer", "operator", "auditor", "admin")}
        tokens["without bodies"] = issue("consumer", bodies=False)
        tokens["of groups"] = issue("consumer", types=["group.*"])
        tokens["of additions"] = issue("consumer", types=["group.member_added"])
        idp = httpx.Client(headers={"Authorization": f"Bearer {issue('scim')}"}, trust_env=False, timeout=60)
    return Named(service, slug, idp, tokens)


@pytest.fixture(scope="session")
def named(service: Service) -> Iterator[Named]:
    made = opened(service)
    with made.idp:
        ada = made.make("Users", schemas=[USER], userName="ada@named.example", displayName="Ada", externalId="e-1")
        inner = made.make("Groups", schemas=[GROUP], displayName="Inner")
        admins = made.make(
            "Groups", schemas=[GROUP], displayName="Admins", externalId="g-1", members=[{"value": ada}, {"value": inner}]
        )
        made.rename(f"Users/{ada}", "userName", "lovelace@named.example")
        made.rename(f"Groups/{admins}", "displayName", "Owners")
        assert made.idp.delete(f"{made.scim}/Users/{ada}").status_code == 204
        made.ids = {"ada": ada, "inner": inner, "admins": admins}
        yield made


def expected(named: Named) -> list[dict[str, Any]]:
    """The data of the membership events."""
    before = {"id": named.ids["admins"], "display_name": "Admins", "external_id": "g-1"}
    ada = {"type": "User", "id": named.ids["ada"], "display_name": "Ada", "external_id": "e-1"}
    added = [
        {"group": before, "member": {**ada, "user_name": "ada@named.example"}, "effective": True},
        {"group": before, "member": {"type": "Group", "id": named.ids["inner"], "display_name": "Inner"}, "effective": True},
    ]
    gone = {
        "group": {**before, "display_name": "Owners"},
        "member": {**ada, "user_name": "lovelace@named.example"},
        "effective": True,
    }
    return [*added, gone]


@pytest.mark.parametrize("who", ["consumer", "auditor", "admin"])
@pytest.mark.parametrize("limit", [1, 2, 1000])
def test_the_feed_has_the_names_that_they_had_at_the_event(named: Named, who: str, limit: int) -> None:
    events = named.read(who, directory=named.slug, types=MEMBERSHIPS, expand="member,group", limit=limit)
    assert [event["data"] for event in events] == expected(named)


def test_only_what_is_asked_for_has_names_and_other_events_stay_as_they_are(named: Named) -> None:
    plain = named.read(directory=named.slug)
    for part, other in (("member", "group"), ("group", "member")):
        for event, with_names in zip(plain, named.read(directory=named.slug, expand=part), strict=True):
            if event["type"] in MEMBERSHIPS.split(","):
                assert with_names["data"][other] == event["data"][other]
                assert "display_name" in with_names["data"][part]
                with_names["data"][part] = event["data"][part]
            assert with_names == event


def test_one_event_has_them_too_in_json_and_on_the_command_line(named: Named) -> None:
    first, *_ = named.read(directory=named.slug, types=MEMBERSHIPS)
    assert named.get(f"events/{first['id']}", expand="group,member").json()["data"] == expected(named)[0]
    shown = named.service.cli("events", "get", first["id"], "--expand", "member", "--json")
    assert json.loads(shown.stdout)["data"]["member"] == expected(named)[0]["member"]
    listed = named.service.cli(
        "events", "list", "--directory", named.slug, "--types", MEMBERSHIPS, "--expand", "member,group", "--json"
    )
    assert [event["data"] for event in json.loads(listed.stdout)["data"]] == expected(named)


def test_a_pull_has_them_and_its_cursor_is_acknowledged(named: Named) -> None:
    name = f"named-{uuid4().hex[:8]}"
    with named.service.client("admin") as admin:
        admin.put(
            f"{named.service.base}/v1/consumers/{name}", json={"directories": [named.slug], "types": MEMBERSHIPS.split(",")}
        )
    page = named.get(f"consumers/{name}/events", expand="member,group").json()
    assert [event["data"] for event in page["data"]] == expected(named)
    headers = {"Authorization": f"Bearer {named.tokens['consumer']}"}
    url = f"{named.service.base}/v1/consumers/{name}/ack"
    acked = httpx.post(url, json={"through": page["list_metadata"]["after"]}, headers=headers, trust_env=False)
    assert (acked.status_code, acked.json()["changed"]) == (200, True)
    assert named.get(f"consumers/{name}/events").json()["data"] == []


@pytest.mark.parametrize(
    ("who", "group", "member"), [("operator", False, False), ("without bodies", False, False), ("of groups", True, False), ("of additions", False, False)]
)  # fmt: skip
def test_names_are_for_readers_who_see_the_attributes_of_the_resource(named: Named, who: str, group: bool, member: bool) -> None:
    """A token that does not read all events of users would learn names that no event of its own has."""
    events = named.read(who, directory=named.slug, types="group.member_added", expand="member,group")
    for event, data in zip(events, expected(named), strict=False):
        ids = {"group": {"id": data["group"]["id"]}, "member": {name: data["member"][name] for name in ("type", "id")}}
        sees_member = group if data["member"]["type"] == "Group" else member
        assert event["data"]["group"] == (data["group"] if group else {**ids["group"], "withheld": True})
        assert event["data"]["member"] == (data["member"] if sees_member else {**ids["member"], "withheld": True})
    if not group:
        assert "named.example" not in json.dumps(events)
        assert "Admins" not in json.dumps(events)


@pytest.mark.parametrize("path", ["events", "events/stream", "events/evt_acme_1_00000000"])
def test_another_word_is_refused(named: Named, path: str) -> None:
    wrong = named.get(path, expand="members")
    assert (wrong.status_code, wrong.json()["detail"]) == (400, "`expand` is not one of member, group; did you mean `member`?")


def follow(named: Named, who: str, found: list[dict[str, Any]], enough: Callable[[], bool], **query: str) -> threading.Thread:
    """A reader of the stream in a thread, until there is enough."""

    def read() -> None:
        headers = {"Authorization": f"Bearer {named.tokens[who]}"}
        url = f"{named.service.base}/v1/events/stream"
        with httpx.stream("GET", url, params=query, headers=headers, trust_env=False, timeout=60) as answer:
            for line in answer.iter_lines():
                if line.startswith('data: {"object":"event"'):
                    found.append(json.loads(line.removeprefix("data: ")))
                    if enough():
                        return

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    return thread


def test_the_stream_has_them_for_what_was_and_for_what_comes_and_for_nobody_else(service: Service) -> None:
    """Two readers follow the same live events, one with names."""
    named = opened(service)
    with named.idp:
        ada = named.make("Users", schemas=[USER], userName="ada@live.example")
        named.make("Groups", schemas=[GROUP], displayName="Before", members=[{"value": ada}])
        found: dict[str, list[dict[str, Any]]] = {"names": [], "none": [], "without bodies": []}
        query = {"directory": named.slug, "types": "group.member_added"}
        readers = [
            follow(named, "consumer", found["names"], lambda: len(found["names"]) == 3, **query, expand="member,group"),
            follow(named, "consumer", found["none"], lambda: len(found["none"]) == 3, **query),
            follow(
                named,
                "without bodies",
                found["without bodies"],
                lambda: len(found["without bodies"]) == 3,
                **query,
                expand="member,group",
            ),
        ]
        until(lambda: all(len(some) == 1 for some in found.values()))
        named.make("Groups", schemas=[GROUP], displayName="Live", members=[{"value": ada}])
        until(lambda: all(len(some) == 2 for some in found.values()))
        named.make("Groups", schemas=[GROUP], displayName="Again", members=[{"value": ada}])
        for reader in readers:
            reader.join(60)
    assert [event["data"]["group"].get("display_name") for event in found["names"]] == ["Before", "Live", "Again"]
    assert {event["data"]["member"]["user_name"] for event in found["names"]} == {"ada@live.example"}
    assert all(set(event["data"]["group"]) == {"id"} for event in found["none"])
    assert all(event["data"]["member"]["withheld"] for event in found["without bodies"])
    assert "ada@live" not in json.dumps(found["none"]) + json.dumps(found["without bodies"])


def test_a_page_is_cut_where_the_members_are_too_large_and_goes_on(service: Service) -> None:
    named = opened(service)
    with named.idp:
        users = [named.make("Users", schemas=[USER], userName=f"large-{n}", title=secrets.token_hex(450_000)) for n in range(14)]
        named.make("Groups", schemas=[GROUP], displayName="large", members=[{"value": user} for user in users])
    query = {"directory": named.slug, "types": "group.member_added", "expand": "member"}
    first = named.get("events", **query).json()
    assert 0 < len(first["data"]) < 14
    assert first["has_more"]
    assert first["covered"]["to_position"] == first["data"][-1]["seq"]
    events = named.read(**query)
    assert [event["data"]["member"]["user_name"] for event in events] == [f"large-{n}" for n in range(14)]


def test_what_was_erased_or_damaged_says_so(make_service: Callable[..., Service]) -> None:
    service = make_service()
    named = opened(service)
    with named.idp:
        users = [named.make("Users", schemas=[USER], userName=f"user-{n}") for n in range(3)]
        named.make("Groups", schemas=[GROUP], displayName="some", members=[{"value": user} for user in users])
    running = embedded.running(service.data_dir / "postgres")
    assert running is not None
    with psycopg.connect(running.url("postgres", "ledger"), autocommit=True) as conn:
        conn.execute("set role ledger_eraser")
        conn.execute("delete from ledger.subject_keys where obj = %s", (users[0],))
        conn.execute("reset role")
        conn.execute("update ledger.subject_keys set wrapped = decode(repeat('00', 60), 'hex') where obj = %s", (users[1],))
    members = [event["data"]["member"] for event in named.read(directory=named.slug, types="group.member_added", expand="member")]
    found = {member["id"]: set(member) - {"type", "id"} for member in members}
    assert found == {users[0]: {"erased"}, users[1]: {"unreadable"}, users[2]: {"user_name"}}
