"""A consumer that is behind: its status says what limits it, and what would help."""

import asyncio
from typing import Any

import pytest

from delivery import backlog, standing
from delivery import worker as worker_module
from delivery.reports import BLOCKED, RETRYING
from operations import consumers, deliveries
from runtime.bootstrap import machine
from tests.postgres.deliveries import Scene, scene
from tests.postgres.ledgers import id_of
from tests.postgres.test_delivery import run
from tests.unit.cli.test_doctor import DESCRIBES, SAID


async def limited(s: Scene, name: str = "app") -> dict[str, Any] | None:
    return (await consumers.show(s.ledger.services.ledger, machine(), name))["limited_by"]


@pytest.fixture(autouse=True)
def short_deadlines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(standing, "LAGGING_S", 0.0)
    monkeypatch.setattr(worker_module, "LOOK_S", 0.05)


@pytest.mark.parametrize(
    ("asked", "what", "helps"),
    [
        ({"ordering": "directory"}, "order", "`ordering: subject`"),
        ({"ordering": "directory", "batch_max": 10}, "order", "(now 10, up to 100)"),
        ({"ordering": "subject"}, "answer_time", "`batch_max`"),
        ({"ordering": "subject", "batch_max": 100}, "order", "a faster answer"),
    ],
)
def test_a_slow_receiver_is_named_as_the_limit_with_advice(app_url: str, asked: dict[str, Any], what: str, helps: str) -> None:
    async def body() -> None:
        async with scene(app_url) as s:
            answer = asyncio.Event()

            async def slow(_: dict[str, Any]) -> None:
                await answer.wait()

            s.hook.verdict = slow
            users = await asyncio.gather(*(s.ledger.create_user(f"u{n}") for n in range(40)))
            await s.make(**asked)

            async def is_named() -> bool:
                found = await limited(s)
                return found is not None and found["what"] == what

            async with s.working():
                await s.until(lambda: len(s.hook.tried) > 0)
                if what == "order" and asked["ordering"] == "subject":
                    await s.ledger.patch_user(id_of(users[0]), {"op": "replace", "path": "displayName", "value": "x"})
                await s.until(is_named)
                found = await limited(s)
                assert found is not None
                assert helps in found["advice"]
                answer.set()
                await s.settled()
            assert await limited(s) is None

    run(body())


def test_a_missing_delivery_process_and_a_slow_application_are_named_as_the_limit(app_url: str) -> None:
    async def body() -> None:
        async with scene(app_url) as s:
            await s.make()
            await s.make("pulls", mode="pull", url=None)
            assert [await limited(s, name) for name in ("app", "pulls")] == [None, None]
            await s.ledger.create_user("u")
            found = [await limited(s, name) for name in ("app", "pulls")]
            assert [limit["what"] for limit in found if limit is not None] == ["no_process", "application"]

    run(body())


def test_a_receiver_that_refuses_is_named_as_the_limit_but_blocked_deliveries_are_not(app_url: str) -> None:
    async def body() -> None:
        async with scene(app_url) as s:
            await s.ledger.create_user("u")
            s.hook.verdict = lambda _: 500
            await s.make(retry_schedule=(0, 3_600))
            await s.make("hopeless", retry_schedule=(0,))

            async def is_named() -> bool:
                found = await limited(s)
                return found is not None and found["what"] == "failures"

            async with s.working():
                await s.until(is_named)
                await s.until(lambda: _is_blocked(s))
                assert await limited(s, "hopeless") is None

    run(body())


def test_very_many_blocked_deliveries_hide_no_limit_and_the_doctor_has_a_text_for_each_limit(
    app_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The events behind are counted only up to a number, the blocked ones completely: earlier, the difference was zero although
    events came.
    """
    monkeypatch.setattr("delivery.status.LAG_COUNTED_MAX", 2)

    async def body() -> None:
        async with scene(app_url) as s:
            await s.make()
            consumer = await s.consumer()
            for n in range(3):
                await s.ledger.create_user(f"u{n}")
            places = [(e["position"], e["seq"]) for e in await s.wanted()]
            row = "insert into open_deliveries (consumer, position, directory, seq, state) values (%s, %s, %s, %s, %s)"
            for position, seq in places:
                await s.sql(row, consumer.id, position, s.ledger.directory.id, seq, BLOCKED)
            found = await consumers.show(s.ledger.services.ledger, machine(), "app")
            assert (found["state"], found["lag_events"], found["lag_events_capped"]) == ("blocked", 2, True)
            assert found["limited_by"]["what"] == "no_process"
            assert set(found) == SAID | DESCRIBES, "the doctor speaks of it, or somebody decided that it need not"
            await s.sql("update open_deliveries set state = %s", RETRYING)
            found = await consumers.show(s.ledger.services.ledger, machine(), "app")
            assert (found["state"], found["blocked_on"]["state"]) == ("retrying", "retrying")

    run(body())


async def _is_blocked(s: Scene) -> bool:
    return (await consumers.show(s.ledger.services.ledger, machine(), "hopeless"))["blocked"] == 1


def test_a_consumer_that_is_read_no_further_says_so_and_goes_on_after_an_operators_decision(
    app_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The maximum number of events waits behind blocked ones: a later leaver is not read, and the cause is not this service's
    speed.
    """
    monkeypatch.setattr(backlog, "OPEN_MAX", 5)

    async def body() -> None:
        async with scene(app_url) as s:
            s.hook.verdict = lambda e: 500 if e["subject"]["id"] == str(poison) else None
            poison = id_of(await s.ledger.create_user("poison"))
            for n in range(8):
                await s.ledger.patch_user(poison, {"op": "replace", "path": "displayName", "value": f"x{n}"})
            await s.make(retry_schedule=(0,))

            async def is_named() -> bool:
                found = await limited(s)
                return found is not None and found["what"] == "exceptions"

            async def all_wait() -> bool:
                return len(await s.states()) == 9

            async with s.working():
                await s.until(lambda: _told_of(s, 1))
                await s.until(all_wait)
                leaver = id_of(await s.ledger.create_user("leaver"))
                await s.ledger.delete_user(leaver)
                await s.until(is_named)
                found = await limited(s)
                assert found is not None
                assert "the end of somebody's access included" in found["advice"]
                s.hook.verdict = lambda _: None
                (first,) = [e for e in await s.wanted("user.created") if e["subject"]["id"] == str(poison)]
                await deliveries.act(s.ledger.services.ledger, machine(), "app", first["id"], "skip", "known", of_parked=False)
                await s.until(lambda: str(leaver) in {e["subject"]["id"] for e in s.hook.took})
                await s.settled()
            assert await limited(s) is None

    run(body())


async def _told_of(s: Scene, blocked: int) -> bool:
    return list((await s.states()).values()).count(BLOCKED) == blocked
