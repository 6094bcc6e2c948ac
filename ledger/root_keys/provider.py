"""What a provider of root keys must do. tests/root_keys.py has the tests that each must pass."""

from collections.abc import Collection
from typing import Protocol


class RootKeyError(Exception):
    """A root key cannot be used now. The text says which, why, and what to do; it never shows a key."""


class RootKeyLostError(RootKeyError):
    """The provider answers, but this root key does not open what it should: it is missing, destroyed or another one."""


class RootKeys(Protocol):
    """The root keys of one provider. Each call may ask another machine, within the deadline ROOT_KEY."""

    kind: str  # as in key_epochs.provider

    def create(self, used: Collection[str]) -> str:
        """Make a root key, or take one that is there and not in `used`. Returns its name. Raises RootKeyError."""
        ...

    def wrap(self, name: str, key: bytes, place: bytes) -> bytes:
        """Wrap 32 bytes; `place` is authenticated with them. Raises RootKeyError."""
        ...

    def unwrap(self, name: str, wrapped: bytes, place: bytes) -> bytes:
        """Unwrap them. Raises RootKeyLostError if this key or place is not the one they were wrapped with, or RootKeyError."""
        ...

    def destroy(self, name: str) -> str | None:
        """Destroy a root key for ever. No effect if it is destroyed. Returns what a person must still know or do, if anything.

        Raises RootKeyError if only a person can destroy it, and it is still there.
        """
        ...
