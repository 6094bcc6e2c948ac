"""Who asks, and which directories, types and consumers its token reaches (docs/permissions.md). Pure."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Final
from uuid import UUID

from ledger.tokens import Token

# The caller through the local socket, or with direct access to the database. It could do everything anyway, so it is an admin.
MACHINE: Final = Token(id=UUID(int=0), role="admin", name="this machine", directories=("*",), types=("*",), bodies=True)


async def _go_on() -> None:
    """The default of `admitted`: do nothing."""


@dataclass(frozen=True, slots=True)
class Caller:
    """Who acts, in which request. `token` says what the caller reaches.

    `admitted` is awaited after the permission checks and before the operation does anything. With an Idempotency-Key it answers a
    repeated request (operations.idempotency). It comes after the checks, so that a revoked token gets no stored answer.
    """

    token: Token
    request: UUID
    trace: bytes | None = None  # the trace context of the request
    admitted: Callable[[], Awaitable[None]] = field(default=_go_on, compare=False, repr=False)

    @property
    def actor(self) -> str:
        """The actor in events: `tok_…`, or `sys` for the machine itself."""
        return "sys" if self.token is MACHINE else self.token.actor

    @property
    def token_id(self) -> UUID | None:
        """The token that the write transaction checks again; None for the machine itself."""
        return None if self.token is MACHINE else self.token.id

    @property
    def everywhere(self) -> bool:
        """Whether the token is not narrowed to directories."""
        return "*" in self.token.directories
