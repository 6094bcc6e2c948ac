"""The public keys that OAuth 2.0 clients have at a URL (`jwks_uri`), fetched and remembered in this process."""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Final

import orjson
import structlog

from delivery.consumers import Allowed
from delivery.transports.documents import FetchError, fetch
from operations.assertions import PublicKey, Unverified, key_for, public_keys

FRESH_S: Final = 3_600.0  # after that a set is fetched again, so that a key that was withdrawn ends
STALE_S: Final = 86_400.0  # so long an older set is used while its URL does not answer
AGAIN_S: Final = 60.0  # between two fetches of one URL: an unknown `kid` and a failure make no more
SETS_MAX: Final = 1_000  # in memory; the least recently used is dropped first
_log = structlog.get_logger("operations.key_sets")


@dataclass(slots=True)
class _Known:
    keys: list[PublicKey] = field(default_factory=list[PublicKey])
    fetched_at: float = float("-inf")
    tried_at: float = float("-inf")
    fetching: asyncio.Lock = field(default_factory=asyncio.Lock)


class KeySets:
    """`fetch`: reads the document at a URL, within its own limits; raises FetchError. `clock`: seconds that only go forward."""

    def __init__(self, fetch: Callable[[str], Awaitable[bytes]], clock: Callable[[], float]) -> None:
        self._fetch = fetch
        self._clock = clock
        self._known: OrderedDict[str, _Known] = OrderedDict()

    async def key_for(self, url: str, assertion: Unverified) -> PublicKey | None:
        """The key that an assertion names; None if the set has none, or cannot be fetched."""
        known = self._of(url)
        found = self._usable(known, assertion)
        if found is not None and not self._due(known, FRESH_S):
            return found
        async with known.fetching:  # concurrent requests wait for one fetch
            if self._usable(known, assertion) is None or self._due(known, FRESH_S):
                await self._refresh(url, known)
        return self._usable(known, assertion)

    def _of(self, url: str) -> _Known:
        known = self._known.setdefault(url, _Known())
        self._known.move_to_end(url)
        if len(self._known) > SETS_MAX:
            self._known.popitem(last=False)
        return known

    def _due(self, known: _Known, after_s: float) -> bool:
        return self._clock() - known.fetched_at >= after_s

    def _usable(self, known: _Known, assertion: Unverified) -> PublicKey | None:
        return None if self._due(known, STALE_S) else key_for(known.keys, assertion)

    async def _refresh(self, url: str, known: _Known) -> None:
        now = self._clock()
        if now - known.tried_at < AGAIN_S:
            return
        known.tried_at = now
        try:
            document: Any = orjson.loads(await self._fetch(url))
        except (FetchError, orjson.JSONDecodeError) as failed:
            _log.warning("client_keys_not_fetched", problem=str(failed) if isinstance(failed, FetchError) else "no JSON")
            return
        known.keys, known.fetched_at = public_keys(document), now


def key_sets_of(allowed: Callable[[], Allowed]) -> KeySets:
    """The key sets of a process. They are fetched as webhooks are sent: only from where `allowed` lets them."""
    return KeySets(lambda url: fetch(allowed(), url), time.monotonic)
