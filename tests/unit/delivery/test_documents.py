"""Documents at URLs of others: read within limits, and only from where this service may go."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

import pytest

from delivery.consumers import Allowed
from delivery.transports import documents as module
from delivery.transports.documents import DOCUMENT_BYTES_MAX, FetchError, fetch
from tests.unit.delivery.test_webhook import http

HERE = Allowed.read("127.0.0.0/8")


@asynccontextmanager
async def documents(answer: Callable[[], bytes]) -> AsyncIterator[tuple[str, list[bytes]]]:
    """A server that answers each request so. Yields its URL and the heads of the requests that came."""
    asked: list[bytes] = []
    serving: list[asyncio.Task[None]] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        serving.append(task)
        try:
            with suppress(ConnectionError, asyncio.IncompleteReadError):
                asked.append(await reader.readuntil(b"\r\n\r\n"))
                writer.write(answer())
                await writer.drain()
                await reader.read()  # until the client has closed
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/keys", asked
    for task in serving:  # an open connection at the end of the loop would be a warning in another test
        task.cancel()
    await asyncio.gather(*serving, return_exceptions=True)


async def fetched(answer: bytes, allowed: Allowed = HERE) -> bytes:
    async with documents(lambda: answer) as (url, _):
        return await fetch(allowed, url)


def test_a_document_is_read_whole() -> None:
    body = b"x" * DOCUMENT_BYTES_MAX
    assert asyncio.run(fetched(http(200, body))) == body


@pytest.mark.parametrize(
    ("answer", "word"),
    [
        (http(200, b"x" * (DOCUMENT_BYTES_MAX + 1)), "too_large"), (http(302, Location="http://127.0.0.1:1/"), "redirect"), (http(404), "http_404"),
        (b"no HTTP\r\n\r\n", "connection_broken"),
    ],
)  # fmt: skip
def test_what_is_no_small_document_is_refused_by_one_word(answer: bytes, word: str) -> None:
    with pytest.raises(FetchError) as failed:
        asyncio.run(fetched(answer))
    assert str(failed.value) == word


def test_an_address_inside_the_network_is_not_reached() -> None:
    async def run() -> None:
        async with documents(lambda: http(200)) as (url, asked):
            for inside in (url, url.replace("127.0.0.1", "localhost")):
                with pytest.raises(FetchError, match="address_refused"):
                    await fetch(Allowed(), inside)
            assert asked == []

    asyncio.run(run())


def test_a_server_that_does_not_answer_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FETCH_S", 0.05)
    with pytest.raises(FetchError, match="timeout"):
        asyncio.run(fetched(b""))
