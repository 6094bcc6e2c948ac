"""Counting against a directory's limit on a real database: several processes, races, a database that is away, and what it costs."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any
from uuid import uuid4

import psycopg
import pytest

from api.rates import Rates
from api.scim.app import ScimApp
from database.connections import Connection
from ledger.directories import Directory
from ledger.events import DIRECTORY_RATE_LIMIT_CHANGED
from ledger.refused import StateError
from operations import directories, profiles, rate_limits, tokens
from runtime.bootstrap import machine
from scim.errors import TooManyRequests, Unavailable
from scim.profile import RateLimit, profile_of
from tests.postgres.ledgers import Ledger, opened

LOWEST = RateLimit(per_second=25, burst=30)


def _run(url: str, check: Callable[[Ledger], Awaitable[None]]) -> None:
    async def all_of_it() -> None:
        async with opened(url) as ledger:
            await check(ledger)

    asyncio.run(all_of_it())


def _limited(ledger: Ledger, limit: RateLimit = LOWEST) -> Directory:
    return replace(ledger.directory, own_rate_limit=limit)


async def _admitted(rates: Rates, directory: Directory, times: int) -> list[bool]:
    async def one() -> bool:
        try:
            await rates.check(directory)
        except TooManyRequests as refused:
            return refused.retry_after < 1
        return True

    return await asyncio.gather(*(one() for _ in range(times)))


def test_processes_share_one_bucket(app_url: str) -> None:
    async def check(ledger: Ledger) -> None:
        several = [Rates(ledger.services.ledger.connection) for _ in range(3)]
        directory, began = _limited(ledger), time.monotonic()
        admitted = [sum(await _admitted(rates, directory, 40)) for rates in several]
        most = 30 + 25 * (time.monotonic() - began)
        assert 30 <= sum(admitted) <= most, "what one process took is gone for the others"
        assert admitted[0] >= 30

    _run(app_url, check)


def test_a_process_that_gets_all_connections_has_the_whole_rate(app_url: str) -> None:
    """Another process took a few and uses none: they are not a share of the rate."""

    async def check(ledger: Ledger) -> None:
        idle, busy = (Rates(ledger.services.ledger.connection) for _ in range(2))
        directory = _limited(ledger, RateLimit(per_second=25, burst=250))  # what a busy machine delays does not run over
        await idle.check(directory)
        await _admitted(busy, directory, 400)
        began, admitted = time.monotonic(), 0
        while (seconds := time.monotonic() - began) < 2:
            admitted += sum(await _admitted(busy, directory, 1))
            await asyncio.sleep(0)  # no pause: the others of this event loop go on
        assert admitted >= 25 * seconds - 3, "25 a second"

    _run(app_url, check)


def test_each_directory_has_a_bucket_of_its_own(app_url: str) -> None:
    async def check(ledger: Ledger) -> None:
        other = await directories.create(ledger.services.ledger, machine(), "other", "generic")
        rates = Rates(ledger.services.ledger.connection)
        await _admitted(rates, _limited(ledger), 60)
        assert all(await _admitted(rates, replace(other, own_rate_limit=LOWEST), 30))

    _run(app_url, check)


def test_a_changed_limit_counts_at_once_and_keeps_what_was_used(app_url: str) -> None:
    async def check(ledger: Ledger) -> None:
        rates = Rates(ledger.services.ledger.connection)
        assert not all(await _admitted(rates, _limited(ledger), 60))
        raised = _limited(ledger, RateLimit(per_second=100, burst=1_000))
        assert all(await _admitted(rates, raised, 900)), "of 1 000 about thirty are used"
        assert not all(await _admitted(rates, _limited(ledger), 5)), "more is used than the lower burst has"

    _run(app_url, check)


@pytest.mark.parametrize("away", [psycopg.OperationalError("gone"), Unavailable("no connection in time")])
def test_while_the_database_is_away_nothing_is_refused_for_the_rate(app_url: str, away: Exception) -> None:
    @asynccontextmanager
    async def broken() -> AsyncIterator[Connection]:
        raise away
        yield

    async def check(ledger: Ledger) -> None:
        rates = Rates(broken)
        assert all(await _admitted(rates, _limited(ledger), 100))

    _run(app_url, check)


def test_many_at_once_ask_in_few_statements(app_url: str) -> None:
    """A flood holds one connection of the pool at most, and an empty bucket is not asked again before it has something."""

    async def check(ledger: Ledger) -> None:
        asked = at_once = most = 0

        @asynccontextmanager
        async def counted() -> AsyncIterator[Connection]:
            nonlocal asked, at_once, most
            asked, at_once = asked + 1, at_once + 1
            most = max(most, at_once)
            try:
                async with ledger.services.ledger.connection() as conn:
                    yield conn
            finally:
                at_once -= 1

        began = time.monotonic()
        admitted = await _admitted(Rates(counted), _limited(ledger), 2_000)
        seconds = time.monotonic() - began
        assert sum(admitted) <= 30 + 25 * seconds
        assert most == 1
        assert asked <= 4 + 25 * seconds, "one for all, and one for each request that comes back"

    _run(app_url, check)


def test_a_directory_without_a_limit_pays_less_than_a_microsecond(app_url: str) -> None:
    """The test of the attribute on the path of every request, as api/scim/app.py has it: the best of many rounds."""

    async def check(ledger: Ledger) -> None:
        directory = ledger.directory
        assert directory.rate_limit is None
        rounds = 10_000

        def measured() -> float:
            began = time.perf_counter()
            for _ in range(rounds):
                if directory.rate_limit is not None:
                    raise AssertionError
            return (time.perf_counter() - began) / rounds

        assert min(measured() for _ in range(50)) < 1e-6

    _run(app_url, check)


def test_a_set_limit_reaches_another_process_and_a_restart(app_url: str) -> None:
    async def check(ledger: Ledger) -> None:
        ours = ledger.services.ledger
        async with opened(app_url, kek=ours.kek) as other:
            there = other.services.ledger
            assert (await rate_limits.show(there, machine(), "acme")).rate_limit is None
            await rate_limits.set_rate_limit(ours, machine(), "acme", LOWEST)
            async with there.connection() as conn:
                await there.directories.refresh(conn)
            assert (await rate_limits.show(there, machine(), "acme")).rate_limit == LOWEST
        async with opened(app_url, kek=ours.kek) as later:
            assert later.directory.rate_limit == LOWEST

    _run(app_url, check)


def test_the_limit_of_a_profile_counts_until_another_is_set(app_url: str) -> None:
    async def check(ledger: Ledger) -> None:
        ours = ledger.services.ledger
        await profiles.set_profile(ours, machine(), "acme", "ipsie", weight=0)
        assert (await rate_limits.show(ours, machine(), "acme")).rate_limit == RateLimit(per_second=50, burst=500)
        assert (await rate_limits.set_rate_limit(ours, machine(), "acme", LOWEST)).rate_limit == LOWEST
        assert (await rate_limits.reset(ours, machine(), "acme")).rate_limit == profile_of("ipsie@1").file.rate_limit

    _run(app_url, check)


def test_equal_acts_at_once_make_one_event_and_a_closed_directory_refuses(app_url: str) -> None:
    async def check(ledger: Ledger) -> None:
        ours = ledger.services.ledger
        await asyncio.gather(*(rate_limits.set_rate_limit(ours, machine(), "acme", LOWEST) for _ in range(5)))
        page = await ledger.page()
        assert [event.kind for event in page.events].count(DIRECTORY_RATE_LIMIT_CHANGED.number) == 1
        await directories.close(ours, machine(), "acme", "over", "acme")
        with pytest.raises(StateError):
            await rate_limits.reset(ours, machine(), "acme")

    _run(app_url, check)


def test_a_request_above_the_limit_is_refused_before_its_body_is_read(app_url: str) -> None:
    async def check(ledger: Ledger) -> None:
        ours = ledger.services.ledger
        await rate_limits.set_rate_limit(ours, machine(), "acme", LOWEST)
        text = (await tokens.issue(ours, machine(), "scim", "idp", ("acme",), None, days=1)).text
        app, statuses, read = ScimApp(ledger.services), list[int](), 0

        async def receive() -> dict[str, Any]:
            nonlocal read
            read += 1
            return {"type": "http.request", "body": b"{}", "more_body": False}

        async def send(message: Any) -> None:
            if message["type"] == "http.response.start":
                statuses.append(message["status"])

        headers = [(b"authorization", f"Bearer {text}".encode()), (b"content-type", b"application/scim+json")]
        scope = {
            "type": "http", "method": "POST", "path": "/scim/acme/v2/Users", "query_string": b"", "headers": headers,
            "client": (str(uuid4()), 1),
        }  # fmt: skip
        for _ in range(100):
            await app(dict(scope), receive, send)
        assert set(statuses) == {400, 429}
        assert read == statuses.count(400)

    _run(app_url, check)
