"""Erasure over the whole product: a person, or a group, is gone through every door, and everything that counts on the log goes on.

The names E1 to E15 are those of the list of cases that an erasure must stand (AUDIT §5.5 of the research).
"""

import base64
import json
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import suppress
from pathlib import Path
from typing import Any, Self
from uuid import uuid4

import httpx
import pytest

from runtime.scan import Forms, scan_files
from tests.acceptance.conftest import Service, until
from tests.acceptance.receiver import Answer, Receiver, receiver
from tests.acceptance.test_stream import stream
from tests.conftest import copied

USER = "urn:ietf:params:scim:schemas:core:2.0:User"
ENTERPRISE = "urn:ietf:params:scim:schemas:extension:enterprise:2.0:User"
GROUP = "urn:ietf:params:scim:schemas:core:2.0:Group"
PATCH = "urn:ietf:params:scim:api:messages:2.0:PatchOp"


class Erasing:
    """A service, an IdP and an admin, with short methods."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self.idp, self.admin = service.client("scim"), service.client("admin")
        self.reader = service.client("consumer")
        self.of_directory = f"{service.base}/v1/directories/acme"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for client in (self.idp, self.admin, self.reader):
            client.close()

    def user(self, name: str = "", **attributes: Any) -> str:
        document = {"schemas": [USER], "userName": name or f"u-{uuid4()}", **attributes}
        answer = self.idp.post(f"{self.service.scim}/Users", json=document)
        assert answer.status_code == 201, answer.text
        return answer.json()["id"]

    def group(self, *members: str, name: str = "") -> str:
        document = {"schemas": [GROUP], "displayName": name or f"g-{uuid4()}", "members": [{"value": m} for m in members]}
        answer = self.idp.post(f"{self.service.scim}/Groups", json=document)
        assert answer.status_code == 201, answer.text
        return answer.json()["id"]

    def patch(self, user: str, *operations: dict[str, Any]) -> httpx.Response:
        return self.idp.patch(f"{self.service.scim}/Users/{user}", json={"schemas": [PATCH], "Operations": operations})

    def ask(self, subject: str, ot: str = "User", *, dry_run: bool = False) -> httpx.Response:
        body = {"subject": {"type": ot, "id": subject}, "reason": "a request", "dry_run": dry_run}
        return self.admin.post(f"{self.of_directory}/erasures", json=body)

    def erase(self, subject: str, ot: str = "User") -> dict[str, Any]:
        answer = self.ask(subject, ot)
        assert answer.status_code == 202, answer.text
        return answer.json()

    def receipt(self, erasure: str) -> dict[str, Any]:
        answer = self.admin.get(f"{self.of_directory}/erasures/{erasure}")
        assert answer.status_code == 200, answer.text
        return answer.json()

    def complete(self, erasure: str) -> dict[str, Any]:
        """The receipt, once it is complete."""
        found: dict[str, Any] = {}

        def done() -> bool:
            found.update(self.receipt(erasure))
            return found["state"] == "complete"

        until(done)
        return found

    def hold(self, subject: str, ot: str = "User", **more: Any) -> httpx.Response:
        body = {"subject": {"type": ot, "id": subject}, "matter": "Doe v. Acme", **more}
        return self.admin.post(f"{self.of_directory}/holds", json=body)

    def events(self, **query: Any) -> list[dict[str, Any]]:
        found, after = list[dict[str, Any]](), None
        while True:
            asked = {"directory": "acme", "limit": 1000, **query} | ({"after": after} if after else {})
            page = self.reader.get(f"{self.service.base}/v1/events", params=asked).json()
            found += page["data"]
            after = page["list_metadata"]["after"]
            if not page["has_more"]:
                return found

    def verified(self) -> tuple[int, dict[str, Any]]:
        done = self.service.cli("replay", "verify", "--json")
        return done.returncode, json.loads(done.stdout)


@pytest.fixture(scope="module")
def e(service: Service) -> Iterator[Erasing]:
    with Erasing(service) as erasing:
        yield erasing


@pytest.fixture
def own(make_service: Callable[..., Service]) -> Iterator[Erasing]:
    """A service of the test's own."""
    with Erasing(make_service()) as erasing:
        yield erasing


# -- what is asked and refused -------------------------------------------------


def test_a_plan_says_what_goes_and_what_stays_and_changes_nothing(e: Erasing) -> None:
    user = e.user(name=f"planned-{uuid4()}")
    group = e.group(user)
    e.patch(user, {"op": "replace", "path": "title", "value": "Boss"})
    report = e.user(**{"schemas": [USER, ENTERPRISE], ENTERPRISE: {"manager": {"value": user}}})
    plan = e.ask(user, dry_run=True)
    assert plan.status_code == 200, plan.text
    found = plan.json()
    assert (found["object"], found["living"], found["holds"]) == ("erasure_plan", True, [])
    assert found["goes"] == {"bodies": 2, "keys": 1, "journal_lines": 0}
    assert found["stays"] == {"leaves": 3}
    assert {"type": "User", "id": report, "path": f"{ENTERPRISE}:manager.value", "current": True} in found["remaining_mentions"][
        "data"
    ]
    assert {"type": "Group", "id": group, "path": "members.value", "current": False} in found["remaining_mentions"]["data"]
    assert e.idp.get(f"{e.service.scim}/Users/{user}").status_code == 200
    assert "epoch 1" in found["horizon"]["backups"]["says"]


def test_a_living_user_is_deleted_and_erased_in_one_commit(e: Erasing) -> None:
    user = e.user()
    group = e.group(user)
    receipt = e.erase(user)
    assert (receipt["object"], receipt["deleted_with_it"], receipt["subject"]) == ("erasure", True, {"type": "User", "id": user})
    events = e.events(subject=user)
    assert [event["type"].split(".")[1] for event in events] == ["created", "member_added", "member_removed", "deleted", "erased"]
    removed, deleted, erased = events[-3:]
    assert {event["commit"]["first_seq"] for event in (removed, deleted, erased)} == {removed["seq"]}
    assert [event["cause"] for event in (removed, deleted, erased)] == ["user_erased", "user_erased", "operator"]
    assert erased["seq"] == receipt["seq"]
    assert [event["data"] for event in events if "member" not in event["type"]] == [{"erased": True}] * 3
    assert e.idp.get(f"{e.service.scim}/Users/{user}").status_code == 404
    assert e.idp.get(f"{e.service.scim}/Groups/{group}").json().get("members", []) == []
    assert receipt["stays"]["leaves"] == len(events)


def test_a_deleted_user_is_erased_by_one_event(e: Erasing) -> None:
    user = e.user()
    assert e.idp.delete(f"{e.service.scim}/Users/{user}").status_code == 204
    assert e.erase(user)["deleted_with_it"] is False
    assert [event["type"] for event in e.events(subject=user)] == ["user.created", "user.deleted", "user.erased"]


def test_a_group_is_erased_with_its_memberships(e: Erasing) -> None:
    user = e.user()
    inner = e.group(user)
    outer = e.group(inner)
    receipt = e.erase(inner, "Group")
    types = [event["type"].split(".")[1] for event in e.events(subject=inner)]
    assert types == ["created", "member_added", "member_added", "member_removed", "member_removed", "deleted", "erased"]
    assert e.idp.get(f"{e.service.scim}/Groups/{inner}").status_code == 404
    found = e.complete(receipt["id"])
    assert {"type": "Group", "id": outer, "path": "members.value", "current": False} in found["remaining_mentions"]["data"]


def test_e8_an_erasure_again_gives_the_same_receipt(e: Erasing) -> None:
    user = e.user()
    first = e.complete(e.erase(user)["id"])
    assert e.erase(user) == first
    assert e.ask(user, dry_run=True).json() == first
    assert [event["type"] for event in e.events(subject=user)].count("user.erased") == 1


@pytest.mark.parametrize("subject", ["0197f2c4-5d1e-7c3a-9b44-3f0e2a6c1d58", "nobody", ""])
def test_e8_an_unknown_subject_is_refused(e: Erasing, subject: str) -> None:
    answer = e.ask(subject)
    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")


def test_e8_a_user_is_not_erased_as_a_group(e: Erasing) -> None:
    user = e.user()
    assert e.ask(user, "Group").status_code == 404
    assert e.idp.get(f"{e.service.scim}/Users/{user}").status_code == 200


def test_only_an_admin_erases_and_an_auditor_reads_receipts(e: Erasing) -> None:
    user = e.user()
    body = {"subject": {"type": "User", "id": user}, "reason": "r"}
    for role in ("consumer", "operator", "auditor", "scim"):
        with e.service.client(role) as other:
            assert other.post(f"{e.of_directory}/erasures", json=body).status_code == 403
    receipt = e.erase(user)
    with e.service.client("auditor") as auditor:
        assert auditor.get(f"{e.of_directory}/erasures/{receipt['id']}").json()["subject"]["id"] == user
    with e.service.client("operator") as operator:
        assert operator.get(f"{e.of_directory}/erasures/{receipt['id']}").status_code == 403


def test_a_receipt_of_another_directory_is_not_found(e: Erasing) -> None:
    assert e.admin.get(f"{e.of_directory}/erasures/{uuid4()}").status_code == 404
    assert e.admin.get(f"{e.of_directory}/erasures/nothing").status_code == 404


# -- holds ---------------------------------------------------------------------


def test_e6_a_legal_hold_keeps_a_user_and_its_release_lets_it_go(e: Erasing) -> None:
    user = e.user()
    placed = e.hold(user)
    assert placed.status_code == 201, placed.text
    hold = placed.json()
    assert (hold["object"], hold["state"], hold["matter"], hold["until"]) == ("hold", "open", "Doe v. Acme", None)
    refused = e.ask(user)
    assert (refused.status_code, refused.json()["code"]) == (409, "legal_hold")
    assert hold["id"] in refused.json()["detail"]
    assert e.ask(user, dry_run=True).json()["holds"] == [hold["id"]]
    assert e.idp.get(f"{e.service.scim}/Users/{user}").status_code == 200, "nothing half done"
    assert e.admin.delete(f"{e.of_directory}/holds/{hold['id']}").status_code == 204
    assert e.admin.delete(f"{e.of_directory}/holds/{hold['id']}").status_code == 204, "again makes no event"
    assert e.erase(user)["state"] == "erased"
    after = e.admin.get(f"{e.of_directory}/holds/{hold['id']}").json()
    assert (after["state"], after["matter"]) == ("released", None), "the matter goes with the person"
    with e.service.client("operator") as operator:
        asked = {"directory": "_system", "types": "hold.*", "limit": 1000}
        events = operator.get(f"{e.service.base}/v1/events", params=asked).json()["data"]
    assert [event["type"] for event in events if event["subject"]["id"] == hold["id"]] == ["hold.placed", "hold.released"]


def test_e6_a_hold_ends_by_itself_and_must_end_in_the_future(e: Erasing) -> None:
    user = e.user()
    past = e.hold(user, until="2020-01-01T00:00:00Z")
    assert (past.status_code, past.json()["errors"][0]["field"]) == (400, "until")
    assert e.hold(user, until="2020-01-01T00:00:00").status_code == 400, "no offset"
    later = e.hold(user, until="2999-01-01T00:00:00Z").json()
    assert later["until"] == "2999-01-01T00:00:00.000000Z"
    listed = e.admin.get(f"{e.of_directory}/holds", params={"subject": user, "state": "open"}).json()["data"]
    assert [hold["id"] for hold in listed] == [later["id"]]
    assert e.ask(user).json()["code"] == "legal_hold"


def test_nobody_unknown_or_erased_is_held(e: Erasing) -> None:
    assert e.hold(str(uuid4())).status_code == 404
    user = e.user()
    e.erase(user)
    refused = e.hold(user)
    assert (refused.status_code, refused.json()["code"]) == (409, "subject_erased")


# -- the receipt ---------------------------------------------------------------


def test_the_receipt_names_its_horizon_and_becomes_complete(e: Erasing) -> None:
    user = e.user()
    receipt = e.erase(user)
    assert receipt["gone"] == {"bodies": 1, "keys": 1, "journal_lines": 0}
    assert receipt["checkpoint"]["size"] == receipt["seq"]
    found = e.complete(receipt["id"])
    horizon = found["horizon"]
    assert (horizon["database"]["state"], horizon["wal"]["state"]) == ("vacuumed", "switched")
    assert horizon["database"]["at"]
    assert horizon["wal"]["at"]
    assert horizon["backups"]["state"] == "readable"
    assert horizon["backups"]["epochs"] == [1]
    assert "scim-ledger key destroy 1" in horizon["backups"]["says"]
    assert found["reason"] == "a request"


def test_e9_references_of_others_stay_and_are_listed(e: Erasing) -> None:
    boss = e.user()
    report = e.user(**{"schemas": [USER, ENTERPRISE], ENTERPRISE: {"manager": {"value": boss}}})
    former = e.user(**{"schemas": [USER, ENTERPRISE], ENTERPRISE: {"manager": {"value": boss}}})
    e.patch(former, {"op": "remove", "path": f"{ENTERPRISE}:manager"})
    found = e.complete(e.erase(boss)["id"])["remaining_mentions"]
    path = f"{ENTERPRISE}:manager.value"
    assert {"type": "User", "id": report, "path": path, "current": True} in found["data"]
    assert {"type": "User", "id": former, "path": path, "current": False} in found["data"]
    assert found["complete"]
    kept = e.idp.get(f"{e.service.scim}/Users/{report}").json()
    assert kept[ENTERPRISE]["manager"]["value"] == boss


def test_e10_consumers_that_were_sent_the_person_are_recipients(e: Erasing) -> None:
    user = e.user()
    consumers = f"{e.service.base}/v1/consumers"
    with e.service.client("operator") as operator:
        read, other = f"read-{uuid4().hex[:8]}", f"other-{uuid4().hex[:8]}"
        for name, start, types in ((read, "beginning", ["*"]), (other, "beginning", ["group.deleted"])):
            body = {"directories": ["acme"], "types": types, "start": start, "mode": "pull"}
            assert operator.put(f"{consumers}/{name}", json=body).status_code == 201
        while (page := operator.get(f"{consumers}/{read}/events", params={"limit": 1000}).json())["data"]:
            operator.post(f"{consumers}/{read}/ack", json={"through": page["list_metadata"]["after"]})
        found = e.complete(e.erase(user)["id"])["recipients"]
        named = {(one["kind"], one["name"]): one["certainty"] for one in found}
        assert named["consumer", read] == "acknowledged"
        assert ("consumer", other) not in named
        for name in (read, other):
            operator.delete(f"{consumers}/{name}")


# -- every reader --------------------------------------------------------------


def test_every_reader_answers_with_the_erased_form(e: Erasing) -> None:
    name = f"reader-{uuid4()}"
    user = e.user(name=name)
    group = e.group(user)
    before = e.events()[-1]["seq"]
    counts = _population(e, before)
    e.erase(user)
    assert _population(e, before) == counts, "counts as of then are unchanged"
    with e.service.client("auditor") as auditor:
        audit = f"{e.service.base}/v1/audit/acme"
        then = {"as_of": f"seq:{before}"}
        assert auditor.get(f"{audit}/users/{user}", params=then).json()["data"] == {"erased": True}
        members = auditor.get(f"{audit}/groups/{group}/members", params=then).json()["data"]
        assert [member["id"] for member in members] == [user]
        assert auditor.get(f"{audit}/users/{user}/access", params=then).json()["data"][0]["id"] == group
        assert name not in auditor.get(f"{audit}/diff", params={"from": "seq:1", "to": f"seq:{before}"}).text
    named = e.events(expand="member", types="group.member_added", subject=user)
    assert named[0]["data"]["member"]["erased"] is True
    one = e.reader.get(f"{e.service.base}/v1/events/{e.events(subject=user)[0]['id']}").json()
    assert one["data"] == {"erased": True}
    assert name not in e.reader.get(f"{e.of_directory}/snapshot").text
    assert e.idp.get(f"{e.service.scim}/Users", params={"filter": f'userName eq "{name}"'}).json()["totalResults"] == 0


def _population(e: Erasing, seq: int) -> int:
    with e.service.client("auditor") as auditor:
        asked = {"as_of": f"seq:{seq}", "limit": 1000}
        return len(auditor.get(f"{e.service.base}/v1/audit/acme/population", params=asked).json()["data"])


def test_e7_the_same_person_hired_again_is_a_new_subject(e: Erasing) -> None:
    name, external = f"again-{uuid4()}", str(uuid4())
    first = e.user(name=name, externalId=external)
    e.erase(first)
    second = e.user(name=name, externalId=external)
    assert second != first
    assert [event["data"] for event in e.events(subject=first)] == [{"erased": True}] * 3
    (created,) = e.events(subject=second)
    assert created["rv"] == 1
    assert first not in json.dumps(created)
    assert e.erase(second)["subject"]["id"] == second


def test_e2_verify_passes_after_an_erasure_and_says_so(own: Erasing) -> None:
    user = own.user()
    own.group(user)
    assert own.verified() == (0, {"events": own.verified()[1]["events"], "erased_bodies": 0, "findings": []})
    own.erase(user)
    code, found = own.verified()
    assert (code, found["findings"], found["erased_bodies"]) == (10, [], 1)


# -- memory, journal, deliveries -----------------------------------------------


@pytest.fixture
def pushing(make_service: Callable[..., Service]) -> Iterator[tuple[Erasing, Receiver]]:
    """A service that may push to loopback, and a receiver."""
    with receiver() as hook, Erasing(make_service(LEDGER_WEBHOOK_ALLOW="127.0.0.0/8", LEDGER_WEBHOOK_TIMEOUT_S="3")) as erasing:
        yield erasing, hook


def webhook(e: Erasing, hook: Receiver, **definition: Any) -> str:
    name = f"hook-{uuid4().hex[:8]}"
    body = {
        "mode": "webhook",
        "url": hook.url,
        "directories": ["acme"],
        "start": "now",
        "retry_schedule": [0, 0, 1, 1, 1, 1],
        **definition,
    }
    with e.service.client("operator") as operator:
        assert operator.put(f"{e.service.base}/v1/consumers/{name}", json=body).status_code == 201
    return name


def test_a_delivery_in_the_middle_of_its_retries_goes_on_without_the_person(pushing: tuple[Erasing, Receiver]) -> None:
    e, hook = pushing
    name = f"canary-{uuid4().hex}"
    webhook(e, hook)
    hook.behave = lambda _: Answer(503, body=f"no room for {name}".encode())
    user = e.user(name=name)
    hook.wait(lambda: bool(hook.deliveries))
    e.erase(user)
    began = len(hook.deliveries)
    hook.wait(lambda: len(hook.deliveries) > began + 1)
    hook.behave = lambda _: Answer()
    hook.wait(lambda: "user.erased" in {event["type"] for event in hook.accepted})
    assert [event["data"] for event in hook.accepted if event["subject"]["id"] == user] == [{"erased": True}] * 3
    assert all(name.encode() not in delivery.body for delivery in hook.deliveries[began + 1 :])


def test_answers_of_receivers_about_the_person_go_too(pushing: tuple[Erasing, Receiver]) -> None:
    e, hook = pushing
    consumer = webhook(e, hook, retry_schedule=[0])
    hook.behave = lambda delivery: Answer(422, body=b"unknown: Ada") if delivery.events[0]["type"] == "user.created" else Answer()
    user, other = e.user(), e.user()
    with e.service.client("operator") as operator:

        def answers() -> dict[str, str | None]:
            rows = operator.get(f"{e.service.base}/v1/consumers/{consumer}/blocked").json()["data"]
            return {row["subject"]["id"] if "subject" in row else row["event_id"]: row.get("last_answer") for row in rows}

        until(lambda: len(answers()) == 2 and all(answers().values()))
        e.erase(user)
        assert sorted(answers().values(), key=str) == sorted([None, "unknown: Ada"], key=str)
    assert e.idp.get(f"{e.service.scim}/Users/{other}").status_code == 200


def test_an_open_stream_and_the_tail_show_the_erased_form(e: Erasing) -> None:
    """What the process has in memory for streams is forgotten within a second."""
    name = f"streamed-{uuid4().hex}"
    with stream(e.service, directory="acme") as first:
        user = e.user(name=name)
        first.wait(lambda: any(event["subject"]["id"] == user for event in first.events))
        before = next(event["id"] for event in first.events if event["subject"]["id"] == user)
        e.erase(user)
        first.wait(lambda: any(event["type"] == "user.erased" for event in first.events))
        marker = e.user()
        first.wait(lambda: any(event["subject"]["id"] == marker for event in first.events))
        again = json.dumps(e.events(after=e.events(subject=user)[0]["id"]))
        assert name not in again
        with stream(e.service, last=before, directory="acme") as second:
            second.wait(lambda: any(event["subject"]["id"] == marker for event in second.events))
            assert name not in json.dumps(second.events)


def test_journal_lines_about_the_person_go_too(e: Erasing) -> None:
    """A refusal quotes what was sent. Entries that come after the erasure have no text."""
    user, other = e.user(), e.user()
    for one in (user, other):
        refused = e.patch(one, {"op": "replace", "path": "active", "value": f"canary of {one}"})
        assert refused.status_code == 400, refused.text

    def lines(of: str) -> int:
        return e.ask(of, dry_run=True).json()["goes"]["journal_lines"]

    until(lambda: lines(user) == lines(other) == 1)
    assert e.erase(user)["gone"]["journal_lines"] == 1
    assert lines(other) == 1
    assert e.patch(user, {"op": "replace", "path": "active", "value": "late"}).status_code == 400, "it quotes what was sent"

    def newest() -> dict[str, Any]:
        asked = {"directory": "acme", "limit": 1, "status": 400}
        return e.admin.get(f"{e.service.base}/v1/requests", params=asked).json()["data"][0]

    until(lambda: newest()["path"] == "/Users/{id}" and "detail" not in newest())


def test_e8_a_patch_in_flight_is_written_before_or_refused(e: Erasing) -> None:
    """Whatever the order, no attribute is left: a PATCH after the erasure finds nobody."""
    for _ in range(8):
        user = e.user()
        with ThreadPoolExecutor(2) as pool:
            patched = pool.submit(e.patch, user, {"op": "replace", "path": "title", "value": "late"})
            erased = pool.submit(e.erase, user)
        assert patched.result().status_code in {200, 404}
        assert erased.result()["subject"]["id"] == user
        assert all(event["data"] == {"erased": True} for event in e.events(subject=user))


# -- crash, restore, horizon ---------------------------------------------------


def test_e14_a_killed_process_completes_nothing_half(own: Erasing) -> None:
    """Everything is killed the moment the erasure is answered: at the next start the person is gone, and the receipt becomes complete."""
    user = own.user()
    receipt = own.erase(user)
    own.service.kill_everything()
    own.service.start()
    found = own.complete(receipt["id"])
    assert found["horizon"]["database"]["state"] == "vacuumed"
    assert found["remaining_mentions"]["complete"]
    assert [event["data"] for event in own.events(subject=user)] == [{"erased": True}] * 3
    assert own.verified()[0] == 10


def test_e4_a_restored_backup_is_reconciled_before_the_service_answers(own: Erasing, tmp_path: Path) -> None:
    name = f"restored-{uuid4().hex}"
    user, deleted, group, kept = own.user(name=name), own.user(), own.group(), own.user()
    own.idp.delete(f"{own.service.scim}/Users/{deleted}")
    hold = own.hold(deleted).json()["id"]
    assert own.service.stop() == 0
    backup = copied(own.service.data_dir / "postgres", tmp_path / "backup")
    own.service.start()
    own.admin.delete(f"{own.of_directory}/holds/{hold}")
    for subject, ot in ((user, "User"), (deleted, "User"), (group, "Group")):
        own.complete(own.erase(subject, ot)["id"])
    listed = (own.service.data_dir / "kek.erasures").read_text()
    assert all(subject in listed for subject in (user, deleted, group))
    assert name not in listed
    assert own.service.stop() == 0
    shutil.rmtree(own.service.data_dir / "postgres")
    copied(backup, own.service.data_dir / "postgres")
    own.service.start()
    assert own.idp.get(f"{own.service.scim}/Users/{user}").status_code == 404
    assert own.idp.get(f"{own.service.scim}/Users/{kept}").status_code == 200
    for subject in (user, deleted, group):
        assert all(event["data"] == {"erased": True} for event in own.events(subject=subject))
    assert name not in json.dumps(own.events())
    assert own.verified()[0] == 10
    assert "erased again" in own.erase(user)["reason"]


def test_e1_a_canary_through_every_door_is_nowhere(own: Erasing, tmp_path: Path) -> None:
    """The scan finds planted words in each form, and nothing of the person: neither before nor after, because attributes are sealed."""
    first, last = "Zoë", f"Canary{uuid4().hex[:10]}"
    mail, phone = f"{last.lower()}@example.com", "+49 170 5550199"
    user = own.user(
        name=mail, externalId=f"ext-{last}", displayName=f"{first} {last}",
        emails=[{"value": mail, "type": "work"}], phoneNumbers=[{"value": phone, "type": "mobile"}],
    )  # fmt: skip
    own.group(user, name=f"{last} team")
    own.patch(user, {"op": "replace", "path": "active", "value": f"no {last}"})
    own.patch(user, {"op": "replace", "path": "title", "value": f"{last} the first"})
    own.idp.get(f"{own.service.scim}/Users", params={"filter": f'userName eq "{mail}"'})
    own.idp.post(f"{own.service.scim}/Users", json={"schemas": [USER], "userName": mail})
    own.complete(own.erase(user)["id"])
    needles = tmp_path / "needles.txt"
    needles.write_text(f"{last}\n{first} {last}\n{mail}\next-{last}\n{phone}\n")
    done = own.service.cli("erase", "scan", "--needles", str(needles), "--json")
    assert (done.returncode, json.loads(done.stdout)) == (0, {"found": []}), done.stdout + done.stderr
    assert last not in own.service.log.read_text()
    planted = own.service.data_dir / "planted.bin"
    planted.write_bytes(b"x" * 1_048_570 + f"{first} {last}".encode("utf-16-le") + base64.b64encode(f"a{mail}".encode()))
    control = own.service.cli("erase", "scan", "--needles", str(needles), "--json")
    assert control.returncode == 1
    found = json.loads(control.stdout)["found"]
    assert {one["place"] for one in found} == {str(planted)}
    assert {"utf-16le", "base64+1"} <= {one["form"] for one in found}
    assert last not in control.stdout
    planted.unlink()
    needles.write_text("acme\n")
    tables = own.service.cli("erase", "scan", "--needles", str(needles), "--json")
    places = {one["place"] for one in json.loads(tables.stdout)["found"]}
    assert "table ledger.directories" in places, "the tables are read"
    assert any("/pg_wal/" in place for place in places) or any("/base/" in place for place in places)


def test_e11_no_log_and_no_metric_names_the_person(own: Erasing) -> None:
    name = f"quiet-{uuid4().hex}"
    user = own.user(name=name)
    assert own.idp.post(f"{own.service.scim}/Users", json={"schemas": [USER], "userName": name}).status_code == 409
    own.complete(own.erase(user)["id"])
    assert name not in own.service.log.read_text()
    assert name not in (own.service.data_dir / "postgres" / "postgres.log").read_text(errors="replace")
    assert name not in httpx.get(f"{own.service.base}/metrics", trust_env=False).text


def test_the_command_line_plans_erases_and_holds(own: Erasing) -> None:
    user = own.user()
    cli = own.service.cli
    assert "would be deleted and erased" in cli("erase", "plan", "acme", user).stdout
    placed = json.loads(cli("hold", "place", "acme", user, "--matter", "case 12", "--json").stdout)
    assert "case 12" in cli("hold", "list", "acme").stdout
    held = cli("erase", "run", "acme", user, "--reason", "r", "--yes")
    assert (held.returncode, placed["id"] in held.stderr) == (4, True)
    assert cli("hold", "show", "acme", placed["id"]).returncode == 0
    assert cli("hold", "release", "acme", placed["id"]).returncode == 0
    erased = cli("erase", "run", "acme", user, "--reason", "r", "--yes")
    assert (erased.returncode, "was erased at" in erased.stdout) == (0, True)
    listed = json.loads(cli("erase", "list", "acme", "--json").stdout)["data"]
    assert [one["subject"]["id"] for one in listed] == [user]
    own.complete(listed[0]["id"])
    assert "backups A backup, replica or WAL file" in cli("erase", "receipt", "acme", listed[0]["id"]).stdout


def test_a_dump_and_a_base_backup_name_nobody(own: Erasing, tmp_path: Path) -> None:
    """Plaintext is in neither, before nor after; the control is the slug of the directory, which both have in the clear."""
    last = f"Canary{uuid4().hex[:10]}"
    user = own.user(name=f"{last}@example.com", displayName=last)
    own.complete(own.erase(user)["id"])
    done = own.service.cli("backup", str(tmp_path / "backup"), "--no-trial")
    assert done.returncode == 0, done.stderr
    found = scan_files(tmp_path / "backup", Forms([last]), lambda _done, _total: None)
    assert list(found) == []
    assert list(scan_files(tmp_path / "backup", Forms(["acme"]), lambda _done, _total: None))


def test_a_replay_sends_the_erased_form(pushing: tuple[Erasing, Receiver]) -> None:
    e, hook = pushing
    name = f"replayed-{uuid4().hex}"
    consumer = webhook(e, hook)
    user, kept = e.user(name=name), e.user()
    hook.wait(lambda: {user, kept} <= {event["subject"]["id"] for event in hook.accepted})
    e.erase(user)
    hook.wait(lambda: "user.erased" in {event["type"] for event in hook.accepted})
    with e.service.client("operator") as operator:
        body = {"consumer": consumer, "from": "beginning", "reason": "r", "directories": ["acme"], "superseded": "include"}
        assert operator.post(f"{e.service.base}/v1/replays", json=body).status_code == 202
    hook.wait(lambda: any(d.replay and d.events[0]["type"] == "user.erased" for d in hook.deliveries))
    again = [delivery for delivery in hook.deliveries if delivery.replay]
    assert all(name.encode() not in delivery.body for delivery in again)
    assert {json.dumps(d.events[0]["data"]) for d in again if d.events[0]["subject"]["id"] == user} == {'{"erased": true}'}
    assert any(d.events[0]["subject"]["id"] == kept and "object" in d.events[0]["data"] for d in again)


@pytest.mark.parametrize("moment", [0.0, 0.05, 0.2, 0.6, 1.2])
def test_e14_killed_at_any_moment_an_erasure_is_whole_or_not_at_all(make_service: Callable[..., Service], moment: float) -> None:
    """The process is killed some time after the request was sent, in the commit, between it and the receipt, or while that is completed."""
    with Erasing(make_service()) as own, ThreadPoolExecutor(1) as pool:
        user = own.user()
        group = own.group(user)
        asked = pool.submit(own.ask, user)
        wait([asked], timeout=moment)
        own.service.kill_everything()
        with suppress(httpx.HTTPError):
            asked.result()
        own.service.start()
        events = own.events(subject=user)
        erased = any(event["type"] == "user.erased" for event in events)
        assert {event["data"] == {"erased": True} for event in events if "member" not in event["type"]} == {erased}
        assert own.idp.get(f"{own.service.scim}/Users/{user}").status_code == (404 if erased else 200)
        assert bool(own.idp.get(f"{own.service.scim}/Groups/{group}").json().get("members")) is not erased
        own.complete(own.erase(user)["id"])
        assert own.verified()[0] == 10
