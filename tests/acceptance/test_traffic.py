"""Random SCIM traffic against a real service: the state computed from events, the SCIM reads and the as-of answers equal a model."""

import random
from collections.abc import Callable

import pytest

from tests.acceptance.conftest import Service
from tests.acceptance.model import Fold, Workload
from tests.acceptance.operators import arrives, close

STEPS = 400


@pytest.mark.parametrize("seed", [1, 20261124])
@pytest.mark.long
def test_the_state_computed_from_events_equals_the_model_now_and_at_every_past_seq(
    make_service: Callable[..., Service], seed: int
) -> None:
    service = make_service()
    work = Workload(seed)
    past: list[tuple[int, dict]] = []
    last_seq = 1
    with service.client("scim") as scim:
        for _ in range(STEPS):
            method, path, body, done = work.step()
            answer = scim.request(method, service.scim + path, json=body)
            assert answer.status_code in {200, 201, 204}, (method, path, body, answer.text)
            done(answer.json() if answer.content else None)
            last_seq = int(answer.headers.get("Ledger-Seq", last_seq))
            past.append((last_seq, work.model.snapshot()))
        _scim_reads_equal_the_model(scim, service, past[-1][1])
    fold = _fold_events(service)
    assert {"users": fold.users, "groups": fold.groups} == past[-1][1]
    _as_of_equals_the_model(service, random.Random(seed).sample(past, 25))
    verified = service.cli("replay", "verify")
    assert verified.returncode == 0, verified.stdout
    _closed_it_is_empty_and_its_past_stays(service, random.Random(seed + 1).sample(past, 10))


def _closed_it_is_empty_and_its_past_stays(service: Service, points: list[tuple[int, dict]]) -> None:
    close(service)
    arrives(service, "directory.deleted")
    fold = _fold_events(service)
    assert (fold.directory, fold.users, fold.groups) == ("deleted", {}, {})
    _as_of_equals_the_model(service, [*points, (fold.seq, {"users": {}, "groups": {}})])
    assert service.cli("replay", "verify").returncode == 0


def _scim_reads_equal_the_model(scim, service: Service, model: dict) -> None:
    listed = {}
    while True:
        page = scim.get(service.scim + "/Users", params={"startIndex": len(listed) + 1, "count": 50}).json()
        for user in page.get("Resources", []):
            listed[user["id"]] = {"userName": user["userName"], "active": user["active"], "title": user.get("title")}
        if len(listed) >= page["totalResults"]:
            break
    assert listed == model["users"]
    groups = scim.get(service.scim + "/Groups").json().get("Resources", [])
    assert {g["id"]: {m["value"] for m in g.get("members", [])} for g in groups} == {
        g: v["members"] for g, v in model["groups"].items()
    }


def _fold_events(service: Service) -> Fold:
    fold, after = Fold(), None
    with service.client("consumer") as reader:
        while True:
            params = {"directory": "acme", "limit": 97} | ({"after": after} if after else {})
            page = reader.get(service.base + "/v1/events", params=params).json()
            assert page["covered"]["from_position"] == fold.seq + 1
            for event in page["data"]:
                fold.apply(event)
            assert page["covered"]["to_position"] == fold.seq
            after = page["list_metadata"]["after"]
            if not page["has_more"]:
                return fold


def _as_of_equals_the_model(service: Service, points: list[tuple[int, dict]]) -> None:
    with service.client("auditor") as auditor:

        def ask(path: str, **params: str) -> list[dict]:
            answer = auditor.get(f"{service.base}/v1/audit/acme{path}", params=params)
            assert answer.status_code == 200, answer.text
            return answer.json()["data"]

        for seq, model in points:
            people = ask("/population", as_of=f"seq:{seq}")
            assert {p["id"]: (p["userName"], p["active"]) for p in people} == {
                u: (v["userName"], v["active"]) for u, v in model["users"].items()
            }
            for group, value in list(model["groups"].items())[:4]:
                members = ask(f"/groups/{group}/members", as_of=f"seq:{seq}")
                assert {m["id"] for m in members} == value["members"]
                effective = {m["id"] for m in members if m["effective"]}
                assert effective == {m for m in value["members"] if model["users"].get(m, {"active": True})["active"]}
            for user, value in list(model["users"].items())[:6]:
                direct = {g for g, v in model["groups"].items() if user in v["members"]} if value["active"] else set()
                assert {a["id"] for a in ask(f"/users/{user}/access", as_of=f"seq:{seq}", nested="false")} == direct
                assert {a["id"] for a in ask(f"/users/{user}/access", as_of=f"seq:{seq}")} == _above(model, direct)


def _above(model: dict, groups: set[str]) -> set[str]:
    reached, waiting = set(groups), list(groups)
    while waiting:
        inner = waiting.pop()
        for group, value in model["groups"].items():
            if inner in value["members"] and group not in reached:
                reached.add(group)
                waiting.append(group)
    return reached
