"""The sealed body: an event's attributes, encrypted for one resource and committed to in the event's leaf.

    plaintext   salt 32 bytes || flag 1 byte || payload || zero padding
    stored      0x01 || nonce 12 bytes || AES-256-GCM(plaintext) || tag 16 bytes
    data authenticated with it   directory 16 bytes || resource 16 bytes || seq 8 bytes big-endian

The payload is JSON, raw (flag 0) or raw deflate (flag 1). Both end themselves, JSON at its last `}` and deflate in its
final block, so no length is stored. The plaintext is as long as `padded` says, which hides the length of the payload;
so is the stored body, which is 29 bytes longer.

The commitment in the leaf is over the plaintext, so a disclosed plaintext proves itself without its key, and the salt
keeps anyone from guessing at an undisclosed or erased one.
"""

import hashlib
import struct
import zlib
from typing import NamedTuple

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

VERSION = 0x01
RAW, DEFLATE = 0x00, 0x01
PLAINTEXT_BYTES_MIN = 256
DEFLATE_ABOVE_BYTES = 1024  # below, deflate costs more time than the padding leaves it to save
PAYLOAD_BYTES_MAX = (
    64 * 1024 * 1024
)  # what a deflated body may open to: twice the largest resource accepted; longer ones stay raw

_DOMAIN = b"scim-ledger/body/v1\x00"
_HEAD = 33  # salt and flag
_SEAL = 29  # version, nonce and tag
_seq_bytes = struct.Struct(">Q").pack
_new_hash = hashlib.sha256


class BodyError(ValueError):
    """The stored bytes are not a body, or not the one sealed with this key for this directory, resource and seq."""


class PayloadTooLargeError(BodyError):
    """The payload is larger than the caller allows. The part that was opened is sound."""


class SealedBody(NamedTuple):
    """A body ready to be stored: its bytes, and the two values that its leaf carries (there in lower-case hex)."""

    ct: bytes
    cmt: bytes
    ct_hash: bytes


class Opened(NamedTuple):
    """A body in the clear; `plaintext` is what the commitment is over, `payload` the JSON in it."""

    salt: bytes
    flag: int
    payload: bytes
    plaintext: bytes


def padded(size: int) -> int:
    """The length in bytes to which a plaintext (salt, flag and payload together) of `size` bytes is padded.

    Padmé: only as many leading bits of the length as the length of its exponent stay, so that a length tells
    O(log log size) bits and costs at most 12 %. At least 256, all counted.
    Source: Nikitin et al., Reducing Metadata Leakage from Encrypted Files and Communication with PURBs, section 4.
    """
    if size <= PLAINTEXT_BYTES_MIN:
        return PLAINTEXT_BYTES_MIN
    exponent = size.bit_length() - 1
    mask = (1 << exponent - exponent.bit_length()) - 1
    return size + mask & ~mask


def commitment(salt: bytes, flag: int, payload_and_padding: bytes) -> bytes:
    """SHA-256 over the domain, the salt, the flag, and the payload with its padding: `cmt` of the leaf, 32 bytes."""
    return commitment_of(salt + bytes((flag,)) + payload_and_padding)


def commitment_of(plaintext: bytes) -> bytes:
    """The commitment to a whole plaintext, as opened or disclosed."""
    return _new_hash(_DOMAIN + plaintext).digest()


def seal(key: bytes, payload: bytes, *, dir: bytes, obj: bytes, seq: int, salt: bytes, nonce: bytes) -> SealedBody:  # noqa: A002 - the leaf's name
    """Seal `payload` (a JSON object) under the 32-byte `key` of its resource.

    `salt` (32 bytes) and `nonce` (12 bytes) are fresh random bytes; a nonce must never return under one key.
    Raises ValueError for a value of the wrong length.
    """
    if len(salt) != 32 or len(nonce) != 12 or len(dir) != 16 or len(obj) != 16:
        raise ValueError("salt, nonce, dir and obj are 32, 12, 16 and 16 bytes long")
    flag = b"\x00"
    if DEFLATE_ABOVE_BYTES < len(payload) < PAYLOAD_BYTES_MAX:
        flag, payload = _smaller(payload)
    plaintext = (salt + flag + payload).ljust(padded(_HEAD + len(payload)), b"\x00")
    ct = b"\x01" + nonce + AESGCM(key).encrypt(nonce, plaintext, dir + obj + _seq_bytes(seq))
    return SealedBody(ct, _new_hash(_DOMAIN + plaintext).digest(), _new_hash(ct).digest())


def open_body(
    key: bytes,
    ct: bytes,
    *,
    dir: bytes,  # noqa: A002 - the leaf's name
    obj: bytes,
    seq: int,
    payload_max: int | None = None,
) -> Opened:
    """Open what `seal` stored. Raises BodyError when anything differs from what was sealed.

    Raises PayloadTooLargeError for a payload of `payload_max` bytes (from 1) or more, before it is inflated any further: a
    few bytes of ciphertext can hold a thousand times as much.
    """
    if len(ct) < _SEAL + PLAINTEXT_BYTES_MIN or ct[0] != VERSION:
        raise BodyError("not a body of version 1")
    try:
        plaintext = AESGCM(key).decrypt(ct[1:13], ct[13:], dir + obj + _seq_bytes(seq))
    except InvalidTag:
        raise BodyError("the key, directory, resource, seq or the bytes are not those that were sealed") from None
    return opened(plaintext, payload_max=payload_max)


def opened(plaintext: bytes, *, payload_max: int | None = None) -> Opened:
    """Take a plaintext apart, as opened or as disclosed. Raises BodyError when it is not formed as `seal` forms it."""
    if len(plaintext) < PLAINTEXT_BYTES_MIN:
        raise BodyError("shorter than any body")
    flag = plaintext[32]
    if flag == RAW:
        payload = plaintext[_HEAD:].rstrip(b"\x00")
        stored = len(payload)
        if payload_max is not None and stored >= payload_max:
            raise PayloadTooLargeError(f"the payload has {payload_max} bytes or more")
    elif flag == DEFLATE:
        payload, stored = _inflated(plaintext, payload_max or PAYLOAD_BYTES_MAX)
    else:
        raise BodyError(f"unknown flag {flag}")
    if len(plaintext) != padded(_HEAD + stored):
        raise BodyError("not padded as a body is")
    return Opened(plaintext[:32], flag, payload, plaintext)


def _smaller(payload: bytes) -> tuple[bytes, bytes]:
    deflate = zlib.compressobj(level=1, wbits=-15)
    deflated = deflate.compress(payload) + deflate.flush()
    return (b"\x01", deflated) if len(deflated) < len(payload) else (b"\x00", payload)


def _inflated(plaintext: bytes, payload_max: int) -> tuple[bytes, int]:
    """The payload and how many bytes its deflate stream took."""
    inflate = zlib.decompressobj(wbits=-15)
    try:
        payload = inflate.decompress(plaintext[_HEAD:], payload_max)
    except zlib.error as error:
        raise BodyError("the deflate stream is damaged") from error
    if len(payload) >= payload_max:
        raise PayloadTooLargeError(f"the payload has {payload_max} bytes or more")
    if not inflate.eof or inflate.unused_data.strip(b"\x00"):
        raise BodyError("the deflate stream does not end before the padding")
    return payload, len(plaintext) - _HEAD - len(inflate.unused_data)
