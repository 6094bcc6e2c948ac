"""Reads of the log within a budget of bytes: for all sizes and filters, the pages cover the log without gaps and none is too
large.
"""

import asyncio
import random
from collections.abc import Coroutine
from dataclasses import replace
from typing import Any
from uuid import uuid4

import orjson
import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ledger import tail
from ledger.commands import DeleteGroup
from ledger.cursor import BEGINNING, Anchor, Cursor, decode_cursor
from ledger.events import type_mask
from ledger.feed import CursorAheadError, CursorForkedError, Selection
from ledger.rendering import BODIES_BYTES_MAX, Event
from ledger.tail import Arrivals, Tail
from ledger.transaction import DAMAGED_SAYS
from projections import history
from tests.postgres.ledgers import Ledger, id_of, opened

SIZES = (1, 300, 3_000, 20_000, 120_000)


def run(coroutine: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(coroutine, 240))


def _text(size: int, dice: random.Random) -> str:
    """A text of this length: half of the texts shrink to almost nothing under deflate, the others not at all."""
    return "a" * size if dice.random() < 0.5 else dice.randbytes(size // 2 + 1).hex()[:size]


async def _people(ledger: Ledger, number: int) -> None:
    """Users with titles of many sizes, in a group, in commits of two directories, some of several events."""
    dice = random.Random(5)
    users = [
        id_of(o)
        for o in await asyncio.gather(
            *(ledger.create_user(f"u{n}", title=_text(dice.choice(SIZES), dice)) for n in range(number))
        )
    ]
    await ledger.create_group("team", tuple(users))
    for user in users[: number // 3]:
        await ledger.patch_user(user, {"op": "replace", "path": "title", "value": _text(dice.choice(SIZES), dice)})
        await ledger.patch_user(user, {"op": "replace", "path": "active", "value": False})


def _within(events: list[Event], budget: int) -> bool:
    return sum(len(event.json) for event in events[1:]) <= budget


selections = st.fixed_dictionaries({
    "types": st.sampled_from(["*", "user.*", "group.*", "user.updated", "user.erased", "group.member_added,user.deactivated"]),
    "own": st.booleans(),
    "bodies": st.booleans(),
    "subject": st.none() | st.integers(0, 5),  # the subject or member of some event
    "times": st.none() | st.tuples(st.integers(0, 200), st.integers(0, 200)).map(sorted),  # those of two events
})  # fmt: skip


def test_pages_cut_by_bytes_cover_the_log_for_any_filter_and_any_sizes(app_url: str) -> None:
    async def body() -> None:
        async with opened(app_url) as ledger:
            await _people(ledger, 30)
            whole = [event for event in await _all(ledger, Selection(), 1_000, 2**30) if event.json]

            # Hypothesis chooses the values; the event loop of the ledger does the reading.
            @settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
            @given(
                asked=selections,
                limit=st.integers(1, 60),
                budget=st.sampled_from([1, 700, 5_000, 64 * 1024, 300_000, BODIES_BYTES_MAX]),
            )
            def check(asked: dict[str, Any], limit: int, budget: int) -> None:
                checks.append((asked, limit, budget))

            checks: list[tuple[dict[str, Any], int, int]] = []
            check()
            for asked, limit, budget in checks:
                mask = type_mask(asked["types"].split(","))
                assert mask is not None
                directory = ledger.directory if asked["own"] else None
                selection = narrowed(Selection(directory, mask=mask, bodies=asked["bodies"]), whole, asked)
                found = await _all(ledger, selection, limit, budget, filled=not asked["bodies"] and budget >= 300_000)
                wanted = [e for e in whole if selection.takes(e) and (directory is None or e.directory == directory.id)]
                assert [e.position for e in found] == [e.position for e in wanted], (asked, limit, budget)
                if asked["bodies"]:
                    assert [e.json for e in found] == [e.json for e in wanted]

    run(body())


def narrowed(selection: Selection, whole: list[Event], asked: dict[str, Any]) -> Selection:
    """The selection of some subject and of the time between two events."""
    subject = (
        None
        if asked["subject"] is None
        else [event.mem or event.obj for event in whole if event.slug == "acme"][asked["subject"] * 7]
    )
    if asked["times"] is None:
        return replace(selection, subject=subject)
    first, last = (whole[place % len(whole)].at for place in asked["times"])
    return replace(selection, subject=subject, time_from=first, time_to=last)


@pytest.mark.parametrize(("scanned", "stretch"), [(1, 1), (7, 3), (30, 30)])
def test_a_page_ends_with_its_scan_budget_and_the_next_goes_on_there(
    app_url: str, monkeypatch: pytest.MonkeyPatch, scanned: int, stretch: int
) -> None:
    monkeypatch.setattr("ledger.feed.SCANNED_MAX", scanned)
    monkeypatch.setattr("ledger.feed._STRETCH", stretch)

    async def body() -> None:
        async with opened(app_url) as ledger:
            await _people(ledger, 12)
            whole = await _all(ledger, Selection(), 1_000, 2**30)
            member = next(event.mem for event in whole if event.mem is not None)
            for selection in (Selection(subject=member), Selection(ledger.directory, subject=member)):
                found = await _all(ledger, selection, 3, BODIES_BYTES_MAX)
                assert [event.position for event in found] == [event.position for event in whole if selection.takes(event)]
                page = await ledger.page(limit=1_000, subject=uuid4())
                assert (page.events, page.has_more, page.covered_to) == ([], True, -(-scanned // stretch) * stretch)

    run(body())


async def _all(ledger: Ledger, selection: Selection, limit: int, budget: int, *, filled: bool = False) -> list[Event]:
    """Read to the head, checking each page; returns the events. `filled`: each page but the last must be full."""
    found: list[Event] = []
    cursor = Cursor(0, BEGINNING, selection.directory.id if selection.directory else 0)
    while True:
        page = await ledger.services.ledger.feed.page(ledger.services.ledger.connection, selection, cursor, limit, budget=budget)
        assert page.covered_from == cursor.number + 1, "nothing is skipped or told twice"
        assert page.covered_to > cursor.number or page.covered_to == page.head, "each page makes progress"
        assert len(page.events) <= limit
        assert len(page.events) == limit or not filled or not page.has_more
        assert _within(page.events, budget)
        async with ledger.services.ledger.connection() as conn:
            assert await ledger.services.ledger.feed.check(conn, decode_cursor(page.after.encode())) == page.after
        assert page.after.number == page.covered_to
        found += page.events
        cursor = page.after
        if not page.has_more:
            return found


def test_a_small_ciphertext_that_inflates_hugely_does_not_fill_the_memory(app_url: str) -> None:
    """A request of 32 KiB of PATCHes on a user with a long title: each event has the whole user, deflated to a few hundred bytes."""

    async def body() -> None:
        async with opened(app_url) as ledger:
            user = id_of(await ledger.create_user("long", title="t" * 900_000))
            for n in range(30):
                await ledger.patch_user(user, {"op": "replace", "path": "nickName", "value": str(n)})
            pages, after, sizes = 0, Cursor(0, BEGINNING), list[int]()
            while True:
                page = await ledger.page(after)
                pages, after = pages + 1, page.after
                assert _within(page.events, BODIES_BYTES_MAX)
                sizes += [len(event.json) for event in page.events]
                if not page.has_more:
                    break
            assert sum(sizes) > 3 * BODIES_BYTES_MAX
            assert pages > sum(sizes) // (BODIES_BYTES_MAX + 4_000_000)

    run(body())


def test_the_tail_drops_events_by_bytes_and_what_it_keeps_equals_the_log(app_url: str, monkeypatch: Any) -> None:
    monkeypatch.setattr(tail, "KEPT_BYTES", 50_000)

    async def body() -> None:
        async with opened(app_url) as ledger:
            await ledger.create_user("before")
            hints = Arrivals()
            mine = Tail(ledger.services.ledger.feed, ledger.services.ledger.connection, hints)
            mine.follow("this test")
            first = mine.arrivals.next()
            task = asyncio.create_task(mine.run())
            await asyncio.wait_for(first.wait(), 10)
            start = mine.read_to
            await _people(ledger, 12)
            async with ledger.services.ledger.connection() as conn:
                head = await ledger.services.ledger.feed.head(conn, Selection())
            while mine.read_to < head:
                arrival = mine.arrivals.next()
                hints.announce()
                await asyncio.wait_for(arrival.wait(), 10)
            log = await _all(ledger, Selection(), 1_000, 2**30)
            places = [Anchor(e.position, e.leaf_hash) for e in log if e.position >= start]
            kept = [place for place in places if mine.since(place) is not None]
            assert kept
            assert places[0] not in kept, "more was written than is kept"
            for place in kept:
                events = mine.since(place)
                assert events is not None
                assert [e.json for e in events] == [e.json for e in log if e.position > place.position]
                assert sum(len(e.json) for e in events[:-1]) <= 50_000
            task.cancel()
            await asyncio.wait([task], timeout=10)

    run(body())


def test_documents_are_unsealed_within_the_budget_and_in_order(app_url: str) -> None:
    async def body() -> None:
        async with opened(app_url) as ledger:
            dice = random.Random(3)
            titles = [_text(dice.choice(SIZES), dice) for _ in range(20)]
            for n, title in enumerate(titles):
                await ledger.create_user(f"u{n}", title=title)
            page = await ledger.page(directory=ledger.directory)
            seqs = [event.seq for event in page.events if event.kind == 0]
            connection, kek = ledger.services.ledger.connection, ledger.services.ledger.kek
            for budget in (1, 5_000, 150_000, BODIES_BYTES_MAX):
                found: list[str] = []
                while len(found) < len(seqs):
                    rest = seqs[len(found) :]
                    some = await history.documents_at(
                        connection,
                        kek,
                        ledger.directory,
                        rest,
                        lambda _, document, why: document["title"] if document else why,
                        budget=budget,
                    )
                    assert some, "the first event is always included"
                    assert sum(map(len, some[1:])) <= budget
                    found += some
                assert found == titles

    run(body())


def test_a_cursor_reveals_nothing_of_its_event_and_old_cursors_still_work(app_url: str) -> None:
    async def body() -> None:
        async with opened(app_url) as ledger:
            await ledger.create_user("a")
            await ledger.create_user("b")
            page = await ledger.page()
            read = ledger.services.ledger.feed
            async with ledger.services.ledger.connection() as conn:
                for event in page.events:
                    for selection in (Selection(), Selection(directory=ledger.directory)):
                        if selection.directory is not None and event.directory != ledger.directory.id:
                            continue
                        cursor = read.cursor_after(event, selection)
                        assert cursor == await read.cursor_at(conn, selection, cursor.number)
                        assert event.leaf_hash[:4] not in cursor.mark
                        old = Cursor(cursor.number, event.leaf_hash[:4], cursor.directory)
                        assert await read.check(conn, decode_cursor(old.encode())) == cursor, (
                            "the answer has a cursor in the current form"
                        )
                        for wrong in (bytes(4), bytes(8), event.leaf_hash[:8], cursor.mark[:4]):
                            with pytest.raises(CursorForkedError):
                                await read.check(conn, Cursor(cursor.number, wrong, cursor.directory))
                with pytest.raises(CursorAheadError) as ahead:
                    await read.check(conn, Cursor(page.head + 1, bytes(8)))
                assert ahead.value.head == page.head

    run(body())


def test_a_damaged_body_or_key_affects_only_its_own_events(app_url: str, superuser_url: str, capfd: Any) -> None:
    async def body() -> None:
        async with opened(app_url) as ledger:
            users = [id_of(o) for o in [await ledger.create_user(f"u{n}") for n in range(4)]]
            await ledger.patch_user(users[2], {"op": "replace", "path": "title", "value": "x"})
            before = [orjson.loads(event.json) for event in (await ledger.page(directory=ledger.directory)).events]
            body_of = next(e["seq"] for e in before if e["subject"]["id"] == str(users[0]))
            with psycopg.connect(superuser_url, autocommit=True) as conn:
                conn.execute("set search_path to ledger")
                conn.execute("alter table bodies disable trigger all")
                where = (body_of, ledger.directory.id)
                conn.execute(
                    "update bodies set ct = set_byte(ct, 40, get_byte(ct, 40) # 1) where seq = %s and directory = %s", where
                )
                conn.execute(
                    "update subject_keys set wrapped = set_byte(wrapped, 20, get_byte(wrapped, 20) # 1) where obj = %s",
                    (users[2],),
                )
            damaged = {e["seq"] for e in before if e["subject"]["id"] == str(users[2])} | {body_of}
            assert len(damaged) == 3
            for _ in range(2):
                after = [orjson.loads(event.json) for event in (await ledger.page(directory=ledger.directory)).events]
                for was, found in zip(before, after, strict=True):
                    assert found == ({**was, "data": {"unreadable": True}} if was["seq"] in damaged else was)
            seqs = [e["seq"] for e in before if e["type"] == "user.created"]
            whys = await history.documents_at(
                ledger.services.ledger.connection, ledger.services.ledger.kek, ledger.directory, seqs, lambda _, __, why: why
            )
            assert whys == ["unreadable", "", "unreadable", ""]
            read = await asyncio.gather(*(ledger.services.reads.users.get((ledger.directory.id, user)) for user in users))
            names = [found.document["userName"] for found in read if found is not None]
            assert names == [f"(unreadable) {users[0]}", "u1", f"(unreadable) {users[2]}", "u3"]
            by_name = await ledger.services.reads.names.get((ledger.directory.id, "u0"))
            assert by_name is not None
            assert by_name.document["userName"] == "u0", "the name still counts as taken"

    run(body())
    out, err = capfd.readouterr()
    logged = [line for line in (out + err).splitlines() if "body_unreadable" in line]
    assert len(logged) == len(set(logged)) == 3, "once for each"


def test_a_damaged_body_refuses_only_writes_to_its_resource_which_can_be_deleted(app_url: str, superuser_url: str) -> None:
    """A batch has commands on many resources: earlier, all of them failed together."""

    async def body() -> None:
        async with opened(app_url) as ledger:
            users = [id_of(o) for o in [await ledger.create_user(f"u{n}") for n in range(3)]]
            group = id_of(await ledger.create_group("team", tuple(users)))
            with psycopg.connect(superuser_url, autocommit=True) as conn:
                conn.execute("set search_path to ledger")
                conn.execute("alter table bodies disable trigger all")
                place = "(directory, seq) in (select directory, seq from events where obj = %s)"
                conn.execute(f"update bodies set ct = set_byte(ct, 60, get_byte(ct, 60) # 1) where {place}", (users[0],))
                conn.execute(f"update bodies set ct = set_byte(ct, 60, get_byte(ct, 60) # 1) where {place}", (group,))
                conn.execute(
                    "update subject_keys set wrapped = set_byte(wrapped, 20, get_byte(wrapped, 20) # 1) where obj = %s",
                    (users[1],),
                )
            titled = {"op": "replace", "path": "title", "value": "x"}
            told = await asyncio.gather(*(ledger.patch_user(user, titled) for user in users), return_exceptions=True)
            assert [str(found) == DAMAGED_SAYS for found in told] == [True, True, False]
            await ledger.add_member(group, id_of(await ledger.create_user("new")))
            for user in users[:2]:
                await ledger.delete_user(user)
            await ledger.submit(DeleteGroup(group))
            events = [orjson.loads(event.json) for event in (await ledger.page(directory=ledger.directory)).events]
            ended = {e["subject"]["id"]: e["data"] for e in events if e["type"] in {"user.deleted", "group.deleted"}}
            assert ended == {str(user): {} for user in users[:2]} | {str(group): {}}

    run(body())
