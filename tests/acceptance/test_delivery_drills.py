"""Deliveries under faults: receivers that fail at random, workers that are killed, outages and their replay.

LEDGER_DRILL_EVENTS sets the size of the first drill (20 000 in a full run; a tenth of it in the suite), LEDGER_OUTAGE_EVENTS that
of an outage (5 000 in a full run).
"""

import os
import random
import signal
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.conftest import Service
from tests.acceptance.lanes import Lanes, needed_before
from tests.acceptance.receiver import Answer, Delivery, Receiver
from tests.acceptance.test_consumers import Operator, hook, operator, pushing
from tests.warm import spawned

__all__ = ["hook", "operator", "pushing"]

DRILL_EVENTS = int(os.environ.get("LEDGER_DRILL_EVENTS", "2000"))
OUTAGE_EVENTS = int(os.environ.get("LEDGER_OUTAGE_EVENTS", "300"))
IN_FLIGHT_MAX = 16


def judge(deliveries: list[Delivery], expected: list[dict[str, Any]], *, repeats_in_place: bool = True) -> Counter[str]:
    """All expected events were kept, in order on each lane; returns how often each event came."""
    lanes = Lanes(repeats_in_place=repeats_in_place)
    lanes.keep(e for d in deliveries if d.accepted for e in d.events)
    assert set(lanes.kept) == {e["id"] for e in expected}, "exactly the expected events were kept"
    return lanes.kept


def membership_after_lifecycle(deliveries: list[Delivery], expected: list[dict[str, Any]]) -> None:
    """When a membership event was first delivered, all earlier lifecycle events of its user and group had been kept."""
    before = needed_before(expected)
    kept: set[str] = set()
    for event in (e for d in deliveries if d.accepted for e in d.events):
        assert kept.issuperset(before.get(event["id"], ())), event["id"]
        kept.add(event["id"])


def feed(operator: Operator, service: Service, **params: Any) -> list[dict[str, Any]]:
    """All events of acme in the feed."""
    events, after = [], None
    while True:
        query = {"directory": "acme", "limit": 1000, **params, **({"after": after} if after else {})}
        page = operator.app.get(f"{service.base}/v1/events", params=query).json()
        events += page["data"]
        after = page["list_metadata"]["after"]
        if not page["has_more"]:
            return events


def delivery_processes(service: Service) -> list[int]:
    """The delivery processes of a service: it starts them with the spawn method."""
    assert service.process is not None
    return sorted(spawned(service.process.pid))


def traffic(operator: Operator, events: int, seed: int) -> None:
    """Random creations, memberships, deactivations and reactivations, until about this number of events were made."""
    choose = random.Random(seed)
    users = [operator.user() for _ in range(max(events // 20, 10))]
    groups = [operator.group(*choose.sample(users, 5)) for _ in range(max(events // 100, 3))]
    made = len(users) + len(groups) * 6
    while made < events:
        user, group = choose.choice(users), choose.choice(groups)
        match choose.randrange(6):
            case 0:
                operator.title(user, str(made))
            case 1:
                operator.patch(
                    "Users", user, {"op": "replace", "value": {"active": choose.random() < 0.5}}
                ) if choose.random() < 0.3 else None
            case 2:
                some = choose.sample(users, min(len(users), 20))
                operator.patch("Groups", group, {"op": "add", "path": "members", "value": [{"value": u} for u in some]})
                made += 10
            case 3:
                operator.patch("Groups", group, {"op": "remove", "path": f'members[value eq "{user}"]'})
            case 4:
                some = choose.sample(users, min(len(users), 10))
                operator.patch("Groups", group, {"op": "replace", "path": "members", "value": [{"value": u} for u in some]})
                made += 10
            case _:
                operator.patch("Groups", group, {"op": "replace", "path": "displayName", "value": f"g{made}"})
        made += 1


@pytest.mark.parametrize("batch_max", [1, 20])
@pytest.mark.long
def test_a_receiver_that_fails_at_random_while_workers_are_killed(
    make_service: Any, hook: Receiver, tmp_path: Path, batch_max: int
) -> None:
    """The order on each lane is exact, nothing is missing, and an event is repeated only after a failure that leaves its result
    unknown.
    """
    environment = {"LEDGER_WEBHOOK_ALLOW": "127.0.0.0/8", "LEDGER_WEBHOOK_TIMEOUT_S": "0.5", "LEDGER_DELIVERY_WORKERS": "2"}
    service = make_service("drill", **environment)
    operator = Operator(service)
    choose = random.Random(batch_max)
    unclear: set[str] = set()
    lock = threading.Lock()

    def behave(delivery: Delivery) -> Answer:
        with lock:
            chance = choose.random()
            answer = (
                Answer(500) if chance < 0.02 else Answer(503, headers={"Retry-After": "0"}) if chance < 0.03
                else Answer(hang=True, taken=choose.random() < 0.5) if chance < 0.033
                else Answer(cut=True, taken=choose.random() < 0.5) if chance < 0.043 else Answer()
            )  # fmt: skip
            if answer.hang or answer.cut:
                unclear.update(e["id"] for e in delivery.events)
        return answer

    hook.behave = behave
    operator.consumer(mode="webhook", url=hook.url, start="beginning", batch_max=batch_max, retry_schedule=[0] * 60)
    writer = threading.Thread(target=traffic, args=(operator, DRILL_EVENTS, batch_max))
    writer.start()
    kills = 0
    for mark in (DRILL_EVENTS // 5, DRILL_EVENTS // 2):
        hook.wait(lambda mark=mark: len(hook.accepted) >= mark, 120)
        victims = delivery_processes(service)
        os.kill(victims[kills % len(victims)], signal.SIGKILL)
        kills += 1
    writer.join()
    expected = feed(operator, service)
    wanted = {e["id"] for e in expected}
    hook.wait(lambda: wanted <= set(hook.ids), 120)
    kept = judge(hook.deliveries, expected, repeats_in_place=batch_max == 1)
    membership_after_lifecycle(hook.deliveries, expected)
    unexplained = [event for event, count in kept.items() if count > 1 and event not in unclear]
    assert len(unexplained) <= kills * IN_FLIGHT_MAX * batch_max, "only events under way when a worker was killed are repeated"
    operator.when(operator.made[0], lambda s: s["lag_events"] == 0)
    assert operator.http.get(f"{service.base}/v1/consumers/{operator.made[0]}/audit").json()["holes"] == []
    for client in operator.clients:
        client.close()


def test_an_outage_is_planned_and_replayed_exactly(operator: Operator, hook: Receiver, pushing: Service) -> None:
    """The application answered 200 and lost everything between two places; the replay sends exactly the planned events, in order."""
    name = operator.consumer(mode="webhook", url=hook.url)
    users = [operator.user() for _ in range(20)]
    hook.wait(lambda: len(hook.accepted) == 20)
    first = operator.title(users[0], "the outage begins")
    for user in users:
        operator.title(user, "lost")
    group = operator.group(*users)
    operator.deactivate(users[3])
    last = operator.title(users[0], "the outage is over")
    hook.wait(lambda: any(e["seq"] == last for e in hook.accepted))
    operator.when(name, lambda s: s["lag_events"] == 0)
    span = {"consumer": name, "from": f"seq:{first}", "to": f"seq:{last}", "directories": ["acme"]}
    planned = operator.post("replays", **span, reason="see", dry_run=True).json()
    lost = [e for e in feed(operator, pushing) if first <= e["seq"] <= last]
    taken_back = [e["id"] for e in lost if e["type"] == "group.member_added" and e["data"]["member"]["id"] == users[3]]
    assert (planned["count"], planned["superseded"]) == (len(lost) - 1, 1)
    assert planned["already_acked"] == planned["count"]
    assert (planned["first"], planned["last"]) == (lost[0]["id"], lost[-1]["id"])
    before = len(hook.deliveries)
    run = operator.post("replays", **span, name="outage of the 24th", reason="the application lost its database").json()
    assert run["total"] == planned["count"]
    hook.wait(lambda: len(hook.deliveries) >= before + run["total"])
    again = hook.deliveries[before:]
    assert {d.replay for d in again} == {run["id"]}
    kept = judge(again, [e for e in lost if e["id"] not in taken_back])
    assert set(kept.values()) == {1}
    assert operator.when_run(run["id"], "finished")["done"] == run["total"]
    shown = pushing.cli("replay", "plan", name, "--from", f"seq:{first}", "--to", f"seq:{last}", "--directory", "acme", "--json")
    assert f'"count":{planned["count"]}' in shown.stdout, shown.stderr
    included = operator.post("replays", **span, reason="see", dry_run=True, superseded="include").json()
    assert included["count"] == len(lost)
    assert group


def test_a_consumer_that_was_down_gets_the_planned_events_once(operator: Operator, hook: Receiver, pushing: Service) -> None:
    """Nothing was delivered during the outage: the run takes over the failing deliveries and the events that were not sent yet."""
    name = operator.consumer(mode="webhook", url=hook.url, batch_max=20)
    hook.behave = lambda _: Answer(503)
    users = [operator.user() for _ in range(10)]
    group = operator.group(*users)
    last = [operator.title(user, f"t{n}") for n in range(OUTAGE_EVENTS // 10) for user in users][-1]
    expected = [e for e in feed(operator, pushing) if e["seq"] > last - OUTAGE_EVENTS - 21]
    first = expected[0]["seq"]
    span = {"consumer": name, "from": f"seq:{first}", "to": f"seq:{last}", "directories": ["acme"], "reason": "it was down"}
    planned = operator.post("replays", **span, dry_run=True).json()
    assert (planned["count"], planned["already_acked"], planned["superseded"]) == (len(expected), 0, 0)
    # A live event that the receiver took after the plan and before the run began would be sent again by the run, out of its order.
    hook.behave = lambda d: Answer() if d.replay else Answer(503)
    run = operator.post("replays", **span).json()
    assert operator.when_run(run["id"], "finished")["done"] == planned["count"]
    sent = [d for d in hook.deliveries if d.accepted]
    kept = judge(sent, expected)
    assert set(kept.values()) == {1}
    assert sum(len(d.events) for d in sent if d.replay == run["id"]) == planned["count"]
    operator.when(name, lambda s: s["lag_events"] == 0)
    assert group


@pytest.mark.long
def test_a_run_is_paused_resumed_cancelled_and_survives_a_restart(operator: Operator, hook: Receiver, pushing: Service) -> None:
    name = operator.consumer(mode="webhook", url=hook.url)
    users = [operator.user() for _ in range(40)]
    hook.wait(lambda: len(hook.accepted) == 40)
    first = feed(operator, pushing, subject=users[0])[0]["seq"]
    operator.when(name, lambda s: s["lag_events"] == 0)
    span = {"consumer": name, "from": f"seq:{first}", "directories": ["acme"], "reason": "drill"}
    run = operator.post("replays", **span, rate_per_second=10).json()
    hook.wait(lambda: len(hook.accepted) >= 45)
    assert operator.post(f"replays/{run['id']}/pause").json()["status"] == "paused"
    paused = operator.when_run(run["id"], "paused")
    for pid in delivery_processes(pushing):
        os.kill(pid, signal.SIGKILL)
    user = operator.user()
    hook.wait(lambda: hook.accepted[-1]["subject"]["id"] == user)
    assert operator.post(f"replays/{run['id']}/resume").json()["status"] == "running"
    assert operator.when_run(run["id"], "finished")["done"] == 40
    replayed = Counter(e["id"] for d in hook.deliveries if d.replay for e in d.events)
    assert len(replayed) == 40
    assert sum(replayed.values()) - 40 <= 40 - paused["done"], "at most the unrecorded deliveries are repeated"
    second = operator.post("replays", **span, rate_per_second=2).json()
    operator.when_run(second["id"], "running", done=1)  # recorded: the arrival at the receiver is earlier
    cancelled = operator.post(f"replays/{second['id']}/cancel").json()
    assert cancelled["status"] == "cancelled"
    assert operator.post(f"replays/{second['id']}/resume").status_code == 409
    operator.when(name, lambda s: s["lag_events"] == 0 and s["retrying"] == 0)
    assert 0 < cancelled["done"] < 40


def test_a_live_event_waits_for_the_replay_of_its_subject_which_ignores_the_rate(
    operator: Operator, hook: Receiver, pushing: Service
) -> None:
    name = operator.consumer(mode="webhook", url=hook.url)
    busy, quiet = operator.user(), operator.user()
    seqs = [operator.title(busy, f"t{n}") for n in range(8)]
    operator.title(quiet, "one")
    hook.wait(lambda: len(hook.accepted) == 11)
    operator.when(name, lambda s: s["lag_events"] == 0)
    first = feed(operator, pushing, subject=busy)[0]["seq"]
    before = len(hook.deliveries)
    run = operator.post(
        "replays", consumer=name, reason="x", directories=["acme"], rate_per_second=1, **{"from": f"seq:{first}"}
    ).json()
    hook.wait(lambda: len(hook.deliveries) > before)
    live = operator.title(busy, "live")
    hook.wait(lambda: any(e["seq"] == live for e in hook.accepted), 6)
    order = [(e["seq"], d.replay is not None) for d in hook.deliveries[before:] for e in d.events if e["subject"]["id"] == busy]
    assert order == [(first, True), *((seq, True) for seq in seqs), (live, False)]
    operator.post(f"replays/{run['id']}/cancel")


def test_a_subject_that_always_fails_lets_everything_else_finish_and_is_delivered_in_order_at_last(
    operator: Operator, hook: Receiver, pushing: Service
) -> None:
    name = operator.consumer(mode="webhook", url=hook.url, retry_schedule=[0, 0, 0], batch_max=10)
    hook.behave = lambda d: (  # recognised by its content, because its first delivery may arrive before the test knows its id
        Answer(422) if any(e["data"].get("object", {}).get("nickName") == "poison" for e in d.events) else Answer()
    )
    poison = operator.user(nickName="poison")
    others = [operator.user() for _ in range(15)]
    group = operator.group(poison, *others)
    for n in range(5):
        operator.title(poison, f"p{n}")
        operator.title(others[n], f"o{n}")
    last = operator.title(others[0], "last")
    hook.wait(lambda: any(e["seq"] == last for e in hook.accepted))
    expected = [e for e in feed(operator, pushing) if e["seq"] >= min(x["seq"] for d in hook.deliveries for x in d.events)]
    behind = {e["id"] for e in expected if poison in {e["subject"]["id"], e["data"].get("member", {}).get("id")}}
    operator.when(name, lambda s: s["state"] == "blocked" and s["lag_events"] == len(behind))
    assert {e["id"] for e in expected} - set(hook.ids) == behind
    hook.behave = lambda _: Answer()
    blocked = operator.http.get(f"{pushing.base}/v1/consumers/{name}/blocked").json()["data"]
    assert len(blocked) == 1
    operator.post(f"consumers/{name}/blocked/{blocked[0]['event_id']}/retry", reason="the schema was mended")
    hook.wait(lambda: behind <= set(hook.ids))
    judge(hook.deliveries, expected, repeats_in_place=False)
    membership_after_lifecycle(hook.deliveries, expected)
    assert group
