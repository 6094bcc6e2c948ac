"""The deliveries for a closed directory: first the end of all access, then the removals, and at last the directory's last event."""

import asyncio
from typing import Any
from uuid import uuid4

import pytest
from aiohttp import web

from delivery import dispatcher, surge_control
from delivery.checkpoints import acknowledge
from delivery.interventions import retried
from delivery.reports import BLOCKED, HELD
from delivery.surge_policy import Limit
from ledger import cleanup
from ledger.lifecycle import closed
from replay.redeliver import run_of
from tests.postgres.deliveries import Scene, edge_of, in_order, scene, subject_of
from tests.postgres.ledgers import id_of
from tests.postgres.test_delivery import OFF, audited, run, why
from tests.postgres.test_lifecycle import is_deleted, until

ALL = ("user.*", "group.*", "directory.*")


async def close(s: Scene) -> None:
    facts = closed(s.ledger.directory, "the customer left", "acme")
    assert facts is not None
    await s.ledger.submit(facts)


async def people(s: Scene, count: int) -> list[Any]:
    ids = [id_of(o) for o in await asyncio.gather(*(s.ledger.create_user(f"u{n}") for n in range(count)))]
    await s.ledger.create_group("team", tuple(ids))
    return ids


def types(s: Scene) -> list[str]:
    return [event["type"] for event in s.hook.took]


@pytest.mark.parametrize("ordering", ["subject", "directory"])
def test_a_closed_directory_is_delivered_to_its_last_event(app_url: str, ordering: str) -> None:
    async def body() -> None:
        async with scene(app_url) as s:
            await s.make(ordering=ordering, types=ALL)
            await people(s, 6)
            async with s.working():
                await s.settled()
                await close(s)
                await s.until(lambda: "directory.deleted" in types(s))
                await s.settled()
            wanted = [
                e["position"]
                for e in await s.wanted() + await s.wanted("directory.created", "directory.closed", "directory.deleted")
                if e["directory"] == "acme"
            ]
            assert sorted(s.hook.positions()) == sorted(wanted)
            assert types(s)[-1] == "directory.deleted"
            assert in_order(s.hook.took)
            assert why(await audited(s)) == {}

    run(body())


def test_an_event_that_always_fails_holds_back_neither_the_closing_nor_the_removals(app_url: str) -> None:
    """An access list learns of the closing at once, whatever it is stuck on; only the last event of the directory waits for an
    operator.
    """

    async def body() -> None:
        async with scene(app_url) as s:
            await s.make(types=ALL)
            poison = id_of(await s.ledger.create_user("poison"))
            ids = await people(s, 4)
            well = False
            s.hook.verdict = lambda e: None if well or subject_of(e) != poison else web.Response(status=500)
            async with s.working():
                await s.until(lambda: _blocked(s))
                await close(s)
                await s.until(lambda: _gone(s) == {str(user) for user in ids})
                await s.until(lambda: types(s).count("user.deleted") == 4)
                await s.until(lambda: types(s).count("group.deleted") == 1)
                assert "directory.closed" in types(s)
                assert "directory.deleted" not in types(s)
                well = True
                (position,) = [p for p, state in (await s.states()).items() if state == BLOCKED]
                (event,) = [e for e in await s.wanted() if e["position"] == position]
                await s.act(retried(await s.consumer(), position, event["id"], "mended"))
                await s.until(lambda: "directory.deleted" in types(s))
            assert types(s)[-1] == "directory.deleted"

    run(body())


async def _blocked(s: Scene) -> bool:
    return BLOCKED in (await s.states()).values()


def _gone(s: Scene) -> set[str]:
    return {edge[1] for e in s.hook.took if e["type"] == "group.member_removed" and (edge := edge_of(e)) is not None}


def test_the_surge_brake_holds_nothing_of_a_closed_directory_and_releases_what_it_held(
    app_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def body() -> None:
        monkeypatch.setattr(cleanup, "PIECE", 2)
        async with scene(app_url) as s:
            ids = await people(s, 12)
            await s.act(surge_control.limited(uuid4(), s.ledger.directory, 2, "hold"))
            await s.make(types=ALL)
            async with s.working():
                for user in ids[:4]:
                    await s.ledger.patch_user(user, OFF)
                await s.until(lambda: _held(s))
                await close(s)
                await s.until(lambda: "directory.deleted" in types(s))
                assert types(s).count("user.deactivated") == 4
                assert types(s).count("user.deleted") == 12
            async with s.conn() as conn:
                assert (await surge_control.limits(conn))[s.ledger.directory.id] == Limit(2, "hold", closed=True)
                assert await surge_control.surging(conn, {}, quiet_s=0) == []
                assert s.ledger.directory.id not in await surge_control.lately(conn, {})

    run(body())


async def _held(s: Scene) -> bool:
    return HELD in (await s.states()).values()


def test_a_replay_under_way_sends_no_grant_of_a_closed_directory(app_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def body() -> None:
        monkeypatch.setattr(dispatcher, "NOTE_S", 0.05)
        async with scene(app_url) as s:
            await s.make(types=ALL)
            await people(s, 40)
            async with s.working():
                await s.settled()
                seen = len(s.hook.took)
                again = await s.replay(rate=20)
                await s.until(lambda: len(s.hook.took) > seen)
                await close(s)
                await s.until(lambda: "directory.deleted" in types(s))
                await s.until(lambda: _ended(s, again.id))
            sent = list(zip(s.hook.took, s.hook.headers, strict=False))
            end = types(s).index("directory.closed")
            late = [e["type"] for e, headers in sent[end + 1 :] if "ledger-replay" in headers]
            assert "group.member_added" not in late
            assert "user.created" not in late
            planned = await s.replay(start=False)
            assert planned.skipped == 80, "a run that begins now sends none either"

    run(body())


async def _ended(s: Scene, number: Any) -> bool:
    async with s.conn() as conn:
        found = await run_of(conn, s.kek, number)
    return found is not None and found.state == "finished"


@pytest.mark.parametrize("mode", ["pull", "webhook"])
def test_the_closing_counts_as_a_revocation_whose_acknowledgement_is_timed(app_url: str, mode: str) -> None:
    async def body() -> None:
        async with scene(app_url) as s:
            consumer = await s.make(types=("directory.*",), **({"mode": "pull", "url": None} if mode == "pull" else {}))
            await s.ledger.create_user("u")
            await close(s)
            await until(lambda: is_deleted(s.ledger))
            if mode == "pull":
                async with s.conn() as conn:
                    assert await acknowledge(conn, consumer, await s.head(), [s.ledger.directory.id])
            else:
                async with s.working():
                    await s.settled()
            (event,) = await s.wanted("directory.closed")
            assert await s.sql("select consumer, seq from revocation_acks") == [(consumer.id, event["seq"])]
            assert (await s.wanted("directory.deleted"))[0]["seq"] == event["seq"] + 2

    run(body())
