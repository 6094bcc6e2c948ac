"""An expensive value is computed by one caller at a time, and cached for a moment."""

import asyncio

import pytest

from api.recent import Recent


def test_concurrent_callers_share_one_computation() -> None:
    async def story() -> None:
        made, go = 0, asyncio.Event()

        async def make() -> int:
            nonlocal made
            made += 1
            await go.wait()
            return made

        recent = Recent(make, 60.0)
        asking = [asyncio.create_task(recent.get()) for _ in range(50)]
        await asyncio.wait(asking, timeout=0)
        asking[0].cancel()  # a caller that is cancelled does not end the computation for the others
        go.set()
        assert await asyncio.gather(*asking[1:]) == [1] * 49
        assert await recent.get() == 1

    asyncio.run(story())


def test_it_is_computed_again_once_it_is_old_and_after_a_failure() -> None:
    async def story() -> None:
        values = iter([ValueError("away"), 1, 2])

        async def make() -> int:
            value = next(values)
            if isinstance(value, Exception):
                raise value
            return value

        recent = Recent(make, 0.0)
        with pytest.raises(ValueError, match="away"):
            await recent.get()
        assert [await recent.get(), await recent.get()] == [1, 2]

    asyncio.run(story())
