"""Authentication: reads look a token up, writes may use the cache; a cached token ends at its expiry, or when it was found to be
revoked.
"""

import asyncio
from collections.abc import Coroutine
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from api import authentication
from api.authentication import Authentication
from api.strangers import Strangers
from database.coalesce import Coalescer
from ledger.sealing import Kek
from ledger.tokens import Issuer, Token, issue, token_hash
from scim.errors import Unauthorized

NOW = datetime(2026, 11, 25, 9, tzinfo=UTC)


class Store:
    """Tokens that a test can revoke, a clock that it can set, and the number of look-ups."""

    def __init__(self) -> None:
        self.asked = 0
        self.now = NOW
        self.tokens: dict[bytes, Token] = {}
        self.authentication = Authentication(Coalescer(self.read), lambda: int(self.now.timestamp() * 1_000_000), Strangers())

    async def read(self, hashes: list[bytes]) -> dict[bytes, Token]:
        self.asked += 1
        return {hashed: self.tokens[hashed] for hashed in hashes if hashed in self.tokens}

    def issued(self, number: int = 1) -> str:
        issuer = Issuer(Kek.of(bytes(32)), lambda size: number.to_bytes(size, "big"), NOW, "sys")
        new = issue(issuer, UUID(int=number), "scim", "t", ("acme",), expires_at=NOW + timedelta(days=1))
        self.tokens[token_hash(new.text)] = new.token
        return f"Bearer {new.text}"


def run(work: Coroutine[Any, Any, None]) -> None:
    asyncio.run(work)


def test_only_a_write_uses_a_cached_token_without_a_look_up() -> None:
    store = Store()
    header = store.issued()

    async def check() -> None:
        await store.authentication.authenticate(header, fresh=False)
        await store.authentication.authenticate(header, fresh=False)
        assert store.asked == 1
        await store.authentication.authenticate(header)
        assert store.asked == 2
        assert set(store.authentication.used) == {UUID(int=1)}
        store.tokens.clear()
        await store.authentication.authenticate(header, fresh=False)  # the transaction of the write refuses it
        with pytest.raises(Unauthorized):
            await store.authentication.authenticate(header)
        with pytest.raises(Unauthorized):
            await store.authentication.authenticate(header, fresh=False)

    run(check())


def test_a_cached_token_expires_by_the_clock() -> None:
    store = Store()
    header = store.issued()

    async def check() -> None:
        await store.authentication.authenticate(header)
        store.tokens.clear()
        store.now = NOW + timedelta(days=1)
        with pytest.raises(Unauthorized):
            await store.authentication.authenticate(header, fresh=False)

    run(check())


def test_a_token_that_a_transaction_found_revoked_is_looked_up_again() -> None:
    store = Store()
    header = store.issued()

    async def check() -> None:
        await store.authentication.authenticate(header)
        store.authentication.forget(header)
        store.tokens.clear()
        with pytest.raises(Unauthorized):
            await store.authentication.authenticate(header, fresh=False)

    run(check())


def test_the_cache_of_tokens_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(authentication, "KNOWN_MAX", 2)
    store = Store()
    first, second, third = (store.issued(number) for number in (1, 2, 3))

    async def check() -> None:
        for header in (first, second, first, third, first):
            await store.authentication.authenticate(header, fresh=False)
        assert store.asked == 3
        await store.authentication.authenticate(second, fresh=False)
        assert store.asked == 4, "used longest ago"

    run(check())


@pytest.mark.parametrize(
    "header", [None, "", "Basic eDp5", "Bearer", "Bearer x", "Bearer sl_scim_1_2", "Bearer sl_é", "Bearer a b"]
)
def test_a_malformed_token_is_refused_without_a_look_up(header: str | None) -> None:
    store = Store()

    async def check() -> None:
        with pytest.raises(Unauthorized):
            await store.authentication.authenticate(header)
        assert store.asked == 0

    run(check())
