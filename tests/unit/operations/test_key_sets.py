"""Key sets at URLs: when they are fetched, and how long they are used."""

import asyncio
import json
from collections.abc import Awaitable, Callable

import pytest
import structlog
from joserfc import jws
from joserfc.jwk import ECKey, Key

from delivery.transports.documents import FetchError
from operations import key_sets
from operations.assertions import PublicKey, Unverified, read_assertion
from operations.key_sets import AGAIN_S, FRESH_S, STALE_S, KeySets

URL = "https://idp.example/keys"
OLD, NEW = ECKey.generate_key("P-256", {"kid": "old"}), ECKey.generate_key("P-256", {"kid": "new"})


def _signed(key: Key) -> Unverified:
    return read_assertion(jws.serialize_compact({"alg": "ES256", "kid": key.kid}, b"{}", key, algorithms=["ES256"]))


class World:
    """A URL whose answer a test sets, and a clock."""

    def __init__(self) -> None:
        self.now, self.asked, self.answer = 1_000.0, 0, self.of(OLD)
        self.sets = KeySets(self.fetch, lambda: self.now)

    def of(self, *keys: Key) -> bytes:
        return json.dumps({"keys": [key.as_dict(private=False) for key in keys]}).encode()

    async def fetch(self, _url: str) -> bytes:
        self.asked += 1
        await asyncio.sleep(0)
        if not self.answer:
            raise FetchError("timeout")
        return self.answer

    async def find(self, key: Key = OLD, url: str = URL) -> PublicKey | None:
        return await self.sets.key_for(url, _signed(key))


def _run(check: Callable[[World], Awaitable[None]]) -> None:
    with structlog.testing.capture_logs():
        asyncio.run(check(World()))  # pyright: ignore[reportArgumentType]


def test_concurrent_requests_share_one_fetch() -> None:
    async def check(world: World) -> None:
        found = await asyncio.gather(*(world.find() for _ in range(20)))
        assert all(key is not None and key.kid == "old" for key in found)
        assert world.asked == 1

    _run(check)


def test_an_unknown_kid_fetches_at_most_once_a_minute() -> None:
    async def check(world: World) -> None:
        await world.find()
        world.answer = world.of(OLD, NEW)
        for _ in range(100):
            assert await world.find(NEW) is None
        assert world.asked == 1
        world.now += AGAIN_S
        assert await world.find(NEW) is not None
        assert world.asked == 2

    _run(check)


def test_a_key_that_was_withdrawn_ends_within_the_hour() -> None:
    async def check(world: World) -> None:
        await world.find()
        world.answer = world.of(NEW)
        world.now += FRESH_S - 1
        assert await world.find() is not None
        world.now += 1
        assert await world.find() is None

    _run(check)


@pytest.mark.parametrize("broken", [b"", b"no JSON"])
def test_the_old_set_is_used_for_a_day_while_the_url_does_not_answer(broken: bytes) -> None:
    async def check(world: World) -> None:
        await world.find()
        world.answer = broken
        world.now += STALE_S - 1
        assert await world.find() is not None
        assert world.asked == 2
        world.now += 1
        assert await world.find() is None
        assert world.asked == 2, "within the minute after a failure nothing is fetched"

    _run(check)


def test_the_sets_in_memory_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(key_sets, "SETS_MAX", 3)

    async def check(world: World) -> None:
        for number in range(5):
            await world.find(url=f"{URL}/{number}")
        assert world.asked == 5
        await world.find(url=f"{URL}/4")
        assert world.asked == 5
        await world.find(url=f"{URL}/0")
        assert world.asked == 6

    _run(check)
