"""A synchronous standby that hangs: repeated writes leave few sessions behind, and an Idempotency-Key prevents that an act is
done twice.
"""

import asyncio
import os
from contextlib import suppress
from uuid import uuid4

import psycopg
import pytest

from api import idempotency as edge
from database import patience, server
from database.arrays import int2s, int4s
from database.connections import Connection, connect
from database.deadlines import Deadline
from delivery.checkpoints import acknowledge, record
from delivery.reports import Place, Report
from delivery.worker import SQL as DELIVERY
from ledger.token_use import Use, note_uses
from operations import idempotency, tokens
from operations.idempotency import Answer
from operations.refusals import ConflictError
from runtime.bootstrap import machine
from runtime.exits import UNREACHABLE, CommandError
from runtime.reaching import standby_named
from tests.postgres.deliveries import scene
from tests.postgres.ledgers import opened
from tests.postgres.test_idempotency import key_of
from tests.postgres.test_server import WAITING, waiting, waiting_for_a_standby

TRIES = 3


def left_behind(conn: psycopg.Connection) -> int:
    return len(conn.execute(WAITING).fetchall())


async def impatient(url: str) -> Connection:
    return await connect(url, pinned=True, patience_s=0.3)


def test_repeated_writes_do_not_leave_a_session_for_each_attempt(app_url: str, superuser_url: str) -> None:
    async def run() -> None:
        async with scene(app_url) as s:
            hooked, pulled = await s.make("hooked"), await s.make("pulled", mode="pull", url=None)
            holder = uuid4()
            await s.sql("insert into consumer_leases values (%s, %s, 7, 'infinity')", hooked.id, holder)
            with waiting_for_a_standby(superuser_url) as conn:
                paces = (int4s([hooked.id]), int2s([0]), [0.0], [0.0], [0.0], [None])
                for _ in range(TRIES):
                    async with await impatient(app_url) as alive:  # signs of life do not wait for the standby
                        await alive.execute(DELIVERY["beat_worker"], (holder,))
                        await alive.execute(DELIVERY["renew_leases"], (holder, paces[0], 15.0, *paces[1:]))
                        await note_uses(alive, s.kek, {uuid4(): Use("GET /v1/events", "127.0.0.1")}, os.urandom)
                assert left_behind(conn) == 0
                for n in range(TRIES):
                    given_up = await impatient(app_url)
                    with pytest.raises(psycopg.OperationalError):
                        await record(given_up, [Report(hooked.id, 7, Place(1, n + 1, n + 1))])
                assert left_behind(conn) == 1
                for n in range(TRIES):
                    given_up = await impatient(app_url)
                    with pytest.raises(psycopg.OperationalError):
                        await acknowledge(given_up, pulled, n + 1, [])
                assert left_behind(conn) == 2

    asyncio.run(run())


def test_an_act_whose_commit_hangs_is_done_once_under_its_key(
    app_url: str, superuser_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first attempt is refused while its commit still waits in the server, invisible to others: the next attempt waits for it
    and finds it done.
    """
    monkeypatch.setattr(idempotency, "LOCK", Deadline(0.2, "a lock", "409"))

    async def run() -> None:
        async with opened(app_url) as ledger:
            parts, first = ledger.services.ledger, machine()
            key = key_of(first, "key", b"POST")
            with waiting_for_a_standby(superuser_url) as conn:
                assert await idempotency.begin(parts, first, key) is None  # a key does not wait for the standby
                act = asyncio.ensure_future(tokens.issue(parts, first, "auditor", "n", ("*",), None, days=1))
                await waiting(conn)
                await idempotency.finish(parts, first, key, Answer(503, "text/plain", b""))
                with pytest.raises(ConflictError, match="still running"):
                    await idempotency.begin(parts, machine(), key)
            with suppress(psycopg.Error):
                await act
            with pytest.raises(ConflictError, match="was carried out"):
                await idempotency.begin(parts, machine(), key)

    asyncio.run(run())


def test_a_start_that_waits_for_the_standby_in_vain_says_so(
    app_url: str, superuser_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The writes of a first start must be durable, so it waits.

    The error then names the standby, and does not say that the server cannot be reached.
    """
    monkeypatch.setattr(server, "STANDBY_S", 0.1)

    async def start() -> None:
        async with await impatient(app_url) as conn:
            while True:  # until the server has read the new setting
                await conn.execute("select pg_logical_emit_message(true, 'a start', 'writes')")

    with waiting_for_a_standby(superuser_url):
        with pytest.raises(CommandError, match="standby_silent") as refused, standby_named(app_url):
            asyncio.run(start())
        assert refused.value.code == UNREACHABLE
    with psycopg.connect(
        superuser_url, autocommit=True
    ) as conn:  # the server lets its sessions go a moment after the setting is back
        assert any(left_behind(conn) == 0 for _ in range(100_000))
    with pytest.raises(psycopg.OperationalError, match="lost"), standby_named(app_url):
        raise psycopg.OperationalError("lost")


def test_an_answer_that_cannot_be_stored_is_sent_all_the_same(app_url: str, superuser_url: str) -> None:
    """The act is done, so an error instead of its answer would be false."""

    async def run() -> None:
        async with opened(app_url) as ledger:
            caller = machine()
            taking = idempotency.Taking(ledger.services.ledger, caller, key_of(caller, "key", b"POST"))
            await taking()
            patience.begin(0.1)  # the budget is used up by earlier waits
            with psycopg.connect(superuser_url) as stranger:
                stranger.execute("lock table ledger.idempotent_requests in access exclusive mode")
                await edge._kept(taking, Answer(201, "text/plain", b"made"))
                stranger.rollback()

    asyncio.run(run())
