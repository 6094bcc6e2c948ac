"""A hole ends when its event is delivered later: every way of not being acknowledged, with every way of a later delivery."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, LiteralString, cast

import psycopg
import pytest

from delivery.checkpoints import acknowledge
from delivery.forks import Fork, forked, moved_back
from operations import consumers, deliveries, replays
from operations.consumers import Changes, Put
from operations.replays import Wanted
from runtime.bootstrap import machine
from tests.postgres.deliveries import LOOPBACK, Scene, scene
from tests.postgres.ledgers import id_of
from tests.postgres.test_delivery import audited, run, why

Way = Callable[[Scene], Awaitable[None]]


async def act(s: Scene, event: dict[str, Any], verb: Literal["retry", "park", "skip"], *, of_parked: bool = False) -> None:
    await deliveries.act(s.ledger.services.ledger, machine(), "app", event["id"], verb, f"{verb} it", of_parked=of_parked)


async def changed(s: Scene, **changes: Any) -> Put:
    return await consumers.put(s.ledger.services.ledger, machine(), "app", Changes(**changes), None, LOOPBACK)


async def sought(s: Scene, to: str, reason: str = "moved") -> None:
    await consumers.seek(s.ledger.services.ledger, machine(), "app", to, reason, dry_run=False)


async def planned(s: Scene) -> dict[str, int]:
    wanted = Wanted("again", "beginning", None, None, None, None, None, "skip", "all of it")
    preview, _ = await replays.create(s.ledger.services.ledger, machine(), "app", wanted, dry_run=True)
    assert preview.run.total == preview.already_acked + sum(preview.not_acked.values())
    return preview.not_acked


async def replayed(s: Scene, superseded: Literal["skip", "include"] = "skip") -> None:
    wanted = Wanted("again", "beginning", None, None, None, None, None, superseded, "all of it")
    _, started = await replays.create(s.ledger.services.ledger, machine(), "app", wanted, dry_run=False)
    assert started is not None
    async with s.working():
        await s.until(lambda: _ended(s, str(started.id)))


async def _ended(s: Scene, number: str) -> bool:
    return (await replays.show(s.ledger.services.ledger, machine(), number)).state == "finished"


async def stuck(s: Scene, *events: dict[str, Any]) -> None:
    places = {event["position"] for event in events}

    async def blocked() -> bool:
        return places <= (await s.states()).keys()

    await s.until(blocked)


async def every_hole(s: Scene) -> dict[str, Any]:
    """One event for each reason of not being acknowledged, and some acknowledged ones."""
    await s.ledger.create_user("before")
    await s.make(start=await s.head(), types=("user.*",), retry_schedule=(0,))
    poison = {name: id_of(await s.ledger.create_user(name)) for name in ("skipped", "parked", "left")}
    created = {e["subject"]["id"]: e for e in await s.wanted("user.created")}
    event = {name: created[str(user)] for name, user in poison.items()}
    s.hook.verdict = lambda e: 500 if e["id"] in {bad["id"] for bad in event.values()} else None
    await s.ledger.create_user("taken")
    await s.ledger.create_group("filtered out")
    async with s.working():
        await stuck(s, *event.values())
        await act(s, event["skipped"], "skip")
        await act(s, event["parked"], "park")
        await act(s, event["left"], "skip")
        await s.ledger.delete_user(poison["left"])
        await s.settled()
        await changed(s, types=("user.*", "group.*"))
        await s.settled()
    s.hook.verdict = lambda _: None
    await s.ledger.create_user("over")
    await sought(s, "now")
    return event


async def by_a_replay(s: Scene) -> None:
    await replayed(s)
    assert why(await audited(s)) == {"skipped": 1, "parked": 1}, "the revoked grant, and the parked event"
    assert await planned(s) == {"parked": 1}
    aside = await s.states()
    (parked,) = [e for e in await s.wanted("user.created") if e["position"] in aside]
    await act(s, parked, "retry", of_parked=True)
    async with s.working():
        await s.settled()
    assert why(await audited(s)) == {"skipped": 1}
    await replayed(s, "include")


async def by_a_seek(s: Scene) -> None:
    await sought(s, "beginning")
    assert why(await audited(s)) == {"under_way": 6}, (
        "all that was not acknowledged; the group and what lay before are its own now"
    )
    async with s.working():
        await s.settled()


async def by_a_seek_after_two_in_vain(s: Scene) -> None:
    await sought(s, "beginning", "back")
    await sought(s, "now", "forth")
    found = await audited(s)
    assert why(found) == {"sought_over": 5}, "what was given up was not acknowledged by that, and what lay before is its own now"
    assert {hole.reason for hole in found.holes} == {"forth"}
    await by_a_seek(s)


@pytest.mark.parametrize("way", [by_a_replay, by_a_seek, by_a_seek_after_two_in_vain])
def test_an_event_that_is_delivered_later_is_no_hole_whatever_the_reason_was(app_url: str, way: Way) -> None:
    async def body() -> None:
        async with scene(app_url) as s:
            await every_hole(s)
            assert why(await audited(s)) == {"skipped": 2, "parked": 1, "sought_over": 1}
            not_acked = {"skipped": 1, "parked": 1, "sought_over": 1, "before_start": 1, "filtered_out": 1}
            assert await planned(s) == not_acked, "without the grant that was taken back"
            await way(s)
            found = await audited(s)
            assert (why(found), found.acknowledged) == ({}, found.expected)
            assert await planned(s) == {}
            assert {e["id"] for e in s.hook.took} == {e["id"] for e in await s.wanted()}

    run(body())


def test_an_event_that_is_skipped_while_it_is_accepted_counts_as_accepted(app_url: str) -> None:
    async def body() -> None:
        async with scene(app_url) as s:
            await s.make(retry_schedule=(0, 0))
            await s.ledger.create_user("u")
            (event,) = await s.wanted()
            asked, go_on = asyncio.Event(), asyncio.Event()

            async def verdict(_: dict[str, Any]) -> int | None:
                if len(s.hook.tried) == 1:
                    return 500
                asked.set()
                await go_on.wait()
                return None

            s.hook.verdict = verdict
            async with s.working():
                await asked.wait()
                await act(s, event, "skip")
                assert why(await audited(s)) == {"skipped": 1}
                go_on.set()
                await s.until(lambda: _acknowledged(s, 1))

    run(body())


@pytest.mark.parametrize("narrower", [{"types": ("group.*",)}, {"directories": ("_system",)}])
def test_a_skip_stays_on_record_until_its_event_is_read_again(app_url: str, narrower: dict[str, Any]) -> None:
    """After a seek back with a filter that leaves the event out, the event is not read again: who skipped it, and why, stays on
    record.
    """

    async def body() -> None:
        async with scene(app_url) as s:
            await s.make(types=("user.*", "group.*"), retry_schedule=(0,))
            await s.ledger.create_group("g")
            await s.ledger.create_user("poison")
            (event,) = await s.wanted("user.created")
            s.hook.verdict = lambda e: 500 if e["id"] == event["id"] else None
            async with s.working():
                await stuck(s, event)
                await act(s, event, "skip")
                await s.settled()
            s.hook.verdict = lambda _: None
            word = [("skipped", event["position"], "skip it")]
            await changed(s, **narrower)
            await sought(s, "beginning", "looked again")
            assert await _words(s) == word
            async with s.working():
                await s.settled()
            assert await _words(s) == word
            await sought(s, "beginning", "looked again")
            await changed(s, types=("user.*", "group.*"), directories=("*",))
            assert await _words(s) == [("under_way", event["position"], None)], "it comes again"
            async with s.working():
                await s.settled()
            found = await audited(s)
            assert (found.acknowledged, found.holes) == (found.expected, [])

    run(body())


async def _words(s: Scene) -> list[tuple[str, int, str | None]]:
    return [(hole.why, hole.first, hole.reason) for hole in (await audited(s)).holes]


async def _acknowledged(s: Scene, count: int) -> bool:
    found = await audited(s)
    return (found.acknowledged, found.holes) == (count, [])


def test_skipping_a_repetition_leaves_no_hole(app_url: str) -> None:
    """The event itself was acknowledged before; an event that was itself skipped stays a hole."""

    async def body() -> None:
        async with scene(app_url) as s:
            await s.make(retry_schedule=(0,))
            for name in ("taken", "given up"):
                await s.ledger.create_user(name)
            taken, given_up = await s.wanted()
            s.hook.verdict = lambda e: 500 if e["id"] == given_up["id"] else None
            async with s.working():
                await stuck(s, given_up)
                await act(s, given_up, "skip")
                await s.settled()
                s.hook.verdict = lambda _: 500
                ran = await s.replay()
                await stuck(s, taken, given_up)
                for event in (taken, given_up):
                    await act(s, event, "skip")
                await s.until(lambda: _ended(s, str(ran.id)))
            found = await audited(s)
            assert (why(found), found.holes[0].first, found.acknowledged) == ({"skipped": 1}, given_up["position"], 1)

    run(body())


def test_deliveries_from_a_lost_end_do_not_count_for_the_events_that_are_there_now(app_url: str) -> None:
    async def body() -> None:
        async with scene(app_url) as s:
            consumer = await s.make()
            for n in range(3):
                await s.ledger.create_user(f"u{n}")
            first, second, third = [e["position"] for e in await s.wanted()]
            for position in (first, third):
                await s.sql("insert into replayed (consumer, position) values (%s, %s)", consumer.id, position)
            for position in (second, third):
                await s.sql("insert into skips (consumer, position) values (%s, %s)", consumer.id, position)
            await s.act(moved_back(consumer, Fork(second, {}, (), 0)))
            assert await s.sql("select position from replayed") == [(first,)]
            assert await s.sql("select position from skips") == [(second,)]

    run(body())


# for each report: the common position and the first lost one, as numbers of users; and the position that holds for both
TOLD: dict[str, tuple[list[tuple[int, int | None]], int]] = {
    "one knows less": ([(1, 9), (-1, 9)], 1),
    "one knows more": ([(-1, 9), (1, 9)], 1),
    "one was sent what is gone below": ([(1, 9), (0, 1)], 0),
    "a later fork": ([(1, 9), (3, 9)], 1),
    "one knows positions alone": ([(1, None), (-1, None)], 1),
}  # fmt: skip


@pytest.mark.parametrize("told", TOLD.values(), ids=TOLD)
def test_the_common_position_is_the_greatest_that_holds_for_every_report(
    app_url: str, told: tuple[list[tuple[int, int | None]], int]
) -> None:
    """Each process knows only what it sent itself. Earlier, a process that had sent nothing else made the position zero."""

    async def body() -> None:
        async with scene(app_url) as s:
            consumer = await s.make()
            for n in range(3):
                await s.ledger.create_user(f"u{n}")
            for number, (common, gone) in enumerate(told[0]):
                places = {-1: 0, 9: 1_000} | {n: e["position"] for n, e in enumerate(await s.wanted())}
                fork = Fork(places[common], {"acme": 0}, (f"evt_acme_99_0000000{number}",), 1)
                await s.act(forked(consumer, replace(fork, first_gone=None if gone is None else places[gone])))
                await s.ledger.create_user(f"later{number}")
            event = (await s.wanted())[told[1]]
            assert await s.sql("select common_position, common, gone_count from consumer_forks") == [
                (event["position"], {"acme": event["seq"]}, 2)
            ]

    run(body())


REPAIR = (Path(__file__).parents[2] / "database" / "migrations" / "0016_delivered_after_all.sql").read_text(encoding="utf-8")


def test_rows_that_earlier_releases_left_are_corrected(app_url: str, owner_url: str) -> None:
    """They kept the row of a skipped event when a seek back delivered it; an event that was never delivered keeps its row."""

    async def body() -> None:
        async with scene(app_url) as s:
            await s.make(mode="pull", url=None)
            for n in range(3):
                await s.ledger.create_user(f"u{n}")
            first, second, third = [e["position"] for e in await s.wanted()]
            consumer = await s.consumer()
            async with s.conn() as conn:
                await acknowledge(conn, consumer, second, [s.ledger.directory.id])
            for position in (first, second):
                await s.sql("insert into skips (consumer, position) values (%s, %s)", consumer.id, position)
            await sought(s, str(second))
            for position in (second, third):
                await s.sql("insert into skips (consumer, position) values (%s, %s)", consumer.id, position)
            await s.sql("update skips set at = (select at from consumer_epochs where epoch = 1) where position < %s", third)
            async with s.conn() as conn:
                await acknowledge(conn, await s.consumer(), third, [s.ledger.directory.id])
            with psycopg.connect(owner_url) as conn:
                conn.execute("set search_path to ledger")
                conn.execute(cast("LiteralString", REPAIR[REPAIR.index("delete from skips") :]))
            assert await s.sql("select position from skips order by 1") == [(first,), (third,)]

    run(body())
