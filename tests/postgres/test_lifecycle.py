"""A directory is paused, resumed and closed: decided in the write transaction, computed from its log, and cleaned up in pieces by
any process.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from time import time_ns
from typing import Any
from uuid import UUID, uuid4

import orjson
import psycopg
import pytest

from database.connections import connect
from database.locks import CLEANING
from ledger import cleanup
from ledger.cleanup import CleanUps
from ledger.commands import RecordFacts
from ledger.directories import Directory
from ledger.events import CLOSED, DELETED, PAUSED, USER, USER_CREATED, Body, Draft
from ledger.lifecycle import closed, paused, resumed
from ledger.profiles import profile_facts
from ledger.refused import OvertakenError
from ledger.tokens import live_tokens, token_hash
from ledger.transaction import Outcome
from operations import audit
from operations.refusals import NotFoundError
from projections import history
from projections.history import Point
from runtime.bootstrap import machine
from runtime.identifiers import uuid7
from runtime.wiring import make_transaction
from scim.errors import Forbidden, ScimError, Unavailable
from scim.profile import profile_of
from scim.work import Work
from tests.acceptance.model import Fold
from tests.postgres.ledgers import CORE_USER, Ledger, id_of, opened
from tests.postgres.machine import administration
from tests.postgres.test_replay import _rebuild, _sql, _verify

DEADLINE_S = 30


async def until(true: Callable[[], Awaitable[Any]]) -> None:
    """Poll with a deadline, because other processes and tasks learn of changes by themselves."""
    async with asyncio.timeout(DEADLINE_S):
        while not await true():
            with suppress(TimeoutError):
                await asyncio.wait_for(asyncio.Event().wait(), 0.02)


async def now(ledger: Ledger) -> Directory:
    """The current state of the directory."""
    async with ledger.services.ledger.connection() as conn:
        await ledger.services.ledger.directories.refresh(conn)
        return await ledger.services.ledger.directories.by_id(conn, ledger.directory.id)


async def pause(ledger: Ledger, reason: str = "maintenance") -> Outcome:
    facts = paused(ledger.directory, reason)
    assert facts is not None
    return await ledger.submit(facts)


async def resume(ledger: Ledger) -> Outcome:
    facts = resumed(await now(ledger), "over")
    assert facts is not None
    return await ledger.submit(facts)


async def close(ledger: Ledger) -> Outcome:
    facts = closed(ledger.directory, "the customer left", "acme")
    assert facts is not None
    return await ledger.submit(facts)


async def events(ledger: Ledger) -> list[dict[str, Any]]:
    """The events of directory acme."""
    found: list[dict[str, Any]] = []
    after = None
    while True:
        page = await ledger.page(after, directory=ledger.directory)
        found += [orjson.loads(event.json) for event in page.events]
        if page.covered_to >= page.head:
            return found
        after = page.after


async def folded(ledger: Ledger) -> Fold:
    fold = Fold()
    for event in await events(ledger):
        fold.apply(event)
    return fold


async def some_of_everything(ledger: Ledger) -> tuple[list[UUID], list[UUID]]:
    """Eight users, one of them inactive, in three groups, of which one is in another."""
    users = [id_of(o) for o in await asyncio.gather(*(ledger.create_user(f"u{n}") for n in range(8)))]
    await ledger.patch_user(users[7], {"op": "replace", "path": "active", "value": False})
    inner = id_of(await ledger.create_group("inner", tuple(users[:5])))
    outer = id_of(await ledger.create_group("outer", (inner, users[6], users[7])))
    return users, [inner, outer, id_of(await ledger.create_group("nobody"))]


@asynccontextmanager
async def held_clean_up(url: str) -> AsyncIterator[None]:
    """Hold the lock of the clean-up, so that no process cleans up meanwhile."""
    conn = await connect(url)
    try:
        await conn.execute(cleanup.SQL["try_cleaning"])
        yield
    finally:
        await conn.close()


def clean_ups(ledger: Ledger, url: str) -> CleanUps:
    directories, kek = ledger.services.ledger.directories, ledger.services.ledger.kek
    return CleanUps(lambda: connect(url), make_transaction(kek), directories, uuid7)


async def is_deleted(ledger: Ledger) -> bool:
    return (await now(ledger)).state == DELETED


# -- paused -----------------------------------------------------------------


async def _members(ledger: Ledger, group: UUID, as_of: str) -> list[dict[str, Any]]:
    """The members as the audit shows them; a deleted group has none."""
    asked = {"nested": True, "effective": None, "after": None, "work": Work(10**9)}
    try:
        rows, _, _ = await audit.members(ledger.services.ledger, machine(), ledger.directory.slug, str(group), as_of, **asked)
    except NotFoundError:
        return []
    return rows


async def _opened(conn: Any, kek: Any, directory: Any, user: Any, seq: int) -> Any:
    then = await history.state_at(conn, directory, user, seq)
    return None if then is None else history.opened_then(kek, directory, then)


def test_a_pause_takes_effect_with_its_commit_and_ends_with_the_resume(app_url: str) -> None:
    async def run() -> None:
        async with opened(app_url) as ledger:
            user = id_of(await ledger.create_user("before"))
            await pause(ledger)
            for write in (ledger.create_user("while"), ledger.delete_user(user), ledger.create_group("while")):
                with pytest.raises(Unavailable, match="paused") as refused:
                    await write
                assert refused.value.retry_after == 60
            with pytest.raises(Unavailable):  # also a change that would change nothing: no success may be answered
                await ledger.patch_user(user, {"op": "replace", "path": "userName", "value": "before"})
            async with ledger.services.ledger.connection() as conn:
                assert (await history.state_at(conn, ledger.directory, user, 3)) is not None
                other = await profile_facts(conn, ledger.directory, profile_of("okta@1"))
            assert other is not None
            await ledger.submit(other)  # acts of operators go on
            await resume(ledger)
            await ledger.create_user("after")
            told = await events(ledger)
            assert [e["type"] for e in told[2:]] == [
                "directory.paused", "directory.profile_changed", "directory.resumed", "user.created",
            ]  # fmt: skip
            assert told[2]["data"]["object"]["reason"] == "maintenance"
            assert told[2]["cause"] == "operator"
            assert (await now(ledger)).state == "active"

    asyncio.run(run())


def test_the_same_act_from_two_operators_makes_one_event(app_url: str) -> None:
    """Both read the state from before, so the transaction must decide."""

    async def run() -> None:
        async with opened(app_url) as first, opened(app_url, kek=first.services.ledger.kek) as second, held_clean_up(app_url):
            for act, type_ in ((pause, "directory.paused"), (close, "directory.closed")):
                outcomes = await asyncio.gather(
                    *(act(ledger) for ledger in (first, second) for _ in range(4)), return_exceptions=True
                )
                assert sorted(type(outcome).__name__ for outcome in outcomes) == ["Outcome", *["OvertakenError"] * 7]
                assert [e["type"] for e in await events(first)].count(type_) == 1
            with pytest.raises(Forbidden, match="closed"):
                await first.create_user("late")
            late = paused(first.directory, "late")  # decided on the state from before the closing
            assert late is not None
            with pytest.raises(OvertakenError):
                await first.submit(late)

    asyncio.run(run())


@pytest.mark.parametrize("act", [pause, close])
def test_commands_that_were_queued_when_the_act_committed_are_refused(
    app_url: str, act: Callable[[Ledger], Awaitable[Outcome]]
) -> None:
    """Two processes write as fast as they can: no event of the IdP follows the act in the log, and each answer is true."""

    async def run() -> None:
        async with opened(app_url) as first, opened(app_url, kek=first.services.ledger.kek) as second:
            results: list[tuple[str, Outcome | BaseException]] = []
            enough = asyncio.Event()

            async def write(ledger: Ledger, writer: int) -> None:
                for n in range(1_000):
                    name = f"w{writer}n{n}"
                    result = (await asyncio.gather(ledger.create_user(name), return_exceptions=True))[0]
                    results.append((name, result))
                    if len(results) > 100:
                        enough.set()
                    if isinstance(result, ScimError):
                        return

            writers = [asyncio.create_task(write((first, second)[n % 2], n)) for n in range(24)]
            await enough.wait()
            acted = await act(first)
            await asyncio.gather(*writers)
            assert acted.seq is not None
            written = {e["data"]["object"]["userName"]: e["seq"] for e in await events(first) if e["type"] == "user.created"}
            assert written == {name: result.seq for name, result in results if isinstance(result, Outcome)}
            assert max(written.values()) < acted.seq
            refused = [result for _, result in results if not isinstance(result, Outcome)]
            assert len(refused) == 24
            assert {type(r) for r in refused} == {Unavailable if act is pause else Forbidden}

    asyncio.run(run())


def test_every_process_learns_of_a_pause(app_url: str) -> None:
    async def run() -> None:
        async with opened(app_url) as first, opened(app_url, kek=first.services.ledger.kek) as second:

            async def seen(state: str) -> bool:
                known = second.services.ledger.directories.known("acme")
                return known is not None and known.state == state

            async with second.services.ledger.connection() as conn:
                await second.services.ledger.directories.by_slug(conn, "acme")
            await pause(first)
            await until(lambda: seen(PAUSED))
            await resume(first)
            await until(lambda: seen("active"))
            await close(first)
            await until(lambda: seen(DELETED))

    asyncio.run(run())


# -- closed -----------------------------------------------------------------


def test_from_the_closing_on_every_read_shows_no_access_and_past_answers_stay(app_url: str) -> None:
    async def run() -> None:
        async with opened(app_url) as ledger, held_clean_up(app_url):
            users, groups = await some_of_everything(ledger)
            before = await _shown(ledger, users, groups)
            assert sum(before["active"].values()) == 7
            outcome = await close(ledger)
            assert (outcome.events, outcome.seq) == (1, before["seq"] + 1)
            after = await _shown(ledger, users, groups)
            assert not any(after["active"].values())
            assert not any(after["effective"].values())
            assert before["effective"].keys() == after["effective"].keys(), "stored memberships are still there"
            assert await _shown(ledger, users, groups, seq=before["seq"]) == before
            await _a_diff_tells_who_lost_it(ledger, before["seq"], outcome.seq or 0, users)
            ended = await _cleaned_up(ledger, app_url)
            assert not (await _shown(ledger, users, groups))["active"]
            assert await _shown(ledger, users, groups, seq=before["seq"]) == before
            assert await _shown(ledger, users, groups, seq=after["seq"]) == after
            assert ended == DELETED

    asyncio.run(run())


async def _shown(ledger: Ledger, users: list[UUID], groups: list[UUID], seq: int | None = None) -> dict[str, Any]:
    """The results of the functions behind audit and snapshot, as of a point."""
    d, kek = ledger.directory, ledger.services.ledger.kek
    async with ledger.services.ledger.connection() as conn:
        text = "seq:head" if seq is None else f"seq:{seq}"
        point: Point = await history.resolve(conn, d, text, now=time_ns() // 1_000)
        people = await history.population(conn, d, point.seq)
        states = {user: await _opened(conn, kek, d, user, point.seq) for user in users}
        for user, state in states.items():
            person = next((p for p in people if p.id == user), None)
            assert (person is None) == (state is None)
            if state is not None and person is not None and state.resource is not None:
                assert person.active is state.active is state.resource.document["active"]
        packed = {group: await history.members_packed(conn, d, group, point.seq) for group in groups}
    effective = {
        (group, row["id"], tuple(row["via"])): row["effective"]
        for group in groups
        for row in await _members(ledger, group, f"seq:{point.seq}")
    }
    for group, (ids, digits) in packed.items():  # from the snapshot
        shown = {UUID(ids[36 * n : 36 * n + 36]): bool(int(digit) & 2) for n, digit in enumerate(digits)}
        assert shown == {member: is_so for (of, member, via), is_so in effective.items() if of == group and not via}
    return {"seq": point.seq, "active": {p.id: p.active for p in people}, "effective": effective}


async def _a_diff_tells_who_lost_it(ledger: Ledger, first: int, second: int, users: list[UUID]) -> None:
    async with ledger.services.ledger.connection() as conn:
        memberships, states = await history.diff(conn, ledger.directory, first, second, group=None, user=None)
        assert memberships == []
        assert {(row[0], row[2], row[3], row[5]) for row in states} == {(user, True, False, second) for user in users[:7]}
        assert (await history.diff(conn, ledger.directory, second, second, group=None, user=None))[1] == []
        assert len((await history.diff(conn, ledger.directory, first, second, group=None, user=users[0]))[1]) == 1


async def _cleaned_up(ledger: Ledger, url: str) -> str:
    conn = await connect(url)
    cleaning = clean_ups(ledger, url)
    while (directory := await now(ledger)).state == CLOSED:
        await cleaning._piece(conn, directory)
    await conn.close()
    return directory.state


def test_rebuilt_and_live_tables_agree_after_every_piece(app_url: str, owner_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def run() -> None:
        monkeypatch.setattr(cleanup, "PIECE", 3)
        monkeypatch.setattr("replay.shadow_tables.CHUNK_EVENTS", 7)
        async with opened(app_url) as ledger, held_clean_up(app_url):
            await some_of_everything(ledger)
            await pause(ledger)
            await resume(ledger)
            await close(ledger)
            conn, cleaning, pieces = await connect(app_url), clean_ups(ledger, app_url), 0
            while (directory := await now(ledger)).state == CLOSED:
                assert (await _rebuild(ledger, owner_url)).drifted == ()
                assert await _verify(ledger, owner_url) == []
                if pieces % 2:  # as another process would continue, without a remembered place
                    cleaning._places.clear()
                await cleaning._piece(conn, directory)
                pieces += 1
            await conn.close()
            assert (await _rebuild(ledger, owner_url)).drifted == ()
            assert await _verify(ledger, owner_url) == []
            told = await events(ledger)
            assert max(e["commit"]["size"] for e in told if e["cause"] == "directory_closed") == 3
            assert {e["actor"] for e in told if e["cause"] == "directory_closed"} == {"sys"}
            assert (await folded(ledger)).directory == DELETED
            assert pieces >= 8

    asyncio.run(run())


def test_a_state_that_does_not_follow_from_the_log_is_found_and_repaired(app_url: str, owner_url: str) -> None:
    async def run() -> None:
        async with opened(app_url) as ledger, held_clean_up(app_url):
            await ledger.create_user("u")
            await close(ledger)
            _sql(owner_url, "update directory_states set state = 'active', closed_seq = null")
            assert {f.place for f in await _verify(ledger, owner_url)} == {"table directory_states"}
            assert (await _rebuild(ledger, owner_url)).drifted == ("directory_states",)
            with pytest.raises(Forbidden):
                await ledger.create_user("back through the drift")

    asyncio.run(run())


def test_the_clean_up_continues_where_a_process_left_it(app_url: str, owner_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first process is cut off at a random moment; the second finds from the database alone what is left."""

    async def run() -> None:
        monkeypatch.setattr(cleanup, "PIECE", 2)
        async with opened(app_url) as first:
            await some_of_everything(first)
            async with held_clean_up(app_url):
                await close(first)
                kek = first.services.ledger.kek
            async with opened(app_url, kek=kek) as second:
                await until(lambda: is_deleted(second))
                assert (await folded(second)).directory == DELETED
                assert await _verify(second, owner_url) == []

    asyncio.run(run())


def test_a_damaged_body_or_key_does_not_stop_the_clean_up(app_url: str, superuser_url: str) -> None:
    async def run() -> None:
        async with opened(app_url) as ledger, held_clean_up(app_url):
            users, groups = await some_of_everything(ledger)
            await close(ledger)
            _sql(
                superuser_url, "alter table bodies disable trigger all", "alter table subject_keys disable trigger all", "delete from bodies where directory = 2 and seq = 3",
                "update bodies set ct = '\\x01' where directory = 2 and seq = 4",
                f"update subject_keys set wrapped = '\\x01' where obj = '{users[7]}'",
                f"delete from subject_keys where obj = '{groups[2]}'",
            )  # fmt: skip
            assert await _cleaned_up(ledger, app_url) == DELETED
            question = "select count(*), count(b.ct) from events e left join bodies b using (directory, seq) where directory = 2 and type in (4, 8)"
            async with ledger.services.ledger.connection() as conn:
                assert await (await conn.execute(question)).fetchone() == (11, 7), (
                    "each ends, those that can be read with what they were"
                )

    asyncio.run(run())


def test_the_tokens_of_a_closed_directory_end_except_those_that_read(app_url: str) -> None:
    async def run() -> None:
        async with opened(app_url) as ledger, administration(app_url, ledger.services.ledger.kek) as acts:
            await acts.create_directory("other")
            life = datetime.now(UTC) + timedelta(days=1)

            async def issue(role: str, *slugs: str) -> str:
                return await acts.issue_token(role, f"{role} of {slugs}", slugs, life)

            ended = [await issue(role, "acme") for role in ("scim", "operator", "admin")]
            kept = [
                await issue("scim", "other"), await issue("consumer", "acme"), await issue("auditor", "acme"),
                await issue("operator", "acme", "other"), await issue("admin", "*"),
            ]  # fmt: skip
            hashes = [token_hash(text) for text in (*ended, *kept)]
            async with held_clean_up(app_url):
                await close(ledger)
                async with ledger.services.ledger.connection() as conn:
                    alive = await live_tokens(conn, ledger.services.ledger.kek, hashes)
                assert alive.keys() == set(hashes[1:]), "the token of the IdP ends with the closing itself"
            await until(lambda: is_deleted(ledger))
            async with ledger.services.ledger.connection() as conn:
                assert (await live_tokens(conn, ledger.services.ledger.kek, hashes)).keys() == set(hashes[3:])
                page = await ledger.page(directory=await _system(ledger))
            revoked = [orjson.loads(e.json) for e in page.events]
            assert [e["data"]["object"]["name"] for e in revoked if e["type"] == "token.revoked"] == [
                f"{role} of ('acme',)" for role in ("scim", "operator", "admin")
            ]
            with pytest.raises(Exception, match="never reused"):
                await acts.create_directory("acme")

    asyncio.run(run())


async def _system(ledger: Ledger) -> Directory:
    async with ledger.services.ledger.connection() as conn:
        found = await ledger.services.ledger.directories.by_slug(conn, "_system")
    assert found is not None
    return found


def test_acts_on_a_closed_directory_are_refused(app_url: str) -> None:
    async def run() -> None:
        async with opened(app_url) as ledger:
            async with ledger.services.ledger.connection() as conn:
                facts = await profile_facts(conn, ledger.directory, profile_of("okta@1"))
            assert facts is not None
            await close(ledger)
            with pytest.raises(Forbidden, match="closed"):
                await ledger.submit(facts)
            await until(lambda: is_deleted(ledger))
            with pytest.raises(Forbidden, match="closed"):
                await ledger.submit(facts)

    asyncio.run(run())


def test_a_directory_of_twenty_thousand_members_is_closed_in_one_small_commit_that_delays_nobody(app_url: str) -> None:
    async def run() -> None:
        async with opened(app_url) as ledger:
            async with administration(app_url, ledger.services.ledger.kek) as acts:
                other = await acts.create_directory("other")
            users = [uuid4() for _ in range(20_000)]
            for start in range(0, len(users), 1_000):
                await ledger.submit(RecordFacts(tuple(_created(user) for user in users[start : start + 1_000])))
            await ledger.create_group("all", tuple(users))
            clock = asyncio.get_running_loop().time
            started = clock()
            outcome = await close(ledger)
            assert clock() - started < 2.0
            assert (outcome.events, outcome.seq) == (1, 40_003)
            slowest = 0.0
            while (pieces := await _pieces_after(ledger, 40_003))[0] < 12:
                began = clock()
                await ledger.create_user(f"other {uuid4()}", other)
                slowest = max(slowest, clock() - began)
            assert slowest < 2.0, "one directory holds up no other: half a second on a machine that has nothing else to do"
            assert pieces[1] == cleanup.PIECE

    asyncio.run(run())


def _created(user: UUID) -> Draft:
    document = {"schemas": [CORE_USER], "id": str(user), "userName": str(user), "active": True}
    return Draft(USER_CREATED, user, USER, active=True, body=Body(document, [], str(user)))


async def _pieces_after(ledger: Ledger, seq: int) -> tuple[int, int]:
    async with ledger.services.ledger.connection() as conn:
        question = "select count(*), coalesce(max(size), 0) from commits where directory = $1 and seq > $2"
        return (await (await conn.execute(question, (ledger.directory.id, seq))).fetchone()) or (0, 0)


def test_only_one_process_cleans_up_at_a_time(app_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def run() -> None:
        monkeypatch.setattr(cleanup, "PIECE", 1)
        async with opened(app_url) as first:
            kek = first.services.ledger.kek
            await some_of_everything(first)
            async with opened(app_url, kek=kek), opened(app_url, kek=kek), opened(app_url, kek=kek):
                await close(first)
                await until(lambda: is_deleted(first))
            told = [e for e in await events(first) if e["cause"] == "directory_closed"]
            assert len(told) == 8 + 8 + 3 + 1, "memberships, users, groups, the last event: each once"
            assert (await folded(first)).directory == DELETED

    asyncio.run(run())


def test_a_clean_up_that_loses_its_connection_starts_again(app_url: str, admin_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def run() -> None:
        monkeypatch.setattr(cleanup, "PIECE", 1)
        monkeypatch.setattr(cleanup, "AWAY_S", 0.01)
        async with opened(app_url) as ledger, await psycopg.AsyncConnection.connect(admin_url, autocommit=True) as admin:
            await some_of_everything(ledger)
            await close(ledger)
            cuts = seen = 0
            while not await is_deleted(ledger):
                head = (await _pieces_after(ledger, 0))[0]
                if head == seen:  # once after each piece: the clean-up must make progress in between
                    continue
                question = f"select pg_terminate_backend(pid) from pg_locks where locktype = 'advisory' and classid = {CLEANING.number} and granted"
                cuts, seen = cuts + len(await (await admin.execute(question)).fetchall()), head
            assert cuts > 2
            assert (await folded(ledger)).directory == DELETED

    asyncio.run(run())


def test_the_clean_up_begins_whichever_part_of_the_process_learns_of_the_closing_first(app_url: str) -> None:
    """The request that closed the directory reads its new state at once: it must not be the only one that sees the change."""

    async def run() -> None:
        async with opened(app_url) as ledger:
            for _ in range(3):  # at whatever moment the follower reads
                assert (await now(ledger)).state == "active"
            await close(ledger)
            for _ in range(3):
                await now(ledger)
            await until(lambda: is_deleted(ledger))

    asyncio.run(run())
