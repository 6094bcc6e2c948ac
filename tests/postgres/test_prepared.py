"""Statements without cursors: prepared once for a session, and again after whatever has undone that."""

import asyncio
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from typing import LiteralString
from uuid import uuid4

import psycopg
import pytest
from psycopg.errors import DivisionByZero
from psycopg.types.json import Jsonb

from database.arrays import int4s, texts
from database.connections import Connection, connect, connect_owner
from database.pipeline import together, transaction
from database.prepared import Answer

from .test_lifecycle import until

NAMES = "select name from pg_prepared_statements where name like 'ledger%' order by prepare_time, name"
DIVIDE: LiteralString = "select 10 / d from unnest($1::int4[]) d"
COUNT: LiteralString = "select d, d::int8, d::text from unnest($1::int4[]) d"
SPELL: LiteralString = "select upper(t) from unnest($1::text[]) t"


async def _asked(conn: Connection, *statements: tuple[LiteralString, tuple[object, ...]]) -> list[list[tuple[object, ...]]]:
    async with together(conn) as pipeline:
        answers = [pipeline.execute(sql, params) for sql, params in statements]
        return [await pipeline.rows(answer) for answer in answers]


async def _prepared(conn: Connection) -> list[str]:
    return [name for (name,) in await (await conn.execute(NAMES)).fetchall()]


@pytest.mark.parametrize("cursors_prepare", [True, False])
def test_rows_are_those_of_a_cursor(app_url: str, cursors_prepare: bool) -> None:
    async def run() -> None:
        async with await connect(app_url, cursors_prepare=cursors_prepare) as conn:
            for numbers in ([7, 8], [], [9]):
                cursor = await conn.cursor(binary=True).execute(COUNT, (int4s(numbers),))
                assert await _asked(conn, (COUNT, (int4s(numbers),))) == [await cursor.fetchall()]

    asyncio.run(run())


def test_a_statement_is_prepared_once_for_a_session(app_url: str) -> None:
    async def run() -> None:
        async with await connect(app_url, cursors_prepare=False) as conn:
            for _ in range(3):
                await _asked(conn, (COUNT, (int4s([1]),)), (SPELL, (texts(["a"]),)), (COUNT, (int4s([2]),)))
            assert await _prepared(conn) == ["ledger_1", "ledger_2"]

    asyncio.run(run())


def test_other_types_of_parameters_are_another_statement(app_url: str) -> None:
    """The server has parsed a statement for the types that it was prepared with."""
    either: LiteralString = "select pg_typeof($1)::text"

    async def run() -> None:
        async with await connect(app_url, cursors_prepare=False) as conn:
            found = await _asked(conn, (either, (texts(["a"]),)), (either, (int4s([1]),)), (either, (texts(["b"]),)))
            assert found == [[("text[]",)], [("integer[]",)], [("text[]",)]]

    asyncio.run(run())


@pytest.mark.parametrize("cursors_prepare", [True, False])
def test_an_error_is_that_of_its_statement_and_the_others_go_on_afterwards(app_url: str, cursors_prepare: bool) -> None:
    """What was to be prepared after the error was skipped by the server, so it is prepared with the next use."""

    async def run() -> None:
        async with await connect(app_url, cursors_prepare=cursors_prepare) as conn:
            with pytest.raises(DivisionByZero):
                await _asked(conn, (DIVIDE, (int4s([0]),)), (SPELL, (texts(["a"]),)))
            for _ in range(2):
                assert await _asked(conn, (DIVIDE, (int4s([2]),)), (SPELL, (texts(["a"]),))) == [[(5,)], [("A",)]]

    asyncio.run(run())


def test_a_statement_that_cannot_be_prepared_says_why(app_url: str) -> None:
    async def run() -> None:
        async with await connect(app_url, cursors_prepare=False) as conn:
            for _ in range(2):
                with pytest.raises(psycopg.errors.UndefinedTable):
                    await _asked(conn, ("select * from nowhere", ()))
            assert await _asked(conn, (COUNT, (int4s([]),))) == [[]]

    asyncio.run(run())


@pytest.mark.parametrize("cursors_prepare", [True, False])
def test_a_rollback_by_psycopg_ends_no_statement(app_url: str, cursors_prepare: bool) -> None:
    """psycopg answers a ROLLBACK with DEALLOCATE ALL if it has prepared a statement itself."""

    async def run() -> None:
        async with await connect(app_url, cursors_prepare=cursors_prepare) as conn:
            await _asked(conn, (COUNT, (int4s([1]),)))
            with pytest.raises(DivisionByZero):
                async with transaction(conn):
                    await conn.execute(DIVIDE, (int4s([0]),))
            await conn.execute("begin")
            await conn.execute("rollback")
            await conn.execute("select 1")  # psycopg tidies up before the next statement
            assert await _asked(conn, (COUNT, (int4s([1]),))) == [[(1, 1, "1")]]

    asyncio.run(run())


def test_a_large_answer_is_decoded_in_slices(app_url: str) -> None:
    async def run() -> None:
        async with await connect(app_url, cursors_prepare=False) as conn, together(conn) as pipeline:
            first = pipeline.execute(DIVIDE, (int4s([1, 2, 5]),))
            second = pipeline.execute(DIVIDE, (int4s([10]),))
            assert not first.here
            await pipeline.received(second)
            assert (first.count, second.count) == (3, 1)
            assert (first.rows(0, 2), second.rows(), first.rows(2, 9)) == ([(10,), (5,)], [(1,)], [(2,)])

    asyncio.run(run())


def test_an_answer_does_not_live_as_long_as_the_connection(app_url: str) -> None:
    """Groups have 100 000 members: the memory of such an answer is free once its rows are read."""

    async def run() -> None:
        async with await connect(app_url, cursors_prepare=False) as conn, together(conn) as pipeline:
            for _ in range(2):
                answer = pipeline.execute(COUNT, (int4s([1]),))
                assert await pipeline.rows(answer) == [(1, 1, "1")]
                assert answer._statement._reader.pgresult is None

    asyncio.run(run())


def test_an_answer_that_was_not_awaited_has_no_rows(app_url: str) -> None:
    async def run() -> Answer:
        async with await connect(app_url, cursors_prepare=False) as conn, together(conn) as pipeline:
            answer = pipeline.execute(COUNT, (int4s([1]),))
            with pytest.raises(AssertionError, match="not awaited"):
                answer.rows()
        return answer

    answer = asyncio.run(run())
    assert answer.count == 1, "the end of the pipeline takes all answers"


def test_a_column_that_gets_another_type_is_decoded_as_what_it_is_now(app_url: str, owner_url: str) -> None:
    """A newer release may migrate while this one serves. Decoded as before, a bigint would be its upper half: 0."""
    ask: LiteralString = "select a from widened"

    async def run() -> None:
        async with await connect_owner(owner_url) as owner, await connect(app_url) as conn:
            await owner.execute("create table ledger.widened as select 7 as a")
            await owner.execute("grant select on ledger.widened to ledger_app")
            assert await _asked(conn, (ask, ())) == [[(7,)]]
            await owner.execute("alter table ledger.widened alter a type int8")
            assert await _asked(conn, (ask, ())) == [[(7,)]]

    asyncio.run(run())


VALUES: tuple[tuple[LiteralString, object], ...] = (
    ("int8", 7), ("int8", 2**40), ("int4", None), ("text", "Zoë"), ("jsonb", '{"a": 1}'), ("jsonb", Jsonb({"a": [1]})), ("uuid", uuid4()),
    ("uuid", str(uuid4())), ("bytea", b"\0\xff"), ("bool", True), ("timestamptz", datetime(2026, 11, 30, tzinfo=UTC)), ("text[]", ["a", None]), ("text[]", []), ("text[]", [None]), ("text[]", None), ("text", ""),
    ("int4[]", int4s([1, 2])), ("float8", 0.5), ("interval", timedelta(hours=1)), ("inet", ip_address("127.0.0.1")),
)  # fmt: skip


@pytest.mark.parametrize("cursors_prepare", [True, False])
def test_values_are_encoded_as_by_a_cursor(app_url: str, cursors_prepare: bool) -> None:
    """The acts of operators have parameters of many types; some have no binary form, or one that the place does not take."""

    async def run() -> None:
        async with await connect(app_url, cursors_prepare=cursors_prepare) as conn:
            for kind, value in VALUES:
                sql: LiteralString = f"select $1::{kind}, 1"
                cursor = await conn.cursor(binary=True).execute(sql, (value,))
                assert await _asked(conn, (sql, (value,))) == [await cursor.fetchall()], kind

    asyncio.run(run())


def test_a_session_prepares_so_many_statements_and_no_more(app_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("database.prepared.PREPARED_MAX", 2)

    async def run() -> None:
        async with await connect(app_url, cursors_prepare=False) as conn:
            for _ in range(2):
                for number in range(4):
                    sql: LiteralString = f"select {number}, $1::int4"  # type: ignore[assignment]
                    assert await _asked(conn, (sql, (number,))) == [[(number, number)]]
            assert await _prepared(conn) == ["ledger_1", "ledger_2"]

    asyncio.run(run())


def test_what_is_pushed_reaches_the_server_before_an_answer_is_awaited(app_url: str) -> None:
    async def run() -> None:
        async with await connect(app_url, cursors_prepare=False) as conn, await connect(app_url) as watcher:

            async def locked() -> bool:
                rows = await watcher.execute("select from pg_locks where locktype = 'advisory' and objid = 7002")
                return await rows.fetchone() is not None

            async with together(conn) as pipeline:
                pipeline.execute("select pg_advisory_lock(7002)")
                assert not await locked()
                pipeline.push()
                await until(locked)

    asyncio.run(run())
