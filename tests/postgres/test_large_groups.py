"""Requests about a large group read and keep only the members on which their answer depends."""

import asyncio
import contextlib
import gc
import tracemalloc
import weakref
from itertools import pairwise
from typing import Any
from uuid import UUID

import orjson
import psycopg

from api.memory import release
from api.scim.http import Call
from api.scim.queries import Query
from api.scim.resources import MEMBERS_PIECE, group_json, object_members
from api.scim.search import from_query
from ledger.events import MEMBER_TYPES
from projections.reads import Members
from runtime.identifiers import uuid7
from scim.projection import parse_projection
from scim.schema import GROUP
from tests.postgres.ledgers import Ledger, id_of, opened

MEMBERS = 900  # created at once; so many commands fit into a queue
FEW = 20
BASE = "http://ledger.test/scim/acme/v2"


async def listed(ledger: Ledger, **asked: str) -> dict[str, Any]:
    async def nothing() -> dict[str, Any]:
        raise AssertionError("a list has no body")

    call = Call("GET", ["Groups"], "acme", {}, asked, uuid7(), nothing)
    answer = await Query(ledger.services, call, ledger.directory).many([ledger.directory.group_type], from_query(asked))
    rest = [part async for part in answer.rest] if answer.rest else []
    return orjson.loads(b"".join([answer.body, *rest]))


async def rows_read(ledger: Ledger, url: str) -> int:
    """The number of membership rows fetched so far; each connection of the pool is set to report its statistics at once."""
    async with contextlib.AsyncExitStack() as all_of_them:
        for _ in range(ledger.services.ledger.connection.__self__._pool.get_stats()["pool_size"]):
            conn = await all_of_them.enter_async_context(ledger.services.ledger.connection())
            await conn.execute("select pg_stat_force_next_flush()")
    with psycopg.connect(url) as conn:
        row = conn.execute(
            "select coalesce(seq_tup_read, 0) + coalesce(idx_tup_fetch, 0) from pg_stat_user_tables where relname = 'memberships'"
        ).fetchone()
    assert row is not None
    return row[0]


def test_a_filter_on_members_reads_only_the_members_that_it_names(app_url: str) -> None:
    async def run() -> None:
        async with opened(app_url) as ledger:
            people = [id_of(o) for o in await asyncio.gather(*(ledger.create_user(f"u{n}") for n in range(MEMBERS)))]
            await ledger.create_group("all", tuple(people))
            wanted, reads = f'members.value eq "{people[7]}"', [await rows_read(ledger, app_url)]
            for asked in (
                {"filter": wanted, "excludedAttributes": "members"},
                {"excludedAttributes": "members"},
                {"filter": wanted},
            ):
                page = await listed(ledger, **asked)
                assert page["totalResults"] == 1
                assert len(page["Resources"][0].get("members", [])) == (0 if "excludedAttributes" in asked else MEMBERS)
                reads.append(await rows_read(ledger, app_url))
            by_filter, without, whole = (after - before for before, after in pairwise(reads))
            assert 0 < by_filter <= FEW
            assert without == 0
            assert whole >= MEMBERS, "this one does show them, so the counting counts"

    asyncio.run(run())


def test_cycles_of_a_giant_request_are_freed_before_memory_is_returned() -> None:
    """Otherwise each giant request would keep the pages of the one before it, and the process would grow."""

    class Left:
        itself: "Left"

    left = Left()
    left.itself = left
    gone = weakref.ref(left)
    gc.disable()
    try:
        del left
        release()
    finally:
        gc.enable()
    assert gone() is None


def test_the_json_of_members_is_made_in_pieces() -> None:
    """With ten times the members, the memory while they are written is the same: only the packed ids grow."""

    def peak(pieces: int) -> int:
        count = pieces * MEMBERS_PIECE
        members = Members("".join(str(UUID(int=n)) for n in range(count)), str(MEMBER_TYPES["User"]) * count)
        document = {"schemas": ["urn:ietf:params:scim:schemas:core:2.0:Group"], "id": str(UUID(int=1)), "displayName": "all"}
        tracemalloc.start()
        told = sum(
            len(piece) for piece in group_json(object_members(document), parse_projection(GROUP, None, None), members, BASE)
        )
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert told > count * 100
        return most

    peak(1)  # the templates are made once, before the measurement
    assert peak(100) < 1.2 * peak(10)
