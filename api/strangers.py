"""Failed authentications are slowed, by the address that they come from.

Guessing a token is hopeless anyway (256 random bits); what is limited here is the work that a stranger, or an IdP with a dead token that
repeats itself, makes for the database, the journal and the log. An address stands for many: behind a proxy all clients have one, and IdPs
share theirs. So a valid token is never refused for what others did (see admits() and Services.authenticate). X-Forwarded-For is not
believed: whoever is slowed would write another address into it.
"""

import asyncio
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv6Address
from typing import Any, Final

BURST: Final = 20.0  # failures of an address before it is slowed: somebody trying out tokens by hand never meets it
PER_SECOND: Final = 1.0  # and how fast they are forgiven
ADDRESSES_MAX: Final = 10_000  # about 2 MB; the one that failed longest ago is forgotten first
UNKNOWN_AT_ONCE: Final = 32  # tokens never seen here, of slowed addresses, that wait to be looked up ...
UNKNOWN_DELAY_S: Final = 0.1  # ... and how long each waits: at most 320 look-ups a second, in ten queries


def address_of(scope: Mapping[str, Any]) -> str:
    """The address that a request came from; none where it came over no network."""
    client = scope.get("client")
    return client[0] if client else ""


def network(address: str) -> str:
    """Give what is slowed together: an IPv4 address, also one written as IPv6, or the /64 of an IPv6 address: one host has all of it."""
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
    """A bucket of tokens for each address; pure but for its memory. Times in seconds, of one clock that never runs backwards."""

    burst: float = BURST
    per_second: float = PER_SECOND
    addresses_max: int = ADDRESSES_MAX
    _spent: dict[str, tuple[float, float]] = field(
        default_factory=dict[str, tuple[float, float]]
    )  # (how much, when); oldest first

    def wait(self, address: str, now: float) -> float:
        """Seconds until the address may fail again; 0: it may."""
        return max(self._left_over(address, now) + 1 - self.burst, 0.0) / self.per_second

    def failed(self, address: str, now: float) -> float:
        """Count a failure. Gives the seconds to wait where it was one too many; such a one is not counted, so waiting helps."""
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
    """What a process remembers of failed authentications."""

    failures: Failures = field(default_factory=Failures)
    waiting: int = 0

    def failed(self, address: str) -> int:
        """Count a failure. Gives the whole seconds of Retry-After where the address is over its rate, else 0."""
        return math.ceil(self.failures.failed(network(address), asyncio.get_running_loop().time()))

    async def admits(self, address: str) -> bool:
        """Whether a well-formed token that was never seen here may be looked up.

        It may be a new one, so an address over its rate does not shut it out: it waits its turn. Only where too many wait already it is
        refused, and with it a new token, for the moment; one that was used here before never comes here.
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
