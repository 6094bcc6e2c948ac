"""The first key epoch: made once, of the key that a ledger from before key epochs has, and never anew."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest

from database.connections import Connection, connect
from ledger.key_epochs import current_of, epochs, found_or_adopt, kek_at, ledger_row, load_kek, place_of
from ledger.root_keys.local import EnvironmentKeys, FileKeys
from ledger.root_keys.provider import RootKeyLostError
from ledger.sealing import TOKEN_SEAL, Kek, key_id
from tests.postgres.ledgers import opened
from tests.postgres.test_delivery import run

VARIABLE = EnvironmentKeys("ROOT", {"ROOT": "ab" * 32})


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[Connection]:
    async with await connect(url) as conn:
        yield conn


def test_of_two_processes_that_begin_a_ledger_at_once_one_makes_its_keys(app_url: str, tmp_path: Path) -> None:
    file = FileKeys(tmp_path / "kek")
    file.create(())

    async def begin() -> Kek:
        async with connected(app_url) as conn:
            await found_or_adopt(conn, [file])
            return await load_kek(conn, [file])

    async def body() -> None:
        one, two = await asyncio.gather(begin(), begin())
        assert one.id == two.id == key_id(file.key("1"))
        assert one.mac(b"of later releases", b"x") == two.mac(b"of later releases", b"x")

    run(body())


def test_a_ledger_from_before_key_epochs_goes_on_with_its_key_as_root_key_and_first_epoch(
    app_url: str, owner_url: str, tmp_path: Path
) -> None:
    key = bytes(range(32))
    file = FileKeys(tmp_path / "kek")
    file.path.write_text(key.hex())

    async def body() -> None:
        async with opened(app_url, kek=Kek.of(key)) as ledger:
            await ledger.create_user("was here")
        forget_epochs(owner_url)
        async with connected(app_url) as conn:
            with pytest.raises(RootKeyLostError, match="was sealed with a key file"):
                await found_or_adopt(conn, [VARIABLE])
            with pytest.raises(RootKeyLostError, match="has id"):
                await found_or_adopt(conn, [other_file(tmp_path)])
            assert await epochs(conn) == []
            await found_or_adopt(conn, [VARIABLE, file])
            await found_or_adopt(conn, [VARIABLE, file])  # again: no effect
            (first,) = await epochs(conn)
            assert (first.number, first.provider, first.root, first.state(1)) == (1, "file", "1", "current")
        kek = kek_at(app_url, [file])
        assert kek.mac(TOKEN_SEAL, b"x") == Kek.of(key).mac(TOKEN_SEAL, b"x"), "seals of tokens stay valid"
        async with opened(app_url, kek=kek) as ledger:
            await ledger.create_user("is here")

    run(body())


def other_file(place: Path) -> FileKeys:
    other = FileKeys(place / "other")
    other.create(())
    return other


def forget_epochs(owner_url: str) -> None:
    with psycopg.connect(owner_url) as conn:
        conn.execute("delete from ledger.key_epochs")
        conn.execute("delete from ledger.domain_keys")


def test_an_epoch_whose_root_key_is_gone_is_left_out_only_if_nothing_is_sealed_in_it(
    app_url: str, owner_url: str, tmp_path: Path
) -> None:
    """A restored backup has epochs that were destroyed after it."""
    file = FileKeys(tmp_path / "kek")

    async def body() -> None:
        async with connected(app_url) as conn:
            await found_or_adopt(conn, [file])
            row = await ledger_row(conn)
            assert row is not None
        with psycopg.connect(owner_url) as conn:
            add_epoch(conn, file, row)
        async with connected(app_url) as conn:
            kek = await load_kek(conn, [file])
            assert (kek.epochs, kek.current, current_of(await epochs(conn))) == ([1, 2], 2, 2)
            file.destroy("1")
            with pytest.raises(RootKeyLostError, match="was destroyed"):
                await load_kek(conn, [file])

    run(body())


def add_epoch(conn: psycopg.Connection[Any], file: FileKeys, row: tuple[Any, bytes]) -> None:
    ledger, _ = row
    root, key = file.create(["1"]), bytes(range(32))
    wrapped = file.wrap(root, key, place_of(ledger, 2))
    conn.execute(
        "insert into ledger.key_epochs (epoch, kek_id, provider, root, wrapped, active_at) values (2, %s, 'file', %s, %s, now())",
        (key_id(key), root, wrapped),
    )


def test_the_serving_role_adds_no_epoch_and_no_key_of_macs_once_there_is_one(app_url: str, tmp_path: Path) -> None:
    """A row that nobody can open would prevent every start."""
    file = FileKeys(tmp_path / "kek")

    async def body() -> None:
        async with connected(app_url) as conn:
            await found_or_adopt(conn, [file])
            before = await epochs(conn)
            await conn.execute(
                "insert into key_epochs (epoch, kek_id, provider, root, wrapped, active_at) values (9, 'x', 'file', '9', 'x', now())"
            )
            await conn.execute("insert into domain_keys values ('x', 'x')")
            assert await epochs(conn) == before
            assert (await load_kek(conn, [file])).epochs == [1]

    run(body())
