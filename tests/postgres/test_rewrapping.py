"""What is sealed is moved into another key epoch, and nothing is forgotten: the list of sealed columns is held against the schema."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import psycopg
import pytest
from aiohttp import web

from database.connections import Connection, connect_owner
from ledger.rewrapping import Moved, needs, rewrap
from ledger.sealed_columns import NOTES, WRAPPED
from ledger.sealing import Kek
from operations import consumers, deliveries
from proofs.keys import WrapError
from runtime.bootstrap import machine
from tests.postgres.deliveries import scene
from tests.postgres.test_delivery import blocked_user, run
from tests.postgres.test_sealed_notes import CANARY, event_at, is_blocked, live, shown_as_written

# Every other column of type bytea, and why a rotation of the keys does not touch it.
DIGEST = "a hash, which no key opens"
LOG = "of the log, or a copy of it: never changed"
BODY = "sealed with the key of its resource, which is moved"
MARK = "an HMAC whose key is moved"
ROOT = "wrapped by a root key"
PUBLIC = "no secret"
OTHERS = {
    "access_tokens": {"hash": DIGEST, "seal": MARK},
    "bodies": {"ct": BODY},
    "checkpoints": {"leaf": LOG},
    "client_assertions": {"jti": DIGEST},
    "clients": {"former_hash": DIGEST, "seal": MARK, "secret_hash": DIGEST},
    "commits": {"trace": PUBLIC},
    "consumer_epochs": {"leaf": LOG},
    "domain_keys": {"domain": PUBLIC},
    "events": {"leaf": LOG, "leaf_hash": LOG},
    "groups": {"display_name_mac": MARK, "external_id_mac": MARK},
    "idempotent_requests": {"fingerprint": DIGEST, "key": DIGEST},
    "key_epochs": {"kek_id": DIGEST, "wrapped": ROOT},
    "ledger": {"kek_id": DIGEST},
    "requests": {"reason": MARK},
    "tokens": {"hash": DIGEST, "seal": MARK},
    "users": {"display_name_mac": MARK, "email_macs": MARK, "external_id_mac": MARK, "user_name_mac": MARK},
}


def test_every_column_of_bytes_is_moved_by_a_rotation_or_named_here(owner_url: str) -> None:
    with psycopg.connect(owner_url) as conn:
        rows = conn.execute(
            "select table_name, column_name from information_schema.columns where table_schema = 'ledger' and ltrim(udt_name, '_') = 'bytea'"
        ).fetchall()
    moved = {(column.table, column.column) for column in (*WRAPPED, *NOTES)}
    assert set(rows) == moved | {(table, column) for table, columns in OTHERS.items() for column in columns}
    assert not moved & {(table, column) for table, columns in OTHERS.items() for column in columns}


@asynccontextmanager
async def owner(url: str) -> AsyncIterator[Connection]:
    async with await connect_owner(url) as conn:
        await conn.execute("set search_path to ledger")
        yield conn


def next_epoch(kek: Kek) -> None:
    kek.learn(kek.current + 1, os.urandom(32))
    kek.current += 1


def quiet(_done: int, _total: int) -> None:
    """Show nothing."""


def test_everything_is_read_as_before_once_it_is_moved_and_the_old_key_is_gone(app_url: str, owner_url: str) -> None:
    async def body() -> None:
        async with scene(app_url) as s:
            first, _ = await blocked_user(s)
            s.hook.verdict = lambda e: web.Response(status=500, text=CANARY) if e["position"] == first else None
            async with s.working():
                await s.until(lambda: is_blocked(s, first))
            event_id = await event_at(s, first)
            run_id = await live(s, first, event_id)
            await consumers.rotate_secret(s.ledger.services.ledger, machine(), "app", 3_600)
            next_epoch(s.kek)
            async with owner(owner_url) as conn:
                assert {need.column.table for need in await needs(conn, s.kek, 1)} >= {
                    "subject_keys", "directories", "domain_keys", "consumers", "replays", "open_deliveries", "consumer_epochs",
                }  # fmt: skip
                seen: list[tuple[int, int]] = []
                moved = await rewrap(conn, s.kek, lambda done, total: seen.append((done, total)))
                assert moved.unreadable == 0
                assert seen[-1] == (moved.keys + moved.notes, moved.keys + moved.notes)
                assert await needs(conn, s.kek, 1) == []
                assert await rewrap(conn, s.kek, quiet) == Moved(0, 0, 0)
            s.kek.forget(1)
            s.ledger.services.group_names.__init__(s.kek)  # what a process remembers of names needs no key
            await shown_as_written(s, run_id, event_id)
            await deliveries.act(s.ledger.services.ledger, machine(), "app", event_id, "skip", f"{CANARY} left", of_parked=True)

    run(body())


class StopError(Exception):
    """Ends a run in its middle, as Ctrl-C does."""


def test_a_run_that_was_interrupted_goes_on_where_it_was(app_url: str, owner_url: str) -> None:
    async def body() -> None:
        async with scene(app_url) as s:
            for n in range(20):
                await s.ledger.create_user(f"u{n}")
            next_epoch(s.kek)

            def stop(done: int, _total: int) -> None:
                if done > 1:
                    raise StopError

            async with owner(owner_url) as conn:
                with pytest.raises(StopError):
                    await rewrap(conn, s.kek, stop)
                rest = sum(need.rows for need in await needs(conn, s.kek, 1))
                moved = await rewrap(conn, s.kek, quiet)
                assert 0 < moved.keys + moved.notes == rest
                assert await needs(conn, s.kek, 1) == []

    run(body())


def test_what_does_not_open_is_counted_and_needs_no_key(app_url: str, owner_url: str) -> None:
    async def body() -> None:
        async with scene(app_url) as s:
            await s.make()
            async with owner(owner_url) as conn:
                await conn.execute("update consumers set sealed_url = $1", (bytes(40),))
                next_epoch(s.kek)
                assert (await rewrap(conn, s.kek, quiet)).unreadable == 1
                assert await needs(conn, s.kek, 1) == []
            with pytest.raises(WrapError):
                (await s.consumer()).url(s.kek)

    run(body())
