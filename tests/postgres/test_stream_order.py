"""A reader of the stream that changes to pages and back to the tail gets each event once, in order."""

import asyncio
import re

from api.stream import PAGE, _Follower
from ledger.cursor import BEGINNING, Cursor
from ledger.feed import Selection
from tests.postgres.ledgers import opened


def test_events_that_pages_have_shown_are_not_repeated_from_the_tail(app_url: str) -> None:
    """The database was away for a moment: the tail cannot be trusted, so the reader reads pages, and then the tail is valid
    again.
    """

    async def run() -> None:
        async with opened(app_url) as ledger:
            tail = ledger.services.tail
            follower = _Follower(ledger.services, Selection(), Cursor(0, BEGINNING), None, filtered=False)
            tail.follow(follower)
            shown: list[int] = []

            async def read(*, sure_after: int | None = None) -> None:
                async for piece in follower._news():
                    shown.extend(int(found) for found in re.findall(rb'"position":(\d+),"commit"', piece))
                    if sure_after is not None and len(shown) >= sure_after:
                        await tail._look()

            await tail._look()
            await read()
            assert follower.place is not None, "it has caught up"
            before = len(shown)
            await asyncio.gather(*(ledger.create_user(f"u{number}") for number in range(PAGE + 20)))
            await tail._look()
            tail.doubt()
            await read(sure_after=before + 1)
            await read()
            assert shown == list(range(1, before + PAGE + 21))

    asyncio.run(asyncio.wait_for(run(), 60))
