"""Administrative acts of the command line: on a connection of their own, beside the service or without it."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

from api.acts import Caller
from api.problems import DATABASE_AWAY, EXPECTED, problem_of
from api.services import Services
from database.connections import Connection
from ledger.administration import Administration, RefusedError
from runtime.bootstrap import Urls
from runtime.identifiers import uuid7
from runtime.serve import main_settings, running_urls
from runtime.wiring import administration, open_services, read_kek, webhooks_of

T = TypeVar("T")


def administer(act: Callable[[Administration], Awaitable[T]]) -> T:
    """Run an administrative act on a connection of its own."""

    async def run(urls: Urls, kek_path: Path) -> T:
        kek = await read_kek(urls.serve, kek_path)
        async with administration(urls.serve, kek) as acts:
            return await act(acts)

    settings = main_settings()
    with running_urls(settings) as urls:
        return asyncio.run(run(urls, settings.kek_path))


def ask(question: Callable[[Services, Connection], Awaitable[T]]) -> T:
    """Ask what the HTTP edge would be asked, by the same functions, on connections of its own.

    Raises RefusedError with the sentence that HTTP would answer.
    """

    async def run(urls: Urls) -> T:
        kek = await read_kek(urls.serve, settings.kek_path)
        async with (
            open_services(urls.serve, kek, settings.base_url, webhooks_of(settings)) as services,
            services.pool.connection() as conn,
        ):
            return await question(services, conn)

    settings = main_settings()
    with running_urls(settings) as urls:
        try:
            return asyncio.run(run(urls))
        except DATABASE_AWAY:
            raise
        except EXPECTED as refused:
            raise RefusedError(problem_of(refused).detail) from refused


def caller() -> Caller:
    """The command line as the one who acts."""
    return Caller("sys", uuid7())
