"""Run the application inside a command's process if no service runs on this machine: the same routes, as `sys`."""

import asyncio
import contextlib
import logging
import os
from collections.abc import Generator
from contextlib import AsyncExitStack, contextmanager

import httpx
import psycopg

from api.app import make_app
from database.connections import connect
from delivery.leftovers import seal_leftovers
from runtime.bootstrap import Urls
from runtime.erasure_list import ErasureList
from runtime.failures import explained
from runtime.local_socket import ASGIApp, marked_local
from runtime.logs import configure_logs
from runtime.machine_database import main_settings, running_urls
from runtime.root_key import read_kek
from runtime.served_settings import as_served
from runtime.settings import Settings
from runtime.wiring import open_services, webhooks_of


@contextmanager
def own_transport() -> Generator[httpx.BaseTransport]:
    """A transport to the application in this process, with the embedded PostgreSQL started if it is not running.

    Raises CommandError.
    """
    settings = as_served(main_settings())
    configure_logs(settings.log_format, logging.WARNING)  # a refusal is the command's own sentence
    with explained(settings), running_urls(settings) as urls, asyncio.Runner() as runner:
        stack = AsyncExitStack()
        app = runner.run(_open(stack, settings, urls))
        try:
            yield _OwnTransport(runner, app)
        finally:
            runner.run(stack.aclose())


async def _open(stack: AsyncExitStack, settings: Settings, urls: Urls) -> ASGIApp:
    kek = await read_kek(urls.serve, settings)
    with contextlib.suppress(psycopg.errors.UndefinedTable):  # a schema before 0010 has nothing to seal
        async with await connect(urls.serve) as conn:
            await seal_leftovers(conn, kek, os.urandom)  # the command may be the first process after a migration
    services = await stack.enter_async_context(
        open_services(
            urls.serve,
            kek,
            settings.base_url,
            webhooks_of(settings),
            urls.pooled,
            owner_url=urls.migrate,
            erasures=ErasureList(settings.erasure_list_path),
        )
    )
    return marked_local(make_app(services))


class _OwnTransport(httpx.BaseTransport):
    """Runs the event loop only while a request is running."""

    def __init__(self, runner: asyncio.Runner, app: ASGIApp) -> None:
        self._runner = runner
        self._app = httpx.ASGITransport(app)

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        return self._runner.run(self._answered(request))

    async def _answered(self, request: httpx.Request) -> httpx.Response:
        sent = httpx.Request(request.method, request.url, headers=request.headers, content=request.read())
        answer = await self._app.handle_async_request(sent)
        return httpx.Response(answer.status_code, headers=answer.headers, content=await answer.aread())
