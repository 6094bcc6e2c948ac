"""A consumer whose filter was wider before still delivers events of the old filter, so a token that does not reach them does not
reach the consumer.
"""

from collections.abc import Awaitable, Callable
from typing import Any
from uuid import uuid4

import pytest

from delivery.consumers import Allowed
from ledger.tokens import Token
from operations import consumers, deliveries, directories, replays
from operations.caller import Caller
from operations.consumers import Webhooks
from operations.refusals import ConflictError, NotFoundError
from operations.replays import Wanted
from runtime.bootstrap import machine
from tests.postgres.deliveries import LOOPBACK, Scene, scene
from tests.postgres.test_delivery import run

NARROWED = Token(uuid4(), "operator", "of acme", ("acme",), ("*",), bodies=False)
WANTED = Wanted("again", "1", None, None, None, None, None, "skip", "an outage elsewhere")
ELSEWHERE = "http://127.0.0.1:9/mine"
HOOKS = Webhooks(Allowed(), 1.0)

Act = Callable[[Any, Caller, str], Awaitable[Any]]
ACTS: dict[str, Act] = {
    "show": lambda ledger, who, _: consumers.show(ledger, who, "app"),
    "pause": lambda ledger, who, _: consumers.pause(ledger, who, "app"),
    "resume": lambda ledger, who, _: consumers.resume(ledger, who, "app"),
    "delete": lambda ledger, who, _: consumers.delete(ledger, who, "app"),
    "secret": lambda ledger, who, _: consumers.rotate_secret(ledger, who, "app", 0),
    "ping": lambda ledger, who, _: consumers.ping(ledger, who, "app", HOOKS),
    "seek": lambda ledger, who, _: consumers.seek(ledger, who, "app", "now", "r", dry_run=True),
    "audit": lambda ledger, who, _: consumers.audit(ledger, who, "app", None, None),
    "blocked": lambda ledger, who, _: deliveries.list_blocked(ledger, who, "app", 0, 10),
    "parked": lambda ledger, who, _: deliveries.list_parked(ledger, who, "app", 0, 10),
    "retry": lambda ledger, who, event: deliveries.act(ledger, who, "app", event, "retry", "r", of_parked=False),
    "replay": lambda ledger, who, _: replays.create(ledger, who, "app", WANTED, dry_run=True),
    "replays": lambda ledger, who, _: replays.list_runs(ledger, who, "app", 10),
}  # fmt: skip


async def narrowed(s: Scene) -> tuple[Any, str]:
    """A webhook of both directories is narrowed to `acme`; returns the ledger and the id of an event of the other directory."""
    ledger = s.ledger.services.ledger
    await directories.create(ledger, machine(), "other")
    await s.make(types=("*",), directories=("acme", "other"))
    created = next(event for event in await s.wanted("directory.created") if event["directory"] == "other")
    return ledger, created["id"]


async def block(s: Scene, event_id: str) -> None:
    """Block the delivery of the event of the other directory."""
    await s.sql(
        "insert into open_deliveries (consumer, position, directory, seq, state) select %s, c.position, d.id, 1, 3"
        " from directories d join commits c on c.directory = d.id and c.seq = 1 where d.slug = %s",
        (await s.consumer()).id, event_id.split("_")[1],
    )  # fmt: skip


async def narrow(ledger: Any) -> None:
    await consumers.put(ledger, machine(), "app", {"directories": ("acme",)}, None, LOOPBACK)


@pytest.mark.parametrize("left", ["delivery", "run"])
def test_deliveries_of_an_earlier_filter_hide_a_consumer_from_tokens_that_do_not_reach_them(app_url: str, left: str) -> None:
    async def body() -> None:
        async with scene(app_url) as s:
            ledger, event_id = await narrowed(s)
            who = Caller(NARROWED, uuid4())
            if left == "delivery":
                await block(s, event_id)
            else:
                await replays.create(ledger, machine(), "app", WANTED, dry_run=False)
            await narrow(ledger)
            for act in ACTS.values():
                with pytest.raises(NotFoundError):
                    await act(ledger, who, event_id)
            with pytest.raises(ConflictError):
                await consumers.put(ledger, who, "app", {"url": ELSEWHERE}, None, LOOPBACK)
            assert await consumers.list_all(ledger, who) == []
            assert await replays.list_runs(ledger, who, None, 10) == []
            assert [found["name"] for found in await consumers.list_all(ledger, machine())] == ["app"]

    run(body())


def test_lost_events_beyond_its_reach_are_not_shown_to_a_narrowed_token(app_url: str) -> None:
    """They were sent under the wider filter and then lost from the log: the token must not see ids, hashes and seqs of that
    directory.
    """

    async def body() -> None:
        async with scene(app_url) as s:
            ledger, _ = await narrowed(s)
            await narrow(ledger)
            who, everyone = Caller(NARROWED, uuid4()), machine()
            await gone(s, ["evt_acme_3_00000001", "evt_other_2_00000002"], 1_200)
            seen = (await consumers.show(ledger, who, "app"))["forked"]
            assert (seen["gone"], seen["gone_count"], seen["common"], seen["common_seq"]) == (
                ["evt_acme_3_00000001"],
                1,
                {"acme": 2},
                2,
            )
            audit = await consumers.audit(ledger, who, "app", None, None)
            assert (audit["gone"][0]["gone"], audit["gone_count"]) == (["evt_acme_3_00000001"], 1)
            assert (await consumers.list_all(ledger, who))[0]["forked"] == seen
            whole = (await consumers.show(ledger, everyone, "app"))["forked"]
            assert (len(whole["gone"]), whole["gone_count"], set(whole["common"])) == (2, 1_200, {"acme", "other"})
            await consumers.close_fork(ledger, everyone, "app", "seen to")
            await gone(s, ["evt_other_2_00000002"], 1)
            assert (await consumers.show(ledger, who, "app"))["forked"] is None
            with pytest.raises(ConflictError, match="closed already"):
                await consumers.close_fork(ledger, who, "app", "not mine")
            assert (await consumers.audit(ledger, who, "app", None, None))["gone_count"] == 1
            assert (await consumers.audit(ledger, everyone, "app", None, None))["gone_count"] == 1_201

    run(body())


async def gone(s: Scene, ids: list[str], count: int) -> None:
    """Record a lost end of the log, with these ids and this number of events."""
    await s.sql(
        "insert into consumer_forks (consumer, common_position, common, gone, gone_count, places_lost) values (%s, 5, %s, %s, %s, 0)",
        (await s.consumer()).id, '{"acme": 2, "other": 1}', ids, count,
    )  # fmt: skip


def test_the_consumer_is_visible_to_the_narrower_token_again_when_nothing_is_left(app_url: str) -> None:
    """A finished run belongs to the wider filter: it stays hidden, while the consumer does not."""

    async def body() -> None:
        async with scene(app_url) as s:
            ledger, event_id = await narrowed(s)
            who = Caller(NARROWED, uuid4())
            await block(s, event_id)
            _, started = await replays.create(ledger, machine(), "app", WANTED, dry_run=False)
            assert started is not None
            await narrow(ledger)
            await deliveries.act(ledger, machine(), "app", event_id, "skip", "cleared", of_parked=False)
            await replays.cancel(ledger, machine(), str(started.id))
            assert (await consumers.show(ledger, who, "app"))["directories"] == ["acme"]
            assert await replays.list_runs(ledger, who, "app", 10) == await replays.list_runs(ledger, who, None, 10) == []
            with pytest.raises(NotFoundError):
                await replays.show(ledger, who, str(started.id))
            assert len(await replays.list_runs(ledger, machine(), "app", 10)) == 1

    run(body())
