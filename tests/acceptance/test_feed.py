"""The feed over HTTP: pages without gaps for every filter, waiting, event ids, and what each role may read."""

import random
import threading
from typing import Any

import httpx
import pytest

from ledger.events import EVENT_TYPES
from tests.acceptance.conftest import Service

USER = "urn:ietf:params:scim:schemas:core:2.0:User"
GROUP = "urn:ietf:params:scim:schemas:core:2.0:Group"
PATCH = "urn:ietf:params:scim:api:messages:2.0:PatchOp"


@pytest.fixture(scope="module")
def story(service: Service) -> dict[str, Any]:
    """Two users in a group, one of them leaves."""
    with service.client("scim") as client:
        users = [
            client.post(service.scim + "/Users", json={"schemas": [USER], "userName": f"feed{n}-{random.random()}"}).json()
            for n in range(2)
        ]
        members = [{"value": u["id"]} for u in users]
        group = client.post(service.scim + "/Groups", json={"schemas": [GROUP], "displayName": "feed", "members": members}).json()
        last = client.patch(
            users[0]["meta"]["location"], json={"schemas": [PATCH], "Operations": [{"op": "replace", "value": {"active": False}}]}
        )
    return {"users": [u["id"] for u in users], "group": group["id"], "seq": int(last.headers["Ledger-Seq"])}


def _all(service: Service, role: str = "consumer", **params: Any) -> tuple[list[dict], list[dict]]:
    """(events, pages) from the beginning to the head."""
    events, pages, after = [], [], params.pop("after", None)
    with service.client(role) as reader:
        while True:
            answer = reader.get(service.base + "/v1/events", params={**params, **({"after": after} if after else {})})
            assert answer.status_code == 200, answer.text
            page = answer.json()
            pages.append(page)
            events += page["data"]
            after = page["list_metadata"]["after"]
            if not page["has_more"]:
                return events, pages


EVENTS_EACH_MAX = 200  # pages of a walk, if all events of the log are asked for


@pytest.mark.parametrize("limit", [1, 3, 1000])
@pytest.mark.parametrize("types", [None, "user.*", "group.member_added,user.deactivated", "user.erased"])
@pytest.mark.parametrize("directory", [None, "acme"])
def test_pages_cover_the_log_without_gaps_and_filters_leave_out_no_matching_event(
    service: Service, story: dict, limit: int, types: str | None, directory: str | None
) -> None:
    params = {k: v for k, v in {"types": types, "directory": directory}.items() if v}
    before, ours = _last(service, directory, EVENTS_EACH_MAX * limit)
    if before is not None:
        params["after"] = before["id"]
    events, pages = _all(service, limit=limit, **params)
    expected = 1 if before is None else before["seq" if directory else "position"] + 1
    for page in pages:
        assert page["covered"]["from_position"] == expected, "no part of the log is skipped or told twice"
        expected = page["covered"]["to_position"] + 1
        assert len(page["data"]) <= limit
    assert expected == pages[-1]["head_position"] + 1
    assert events == [e for e in ours if _selected(e["type"], types)]


def _last(service: Service, directory: str | None, count: int) -> tuple[dict | None, list[dict]]:
    """The newest events of a feed, and the cursor before them.

    Other tests write to this service too, so reading the whole feed would take long.
    """
    whole = [e for e in _all(service, limit=1000)[0] if not directory or e["directory"] == directory]
    return (whole[-count - 1], whole[-count:]) if len(whole) > count else (None, whole)


def _selected(kind: str, types: str | None) -> bool:
    return types is None or any(kind == t or (t.endswith(".*") and kind.startswith(t[:-1])) for t in types.split(","))


def test_in_a_commit_derived_events_come_before_the_event_that_caused_them(service: Service, story: dict) -> None:
    events, _ = _all(service, directory="acme", limit=1000)
    last = [e for e in events if e["commit"]["first_seq"] == story["seq"] - 1]
    assert [(e["type"], e["cause"]) for e in last] == [
        ("group.member_access_revoked", "user_deactivated"),
        ("user.deactivated", "idp"),
    ]
    assert last[0]["data"] == {
        "group": {"id": story["group"]},
        "member": {"type": "User", "id": story["users"][0]},
        "effective": True,
    }
    assert last[1]["data"]["changes"] == [{"path": "active", "from": True, "to": False}]
    assert last[1]["data"]["object"]["active"] is False
    assert {e["request_id"] for e in last} == {last[0]["request_id"]}


def test_a_subject_filter_gives_all_events_about_a_user(service: Service, story: dict) -> None:
    events, _ = _all(service, subject=story["users"][0], limit=1000)
    assert [e["type"] for e in events] == [
        "user.created",
        "group.member_added",
        "group.member_access_revoked",
        "user.deactivated",
    ]


def test_a_time_range_is_half_open(service: Service, story: dict) -> None:
    events, _ = _all(service, directory="acme", limit=1000)
    first, last = events[1]["time"], events[-1]["time"]
    found, _ = _all(service, directory="acme", limit=1000, range_start=first, range_end=last)
    assert [e["id"] for e in found] == [e["id"] for e in events if first <= e["time"] < last]


def test_an_event_is_read_by_its_id_and_reading_goes_on_after_it(service: Service, story: dict) -> None:
    events, _ = _all(service, directory="acme", limit=1000)
    with service.client("consumer") as reader:
        assert reader.get(f"{service.base}/v1/events/{events[3]['id']}").json() == events[3]
        page = reader.get(service.base + "/v1/events", params={"directory": "acme", "after": events[3]["id"], "limit": 1}).json()
        assert page["data"] == [events[4]]
        whole = reader.get(service.base + "/v1/events", params={"after": events[3]["id"], "limit": 1}).json()
        assert whole["covered"]["from_position"] == events[3]["position"] + 1
        assert reader.get(f"{service.base}/v1/events/evt_acme_3_00000000").status_code == 404


def test_a_waiting_reader_is_answered_as_soon_as_an_event_comes(service: Service, story: dict) -> None:
    _, pages = _all(service, directory="acme", limit=1000)
    after, answers = pages[-1]["list_metadata"]["after"], []

    def wait() -> None:
        with service.client("consumer") as reader:
            answers.append(reader.get(service.base + "/v1/events", params={"directory": "acme", "after": after, "wait": 30}))

    reader = threading.Thread(target=wait)
    reader.start()
    with service.client("scim") as client:
        made = client.post(service.scim + "/Users", json={"schemas": [USER], "userName": f"awaited{random.random()}"})
    reader.join(timeout=20)
    assert answers, "answered long before the 30 seconds are over"
    assert [e["seq"] for e in answers[0].json()["data"]] == [int(made.headers["Ledger-Seq"])]


def test_a_directory_that_is_created_while_a_reader_waits_is_not_skipped(service: Service, story: dict) -> None:
    """Earlier, the directories of a reader were looked up only once, before it began to wait."""
    _, pages = _all(service, limit=1000)
    answers: list[Any] = []
    slug = f"new{random.randrange(10**9)}"

    def wait() -> None:
        after = pages[-1]["list_metadata"]["after"]
        with service.client("consumer") as reader:
            while not any(e["directory"] == slug for page in answers for e in page["data"]):
                page = reader.get(service.base + "/v1/events", params={"after": after, "wait": 5}).json()
                answers.append(page)
                after = page["list_metadata"]["after"]
                if len(answers) > 5:
                    return

    reader = threading.Thread(target=wait)
    reader.start()
    assert service.cli("directory", "create", slug).returncode == 0
    reader.join(timeout=60)
    assert [e["type"] for page in answers for e in page["data"] if e["directory"] == slug] == ["directory.created"]


def test_waiting_without_new_events_gives_an_empty_page_with_a_covered_range(service: Service, story: dict) -> None:
    _, pages = _all(service, directory="acme", limit=1000)
    after = pages[-1]["list_metadata"]["after"]
    with service.client("consumer") as reader:
        page = reader.get(service.base + "/v1/events", params={"directory": "acme", "after": after, "wait": 1}).json()
    assert page["data"] == []
    assert page["list_metadata"]["after"] == after
    assert page["covered"]["to_position"] == page["covered"]["from_position"] - 1


def test_an_operator_sees_structure_but_no_attributes(service: Service, story: dict) -> None:
    events, _ = _all(service, role="operator", directory="acme", limit=1000)
    user_events = [e for e in events if e["subject"]["type"] == "User"]
    assert user_events
    assert all(e["data"] == {"withheld": True} for e in user_events)
    assert all("effective" in e["data"] for e in events if "member" in e["type"])


def test_the_ledgers_own_directory_is_for_operators(service: Service, story: dict) -> None:
    assert "_system" not in {e["directory"] for e in _all(service, limit=1000)[0]}
    with service.client("consumer") as reader:
        assert reader.get(service.base + "/v1/events", params={"directory": "_system"}).status_code == 403
    events, _ = _all(service, role="admin", directory="_system", limit=1000)
    assert {"directory.created", "token.issued"} <= {e["type"] for e in events}
    assert "sl_" not in str(events)


def test_an_erased_body_is_distinguished_from_a_withheld_one(service: Service) -> None:
    """A reader who may read bodies sees that one was erased; in this release only the owner of the database can erase one."""
    import psycopg

    from runtime import embedded

    with service.client("scim") as client:
        user = client.post(service.scim + "/Users", json={"schemas": [USER], "userName": f"erased{random.random()}"}).json()["id"]
    running = embedded.running(service.data_dir / "postgres")
    assert running is not None
    with psycopg.connect(running.url("postgres", "ledger"), autocommit=True) as conn:
        conn.execute("set role ledger_eraser")
        conn.execute("delete from ledger.subject_keys where obj = %s", (user,))
    for role, expected in (("consumer", {"erased": True}), ("operator", {"withheld": True})):
        events, _ = _all(service, role, subject=user)
        assert [e["data"] for e in events] == [expected]


def test_the_error_about_an_event_id_has_seqs_of_its_directory_also_in_the_feed_of_all(service: Service, story: dict) -> None:
    with service.client("consumer") as reader:
        page = reader.get(service.base + "/v1/events", params={"directory": "acme", "limit": 1000}).json()
        answer = reader.get(service.base + "/v1/events", params={"after": "evt_acme_99999_00000000"}).json()
    assert (answer["code"], answer["cursor"]) == ("cursor_ahead", 99999)
    assert answer["head"] >= page["head_position"]
    assert answer["head"] < 99999


def test_the_schemas_of_events_are_read_without_a_token(service: Service) -> None:
    with httpx.Client(base_url=service.base, trust_env=False) as stranger:
        every, one = stranger.get("/v1/schemas/events"), stranger.get("/v1/schemas/events/user.created")
        assert (every.status_code, one.status_code) == (200, 200)
        assert every.headers["content-type"] == "application/schema+json"
        assert one.headers["cache-control"] == "public, max-age=3600"
        assert one.json()["$id"] == "/v1/schemas/events/user.created"
        assert len(every.json()["oneOf"]) == len(EVENT_TYPES)
        assert stranger.get("/asyncapi.json").json()["asyncapi"] == "3.0.0"
        missing = stranger.get("/v1/schemas/events/user.renamed")
        assert (missing.status_code, missing.json()["code"]) == (404, "not_found")
