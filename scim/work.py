"""How much one request may compute: a budget of steps that the work is counted against, and that ends it once the client is gone."""

from dataclasses import dataclass
from typing import Final

from scim.errors import TooMany

# A step takes about a microsecond of one slow core: to compare a value with one term of a filter, or to unseal or read 128 bytes.
STEP_BYTES: Final = 128
RESOURCE_STEPS: Final = 10  # to find, unseal and read a resource, besides its bytes


class AbandonedError(Exception):
    """The client closed the connection: the work ends, and no answer is sent."""


@dataclass(slots=True)
class Work:
    """What is left of a request's budget, in steps. `gone` is set from outside when the client closes the connection.

    The same work spends the same steps on any machine and at any time: a request that is refused is refused each time.
    """

    left: int
    refusal: str = "This request needs too much work. Ask for less at once."
    gone: bool = False

    def spend(self, steps: int) -> None:
        """Count steps. Raises TooMany once the budget is spent, AbandonedError once the client is gone."""
        self.left -= steps
        if self.left < 0:
            raise TooMany(self.refusal)
        if self.gone:
            raise AbandonedError


def reading(size: int) -> int:
    """The steps that a resource of `size` bytes costs to unseal and to read."""
    return RESOURCE_STEPS + size // STEP_BYTES
