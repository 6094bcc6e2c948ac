"""A resource's key, wrapped by the key-encryption key (KEK) of an epoch, so that the database alone opens nothing."""

from functools import lru_cache

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

WRAPPED_BYTES = 60  # nonce 12, key 32, tag 16
EPOCH_BYTES = 4  # in front of what a KEK of a later epoch than the first wrapped


class WrapError(ValueError):
    """The wrapped key was not made with this key-encryption key for this directory and resource, or was changed."""


def wrap(kek: bytes, key: bytes, *, dir: bytes, obj: bytes, nonce: bytes, epoch: int = 1) -> bytes:  # noqa: A002 - the leaf's name
    """The bytes nonce || AES-256-GCM(key), with obj || dir authenticated: they open only in their own place.

    60 bytes in epoch 1. Later ones stand behind the number of their epoch, 4 bytes big-endian: 64 bytes.
    `kek` and `key` are 32 bytes, `dir` and `obj` 16, `nonce` 12 fresh random ones. Raises ValueError otherwise.
    """
    if len(key) != 32 or len(nonce) != 12 or len(dir) != 16 or len(obj) != 16:
        raise ValueError("key, nonce, dir and obj are 32, 12, 16 and 16 bytes long")
    sealed = nonce + _cipher(kek).encrypt(nonce, key, obj + dir)
    return sealed if epoch == 1 else epoch.to_bytes(EPOCH_BYTES, "big") + sealed


def epoch_of(wrapped: bytes) -> int:
    """The epoch whose KEK wrapped a key. Raises WrapError for bytes of another length."""
    if len(wrapped) == WRAPPED_BYTES:
        return 1
    if len(wrapped) == EPOCH_BYTES + WRAPPED_BYTES:
        return int.from_bytes(wrapped[:EPOCH_BYTES], "big")
    raise WrapError(f"a wrapped key is {WRAPPED_BYTES} bytes long, or {EPOCH_BYTES + WRAPPED_BYTES} with its epoch")


def unwrap(kek: bytes, wrapped: bytes, *, dir: bytes, obj: bytes) -> bytes:  # noqa: A002 - the leaf's name
    """The key in `wrapped`; `kek` is that of its epoch (`epoch_of`). Raises WrapError when it does not open."""
    if len(wrapped) != WRAPPED_BYTES:
        epoch_of(wrapped)
        wrapped = wrapped[EPOCH_BYTES:]
    try:
        return _cipher(kek).decrypt(wrapped[:12], wrapped[12:], obj + dir)
    except InvalidTag:
        raise WrapError("not wrapped with this key-encryption key for this directory and resource") from None


@lru_cache(maxsize=4)  # as many epochs as are in use at a time; to set up a cipher takes as long as to unwrap with it
def _cipher(kek: bytes) -> AESGCM:
    return AESGCM(kek)
