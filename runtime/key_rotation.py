"""Make, move into and destroy key epochs, on the machine itself, as the owner of the database. No route may do that.

Each step can be interrupted and run again. A new epoch seals only when every process can open it, and an old one is destroyed only
when no process seals in it, nothing needs it, and the database refuses what is sealed in it.
"""

import asyncio
import secrets
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final, LiteralString, TypeVar

import psycopg
from psycopg import sql

from database.connections import Connection, connect_owner
from database.deadlines import ROTATED
from database.holders import GIVES_UP, holders, waits_for
from database.locks import SEALING, UNKNOWN_EPOCH
from database.queries import load_queries
from ledger import key_acts
from ledger.commands import RecordFacts
from ledger.key_epochs import Epoch, asked, current_of, epochs, ledger_id, place_of, provider_of
from ledger.rewrapping import Moved, Need, needs, rewrap, sealed_after, sealed_up_to
from ledger.root_keys.provider import RootKeyError, RootKeys
from ledger.sealed_columns import NOTES, WRAPPED, SealedNotes, WrappedKeys
from ledger.sealing import KEY_SIZE, Kek, key_id
from operations.admin_commands import record
from runtime.bootstrap import Urls, machine
from runtime.exits import REFUSED, CommandError
from runtime.failures import explained
from runtime.machine_database import main_settings, running_urls
from runtime.root_key import providers_of, read_kek
from runtime.served_settings import as_served
from runtime.upkeep import Bar, Progress
from runtime.wiring import open_alone

Outcome = TypeVar("Outcome")
SQL: Final = load_queries(__file__)
_FIRST_RELEASE: Final = 25  # the migration that made key epochs
_LOOK_S: Final = 0.2


def rotate_here(bar: Bar) -> Epoch:
    """Make a new key epoch, which seals from now on. Raises CommandError, also if a process cannot load it in time."""
    return _with_keys(bar, "waiting for the processes of the service", _rotate)


def rewrap_here(bar: Bar) -> tuple[Epoch, Moved]:
    """Move all keys and notes into the current epoch. Raises CommandError."""
    return _with_keys(bar, "moving keys", _rewrap)


def destroy_here(bar: Bar, number: int) -> tuple[Epoch, str | None]:
    """Destroy an epoch for ever. Returns it, and what a person must still know or do. Raises CommandError if anything needs it."""

    async def destroy(keys: "_Keys") -> tuple[Epoch, str | None]:
        return await _destroy(keys, number)

    return _with_keys(bar, "destroying the epoch", destroy)


class _Keys:
    """What the steps work with: the owner's connection, the keys, the providers, and how progress is shown."""

    def __init__(self, conn: Connection, urls: Urls, kek: Kek, providers: Sequence[RootKeys], progress: Progress) -> None:
        self.conn, self.urls, self.kek, self.providers, self.progress = conn, urls, kek, providers, progress

    async def epoch(self, number: int) -> Epoch:
        return next(epoch for epoch in await epochs(self.conn) if epoch.number == number)

    async def record(self, facts: RecordFacts) -> None:
        async with open_alone(self.urls.serve, self.kek) as ledger:
            await record(ledger, machine(), facts)


def _with_keys(bar: Bar, what: str, work: "Callable[[_Keys], Awaitable[Outcome]]") -> Outcome:
    settings = as_served(main_settings())
    with explained(settings), running_urls(settings) as urls, bar(what) as progress:

        async def run() -> Outcome:
            kek = await read_kek(urls.serve, settings)
            async with _alone(urls.migrate) as conn:
                return await work(_Keys(conn, urls, kek, providers_of(settings), progress))

        try:
            return asyncio.run(run())
        except RootKeyError as refused:
            raise CommandError(str(refused), REFUSED) from refused


@asynccontextmanager
async def _alone(url: str) -> AsyncGenerator[Connection]:
    async with await connect_owner(url) as conn:
        await conn.execute("set search_path to ledger")
        if not await _yes(conn, SQL["try_rotating"]):
            raise CommandError(
                "Another `scim-ledger key` command is running on this database. Wait for it, or end its process.", REFUSED
            )
        yield conn


async def _rotate(keys: _Keys) -> Epoch:
    older = await (await keys.conn.execute(SQL["older_processes"], (_FIRST_RELEASE,))).fetchall()
    if older:
        raise CommandError(
            f"Processes of an earlier release serve this database ({_processes(older)}) and could not open a new key. Upgrade them first.",
            REFUSED,
        )
    found = await epochs(keys.conn)
    epoch = next((each for each in found if each.active_at is None and each.wrapped is not None), None) or await _make_epoch(
        keys, found
    )
    await _wait(keys, ("try_all_know", "all_know"), UNKNOWN_EPOCH.number, epoch.number, _CANNOT_LOAD)
    keys.kek.current = epoch.number
    await keys.record(key_acts.rotated(epoch))
    return await keys.epoch(epoch.number)


async def _make_epoch(keys: _Keys, found: Sequence[Epoch]) -> Epoch:
    """Make a root key and, sealed with it, the key of a new epoch, which does not seal yet."""
    provider, number, key = keys.providers[0], found[-1].number + 1, secrets.token_bytes(KEY_SIZE)
    used = [epoch.root for epoch in found if epoch.provider == provider.kind]
    root = await asked(lambda: provider.create(used))
    place = place_of(await ledger_id(keys.conn), number)
    wrapped = await asked(lambda: provider.wrap(root, key, place))
    await keys.conn.execute(SQL["insert_epoch"], (number, key_id(key), provider.kind, root, wrapped))
    keys.kek.learn(number, key)
    return await keys.epoch(number)


async def _rewrap(keys: _Keys) -> tuple[Epoch, Moved]:
    current = keys.kek.current
    moved = await rewrap(keys.conn, keys.kek, keys.progress)
    for epoch in [epoch for epoch in keys.kek.epochs if epoch < current]:
        await _wait(keys, ("try_none_seals", "none_seals"), SEALING.number, epoch, _STILL_SEALS)
    late = await rewrap(keys.conn, keys.kek, lambda _done, _total: None)  # what the last processes sealed meanwhile
    both = Moved(moved.keys + late.keys, moved.notes + late.notes, late.unreadable)
    for table in dict.fromkeys(column.table for column in (*WRAPPED, *NOTES)):
        keys.progress.waits(f"VACUUM {table}")
        await keys.conn.execute(sql.SQL("vacuum {}").format(sql.Identifier("ledger", table)))
    await keys.record(key_acts.rewrapped(await keys.epoch(current), both))
    return await keys.epoch(current), both


async def _destroy(keys: _Keys, number: int) -> tuple[Epoch, str | None]:
    epoch = _destroyable(await epochs(keys.conn), number)
    if epoch.is_destroyed:
        return epoch, None
    provider = provider_of(keys.providers, epoch)
    if epoch.wrapped is not None:
        await _wait(keys, ("try_none_seals", "none_seals"), SEALING.number, number, _STILL_SEALS)
        _refuse_needed(number, await needs(keys.conn, keys.kek, number))
        # A column with values that open with no key gets no constraint: their rows could not be updated any more.
        damaged = {column for column, _ in await sealed_up_to(keys.conn, number)}
        for column in {*WRAPPED, *NOTES} - damaged:
            await _refuse_sealed_up_to(keys, column, number)
        _refuse_needed(number, await needs(keys.conn, keys.kek, number))  # nothing can be added from here on
        # Before the root key: a run that ends between the two must leave no key that a start would miss.
        await keys.conn.execute(SQL["destroy_epoch"], (number,))
    said = await asked(lambda: provider.destroy(epoch.root))
    await keys.record(key_acts.destroyed(epoch))
    return await keys.epoch(number), said


def _destroyable(found: Sequence[Epoch], number: int) -> Epoch:
    """The epoch, if it is old and the oldest that is left. Raises CommandError."""
    epoch = next((epoch for epoch in found if epoch.number == number), None)
    if epoch is None:
        raise CommandError(f"There is no key epoch {number}. See `scim-ledger key list`.", REFUSED)
    if number >= current_of(found):
        raise CommandError(
            f"Key epoch {number} is in use. Make another one with `scim-ledger key rotate`, and move everything into it with "
            "`scim-ledger key rewrap`; then this one can be destroyed.",
            REFUSED,
        )
    earlier = [each.number for each in found if not each.is_destroyed and each.number < number]
    if earlier:
        raise CommandError(f"Destroy epoch {earlier[0]} first: `scim-ledger key destroy {earlier[0]}`.", REFUSED)
    return epoch


def _refuse_needed(number: int, found: Sequence[Need]) -> None:
    if found:
        raise CommandError(
            f"Key epoch {number} is needed: {', '.join(map(str, found))}. Move them with `scim-ledger key rewrap`, and run this again. "
            "Nothing was destroyed.",
            REFUSED,
        )


async def _refuse_sealed_up_to(keys: _Keys, column: WrappedKeys | SealedNotes, number: int) -> None:
    """Let the database refuse values of this epoch: a write that was begun in it and ends late must fail, not become unreadable."""
    table, name = sql.Identifier("ledger", column.table), sql.Identifier(f"{column.table}_{column.column}_epoch")
    drop = sql.SQL("alter table {} drop constraint if exists {}").format(table, name)
    add = sql.SQL("alter table {} add constraint {} check ({} is null or {}) not valid").format(
        table, name, sql.Identifier(column.column), sealed_after(column, number)
    )
    until = time.monotonic() + ROTATED.seconds
    while True:
        try:
            async with keys.conn.transaction():
                await keys.conn.execute(GIVES_UP)
                await keys.conn.execute(drop)
                await keys.conn.execute(add)
            return
        except (psycopg.errors.LockNotAvailable, psycopg.errors.QueryCanceled):
            held = waits_for(await holders(keys.conn, [f"ledger.{column.table}"]))
            if time.monotonic() > until:
                raise CommandError(
                    f"Table {column.table} is held: {held}. Nothing was destroyed; run it again.", REFUSED
                ) from None
            keys.progress.waits(held)
            await asyncio.sleep(_LOOK_S)


_CANNOT_LOAD: Final = (
    "Key epoch {epoch} is made and not used yet, because processes could not load it: {who}. Look into their log for key_epoch_not_loaded; a key file "
    "must be copied to every host. Then run `scim-ledger key rotate` again: it goes on with this epoch."
)
_STILL_SEALS: Final = "Processes still seal in key epoch {epoch}: {who}. Wait until they have seen the new one, and run this again. Nothing is lost."


async def _wait(keys: _Keys, blocks: tuple[str, str], lock: int, epoch: int, late: str) -> None:
    """Wait until no process holds the lock of an epoch. Raises CommandError with the sentence `late`, which names who does."""
    attempt, release = blocks
    until = time.monotonic() + ROTATED.seconds
    while not await _yes(keys.conn, SQL[attempt], epoch):
        rows = await (await keys.conn.execute(SQL["processes_with"], (lock, epoch))).fetchall()
        if time.monotonic() > until:
            raise CommandError(late.format(epoch=epoch, who=_processes(rows)), REFUSED)
        keys.progress.waits(f"for {_processes(rows)}")
        await asyncio.sleep(_LOOK_S)
    await keys.conn.execute(SQL[release], (epoch,))


async def _yes(conn: Connection, question: LiteralString, *parameters: int) -> bool:
    row = await (await conn.execute(question, parameters)).fetchone()
    return row is not None and bool(row[0])


def _processes(rows: Sequence[tuple[Any, ...]]) -> str:
    return ", ".join(f"pid {pid} of PostgreSQL from {address}" for pid, address in rows) or "no process any more"
