"""A resource's key, wrapped by the key-encryption key, so that the database alone opens nothing."""

from functools import lru_cache

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

WRAPPED_BYTES = 60  # nonce 12, key 32, tag 16


class WrapError(ValueError):
    """The wrapped key was not made with this key-encryption key for this directory and resource, or was changed."""


def wrap(kek: bytes, key: bytes, *, dir: bytes, obj: bytes, nonce: bytes) -> bytes:  # noqa: A002 - the leaf's name
    """The bytes nonce || AES-256-GCM(key), with obj || dir authenticated: 60 bytes that open only in their own place.

    `kek` and `key` are 32 bytes, `dir` and `obj` 16, `nonce` 12 fresh random ones. Raises ValueError otherwise.
    """
    if len(key) != 32 or len(nonce) != 12 or len(dir) != 16 or len(obj) != 16:
        raise ValueError("key, nonce, dir and obj are 32, 12, 16 and 16 bytes long")
    return nonce + AESGCM(kek).encrypt(nonce, key, obj + dir)


def unwrap(kek: bytes, wrapped: bytes, *, dir: bytes, obj: bytes) -> bytes:  # noqa: A002 - the leaf's name
    """The key in `wrapped`. Raises WrapError when it does not open."""
    if len(wrapped) != WRAPPED_BYTES:
        raise WrapError(f"a wrapped key is {WRAPPED_BYTES} bytes long")
    try:
        return _cipher(kek).decrypt(wrapped[:12], wrapped[12:], obj + dir)
    except InvalidTag:
        raise WrapError("not wrapped with this key-encryption key for this directory and resource") from None


@lru_cache(maxsize=2)  # a service has one key-encryption key; to set up a cipher takes as long as to unwrap with it
def _cipher(kek: bytes) -> AESGCM:
    return AESGCM(kek)
