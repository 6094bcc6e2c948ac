"""The tail that all followers of a process share: what it keeps equals the log, and it ends when it is cancelled."""

import asyncio
from collections.abc import Callable

from ledger.cursor import BEGINNING, Anchor, Cursor
from ledger.feed import Selection
from ledger.tail import KEPT, Arrivals, Tail
from tests.postgres.ledgers import Ledger, opened


def _later(ticks: int, call: Callable[[], object]) -> None:
    """Call a function after this number of rounds of the event loop."""
    loop = asyncio.get_running_loop()
    if ticks:
        loop.call_soon(_later, ticks - 1, call)
    else:
        call()


async def _ticked() -> None:
    future = asyncio.get_running_loop().create_future()
    _later(1, lambda: future.set_result(None))
    await future


def test_a_tail_ends_when_it_is_cancelled_at_the_moment_of_a_notification(app_url: str) -> None:
    """asyncio.wait_for of Python 3.11 loses a cancellation that comes together with the event: the process would never stop."""

    async def run() -> None:
        async with opened(app_url) as ledger:
            for ticks in range(6):
                hints = Arrivals()
                task = asyncio.create_task(_tail(ledger, hints).run())
                while not hints.next()._waiters:  # until it has read and waits
                    await _ticked()
                hints.announce()
                _later(ticks, task.cancel)
                done, _ = await asyncio.wait([task], timeout=5)
                task.cancel()
                assert done, ticks

    asyncio.run(run())


def _tail(ledger: Ledger, hints: Arrivals) -> Tail:
    tail = Tail(ledger.services.ledger.feed, ledger.services.ledger.connection, hints)
    tail.follow("this test")
    return tail


def test_what_a_tail_keeps_equals_the_log(app_url: str) -> None:
    """From any place it gives all later events, or says that it does not have them."""

    async def run() -> None:
        async with opened(app_url) as ledger:
            await ledger.create_user("before")
            hints = Arrivals()
            tail = _tail(ledger, hints)
            first = tail.arrivals.next()
            task = asyncio.create_task(tail.run())
            await asyncio.wait_for(first.wait(), 10)
            start = tail.read_to
            assert tail.since(tail.place) == []
            assert tail.since(Anchor(start - 1)) is None, "from a place before its first read"
            assert tail.since(Anchor(start, b"of another log")) is None
            await asyncio.gather(*(ledger.create_user(f"u{n}") for n in range(20)))
            async with ledger.services.ledger.connection() as conn:
                head = await ledger.services.ledger.feed.head(conn, Selection())
            while tail.read_to < head:
                arrival = tail.arrivals.next()
                hints.announce()
                await asyncio.wait_for(arrival.wait(), 10)
            page = await ledger.page(Cursor(0, BEGINNING))
            for event in page.events[-(head - start) - 1 :]:
                found = tail.since(Anchor(event.position, event.leaf_hash))
                assert [e.json for e in found or ()] == [e.json for e in page.events if e.position > event.position]
                assert tail.since(Anchor(event.position, b"of another log")) is None
            assert tail.since(Anchor(head + 1)) is None
            assert head < KEPT
            task.cancel()
            await asyncio.wait([task], timeout=10)

    asyncio.run(run())


def test_without_followers_nothing_is_read(app_url: str) -> None:
    """Unsealing every written event without a reader would slow down the writes."""

    async def run() -> None:
        async with opened(app_url) as ledger:
            tail = ledger.services.tail
            await ledger.create_user("unheard")
            ledger.services.arrivals.announce()
            async with ledger.services.ledger.connection() as conn:
                head = await ledger.services.ledger.feed.head(conn, Selection())
            assert tail.read_to == -1
            arrival = tail.arrivals.next()
            tail.follow("somebody")
            await asyncio.wait_for(arrival.wait(), 10)
            assert tail.read_to == head
            place = tail.place
            await ledger.create_user("heard")
            while not tail.since(place):
                arrival = tail.arrivals.next()
                await asyncio.wait_for(arrival.wait(), 10)
            tail.follow("another")
            tail.leave("another")
            assert tail.since(place)
            tail.leave("somebody")
            assert tail.since(place) is None

    asyncio.run(run())
