"""The group-commit writer on a real database: order, batching, the rules for errors, lost connections."""

import asyncio
import contextlib
from collections.abc import Callable
from itertools import groupby
from pathlib import Path

import orjson
import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from database.locks import DIRECTORY
from ledger.cursor import BEGINNING, Cursor
from ledger.transaction import Outcome
from projections import current_state
from runtime import embedded
from scim.errors import InvalidValue, ScimError, Unavailable, Uniqueness
from tests.postgres.ledgers import Ledger, id_of, opened
from tests.postgres.proxy import proxied


async def _events(ledger: Ledger) -> list[dict]:
    found, after = [], Cursor(0, BEGINNING)
    while True:
        page = await ledger.page(after)
        found += [orjson.loads(event.json) for event in page.events]
        if not page.has_more:
            return found
        after = page.after


def test_concurrent_commands_share_batches_and_are_numbered_densely(app_url: str) -> None:
    async def run() -> None:
        async with opened(app_url) as ledger:
            outcomes = await asyncio.gather(*(ledger.create_user(f"u{n}") for n in range(300)))
            events = [e for e in await _events(ledger) if e["directory"] == "acme"]
            assert [e["seq"] for e in events] == list(range(1, 302))
            assert sorted(o.seq for o in outcomes if o.seq) == list(range(2, 302))
            assert [e["position"] for e in events] == sorted(e["position"] for e in events)
            times = {e["time"] for e in events}
            assert len(times) < 20, "fewer times than commands: they shared transactions"

    asyncio.run(run())


def test_clients_that_wait_for_their_answers_end_up_in_one_batch(app_url: str) -> None:
    """Two groups of clients that begin one after the other: otherwise each would wait while the batch of the other is written."""
    rounds = 12

    async def run() -> None:
        async with opened(app_url) as ledger:

            async def client(name: str) -> None:
                for n in range(rounds):
                    await ledger.create_user(f"{name}{n}")

            first = [asyncio.create_task(client(name)) for name in "abcd"]
            writer = ledger.services.ledger.submit.__self__  # type: ignore[attr-defined]
            while not writer.queued:
                await asyncio.sleep(0)
            while writer.queued:  # until their batch is being written
                await asyncio.sleep(0)
            await asyncio.gather(*first, *(client(name) for name in "efgh"))
            times = [e["time"] for e in await _events(ledger) if e["type"] == "user.created"]
            batches = [len(list(same)) for _, same in groupby(times)]
            assert sum(batches) == 8 * rounds
            assert batches[0] == 4
            assert batches.count(8) >= rounds - 3, batches

    asyncio.run(run())


def test_only_the_invalid_command_of_a_batch_fails(app_url: str) -> None:
    async def run() -> None:
        async with opened(app_url) as ledger:
            await ledger.create_user("taken")
            results = await asyncio.gather(
                ledger.create_user("a"), ledger.create_user("TAKEN"), ledger.create_user("b"), return_exceptions=True
            )
            assert isinstance(results[1], Uniqueness)
            assert [r.seq for r in (results[0], results[2])] == [3, 4]  # type: ignore[union-attr]

    asyncio.run(run())


def test_a_value_that_the_database_refuses_fails_alone(app_url: str) -> None:
    """SQLSTATE class 22: the commands of the batch are written one by one, so that the others are stored."""

    async def run() -> None:
        async with opened(app_url) as ledger:
            # The HTTP layer refuses a lone surrogate; here it stands for any value that PostgreSQL or psycopg refuses.
            original = current_state.project

            def poisoned(events):
                statements = original(events)
                if any(e.macs is not None and e.macs.external_id is not None for e in events):
                    statements.append(("select 1 / 0", ()))
                return statements

            object.__setattr__(ledger.services.ledger.submit.__self__._transaction, "project", poisoned)
            results = await asyncio.gather(
                ledger.create_user("a"),
                ledger.create_user("bad", externalId="x"),
                ledger.create_user("b"),
                return_exceptions=True,
            )
            assert isinstance(results[1], InvalidValue)
            assert all(r.seq for r in (results[0], results[2]))  # type: ignore[union-attr]
            names = [e["data"]["object"]["userName"] for e in await _events(ledger) if e["type"] == "user.created"]
            assert sorted(names) == ["a", "b"]

    asyncio.run(run())


def test_several_writers_at_once_keep_one_dense_order(app_url: str) -> None:
    async def run() -> None:
        async with opened(app_url) as first:
            kek = first.services.ledger.kek
            async with opened(app_url, kek=kek) as second, opened(app_url, kek=kek) as third:
                ledgers = (first, second, third)
                await asyncio.gather(*(ledgers[n % 3].create_user(f"u{n}") for n in range(600)))
                assert sum(e["type"] == "user.created" for e in await _events(second)) == 600
                events = await _events(third)
                assert [e["position"] for e in events] == list(range(1, len(events) + 1))
                assert [e["seq"] for e in events if e["directory"] == "acme"] == list(range(1, 602))

    asyncio.run(run())


def test_the_same_user_name_sent_to_two_writers_is_stored_once(app_url: str) -> None:
    async def run() -> None:
        async with opened(app_url) as first, opened(app_url, kek=first.services.ledger.kek) as second:
            for n in range(20):
                results = await asyncio.gather(
                    first.create_user(f"Same{n}"), second.create_user(f"sAME{n}"), return_exceptions=True
                )
                assert sorted(type(r).__name__ for r in results) == ["Outcome", "Uniqueness"]

    asyncio.run(run())


@pytest.mark.parametrize("loss", ["lose_answer", "lose_request"])
def test_a_commit_whose_connection_is_cut_gets_a_true_answer(
    cluster: embedded.Cluster, app_url: str, tmp_path: Path, loss: str
) -> None:
    """Whether the COMMIT arrived or not, each command is stored once and answered with its seq."""

    async def run() -> None:
        async with proxied(str(cluster.socket_dir), tmp_path) as (proxy, through):
            async with opened(app_url, serve_through=make_conninfo(app_url, host=through)) as ledger:
                await ledger.create_user("first")
                answered: dict[str, int | None] = {}
                for round_ in range(8):
                    setattr(proxy, loss, 1)
                    names = [f"r{round_}n{n}" for n in range(10)]
                    outcomes = await asyncio.gather(*(ledger.create_user(name) for name in names))
                    answered |= {name: outcome.seq for name, outcome in zip(names, outcomes, strict=True)}
                assert proxy.cuts == 8
                stored = {e["data"]["object"]["userName"]: e["seq"] for e in await _events(ledger) if e["type"] == "user.created"}
                assert stored == {"first": 2, **answered}

    asyncio.run(run())


def test_while_the_database_is_away_writes_are_503_and_they_go_on_without_a_restart(
    cluster: embedded.Cluster, app_url: str, tmp_path: Path
) -> None:
    async def run() -> None:
        async with proxied(str(cluster.socket_dir), tmp_path) as (proxy, through):
            async with opened(app_url, serve_through=make_conninfo(app_url, host=through)) as ledger:
                await ledger.create_user("before")
                await proxy.vanish()
                with pytest.raises(Unavailable):
                    await ledger.create_user("meanwhile")
                with pytest.raises(Unavailable):  # at once, because the database was found to be away
                    ledger.create_user("meanwhile")
                await proxy.listen()
                assert (await _as_a_client(lambda: ledger.create_user("after"))).seq == 3

    asyncio.run(run())


async def _as_a_client(write: Callable[[], "asyncio.Future[Outcome]"]) -> Outcome:
    """Repeat a write while the answer is 503, at most for the time within which the service must be back."""
    async with asyncio.timeout(15):
        while True:
            with contextlib.suppress(Unavailable):
                return await write()
            await asyncio.sleep(0)


def test_a_giant_commit_does_not_delay_other_directories(app_url: str) -> None:
    """While a commit in another process holds the lock of its directory, commands of other directories are written; commands of
    that directory wait.
    """

    async def run() -> None:
        async with opened(app_url) as ledger:
            from tests.postgres.machine import administration

            async with administration(app_url, ledger.services.ledger.kek) as acts:
                other = await acts.create_directory("other")
            holder = await psycopg.AsyncConnection.connect(app_url)
            await holder.execute("select pg_advisory_xact_lock(%s, %s)", (DIRECTORY.number, ledger.directory.id))
            blocked = asyncio.ensure_future(ledger.create_user("waits"))
            for n in range(5):
                outcome = await asyncio.wait_for(ledger.create_user(f"goes{n}", other), timeout=5)
                assert outcome.seq == n + 2
            assert not blocked.done()
            await holder.rollback()
            assert (await asyncio.wait_for(blocked, timeout=10)).seq == 2
            await holder.close()

    asyncio.run(run())


def test_many_clients_add_members_to_one_group_at_once(app_url: str) -> None:
    """PATCHes of different edges of one group share a batch, and rv is counted in memory."""

    async def run() -> None:
        async with opened(app_url) as ledger:
            users = [id_of(o) for o in await asyncio.gather(*(ledger.create_user(f"u{n}") for n in range(100)))]
            group = id_of(await ledger.create_group("all"))
            outcomes = await asyncio.gather(*(ledger.add_member(group, user) for user in users))
            assert sorted(o.etag_rv for o in outcomes) == list(range(2, 102))
            repeated = await ledger.add_member(group, users[0])
            assert repeated.seq is None
            assert repeated.etag_rv == 101

    asyncio.run(run())


def test_a_user_deactivated_while_being_added_ends_without_access(app_url: str) -> None:
    """The two commands touch the same user, so they are ordered, and the events follow from that order."""

    async def run() -> None:
        async with opened(app_url) as ledger:
            group = id_of(await ledger.create_group("g"))
            for n in range(15):
                user = id_of(await ledger.create_user(f"u{n}"))
                await asyncio.gather(
                    ledger.add_member(group, user), ledger.patch_user(user, {"op": "replace", "path": "active", "value": False})
                )
                mine = [e for e in await _events(ledger) if e["data"].get("member", {}).get("id") == str(user)]
                kinds = [(e["type"].removeprefix("group."), e["data"]["effective"]) for e in mine]
                assert kinds in ([("member_added", False)], [("member_added", True), ("member_access_revoked", True)])

    asyncio.run(run())


def test_a_refused_command_leaves_no_event(app_url: str) -> None:
    async def run() -> None:
        async with opened(app_url) as ledger:
            with pytest.raises(ScimError):
                await ledger.create_group("g", ("11111111-2222-4333-8444-555555555555",))
            assert [e["type"] for e in await _events(ledger) if e["directory"] == "acme"] == ["directory.created"]

    asyncio.run(run())
