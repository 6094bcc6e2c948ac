"""The budget of a request's waits: there is one for all of them, short waits cost nothing, and without a request there is none."""

import asyncio
import math
from collections.abc import Awaitable, Callable

import pytest
from psycopg_pool import PoolTimeout

from database import patience
from database.coalesce import Coalescer
from database.connections import Pulse
from database.deadlines import AWAY, REQUEST_WAITS, Deadline


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "SHORT_S", 0.0)
    monkeypatch.setattr(patience, "LEAST_S", 0.0)


def run(check: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(asyncio.wait_for(check(), 10))


async def in_vain(seconds: float) -> float:
    """How long a wait for something that never comes lasts."""
    began = asyncio.get_running_loop().time()
    with pytest.raises(PoolTimeout):
        await patience.within(seconds, asyncio.Future())
    return asyncio.get_running_loop().time() - began


def test_waits_one_after_the_other_share_one_budget() -> None:
    async def check() -> None:
        patience.begin(0.2)
        assert sum([await in_vain(0.15) for _ in range(5)]) < 0.4
        assert patience.left() == 0

    run(check)


def test_concurrent_and_nested_waits_count_once() -> None:
    async def check() -> None:
        patience.begin(1.0)
        with patience.charged():
            await asyncio.gather(*(in_vain(0.1) for _ in range(8)))
        assert 0.5 < patience.left() <= 0.9

    run(check)


def test_short_waits_cost_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "SHORT_S", 5.0)

    async def check() -> None:
        patience.begin(1.0)
        await in_vain(0.01)
        assert patience.left() == 1.0

    run(check)


def test_successful_waits_cost_nothing() -> None:
    """A slow database that answers causes no refusals. The wait for a write counts against the reads after it."""

    async def check() -> None:
        loop = asyncio.get_running_loop()
        patience.begin(60.0)  # a busy machine may be slow by any part of it
        answer = loop.create_future()
        loop.call_later(0.03, answer.set_result, None)
        await patience.within(30.0, answer)
        assert patience.left() == 60.0
        patience.begin(0.05)
        with patience.charged():
            await asyncio.wait([loop.create_future()], timeout=0.1)
        assert patience.left() == 0

    run(check)


def test_an_answer_that_is_there_is_given_even_without_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "LEAST_S", 5.0)

    async def check() -> None:
        async def fetch(keys: list[int]) -> dict[int, int]:
            return dict.fromkeys(keys, 7)

        patience.begin(0.0)
        assert await Coalescer(fetch).get(1) == 7

    run(check)


def test_finished_work_renews_the_budget_and_never_shortens_it() -> None:
    async def check() -> None:
        patience.begin(0.05)
        await in_vain(1.0)
        patience.renew(0.5)
        assert patience.left() == 0.5
        patience.renew(0.1)
        assert patience.left() == 0.5

    run(check)


def test_without_a_request_there_is_no_budget() -> None:
    async def check() -> None:
        await in_vain(0.01)
        patience.renew()
        assert patience.left() == math.inf

    run(check)


def test_a_shared_read_is_charged_to_each_request_that_waits_for_it_but_not_within() -> None:
    """The read runs in a task of its own: it must not use the budget of the request that started it."""

    async def check() -> None:
        asked, answer = asyncio.Event(), asyncio.Event()
        seen: list[float] = []

        async def fetch(keys: list[int]) -> dict[int, int]:
            seen.append(patience.left())
            asked.set()
            await answer.wait()
            return dict.fromkeys(keys, 1)

        async def poor(coalescer: Coalescer[int, int]) -> None:
            patience.begin(0.05)
            with pytest.raises(PoolTimeout):
                await coalescer.get(1)

        async def rich(coalescer: Coalescer[int, int]) -> int | None:
            patience.begin()
            return await coalescer.get(1)

        coalescer = Coalescer(fetch)
        first, second = asyncio.create_task(poor(coalescer)), asyncio.create_task(rich(coalescer))
        await first
        answer.set()
        assert await second == 1
        assert seen == [math.inf]

    run(check)


def test_a_shared_read_has_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    from database import coalesce

    monkeypatch.setattr(coalesce, "SHARED_ANSWER", Deadline(0.05, "a read", "503"))

    async def check() -> None:
        async def never(_: list[int]) -> dict[int, int]:
            return await asyncio.Future()

        with pytest.raises(PoolTimeout):
            await Coalescer(never).get(1)

    run(check)


def test_two_shared_reads_one_after_the_other_fit_into_the_budget() -> None:
    from database.deadlines import SHARED_ANSWER

    assert 2 * SHARED_ANSWER.seconds < REQUEST_WAITS.seconds


def test_the_breaker_opens_if_no_connection_can_be_opened_but_not_for_slow_statements() -> None:
    pulse = Pulse()
    pulse.failed(10 * AWAY.seconds)
    assert pulse.failing_since is not None
    assert not pulse.away
    pulse.refused()
    assert pulse.away, "it has not answered for long, and refuses a connection now"
    pulse.answered()
    assert not pulse.away
    pulse.refused()
    assert not pulse.away, "a moment ago it answered"
    pulse.failing_since = None
    pulse.refused(10 * AWAY.seconds)
    assert not pulse.away, "others were answered while this one waited"
