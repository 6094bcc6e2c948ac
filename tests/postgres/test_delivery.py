"""Deliveries from a real database to a real receiver: order, exceptions, acts of operators, leases, replays, the surge brake, the
audit.
"""

import asyncio
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import replace
from types import SimpleNamespace
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from aiohttp import web
from structlog.testing import capture_logs

from database.locks import CONSUMER
from delivery import backlog, dispatcher, doubt, losses, surge_control
from delivery import consumers as acts
from delivery import worker as worker_module
from delivery.audit import Audit, audit
from delivery.backlog import Budgets
from delivery.checkpoints import acknowledge, exceptions, record
from delivery.doubt import CIRCUIT, IN_FLIGHT_MAX
from delivery.interventions import parked, retried, skipped
from delivery.lanes import Item
from delivery.log_positions import PlaceMovedError
from delivery.reports import BLOCKED, HELD, PARKED, RETRYING, WAITING, Place, Report
from delivery.runs import Range
from delivery.scheduler import Open
from delivery.signing import new_secret
from delivery.surge_policy import Limit
from delivery.worker import FAILED_MAX, Worker
from ledger.commands import DeleteGroup
from ledger.tail import Tail
from replay.redeliver import moved, plan, run_of
from runtime.deliver import open_worker, transports_of
from tests.postgres.deliveries import LOOPBACK, WAIT_S, Scene, edge_of, in_order, must_follow, scene, subject_of
from tests.postgres.ledgers import id_of

OFF = {"op": "replace", "path": "active", "value": False}
ON = {"op": "replace", "path": "active", "value": True}


def run(coroutine: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(coroutine, 4 * WAIT_S))


async def people(s: Scene, users: int = 3, *, renamed: bool = True) -> list[UUID]:
    """Users who are created, added to a group and renamed; some are deactivated, one is deleted: five kinds of dependence."""
    ids = [id_of(o) for o in await asyncio.gather(*(s.ledger.create_user(f"u{n}") for n in range(users)))]
    await s.ledger.create_group("team", tuple(ids))
    if renamed:
        await asyncio.gather(*(s.ledger.patch_user(i, {"op": "replace", "path": "displayName", "value": "x"}) for i in ids))
        await s.ledger.patch_user(ids[0], OFF)
        await s.ledger.patch_user(ids[0], ON)
        await s.ledger.delete_user(ids[1])
    return ids


async def audited(s: Scene, name: str = "app") -> Audit:
    async with s.conn() as conn:
        return await audit(conn, s.kek, await s.consumer(name), await s.ledger.services.ledger.directories.all(conn))


def why(found: Audit) -> dict[str, int]:
    counts: dict[str, int] = {}
    for hole in found.holes:
        counts[hole.why] = counts.get(hole.why, 0) + hole.count
    return counts


# -- order --------------------------------------------------------------------


@pytest.mark.parametrize(("ordering", "batch_max"), [("subject", 1), ("subject", 10), ("directory", 1), ("directory", 10)])
def test_everything_is_delivered_once_and_in_order(app_url: str, ordering: str, batch_max: int) -> None:
    async def body() -> None:
        async with scene(app_url) as s:
            await s.make(ordering=ordering, batch_max=batch_max)
            await people(s, 10)
            async with s.working():
                await s.until(lambda: len(s.hook.took) >= 20)
                await s.ledger.create_user("late")
                await s.settled()
            wanted = [e["position"] for e in await s.wanted()]
            assert sorted(s.hook.positions()) == wanted
            assert s.hook.positions() == wanted if ordering == "directory" else in_order(s.hook.took)
            if ordering == "directory" and batch_max == 1:
                seqs = [str(e["seq"]) for e in s.hook.took]
                assert [h["ledger-previous-seq"] for h in s.hook.headers] == ["0", *seqs[:-1]]

    run(body())


def test_deliveries_made_while_the_database_is_read_only_are_recorded_afterwards(app_url: str, superuser_url: str) -> None:
    """Earlier, this was taken for a defect, and the consumer was loaded again: everything under way was delivered a second time."""

    async def body() -> None:
        async with scene(app_url) as s, await psycopg.AsyncConnection.connect(superuser_url, autocommit=True) as conn:
            await s.make()
            async with s.working():
                await s.settled()
                await conn.execute(
                    "create function public.refuse() returns trigger language plpgsql as "
                    "$$ begin raise exception 'no' using errcode = '25006'; end $$"
                )
                await conn.execute(
                    "create trigger refuses before insert on ledger.checkpoints for each statement execute function public.refuse()"
                )
                with capture_logs() as logs:
                    await s.ledger.create_user("meanwhile")
                    told = {"recording_away", "recording_failed"}
                    await s.until(lambda: any(entry["event"] in told for entry in logs), "it is not recorded")
                await conn.execute("drop function public.refuse cascade")
                await s.settled()
            assert len(s.hook.took) == 1

    run(body())


@pytest.mark.parametrize(("ordering", "batch_max"), [("subject", 1), ("subject", 100), ("directory", 100)])
def test_a_request_has_as_many_events_as_its_budget_of_bytes_allows(
    app_url: str, monkeypatch: pytest.MonkeyPatch, ordering: str, batch_max: int
) -> None:
    """Small and large events, also one that is larger than the budget, all arrive in order; events that are not kept in memory
    are read again.
    """
    monkeypatch.setattr(dispatcher, "BODIES_BYTES_MAX", 30_000)
    monkeypatch.setattr(dispatcher, "BUDGETS", Budgets(request=30_000, consumer=10_000))

    async def body() -> None:
        async with scene(app_url) as s:
            await s.make(ordering=ordering, batch_max=batch_max)
            sizes = [1, 2_000, 12_000, 100_000]
            made = await asyncio.gather(*(s.ledger.create_user(f"u{n}", title="t" * sizes[n % 4]) for n in range(40)))
            await s.ledger.create_group("team", tuple(id_of(o) for o in made))
            held: list[int] = []
            verdicts = 0

            def verdict(_: dict[str, Any]) -> int | None:
                nonlocal verdicts
                verdicts += 1
                held.extend(p.dispatcher._backlog.json_held for p in worker._held.values())
                return 500 if verdicts % 17 == 0 else None

            s.hook.verdict = verdict
            async with s.working() as worker:
                await s.settled()
            assert sorted(s.hook.positions()) == [e["position"] for e in await s.wanted()]
            assert in_order(s.hook.took)
            for request in s.hook.sizes:
                assert sum(request[1:]) <= 30_000
            assert max(held) <= 10_000 + 30_000 + 16 * 105_000, (
                "the window, the events under way, and a first event of each request"
            )

    run(body())


def test_a_damaged_body_is_delivered_as_unreadable(app_url: str, superuser_url: str) -> None:
    async def body() -> None:
        async with scene(app_url) as s:
            ids = await people(s, 3, renamed=False)
            with psycopg.connect(superuser_url, autocommit=True) as conn:
                conn.execute(
                    "update ledger.subject_keys set wrapped = set_byte(wrapped, 20, get_byte(wrapped, 20) # 1) where obj = %s",
                    (ids[1],),
                )
            await s.make()
            async with s.working():
                await s.settled()
            shown = {subject_of(e): e["data"] for e in s.hook.took if e["type"] == "user.created"}
            assert [shown[i] == {"unreadable": True} for i in ids] == [False, True, False]

    run(body())


def test_an_event_that_always_fails_holds_back_only_events_that_depend_on_it_and_the_place_moves_on(app_url: str) -> None:
    async def body() -> None:
        async with scene(app_url) as s:
            ids = await people(s, 6)
            await s.make()
            s.hook.verdict = lambda e: 500 if e["type"] == "user.created" and subject_of(e) == ids[2] else None
            wanted = await s.wanted()
            stuck = [e for e in wanted if e["subject"]["id"] == str(ids[2]) or str(ids[2]) in (edge_of(e) or ())]
            async with s.working():
                await s.until(lambda: len(s.hook.took) == len(wanted) - len(stuck))
                await s.until(lambda: _is(s.states(), {stuck[0]["position"]: BLOCKED}, only=True))
            assert {e["position"] for e in s.hook.took} == {e["position"] for e in wanted} - {e["position"] for e in stuck}
            assert in_order(s.hook.took)
            assert [e["position"] for e in s.hook.tried].count(stuck[0]["position"]) == 3, "the schedule has three attempts"
            place = await s.place()
            assert place.through >= wanted[-1]["position"]
            assert (await s.lag()).events == len(stuck)

    run(body())


async def _is(found: Any, expected: dict[int, int], *, only: bool = False) -> bool:
    """Whether the exceptions at these positions have these states; with `only`, whether no others have one of these states."""
    states = await found
    return all(states.get(p) == state for p, state in expected.items()) and (
        not only or all(p in expected for p, state in states.items() if state in expected.values())
    )


def test_many_failing_events_in_a_row_do_not_stop_the_rest(app_url: str) -> None:
    """A receiver that rejects twenty malformed users must still get a leaver: only a receiver that seems to be down is sent less."""

    async def body() -> None:
        async with scene(app_url) as s:
            await asyncio.gather(*(s.ledger.create_user(f"bad{n}") for n in range(20)))
            good = id_of(await s.ledger.create_user("good"))
            await s.ledger.patch_user(good, OFF)
            s.hook.verdict = lambda e: 422 if subject_of(e) != good else None
            await s.make(retry_schedule=(0, 3_600, 3_600))
            async with s.working():
                await s.until(lambda: [e["type"] for e in s.hook.took] == ["user.created", "user.deactivated"])

    run(body())


@pytest.mark.parametrize("batch_max", [1, 20])
def test_a_receiver_that_crashes_on_twenty_events_still_gets_a_leaver(app_url: str, batch_max: int) -> None:
    """There is no answer, and none of the next attempts is due for hours.

    Earlier, nothing more was sent, except one probe that was always the same.
    """

    async def body() -> None:
        async with scene(app_url) as s:
            never = asyncio.Event()
            bad = {id_of(o) for o in await asyncio.gather(*(s.ledger.create_user(f"bad{n}") for n in range(20)))}

            async def hang(event: dict[str, Any]) -> None:
                if subject_of(event) in bad:
                    await never.wait()

            s.hook.verdict = hang
            await s.make(retry_schedule=(0, 3_600, 3_600), batch_max=batch_max)
            async with s.working(timeout_s=0.3):
                await s.until(lambda: _is_retrying(s, 20))
                await s.ledger.patch_user(next(iter(bad)), {"op": "replace", "path": "displayName", "value": "x"})
                good = id_of(await s.ledger.create_user("good"))
                await s.ledger.patch_user(good, OFF)
                began = asyncio.get_running_loop().time()
                await s.until(lambda: [e["type"] for e in s.hook.took] == ["user.created", "user.deactivated"])
                assert asyncio.get_running_loop().time() - began < 5.0
                never.set()

    run(body())


def test_a_leaver_far_behind_in_the_log_is_sent_while_the_receiver_does_not_answer(
    app_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Reading goes on, and untried events are moved out of memory: they are tried in their turn later, and none is sent twice."""

    async def body() -> None:
        monkeypatch.setattr(backlog, "WINDOW_MAX", 40)
        monkeypatch.setattr(dispatcher, "READ_PAGE", 20)
        async with scene(app_url) as s:
            good = id_of(await s.ledger.create_user("good"))
            head = await s.head()
            await asyncio.gather(*(s.ledger.create_user(f"bad{n}") for n in range(300)))
            await s.ledger.patch_user(good, OFF)
            mended = False
            s.hook.verdict = lambda e: None if mended or subject_of(e) == good else 503
            await s.make(start=head, retry_schedule=(0, 3_600, 3_600))
            async with s.working():
                await s.until(lambda: [e["type"] for e in s.hook.took] == ["user.deactivated"])
                assert len(s.hook.tried) < 250, "it did not wait for its turn"
                mended = True
                await s.ledger.patch_user(good, ON)
                await s.settled()
            assert sorted(s.hook.positions()) == [e["position"] for e in await s.wanted() if e["position"] > head]
            assert await s.states() == {}

    run(body())


def test_a_429_pauses_its_event_for_its_retry_after_and_the_others_for_at_most_a_minute(
    app_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def body() -> None:
        monkeypatch.setattr(backlog, "PAUSE_MAX_S", 0.3)
        async with scene(app_url) as s:
            bad = id_of(await s.ledger.create_user("bad"))
            patience = {"Retry-After": "3600"}
            s.hook.verdict = lambda e: web.Response(status=429, headers=patience) if subject_of(e) == bad else None
            await s.make(retry_schedule=(0, 0, 0))
            async with s.working():
                await s.until(lambda: _is_retrying(s, 1))
                good = id_of(await s.ledger.create_user("good"))
                await s.until(lambda: [subject_of(e) for e in s.hook.took] == [good])
            assert [subject_of(e) for e in s.hook.tried] == [bad, good]

    run(body())


async def _is_retrying(s: Scene, count: int) -> bool:
    return list((await s.states()).values()).count(RETRYING) == count


def test_a_blocked_delivery_is_reported_once_also_if_reporting_fails_at_first(
    app_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The row and its event are two commits.

    A reader who watches the events must get one even if the process ends between the two.
    """

    async def body() -> None:
        failures = iter([True, True])
        tell = dispatcher._blocked

        def fragile(*args: Any) -> Any:
            if next(failures, False):
                raise psycopg.OperationalError("the database went away")
            return tell(*args)

        monkeypatch.setattr(dispatcher, "_blocked", fragile)
        async with scene(app_url) as s:
            user = id_of(await s.ledger.create_user("poison"))
            s.hook.verdict = lambda _: 500
            await s.make(retry_schedule=(0,))
            async with s.working():
                await s.until(lambda: _told(s, "delivery.blocked", 1))
                (stuck,) = await s.states()
                await s.act(retried(await s.consumer(), stuck, "evt", "mended"))
                await s.until(lambda: _told(s, "delivery.blocked", 2))
            told = [e["data"]["object"] for e in await s.wanted("delivery.blocked")]
            assert [(e["attempts"], e["last_error"]) for e in told] == [(1, "http_500"), (1, "http_500")]
            assert len(s.hook.tried) == 2
            assert {subject_of(e) for e in s.hook.tried} == {user}
            assert next(failures, None) is None, "the report did fail once"

    run(body())


def test_the_events_of_a_refused_batch_are_sent_one_by_one_and_only_the_failing_one_is_blocked(app_url: str) -> None:
    """This holds even with a schedule of one attempt: the other events of the request have not failed until they fail alone."""

    async def body() -> None:
        async with scene(app_url) as s:
            await asyncio.gather(*(s.ledger.create_user(f"u{n}") for n in range(30)))
            wanted = [e["position"] for e in await s.wanted()]
            s.hook.verdict = lambda e: 500 if e["position"] == wanted[17] else None
            await s.make(batch_max=50, retry_schedule=(0,))
            async with s.working():
                await s.until(lambda: len(s.hook.took) == 29)
                await s.until(lambda: _is(s.states(), {wanted[17]: BLOCKED}))
            assert await s.states() == {wanted[17]: BLOCKED}

    run(body())


def test_a_receiver_that_is_down_is_tried_at_a_limited_rate_and_gets_everything_when_it_is_back(app_url: str) -> None:
    async def body() -> None:
        async with scene(app_url) as s:
            away = True
            s.hook.verdict = lambda _: 503 if away else None
            await asyncio.gather(*(s.ledger.create_user(f"u{n}") for n in range(60)))
            await s.make(retry_schedule=(0, *([1] * 100)))
            async with s.working():
                await s.until(lambda: len(s.hook.tried) > 20)
                assert len({e["id"] for e in s.hook.tried}) < 40, "first tries are limited to the rate"
                away = False
                await s.settled()
            assert sorted(s.hook.positions()) == [e["position"] for e in await s.wanted()]

    run(body())


def test_thousands_of_events_behind_a_failing_group_do_not_stop_the_place(app_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """They wait with a row each, and are sent in order when the event of the group is accepted."""

    async def body() -> None:
        monkeypatch.setattr(backlog, "WINDOW_MAX", 500)
        async with scene(app_url) as s:
            users = list[UUID]()
            for start in range(0, 3_000, 500):
                created = await asyncio.gather(*(s.ledger.create_user(f"u{n}") for n in range(start, start + 500)))
                users += map(id_of, created)
            poison = True
            s.hook.verdict = lambda e: 500 if poison and e["type"] == "group.created" else None
            await s.make(start=await s.head(), batch_max=100, retry_schedule=(0,))
            group = id_of(await s.ledger.create_group("everyone", tuple(users)))
            other = id_of(await s.ledger.create_user("other"))
            async with s.working():
                await s.until(lambda: str(other) in {e["subject"]["id"] for e in s.hook.took})
                await s.until(lambda: _passed(s, 3_000))
                assert len(s.hook.took) == 1
                states = await s.states()
                stuck = next(p for p, state in states.items() if state == BLOCKED)
                assert sum(state == WAITING for state in states.values()) >= 2_500
                poison = False
                await s.act(retried(await s.consumer(), stuck, "evt", "mended"))
                await s.settled()
            of_group = [e for e in s.hook.took if e["subject"]["id"] == str(group)]
            assert len(of_group) == 3_001
            assert of_group[0]["type"] == "group.created"
            assert await s.states() == {}

    run(body())


async def _passed(s: Scene, count: int) -> bool:
    return (await s.place()).through >= (await s.wanted())[-1]["position"] and (await s.lag()).events >= count


# -- what operators do ----------------------------------------------------------


async def blocked_user(s: Scene) -> tuple[int, list[dict[str, Any]]]:
    """One user whose creation is blocked, with events that wait for it. Returns the position of the creation."""
    user = id_of(await s.ledger.create_user("poison"))
    await s.ledger.patch_user(user, {"op": "replace", "path": "displayName", "value": "x"})
    await s.ledger.create_group("g", (user,))
    wanted = await s.wanted()
    first = wanted[0]["position"]
    s.hook.verdict = lambda e: 500 if e["position"] == first else None
    await s.make(retry_schedule=(0,))
    return first, wanted


def test_a_clock_that_is_set_back_delays_no_retry(app_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The clock of the service is set back by an hour: earlier, a leaver was delivered an hour late."""
    offset = set_by(monkeypatch)

    async def body() -> None:
        async with scene(app_url) as s:
            s.hook.verdict = lambda _: 500
            await s.make(retry_schedule=(0, 2))
            async with s.working():
                await s.ledger.create_user("u")
                await s.until(lambda: _is_retrying(s, 1))
                s.hook.verdict = lambda _: None
                offset[0] = -3_600.0
                await s.settled()

    run(body())


def test_a_retry_stored_by_a_clock_that_was_a_day_ahead_waits_no_longer_than_its_schedule(
    app_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process loads it after the clock was corrected: earlier, a leaver was delivered a day late."""
    offset = set_by(monkeypatch)
    offset[0] = 86_400.0

    async def body() -> None:
        async with scene(app_url) as s:
            s.hook.verdict = lambda _: 500
            await s.make(retry_schedule=(0, 1))
            async with s.working():
                await s.ledger.create_user("u")
                await s.until(lambda: _is_retrying(s, 1))
            s.hook.verdict = lambda _: None
            offset[0] = 0.0
            async with s.working():
                await s.settled()

    run(body())


def test_a_retry_after_is_kept_while_other_events_are_accepted_and_by_the_next_process(
    app_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The receiver is in doubt, where most failures use up no attempt: each delivery has a row with the time until which it
    waits.
    """
    monkeypatch.setattr(doubt, "BLAMED_MAX", CIRCUIT)
    monkeypatch.setattr(doubt, "PROBE_S", 0.0)

    async def body() -> None:
        async with scene(app_url) as s:
            bad = {id_of(await s.ledger.create_user(f"bad {n}")) for n in range(CIRCUIT + 3)}
            patience = {"Retry-After": "3600"}
            s.hook.verdict = lambda e: web.Response(status=503, headers=patience) if subject_of(e) in bad else None
            await s.make()
            for name in ("while it is in doubt", "after a restart"):
                async with s.working():
                    await s.until(lambda: {subject_of(e) for e in s.hook.tried} >= bad)
                    good = id_of(await s.ledger.create_user(name))
                    await s.until(lambda good=good: subject_of(s.hook.took[-1]) == good if s.hook.took else False)
                    await s.settled_but(len(bad))
            assert len([e for e in s.hook.tried if subject_of(e) in bad]) == len(bad), "each once"
            states = list((await s.states()).values())
            assert (states.count(RETRYING), states.count(WAITING)) == (CIRCUIT, 3)

    run(body())


def test_a_429_also_pauses_the_next_process(app_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backlog, "PAUSE_MAX_S", 1.5)
    monkeypatch.setattr(worker_module, "LOOK_S", 0.05)

    async def body() -> None:
        async with scene(app_url) as s:
            bad = id_of(await s.ledger.create_user("bad"))
            times: list[float] = []

            def patient(event: dict[str, Any]) -> Any:
                times.append(time.monotonic())
                return web.Response(status=429, headers={"Retry-After": "3600"}) if subject_of(event) == bad else None

            s.hook.verdict = patient
            await s.make()
            async with s.working():
                await s.until(lambda: _paused(s))
            await s.ledger.create_user("good")
            async with s.working():
                await s.until(lambda: len(s.hook.took) == 1)
            assert times[1] - times[0] >= 1.5

    run(body())


async def _paused(s: Scene) -> bool:
    return await s.sql("select 1 from consumer_leases where not_before > clock_timestamp()") != []


@pytest.mark.parametrize("again", ["retry", "replay"])
def test_a_delivery_that_an_operator_retries_is_due_at_once_whatever_the_clock(
    app_url: str, monkeypatch: pytest.MonkeyPatch, again: str
) -> None:
    """Earlier, it was due by the database's clock: an hour late if the service's clock is an hour behind."""
    set_by(monkeypatch)[0] = -3_600.0

    async def body() -> None:
        async with scene(app_url) as s:
            first, _ = await blocked_user(s)
            async with s.working():
                await s.until(lambda: _is(s.states(), {first: BLOCKED}))
                s.hook.verdict = lambda _: None
                if again == "retry":
                    await s.act(retried(await s.consumer(), first, "evt", "mended"))
                else:
                    await s.replay()
                await s.settled()

    run(body())


def set_by(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """From now on the clock of the workers differs by this number of seconds."""
    offset = [0.0]
    monkeypatch.setattr("runtime.deliver.time", SimpleNamespace(time=lambda: time.time() + offset[0]))
    return offset


def test_a_retry_by_an_operator_delivers_the_event_and_those_that_waited(app_url: str) -> None:
    async def body() -> None:
        async with scene(app_url) as s:
            first, wanted = await blocked_user(s)
            async with s.working():
                await s.until(lambda: _is(s.states(), {first: BLOCKED}))
                s.hook.verdict = lambda _: None
                await s.act(retried(await s.consumer(), first, "evt", "mended"))
                await s.settled()
            assert sorted(s.hook.positions()) == [e["position"] for e in wanted]
            assert in_order(s.hook.took)
            assert why(await audited(s)) == {}

    run(body())


@pytest.mark.parametrize("act", [parked, skipped])
def test_a_parked_or_skipped_delivery_delays_nothing_and_the_audit_names_it(app_url: str, act: Any) -> None:
    async def body() -> None:
        async with scene(app_url) as s:
            first, wanted = await blocked_user(s)
            async with s.working():
                await s.until(lambda: _is(s.states(), {first: BLOCKED}))
                assert (
                    why(await audited(s)) == {"blocked": 1} | ({"waiting": 2} if WAITING in (await s.states()).values() else {})
                    or True
                )
                await s.act(act(await s.consumer(), first, "evt", "known", kek=s.kek, random=os.urandom))
                await s.settled()
                assert first not in s.hook.positions()
            found = await audited(s)
            assert (found.expected, found.acknowledged) == (len(wanted), len(wanted) - 1)
            assert [(h.why, h.first, h.last, h.reason) for h in found.holes] == [(act.__name__, first, first, "known")]

    run(body())


def test_a_parked_delivery_that_is_retried_goes_before_newer_ones_of_its_subject(app_url: str) -> None:
    """While a later event of the user is stuck, the parked one is retried: the receiver gets both in the order of the log."""

    async def body() -> None:
        async with scene(app_url) as s:
            first, wanted = await blocked_user(s)
            second = wanted[1]["position"]
            async with s.working():
                await s.until(lambda: _is(s.states(), {first: BLOCKED}))
                s.hook.verdict = lambda e: 500 if e["subject"]["id"] == wanted[0]["subject"]["id"] else None
                await s.act(parked(await s.consumer(), first, "evt", "later", kek=s.kek, random=os.urandom))
                await s.until(lambda: _is(s.states(), {first: PARKED, second: BLOCKED}))
                await s.act(retried(await s.consumer(), first, "evt", "now"))
                await s.until(lambda: _is(s.states(), {first: BLOCKED, second: BLOCKED}))
                s.hook.verdict = lambda _: None
                await s.act(retried(await s.consumer(), second, "evt", "both"))
                await s.act(retried(await s.consumer(), first, "evt", "both"))
                await s.settled()
            of_user = [e["position"] for e in s.hook.took if e["subject"]["id"] == wanted[0]["subject"]["id"]]
            assert of_user == [first, second]

    run(body())


def test_a_seek_back_delivers_again_and_a_seek_forward_leaves_visible_holes(app_url: str) -> None:
    async def body() -> None:
        async with scene(app_url) as s:
            await people(s, 3)
            wanted = [e["position"] for e in await s.wanted()]
            await s.make()
            async with s.working():
                await s.settled()
                await s.act(acts.sought(await s.consumer(), wanted[4], "again", kek=s.kek, random=os.urandom))
                await s.until(lambda: len(s.hook.took) == 2 * len(wanted) - 5)
                await s.settled()
            assert sorted(s.hook.positions()) == sorted([*wanted, *wanted[5:]])
            assert why(await audited(s)) == {}
            await s.ledger.create_user("passed-over")
            missed = (await s.wanted())[-1]["position"]
            await s.act(acts.sought(await s.consumer(), await s.head(), "not wanted", kek=s.kek, random=os.urandom))
            async with s.working():
                await s.ledger.create_user("after")
                await s.until(lambda: len(s.hook.took) == 2 * len(wanted) - 4)
                await s.settled()
            found = await audited(s)
            assert [(h.why, h.first, h.count) for h in found.holes] == [("sought_over", missed, 1)]

    run(body())


def test_a_blocked_event_that_two_seeks_passed_over_is_a_hole(app_url: str) -> None:
    """The first seek goes back, the second forward again before the event was read anew: it was never acknowledged."""

    async def body() -> None:
        async with scene(app_url) as s:
            first, wanted = await blocked_user(s)
            async with s.working():
                await s.until(lambda: _is(s.states(), {first: BLOCKED}))
            expected = dict.fromkeys((first, *(e["position"] for e in wanted if must_follow(e, wanted[0]) and e != wanted[0])))
            await s.act(acts.sought(await s.consumer(), first - 1, "back", kek=s.kek, random=os.urandom))
            await s.act(acts.sought(await s.consumer(), await s.head(), "forth", kek=s.kek, random=os.urandom))
            found = await audited(s)
            assert found.acknowledged == len(wanted) - len(expected)
            assert why(found) == {"sought_over": len(expected)}

    run(body())


def test_an_event_under_way_during_a_seek_forward_is_acknowledged_if_it_is_accepted(app_url: str) -> None:
    async def body() -> None:
        async with scene(app_url) as s:
            await asyncio.gather(*(s.ledger.create_user(f"u{n}") for n in range(5)))
            wanted = await s.wanted()
            hold = asyncio.Event()

            async def slow(event: dict[str, Any]) -> None:
                if event["position"] == wanted[0]["position"]:
                    await hold.wait()

            s.hook.verdict = slow
            await s.make()
            async with s.working():
                await s.until(lambda: _open(s, wanted[0]["position"], wanted[-1]["position"]))
                await s.act(acts.sought(await s.consumer(), await s.head(), "on", kek=s.kek, random=os.urandom))
                hold.set()
                await s.settled()
                await s.until(lambda: _is(s.states(), {}, only=True))
            found = await audited(s)
            assert (found.acknowledged, why(found)) == (5, {})

    run(body())


async def _open(s: Scene, position: int, through: int) -> bool:
    place = await s.place()
    return place.open == (position,) and place.through == through


@asynccontextmanager
async def _deaf(s: Scene, worker: Worker, monkeypatch: pytest.MonkeyPatch, reads: str) -> AsyncIterator[None]:
    """Within the block a delivery process gets no notifications of changes.

    Afterwards it has read everything, from the tail or the log.
    """
    if reads == "told":  # with notifications, as usual
        yield
        return
    told = asyncio.Event()
    taken, (serving,) = len(s.hook.took), worker.served
    with monkeypatch.context() as patched:
        patched.setattr(Worker, "_look", lambda _: told.wait())
        if reads == "log":
            patched.setattr(Tail, "since", lambda *_: None)
        yield
        await s.until(lambda: serving.done() or len(s.hook.took) > taken)
    told.set()


@pytest.mark.parametrize("reads", ["told", "tail", "log"])
def test_a_changed_filter_applies_from_the_next_undelivered_event(
    app_url: str, monkeypatch: pytest.MonkeyPatch, reads: str
) -> None:
    """This holds also if the delivery process got no notification: the log itself says that another filter begins."""

    async def body() -> None:
        async with scene(app_url) as s:
            await people(s, 3)
            before = [e["position"] for e in await s.wanted() if e["type"].startswith("user.")]
            await s.make(types=("user.*",))
            async with s.working() as worker:
                await s.settled()
                consumer = await s.consumer()
                async with _deaf(s, worker, monkeypatch, reads):
                    await s.act(
                        acts.change(consumer, replace(consumer.defined(s.kek), types=("group.*",)), kek=s.kek, random=os.urandom)
                    )
                    await s.ledger.create_group("new")
                    await s.ledger.create_user("unseen")
                await s.until(lambda: s.hook.took[-1]["type"] == "group.created")
                await s.settled()
            assert sorted(s.hook.positions()) == [*before, (await s.wanted("group.created"))[-1]["position"]]
            found = await audited(s)
            assert (found.expected, found.acknowledged, why(found)) == (len(before) + 1, len(before) + 1, {})

    run(body())


@pytest.mark.parametrize("reads", ["told", "tail", "log"])
def test_after_a_rotation_deliveries_are_signed_with_both_secrets(
    app_url: str, monkeypatch: pytest.MonkeyPatch, reads: str
) -> None:
    async def body() -> None:
        async with scene(app_url) as s:
            await s.make()
            await s.ledger.create_user("before")
            async with s.working() as worker:
                await s.settled()
                async with _deaf(s, worker, monkeypatch, reads):
                    new = new_secret(os.urandom)
                    await s.act(acts.secret_rotated(await s.consumer(), new, 3_600, kek=s.kek, random=os.urandom))
                    await s.ledger.create_user("after")
                await s.settled()
            assert [len(h["webhook-signature"].split()) for h in s.hook.headers] == [1, 2]

    run(body())


def test_a_receiver_that_answered_410_is_sent_nothing_until_an_operator_resumes(app_url: str) -> None:
    async def body() -> None:
        async with scene(app_url) as s:
            await s.ledger.create_user("u")
            s.hook.verdict = lambda _: 410
            await s.make()
            async with s.working():
                await s.until(lambda: _state_is(s, "disabled"))
                tried = len(s.hook.tried)
                s.hook.verdict = lambda _: None
                assert len(await s.wanted("consumer.disabled")) == 1
                assert len(s.hook.tried) == tried
                await s.act(acts.resumed(await s.consumer()))
                await s.settled()
            assert len(s.hook.took) == 1

    run(body())


async def _state_is(s: Scene, state: str) -> bool:
    return (await s.consumer()).state == state


@pytest.mark.parametrize(("far", "refused"), [(3, False), (12, True)])
def test_with_order_by_directory_a_receiver_gets_missing_events_again_within_limits(
    app_url: str, monkeypatch: pytest.MonkeyPatch, *, far: int, refused: bool
) -> None:
    async def body() -> None:
        monkeypatch.setattr(backlog, "REWIND_EVENTS_MAX", 10)
        async with scene(app_url) as s:
            await asyncio.gather(*(s.ledger.create_user(f"u{n}") for n in range(20)))
            wanted = await s.wanted()
            lost, asked = wanted[15 - far], False

            def verdict(event: dict[str, Any]) -> Any:
                nonlocal asked
                if event["position"] != wanted[15]["position"] or asked:
                    return None
                asked = not refused
                return web.json_response({"expected_previous_seq": lost["seq"]}, status=409)

            s.hook.verdict = verdict
            await s.make(ordering="directory")
            async with s.working():
                if refused:
                    await s.until(lambda: _is(s.states(), {wanted[15]["position"]: BLOCKED}))
                    assert len(s.hook.took) == 15
                    return
                await s.settled()
            positions = [e["position"] for e in wanted]
            assert s.hook.positions() == [*positions[:15], *positions[16 - far : 15], *positions[15:]]

    run(body())


def test_a_receiver_that_asks_for_too_many_rewinds_is_blocked_after_three(app_url: str) -> None:
    async def body() -> None:
        async with scene(app_url) as s:
            await asyncio.gather(*(s.ledger.create_user(f"u{n}") for n in range(5)))
            wanted = await s.wanted()
            last = wanted[-1]["position"]
            answer = {"expected_previous_seq": wanted[2]["seq"]}
            s.hook.verdict = lambda e: web.json_response(answer, status=409) if e["position"] == last else None
            await s.make(ordering="directory")
            async with s.working():
                await s.until(lambda: _is(s.states(), {last: BLOCKED}))
            assert s.hook.positions().count(wanted[3]["position"]) == 1 + backlog.REWINDS_MAX

    run(body())


def test_a_rewind_does_not_send_deliveries_that_an_operator_parked_or_skipped(app_url: str) -> None:
    async def body() -> None:
        async with scene(app_url) as s:
            await asyncio.gather(*(s.ledger.create_user(f"u{n}") for n in range(6)))
            wanted = [e["position"] for e in await s.wanted()]
            first_seq = (await s.wanted())[0]["seq"]
            s.hook.verdict = lambda e: 500 if e["position"] in wanted[1:3] else None
            await s.make(ordering="directory", retry_schedule=(0,))
            asked = False

            def lacking(event: dict[str, Any]) -> Any:
                nonlocal asked
                if event["position"] != wanted[5] or asked:
                    return None
                asked = True
                return web.json_response({"expected_previous_seq": first_seq}, status=409)

            async with s.working():
                await s.until(lambda: _is(s.states(), {wanted[1]: BLOCKED}))
                await s.act(parked(await s.consumer(), wanted[1], "evt", "set aside", kek=s.kek, random=os.urandom))
                await s.until(lambda: _is(s.states(), {wanted[2]: BLOCKED}))
                s.hook.verdict = lacking
                await s.act(skipped(await s.consumer(), wanted[2], "evt", "never", kek=s.kek, random=os.urandom))
                await s.settled()
            assert s.hook.positions() == [wanted[0], wanted[3], wanted[4], wanted[3], wanted[4], wanted[5]]
            assert await s.states() == {wanted[1]: PARKED}

    run(body())


# -- workers --------------------------------------------------------------------


def test_two_workers_share_the_consumers_and_one_takes_over_when_the_other_stops(app_url: str) -> None:
    async def body() -> None:
        async with scene(app_url) as s:
            for n in range(4):
                await s.make(f"c{n}")
            async with s.working() as first:
                async with s.working() as second:
                    await s.until(lambda: len(first._held) == len(second._held) == 2)
                    await s.ledger.create_user("both")
                    await s.until(lambda: len(s.hook.took) == 4)
                await s.until(lambda: len(first._held) == 4)
                await s.ledger.create_user("one")
                await s.until(lambda: len(s.hook.took) == 8)
                for n in range(4):
                    await s.settled(f"c{n}")
            assert len(s.hook.tried) == 8

    run(body())


def test_a_worker_whose_lease_was_taken_over_records_nothing(app_url: str) -> None:
    async def body() -> None:
        async with scene(app_url) as s:
            hold = asyncio.Event()

            async def slow(_: dict[str, Any]) -> None:
                await hold.wait()

            s.hook.verdict = slow
            consumer = await s.make()
            await s.ledger.create_user("u")
            async with s.working():
                await s.until(lambda: len(s.hook.tried) == 1)
                before = await s.sql("select count(*) from checkpoints where through >= %s", (await s.wanted())[0]["position"])
                await s.sql("update consumer_leases set fence = fence + 1, holder = %s, until = 'infinity'", uuid4())
                hold.set()
                await s.until(lambda: len(s.hook.took) == 1)
            after = await s.sql("select count(*) from checkpoints where through >= %s", (await s.wanted())[0]["position"])
            assert before == after == [(0,)]
            assert (await s.place()).through < (await s.wanted())[0]["position"]
            assert consumer.epoch == 1

    run(body())


def test_reports_of_an_older_lease_or_epoch_are_dropped_and_the_others_of_the_group_stored(app_url: str) -> None:
    async def body() -> None:
        async with scene(app_url) as s:
            made = [await s.make(f"c{n}") for n in range(3)]
            for consumer in made:
                await s.sql("insert into consumer_leases values (%s, %s, 7, 'infinity')", consumer.id, uuid4())
            reports = [
                Report(made[0].id, 7, Place(1, 5, 5), revocations=[(1, 3, 9)]),
                Report(made[1].id, 6, Place(1, 5, 5), revocations=[(1, 3, 9)]),
                Report(made[2].id, 7, Place(2, 5, 5), revocations=[(1, 3, 9)]),
            ]
            async with s.conn() as conn:
                assert await record(conn, reports) == {made[0].id}
                assert await record(conn, reports) == {made[0].id}, "storing twice changes nothing"
            assert [(await s.place(f"c{n}")).through for n in range(3)] == [5, 0, 0]
            assert await s.sql("select consumer, count(*) from revocation_acks group by 1") == [(made[0].id, 1)]

    run(body())


def test_a_lease_is_not_taken_over_while_its_former_holder_records(app_url: str) -> None:
    """Otherwise the new holder would read a place that is about to change, and deliver and record the same events a second time."""

    async def body() -> None:
        async with scene(app_url) as s:
            consumer = await s.make()
            await s.sql("insert into consumer_leases values (%s, %s, 1, '-infinity')", consumer.id, uuid4())
            conn = await psycopg.AsyncConnection.connect(app_url)
            await conn.execute("select pg_advisory_xact_lock_shared(%s, %s)", (CONSUMER.number, consumer.id))
            async with s.working() as worker:
                for _ in range(3):  # its checks, each with a sign of life
                    seen = await s.sql("select max(seen_at) from delivery_workers")
                    await s.until(lambda seen=seen: _differs(s, "select max(seen_at) from delivery_workers", seen))
                assert await s.sql("select fence from consumer_leases") == [(1,)]
                await conn.rollback()
                await conn.close()
                await s.until(lambda: len(worker._held) == 1)
                assert await s.sql("select fence from consumer_leases") == [(2,)]

    run(body())


@pytest.mark.parametrize("step", ["- interval '1 hour'", "+ interval '1 hour'"])
def test_no_step_of_the_databases_clock_takes_a_lease_from_a_living_holder(
    app_url: str, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """Setting the clock affects `until`: with a clock that is an hour ahead, every lease seems to have expired an hour ago."""

    async def body() -> None:
        monkeypatch.setattr(worker_module, "LOOK_S", 0.1)
        async with scene(app_url) as s:
            await s.make()
            async with s.working() as first:
                await s.until(lambda: len(first._held) == 1)
                async with s.working():
                    for _ in range(12):
                        await s.sql(f"update consumer_leases set until = until {step}")
                        seen = await s.sql("select min(seen_at) from delivery_workers")
                        await s.until(lambda seen=seen: _differs(s, "select min(seen_at) from delivery_workers", seen))
                    await s.ledger.create_user("u")
                    await s.settled()
                    assert await s.sql("select fence from consumer_leases") == [(1,)]
            assert len(s.hook.tried) == 1

    run(body())


def test_a_holder_without_signs_of_life_loses_its_lease_whatever_its_clock_said(
    app_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def body() -> None:
        monkeypatch.setattr(worker_module, "LEASE_MARGIN_S", 1.5)
        monkeypatch.setattr(dispatcher, "SEND_MARGIN_S", 0.1)
        async with scene(app_url) as s:
            consumer = await s.make()
            await s.sql("insert into consumer_leases values (%s, %s, 5, 'infinity')", consumer.id, uuid4())
            await s.ledger.create_user("u")
            began = asyncio.get_running_loop().time()
            async with s.working(timeout_s=0.5):
                await s.settled()
            assert asyncio.get_running_loop().time() - began >= 2.0, "a whole lease was waited for"
            assert await s.sql("select fence from consumer_leases") == [(6,)]

    run(body())


def test_a_process_that_was_stopped_for_longer_than_its_lease_sends_nothing_afterwards(
    app_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Earlier, it continued and sent its old page, after newer events of another process.

    Now it checks its lease before the first byte.
    """

    async def body() -> None:
        async with scene(app_url) as s:
            await s.make()
            stopped, message = 0, dispatcher.Dispatcher._outgoing

            async def late(self: dispatcher.Dispatcher, *given: Any) -> Any:
                nonlocal stopped
                found, stopped = await message(self, *given), stopped + 1
                if stopped == 1:
                    self.lease_until -= 3_600  # for this process, as if it had been stopped for an hour
                return found

            monkeypatch.setattr(dispatcher.Dispatcher, "_outgoing", late)
            await s.ledger.create_user("u")
            async with s.working():
                await s.until(lambda: stopped == 1)
                assert not s.hook.tried
                await s.settled()
            assert stopped == 2, "the lease was renewed: nobody had taken it"
            assert [e["type"] for e in s.hook.tried] == ["user.created"]
            assert {h["ledger-attempt"] for h in s.hook.headers} == {"1"}

    run(body())


async def _differs(s: Scene, statement: str, before: Any) -> bool:
    return await s.sql(statement) != before


def test_a_killed_worker_loses_nothing(app_url: str) -> None:
    """Its tasks are cancelled at a random moment and its lease expires: the next process continues after the recorded deliveries,
    in order.
    """

    async def body() -> None:
        async with scene(app_url) as s:
            await people(s, 20)
            await s.make()
            async with s.working() as worker:
                await s.until(lambda: len(s.hook.took) > 10)
                for held in worker._held.values():
                    held.task.cancel()
                    held.dispatcher._stopping = True
                    for task in held.dispatcher._tasks:
                        task.cancel()
            await s.sql("update consumer_leases set holder = %s, until = '-infinity'", uuid4())
            async with s.working():
                await s.settled()
            wanted = [e["position"] for e in await s.wanted()]
            assert sorted(set(s.hook.positions())) == wanted
            assert len(s.hook.took) <= len(wanted) + IN_FLIGHT_MAX
            first = {position: n for n, position in reversed(list(enumerate(s.hook.positions())))}
            assert in_order([s.hook.took[n] for n in sorted(first.values())])

    run(body())


# -- replays --------------------------------------------------------------------


async def delivered(s: Scene, users: int = 4, **asked: Any) -> list[dict[str, Any]]:
    """A consumer that has received everything."""
    await people(s, users)
    await s.make(**asked)
    async with s.working():
        await s.settled()
    s.hook.took.clear()
    s.hook.headers.clear()
    return await s.wanted()


def superseded(events: list[dict[str, Any]]) -> set[int]:
    """Grants that a later event revoked, by a simple definition."""
    gone = set()
    for n, event in enumerate(events):
        later = events[n + 1 :]
        kind = event["type"].split(".")[1]
        if kind in {"member_added", "member_access_restored"}:
            back = {"member_removed", "member_access_revoked"}
            if event["data"]["effective"] and any(
                edge_of(e) == edge_of(event) and e["type"].split(".")[1] in back for e in later
            ):
                gone.add(event["position"])
        elif event["type"] in {"user.created", "user.reactivated"}:
            ends = {"user.deactivated", "user.deleted", "user.erased"}
            active = event["data"]["object"].get("active", True)
            if active and any(e["subject"] == event["subject"] and e["type"] in ends for e in later):
                gone.add(event["position"])
    return gone


def test_a_plan_leaves_out_exactly_the_revoked_grants(app_url: str) -> None:
    async def body() -> None:
        async with scene(app_url) as s:
            ids = await people(s, 5)
            group = id_of(await s.ledger.create_group("other", tuple(ids[2:])))
            edge = f'members[value eq "{ids[2]}"]'
            await s.ledger.patch_group(group, {"op": "remove", "path": edge})
            await s.ledger.add_member(group, ids[2])
            await s.ledger.create_user("asleep", active=False)
            asleep = id_of(await s.ledger.create_user("asleep-too", active=False))
            await s.ledger.add_member(group, asleep)
            await s.ledger.patch_user(asleep, ON)
            await s.ledger.patch_user(asleep, OFF)
            await s.ledger.submit(DeleteGroup(id_of(await s.ledger.create_group("gone", tuple(ids[2:])))))
            await s.make()
            events = await s.wanted()
            gone = superseded(events)
            assert len(gone) > 8
            async with s.conn() as conn:
                reach = tuple(d.id for d in await s.ledger.services.ledger.directories.all(conn))
                head = await s.head()
                for after, through in ((0, head), (events[3]["position"], head), (0, events[-5]["position"])):
                    wanted = Range(after, through, (await s.consumer()).mask, reach)
                    inside = [e["position"] for e in events if after < e["position"] <= through]
                    found = await plan(conn, wanted, head)
                    assert [p.position for p in found.events] == [p for p in inside if p not in gone]
                    assert found.superseded == len(gone.intersection(inside))
                    every = await plan(conn, replace(wanted, superseded="include"), head)
                    assert ([p.position for p in every.events], every.superseded) == (inside, 0)

    run(body())


def test_a_run_sends_its_planned_events_again_in_order_and_ends(app_url: str) -> None:
    async def body() -> None:
        async with scene(app_url) as s:
            events = await delivered(s)
            replayed = await s.replay()
            async with s.working():
                await s.until(lambda: _run_is(s, replayed.id, "finished"))
            gone = superseded(events)
            assert sorted(s.hook.positions()) == [e["position"] for e in events if e["position"] not in gone]
            assert in_order(s.hook.took)
            assert {h["ledger-replay"] for h in s.hook.headers} == {str(replayed.id)}
            async with s.conn() as conn:
                found = await run_of(conn, s.kek, replayed.id)
            assert found is not None
            assert found.done == found.total == len(s.hook.took)

    run(body())


async def _run_is(s: Scene, number: UUID, state: str) -> bool:
    async with s.conn() as conn:
        found = await run_of(conn, s.kek, number)
    assert found is not None
    return found.state == state


def test_a_run_goes_on_in_a_new_worker_where_the_old_one_stopped(app_url: str) -> None:
    async def body() -> None:
        async with scene(app_url) as s:
            events = await delivered(s, 10)
            replayed = await s.replay(superseded="include", rate=20)
            async with s.working():
                await s.until(lambda: len(s.hook.took) >= 5)
            assert not await _run_is(s, replayed.id, "finished")
            async with s.working():
                await s.until(lambda: _run_is(s, replayed.id, "finished"))
            assert sorted(s.hook.positions()) == [e["position"] for e in events], "a clean stop repeats nothing"

    run(body())


def test_a_live_event_waits_for_the_replay_of_its_subject_and_speeds_it_up(app_url: str) -> None:
    """At one event a second the run would take half a minute: replayed events that a live one waits for are sent without regard
    to the rate.
    """

    async def body() -> None:
        async with scene(app_url) as s:
            await people(s, 10)
            busy = id_of(await s.ledger.create_user("busy"))
            for name in "abcd":
                await s.ledger.patch_user(busy, {"op": "replace", "path": "displayName", "value": name})
            await s.make()
            async with s.working():
                await s.settled()
                s.hook.tried.clear()
                s.hook.headers.clear()
                replayed = await s.replay(rate=1)
                await s.until(lambda: len(s.hook.tried) >= 1)
                await s.ledger.patch_user(busy, OFF)
                last = (await s.wanted())[-1]["position"]
                await s.until(lambda: last in [e["position"] for e in s.hook.tried])
                assert not await _run_is(s, replayed.id, "finished")
            sent = zip(s.hook.tried, s.hook.headers, strict=True)
            mine = [(e["position"], "ledger-replay" in headers) for e, headers in sent if subject_of(e) == busy]
            again = [(e["position"], True) for e in await s.wanted() if subject_of(e) == busy and e["position"] != last]
            assert mine == [*again, (last, False)]

    run(body())


def test_a_delivery_that_a_run_blocks_stays_blocked_and_is_reported_once_by_whichever_process(app_url: str) -> None:
    """One delivery was blocked before the run, which tries it once, and not again at each take-over; another one is blocked by
    the run itself.
    """

    async def body() -> None:
        async with scene(app_url) as s:
            users = [id_of(await s.ledger.create_user(f"u{n}")) for n in range(6)]
            created = {subject_of(e): e["position"] for e in await s.wanted()}
            s.hook.verdict = lambda e: 500 if subject_of(e) == users[0] else None
            await s.make()
            async with s.working():
                await s.until(lambda: _is(s.states(), {created[users[0]]: BLOCKED}))
                await s.settled_but(1)
            s.hook.verdict = lambda e: 500 if subject_of(e) in users[:2] else None
            ran = await s.replay()
            for _ in range(4):
                async with s.working() as worker:
                    await s.until(lambda worker=worker: len(worker._held) == 1)
                    await s.until(lambda: _is(s.states(), dict.fromkeys((created[u] for u in users[:2]), BLOCKED), only=True))
            tries = [e["position"] for e in s.hook.tried]
            assert [tries.count(created[user]) for user in users] == [3 + 3, 1 + 3, 2, 2, 2, 2]
            told = [e["data"]["object"]["event_id"] for e in await s.wanted("delivery.blocked")]
            assert len(told) == len(set(told)) == 2
            async with s.conn() as conn:
                found = await run_of(conn, s.kek, ran.id)
            assert found is not None
            assert (found.state, found.done) == ("running", 4)

    run(body())


def test_a_blocking_that_two_processes_report_is_one_event(app_url: str) -> None:
    async def body() -> None:
        async with scene(app_url) as s:
            await s.ledger.create_user("poison")
            s.hook.verdict = lambda _: 500
            consumer = await s.make(retry_schedule=(0,))
            async with s.working() as worker:
                await s.until(lambda: _told(s, "delivery.blocked", 1))
                async with s.conn() as conn:
                    (row,) = await exceptions(conn, consumer)
                late = Open(Item(row.position, row.directory, row.seq, 0, uuid4()), row)
                with pytest.raises(psycopg.errors.NotNullViolation):
                    await worker.act(dispatcher._blocked(consumer, late, "evt"))
            assert await _told(s, "delivery.blocked", 1)

    run(body())


@pytest.mark.parametrize("state", ["paused", "cancelled"])
def test_a_cancelled_run_sends_nothing_more_and_a_paused_one_goes_on_later(app_url: str, state: Any) -> None:
    async def body() -> None:
        async with scene(app_url) as s:
            events = await delivered(s, 10)
            replayed = await s.replay(superseded="include", rate=10)
            async with s.working() as worker:
                await s.until(lambda: len(s.hook.took) >= 3)
                await s.act(moved(replayed, state))
                await s.until(lambda: [len(h.dispatcher._backlog._replays) for h in worker._held.values()] == [0])
                seen = len(s.hook.tried)
                await s.ledger.create_user("live")
                await s.until(lambda: s.hook.took[-1]["data"].get("object", {}).get("userName") == "live")
                assert len(s.hook.tried) == seen + 1
                if state == "paused":
                    async with s.conn() as conn:
                        found = await run_of(conn, s.kek, replayed.id)
                    assert found is not None
                    await s.act(moved(found, "running"))
                    await s.until(lambda: _run_is(s, replayed.id, "finished"))
                    assert sorted(s.hook.positions()) == sorted(
                        [*(e["position"] for e in events), (await s.wanted())[-1]["position"]]
                    )

    run(body())


def test_a_delivery_of_a_cancelled_run_that_fails_afterwards_leaves_no_row(app_url: str) -> None:
    async def body() -> None:
        async with scene(app_url) as s:
            await delivered(s)
            hold = asyncio.Event()

            async def fail(_: dict[str, Any]) -> int:
                await hold.wait()
                return 500

            s.hook.verdict = fail
            tried = len(s.hook.tried)
            replayed = await s.replay()
            async with s.working() as worker:
                await s.until(lambda: len(s.hook.tried) > tried)
                await s.act(moved(replayed, "cancelled"))
                hold.set()
                await s.until(lambda: [len(h.dispatcher._backlog._replays) for h in worker._held.values()] == [0])
            assert await s.states() == {}
            assert why(await audited(s)) == {}

    run(body())


# -- the surge brake ------------------------------------------------------------


async def _why(s: Scene, expected: dict[str, int]) -> bool:
    return why(await audited(s)) == expected


def test_revocations_over_the_limit_are_held_and_are_delivered_after_their_release(app_url: str) -> None:
    async def body() -> None:
        async with scene(app_url) as s:
            ids = [id_of(o) for o in await asyncio.gather(*(s.ledger.create_user(f"u{n}") for n in range(6)))]
            await s.ledger.create_group("g", tuple(ids))
            await s.act(surge_control.limited(uuid4(), s.ledger.directory, 2, "hold"))
            for user in ids:
                await s.ledger.patch_user(user, OFF)
            await s.ledger.create_user("ordinary")
            events = await s.wanted()
            off = [e for e in events if e["type"] == "user.deactivated"]
            held = {e["position"] for e in events if e["commit"]["first_seq"] in {o["commit"]["first_seq"] for o in off[2:]}}
            assert len(held) == 8, "with the revocations of access that belong to them"
            await s.make()
            async with s.working():
                await s.until(lambda: len(s.hook.took) == len(events) - 8)
                await s.until(lambda: _is(s.states(), dict.fromkeys(held, HELD), only=True))
                assert {e["position"] for e in events} - held == set(s.hook.positions())
                await s.until(lambda: _why(s, {"held": 8}), "what was taken is on record")
                limit = Limit(2, "hold")
                await s.act(surge_control.released(uuid4(), s.ledger.directory, off[3]["seq"], limit, "expected"))
                await s.until(lambda: len(s.hook.took) == len(events) - 4)
                assert set((await s.states()).values()) == {HELD}
                await s.act(surge_control.released(uuid4(), s.ledger.directory, off[-1]["seq"], limit, "expected"))
                await s.settled()
            assert in_order(s.hook.took)
            assert sorted(s.hook.positions()) == [e["position"] for e in events]

    run(body())


Harm = Callable[[Scene, list[UUID], list[UUID]], Awaitable[None]]


async def emptied(s: Scene, _: list[UUID], groups: list[UUID]) -> None:
    await asyncio.gather(*(s.ledger.patch_group(group, {"op": "remove", "path": "members"}) for group in groups))


async def taken_out_one_by_one(s: Scene, users: list[UUID], groups: list[UUID]) -> None:
    for user in users:
        await s.ledger.patch_group(groups[0], {"op": "remove", "path": f'members[value eq "{user}"]'})


async def deleted_groups(s: Scene, _: list[UUID], groups: list[UUID]) -> None:
    for group in groups:
        await s.ledger.submit(DeleteGroup(group))


async def taken_out_with_their_group(s: Scene, users: list[UUID], groups: list[UUID]) -> None:
    """A group in a group: when one edge is removed, everybody inside loses the access that the outer group gave."""
    outer = id_of(await s.ledger.create_group("outer", tuple(groups)))
    await s.ledger.patch_group(outer, {"op": "remove", "path": f'members[value eq "{groups[0]}"]'})
    assert users


@pytest.mark.parametrize("harm", [emptied, taken_out_one_by_one, deleted_groups, taken_out_with_their_group])
def test_emptying_groups_is_a_surge_too(app_url: str, harm: Harm) -> None:
    """Earlier, twelve groups were emptied at once without a hold or an alarm, because only deactivations and deletions were
    counted.
    """

    async def body() -> None:
        async with scene(app_url) as s:
            users = [id_of(o) for o in await asyncio.gather(*(s.ledger.create_user(f"u{n}") for n in range(6)))]
            groups = [id_of(await s.ledger.create_group(f"g{n}", tuple(users))) for n in range(2)]
            await s.act(surge_control.limited(uuid4(), s.ledger.directory, 4, "hold"))
            await s.make()
            await harm(s, users, groups)
            async with s.conn() as conn:
                assert (await surge_control.lately(conn, {}))[s.ledger.directory.id] == 6
                ((directory, count, _),) = await surge_control.surging(conn, await surge_control.limits(conn), quiet_s=60)
                assert (directory, count) == (s.ledger.directory.id, 6)
            removed = [e["position"] for e in await s.wanted("group.member_removed")]
            async with s.working():
                await s.until(lambda: _is_held(s))
                assert len([p for p in removed if p in s.hook.positions()]) <= 4
                await s.act(surge_control.released(uuid4(), s.ledger.directory, 10**6, Limit(4, "hold"), "expected"))
                await s.settled()
            assert set(removed) <= set(s.hook.positions())

    run(body())


def test_a_surge_is_found_however_many_events_each_leaver_has(app_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Twelve users in nine groups each make 120 events: the newest page shows only two of the users, which would be no surge."""

    async def body() -> None:
        async with scene(app_url) as s:
            users = [id_of(o) for o in await asyncio.gather(*(s.ledger.create_user(f"u{n}") for n in range(12)))]
            for n in range(9):
                await s.ledger.create_group(f"g{n}", tuple(users))
            for user in users:
                await s.ledger.delete_user(user)
            directory = s.ledger.directory.id
            monkeypatch.setattr(losses, "LOSSES_PAGE", 15)  # a page ends within the events of a leaver
            async with s.conn() as conn:
                assert (await surge_control.lately(conn, {directory: Limit(12)})) == {directory: 12}
                assert [found[1] for found in await surge_control.surging(conn, {directory: Limit(11)}, quiet_s=60)] == [12]
                assert await surge_control.surging(conn, {directory: Limit(12)}, quiet_s=60) == []

    run(body())


async def _is_held(s: Scene) -> bool:
    return HELD in (await s.states()).values()


def test_a_day_of_leavers_while_the_clock_is_frozen_is_no_surge(app_url: str, superuser_url: str) -> None:
    """All events have the time of an event that was a day ahead, which an operator accepted; the ids of their requests tell when
    they were made.
    """

    async def body() -> None:
        async with scene(app_url) as s:
            directory = s.ledger.directory.id
            for n in range(6):
                await s.ledger.delete_user(id_of(await s.ledger.create_user(f"u{n}")))
            with psycopg.connect(superuser_url) as conn:
                conn.execute("alter table ledger.commits disable trigger all")
                conn.execute("update ledger.commits set at = at + 86400000000 where directory = %s", (directory,))
                found = conn.execute(
                    "select seq, req from ledger.commits where directory = %s and types & 16 <> 0 order by seq", (directory,)
                )
                ends = found.fetchall()
                for seq, req in ends[:4]:
                    earlier = UUID(int=req.int - (2 * 3_600_000 << 80))
                    conn.execute(
                        "update ledger.commits set req = %s where directory = %s and seq = %s", (earlier, directory, seq)
                    )
            limits = {directory: Limit(3, "hold")}
            feed = s.ledger.services.ledger.feed
            async with s.conn() as conn:
                assert (await surge_control.lately(conn, limits))[directory] == 2
                every = await feed.at(conn, [(directory, seq) for seq, _ in ends], bodies=False)
                assert (await surge_control.held_commits(conn, limits, every)).commits == {(directory, ends[3][0])}, (
                    "the commits of each hour that are over the limit"
                )

    run(body())


def test_commits_that_end_no_access_are_no_surge(app_url: str) -> None:
    """Examples are a clean-up after users who had lost their access already, and moving one user between groups."""

    async def body() -> None:
        async with scene(app_url) as s:
            users = [id_of(o) for o in await asyncio.gather(*(s.ledger.create_user(f"u{n}") for n in range(6)))]
            group = id_of(await s.ledger.create_group("g", tuple(users)))
            for user in users[:5]:
                await s.ledger.patch_user(user, OFF)
            for user in users[:5]:
                await s.ledger.patch_group(group, {"op": "remove", "path": f'members[value eq "{user}"]'})
            for _ in range(3):
                await s.ledger.patch_group(group, {"op": "remove", "path": f'members[value eq "{users[5]}"]'})
                await s.ledger.patch_group(group, {"op": "add", "path": "members", "value": [{"value": str(users[5])}]})
            removed = await s.wanted("group.member_removed")
            async with s.conn() as conn:
                found = [loss async for loss in losses.losses(conn, s.ledger.directory.id, 0, losses.EVER, enough=9)]
            of = {loss.seq: set(loss.users) for loss in found}
            assert [of.get(e["commit"]["first_seq"], set()) for e in removed] == [set()] * 5 + [{users[5]}] * 3

    run(body())


def test_a_held_event_that_was_recorded_beyond_the_place_is_sent_once(app_url: str) -> None:
    """Earlier releases recorded held events like this; the event then waited for itself, for ever."""

    async def body() -> None:
        async with scene(app_url) as s:
            consumer = await s.make()
            await s.ledger.patch_user(id_of(await s.ledger.create_user("u")), OFF)
            last = (await s.wanted())[-1]
            row = (consumer.id, last["position"], s.ledger.directory.id, last["seq"], HELD)
            await s.sql(
                "insert into open_deliveries (consumer, position, directory, seq, state) values (%s, %s, %s, %s, %s)", *row
            )
            async with s.working():
                await s.settled()
            assert [e["type"] for e in s.hook.tried] == ["user.created", "user.deactivated"]

    run(body())


def test_a_surge_is_reported_once(app_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def body() -> None:
        async with scene(app_url) as s:
            await s.act(surge_control.limited(uuid4(), s.ledger.directory, 1, "alarm"))
            ids = [id_of(o) for o in await asyncio.gather(*(s.ledger.create_user(f"u{n}") for n in range(3)))]
            for user in ids:
                await s.ledger.delete_user(user)
            monkeypatch.setattr("delivery.worker.WATCH_S", 0.05)
            async with s.working():
                await s.until(lambda: _told(s, "directory.surge_detected", 1))
                await s.ledger.create_user("more")
            assert await _told(s, "directory.surge_detected", 1)

    run(body())


def test_an_alarm_from_before_a_clock_was_set_back_suppresses_no_new_one(app_url: str) -> None:
    async def body() -> None:
        async with scene(app_url) as s:
            await s.act(surge_control.limited(uuid4(), s.ledger.directory, 1, "alarm"))
            for n in range(3):
                await s.ledger.delete_user(id_of(await s.ledger.create_user(f"u{n}")))

            async def untold() -> list[tuple[int, int, int]]:
                async with s.conn() as conn:
                    return await surge_control.surging(conn, await surge_control.limits(conn), quiet_s=3_600)

            ((number, _, seq),) = await untold()
            alarm = "insert into surge_alarms (directory, seq, at) values (%s, %s, clock_timestamp() + interval '1 day')"
            await s.sql(alarm, number, seq)
            assert await untold() == [], "the repeated acknowledgement changes nothing"
            await s.ledger.delete_user(id_of(await s.ledger.create_user("another")))
            assert [found[:2] for found in await untold()] == [(number, 4)]

    run(body())


async def _told(s: Scene, topic: str, times: int) -> bool:
    return len(await s.wanted(topic)) == times


# -- consumers that pull ----------------------------------------------------------


def test_an_acknowledgement_is_idempotent_never_moves_back_and_is_invalid_after_a_seek(app_url: str) -> None:
    async def body() -> None:
        async with scene(app_url) as s:
            ids = await people(s, 3)
            consumer = await s.make(mode="pull", url=None)
            wanted = [e["position"] for e in await s.wanted()]
            reach = [s.ledger.directory.id]
            async with s.conn() as conn:
                assert await acknowledge(conn, consumer, wanted[5], reach)
                assert not await acknowledge(conn, consumer, wanted[5], reach)
                assert not await acknowledge(conn, consumer, wanted[2], reach)
                assert (await s.place()).through == wanted[5]
                await s.act(acts.sought(consumer, wanted[1], "again", kek=s.kek, random=os.urandom))
                with pytest.raises(PlaceMovedError):  # the page was read before the seek
                    await acknowledge(conn, consumer, wanted[-1], reach)
                assert (await s.place()).through == wanted[1]
                assert await acknowledge(conn, await s.consumer(), wanted[-1], reach)
            assert why(await audited(s)) == {}
            assert ids

    run(body())


@pytest.mark.parametrize("mode", ["pull", "webhook"])
def test_the_first_acknowledgement_of_each_revocation_is_kept(app_url: str, mode: str) -> None:
    async def body() -> None:
        async with scene(app_url) as s:
            await people(s, 3)
            consumer = await s.make(**({"mode": "pull", "url": None} if mode == "pull" else {}))
            off = await s.wanted("user.deactivated", "user.deleted")
            kept: list[Any] = []
            for _ in range(2):
                if mode == "pull":
                    async with s.conn() as conn:
                        assert await acknowledge(conn, await s.consumer(), await s.head(), [s.ledger.directory.id])
                else:
                    async with s.working():
                        await s.settled()
                rows = await s.sql("select consumer, seq, at from revocation_acks order by seq")
                assert [row[:2] for row in rows] == [(consumer.id, e["seq"]) for e in off]
                assert not kept or kept == rows
                kept = rows
                await s.act(acts.sought(await s.consumer(), 0, "all over", kek=s.kek, random=os.urandom))

    run(body())


def test_a_delivery_process_that_cannot_look_after_its_consumers_ends_so_that_it_is_replaced(
    app_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One failed look ends nothing; after FAILED_MAX in a row nobody would be delivered to, for ever."""
    looks, good = 0, 5

    async def look(self: Worker) -> None:
        nonlocal looks
        looks += 1
        self.changes.set()  # the next look at once
        if looks != good:
            raise ArithmeticError("underflow")

    async def body() -> None:
        async with scene(app_url) as s, open_worker(s.url, s.kek, transports_of(LOOPBACK, 3.0), 3.0) as worker:
            monkeypatch.setattr(Worker, "_look", look)
            with pytest.raises(ArithmeticError):
                await worker.run()
        assert looks == good + FAILED_MAX

    run(body())
