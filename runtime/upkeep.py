"""Migrate, rebuild and verify on the machine itself, as the owner of the database. No route may do that."""

import asyncio
import gc
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Generator
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from itertools import islice
from pathlib import Path
from typing import Protocol, TypeAlias

from database.connections import connect, connect_owner
from database.migrate import migrate
from ledger.directories import Directories, Directory
from ledger.sealing import Kek
from replay.rebuild import RebuildRefusedError, Result, rebuild
from replay.shadow_tables import TABLES
from replay.stored_events import UnreadableEventError
from replay.stretches import PROCESSES_MAX
from replay.verify import Verified, verify
from runtime.bootstrap import Urls
from runtime.cli.files import read_file
from runtime.exits import REFUSED, USAGE, CommandError
from runtime.failures import explained
from runtime.machine_database import main_settings, running_urls
from runtime.root_key import read_kek
from runtime.scan import FOUND_MAX, Forms, Found, NeedlesError, needles_of, scan_files, scan_tables
from runtime.served_settings import as_served
from runtime.supervisor import end_with_parent


class Progress(Protocol):
    """Shows progress to the caller."""

    def __call__(self, done: int, total: int) -> None: ...

    def waits(self, text: str) -> None:
        """Show what it waits for."""
        ...


Bar: TypeAlias = Callable[[str], AbstractContextManager[Progress]]


def migrate_here() -> list[str]:
    """Bring the schema to this release. Returns the names of the applied migrations."""
    settings = main_settings()
    with explained(settings), running_urls(settings) as urls:
        return migrate(urls.migrate)


def rebuild_here(only: tuple[str, ...], bar: Bar) -> tuple[tuple[str, ...], Result]:
    """Rebuild some read models, all if none is named. Returns their names and the result."""
    wanted = only or TABLES
    unknown = set(wanted) - set(TABLES)
    if unknown:
        raise CommandError(f"There is no read model {', '.join(sorted(unknown))}. Choose from {', '.join(TABLES)}.", USAGE)
    settings = as_served(main_settings())
    with processes() as executor, explained(settings), running_urls(settings) as urls:
        kek = asyncio.run(read_kek(urls.serve, settings))
        try:
            return wanted, asyncio.run(_rebuild(urls, kek, wanted, bar, executor))
        except (RebuildRefusedError, UnreadableEventError) as refused:
            raise CommandError(str(refused), REFUSED) from refused


async def _rebuild(urls: Urls, kek: Kek, only: tuple[str, ...], bar: Bar, executor: Executor | None) -> Result:
    with bar("rebuilding") as progress:
        return await rebuild(urls.migrate, kek, progress, progress.waits, only=only, executor=executor)


def verify_here(bar: Bar) -> Verified:
    """Recompute everything."""
    settings = as_served(main_settings())
    with processes() as executor, explained(settings), running_urls(settings) as urls:
        kek = asyncio.run(read_kek(urls.serve, settings))
        return asyncio.run(_verify(urls, kek, bar, executor))


async def _verify(urls: Urls, kek: Kek, bar: Bar, executor: Executor | None) -> Verified:
    directories = await all_directories(urls, kek)
    with bar("checking the log and the read models") as progress:
        return await verify(urls.migrate, kek, directories, progress, executor)


def scan_here(needles: Path, bar: Bar) -> list[Found]:
    """Look for words in every file of the data directory, and in every table of the database. Returns at most FOUND_MAX places.

    Files first: reading tables may write to them.
    """
    settings = as_served(main_settings())
    try:
        forms = Forms(needles_of(read_file(needles).decode("utf-8")))
    except (NeedlesError, UnicodeDecodeError) as wrong:
        said = str(wrong) if isinstance(wrong, NeedlesError) else "It is not UTF-8."
        raise CommandError(f"{needles}: {said}", USAGE) from wrong
    found: list[Found] = []
    with explained(settings), running_urls(settings) as urls:
        try:
            with bar("looking through files") as progress:
                places = scan_files(settings.data_dir.absolute(), forms, progress, without=[needles])
                found += islice(places, FOUND_MAX)
        except PermissionError as closed:
            raise CommandError(
                f"{closed.filename} cannot be read: run this as the user of the service, or as root.", USAGE
            ) from closed
        with bar("looking through tables") as progress:
            found += asyncio.run(_in_tables(urls.migrate, forms, progress))
    return found[:FOUND_MAX]


async def _in_tables(url: str, forms: Forms, progress: Progress) -> list[Found]:
    async with await connect_owner(url) as conn:
        return [found async for found in scan_tables(conn, forms, progress)]


@contextmanager
def processes() -> Generator[Executor | None]:
    """An executor with a process for each core, for the time of the block; None if the system has no fork.

    The processes are forked at once: after the imports, and before this process has threads, which a fork would break.
    """
    if not sys.platform.startswith("linux"):
        yield None
        return
    # Objects of the start live as long as the command. To collect among them, and often, takes a tenth of the time of each stretch.
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)
    count = min(len(os.sched_getaffinity(0)), PROCESSES_MAX)
    executor = ProcessPoolExecutor(count, multiprocessing.get_context("fork"), initializer=_begin)
    try:
        executor.submit(os.getpid).result()  # the first task starts all processes
        yield executor
    finally:
        executor.shutdown(cancel_futures=True)


def _begin() -> None:
    """Ignore Ctrl-C, which the parent handles, and end with the parent."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    end_with_parent()


async def all_directories(urls: Urls, kek: Kek) -> list[Directory]:
    """Every directory of the ledger, `_system` included."""
    conn = await connect(urls.serve)
    try:
        return await Directories(kek).all(conn)
    finally:
        await conn.close()
