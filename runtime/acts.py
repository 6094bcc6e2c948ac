"""Administrative acts of the command line: on a connection of their own, beside the service or without it."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

from ledger.administration import Administration
from runtime.bootstrap import Urls
from runtime.serve import main_settings, running_urls
from runtime.wiring import administration, read_kek

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
