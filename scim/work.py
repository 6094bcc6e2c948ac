"""How much one request may compute: a counter that whoever does the work spends from, and that stops it when nobody waits."""

from dataclasses import dataclass
from typing import Final

from scim.errors import TooMany

# About a microsecond each on one slow core: a value compared with one term of a filter, 128 bytes unsealed or read.
STEP_BYTES: Final = 128
RESOURCE_STEPS: Final = 10  # to find, unseal and read a resource, besides its bytes


class AbandonedError(Exception):
    """Whoever asked went away: the work ends, and nobody is answered."""


@dataclass(slots=True)
class Work:
    """What is left of a request's budget, in steps. `gone` is set from outside when the client goes away.

    The same work spends the same steps wherever and whenever it is done: a request that is too much is always too much.
    """

    left: int
    refusal: str = "This request needs too much work. Ask for less at once."
    gone: bool = False

    def spend(self, steps: int) -> None:
        """Raises TooMany once the budget is spent, AbandonedError once nobody waits."""
        self.left -= steps
        if self.left < 0:
            raise TooMany(self.refusal)
        if self.gone:
            raise AbandonedError


def reading(size: int) -> int:
    """The steps that a resource of `size` bytes costs to unseal and to read."""
    return RESOURCE_STEPS + size // STEP_BYTES
