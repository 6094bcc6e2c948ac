"""Who asks, and which directories, types and consumers its token reaches (docs/permissions.md). Pure."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Final
from uuid import UUID

from ledger.tokens import Token

# The machine itself: whoever may open the service's own socket, or its database, may do what an admin may.
MACHINE: Final = Token(id=UUID(int=0), role="admin", name="this machine", directories=("*",), types=("*",), bodies=True)


async def _go_on() -> None:
    """Nothing stands between being admitted and acting."""


@dataclass(frozen=True, slots=True)
class Caller:
    """Who acts, in which request. `token` says what may be reached.

    `admitted` is awaited when the caller has been let in and before anything is done: what came before under the same
    Idempotency-Key is answered there (operations.idempotency), so that nobody is answered who would not be let in now.
    """

    token: Token
    request: UUID
    admitted: Callable[[], Awaitable[None]] = field(default=_go_on, compare=False, repr=False)

    @property
    def actor(self) -> str:
        """The principal that events name: `tok_…`, or `sys` for the machine itself."""
        return "sys" if self.token is MACHINE else self.token.actor

    @property
    def token_id(self) -> UUID | None:
        """The token that the write transaction checks again; None for the machine itself."""
        return None if self.token is MACHINE else self.token.id

    @property
    def everywhere(self) -> bool:
        """Whether the token is not narrowed to directories."""
        return "*" in self.token.directories
