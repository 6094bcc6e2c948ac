"""Slow down failed authentications by client address.

Nobody can guess a token (256 random bits). The limit protects the database, the journal and the log from strangers, and from IdPs that
repeat requests with an invalid token. Many clients can share an address, because of a proxy or because they belong to one IdP. So a
valid token is never refused for failures of others (see admits and Authentication.authenticate). X-Forwarded-For is not used: a slowed
client would put another address into it.
"""

import asyncio
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv6Address
from typing import Any, Final

BURST: Final = 20.0  # failures of an address before it is slowed; nobody reaches it by hand
PER_SECOND: Final = 1.0  # failures a second that are forgiven
ADDRESSES_MAX: Final = 10_000  # about 2 MB; the address whose failure is oldest is forgotten first
UNKNOWN_AT_ONCE: Final = 32  # unknown tokens from slowed addresses that may wait for a look-up
UNKNOWN_DELAY_S: Final = 0.1  # how long each of them waits: at most 320 look-ups a second, in ten queries


def address_of(scope: Mapping[str, Any]) -> str:
    """The client address of a request; empty if it did not come over a network."""
    client = scope.get("client")
    return client[0] if client else ""


def network(address: str) -> str:
    """The unit that is slowed: an IPv4 address (also if mapped to IPv6), or the /64 of an IPv6 address, which belongs to one host."""
    if ":" not in address:
        return address
    try:
        parsed = IPv6Address(address.partition("%")[0])
    except ValueError:
        return address
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(IPv6Address(int(parsed) >> 64 << 64)) + "/64"


@dataclass(slots=True)
class Failures:
    """A token bucket for each address. Times are in seconds of a monotonic clock."""

    burst: float = BURST
    per_second: float = PER_SECOND
    addresses_max: int = ADDRESSES_MAX
    _spent: dict[str, tuple[float, float]] = field(
        default_factory=dict[str, tuple[float, float]]
    )  # address -> (level, time); oldest first

    def wait(self, address: str, now: float) -> float:
        """Seconds until the address may fail again; 0 if it may now."""
        return max(self._left_over(address, now) + 1 - self.burst, 0.0) / self.per_second

    def failed(self, address: str, now: float) -> float:
        """Count a failure. Above the rate, returns the seconds to wait and does not count it, so that waiting helps."""
        wait = self.wait(address, now)
        if not wait:
            spent = self._left_over(address, now) + 1
            self._spent.pop(address, None)
            if len(self._spent) >= self.addresses_max:
                del self._spent[next(iter(self._spent))]
            self._spent[address] = (spent, now)
        return wait

    def _left_over(self, address: str, now: float) -> float:
        spent, at = self._spent.get(address, (0.0, now))
        return max(spent - (now - at) * self.per_second, 0.0)


@dataclass(slots=True)
class Strangers:
    """The failed authentications that a process remembers."""

    failures: Failures = field(default_factory=Failures)
    waiting: int = 0

    def failed(self, address: str) -> int:
        """Count a failure. Returns the seconds for Retry-After if the address is over its rate, else 0."""
        return math.ceil(self.failures.failed(network(address), asyncio.get_running_loop().time()))

    async def admits(self, address: str) -> bool:
        """Whether a well-formed token that this process has never seen may be looked up.

        The token may be new and valid, so from an address over its rate it only has to wait. It is refused for the moment if too many
        wait already. Tokens that were used before do not come here.
        """
        if not self.failures.wait(network(address), asyncio.get_running_loop().time()):
            return True
        if self.waiting >= UNKNOWN_AT_ONCE:
            return False
        self.waiting += 1
        try:
            await asyncio.sleep(UNKNOWN_DELAY_S)
        finally:
            self.waiting -= 1
        return True
