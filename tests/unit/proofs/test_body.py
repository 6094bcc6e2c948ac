import hashlib
import math
import os
import zlib

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import example, given
from hypothesis import strategies as st

from proofs import body as module
from proofs.body import BodyError, PayloadTooLargeError, commitment, commitment_of, open_body, opened, padded, seal

KEY, SALT, NONCE = bytes(range(32)), bytes(range(100, 132)), bytes(range(12))
PLACE = {"dir": bytes(range(16)), "obj": bytes(range(16, 32)), "seq": 97}


def sealed(payload):
    return seal(KEY, payload, **PLACE, salt=SALT, nonce=NONCE)


def padme(size):
    """Padmé as the paper defines it."""
    exponent = math.floor(math.log2(size))
    bits = math.floor(math.log2(exponent)) + 1
    mask = 2 ** (exponent - bits) - 1
    return (size + mask) & ~mask


def stored(plaintext):
    aad = PLACE["dir"] + PLACE["obj"] + PLACE["seq"].to_bytes(8, "big")
    return b"\x01" + NONCE + AESGCM(KEY).encrypt(NONCE, plaintext, aad)


@given(st.integers(257, 2**40))
def test_padding_is_padme(size):
    assert padded(size) == padme(size) >= size
    assert padded(padded(size)) == padded(size)
    assert padded(size) <= size * 1.12


@pytest.mark.parametrize(("size", "length"), [(0, 256), (33, 256), (256, 256), (257, 272), (1000, 1024), (1025, 1088)])
def test_a_plaintext_is_at_least_256_bytes_in_all(size, length):
    assert padded(size) == length


@given(st.text().map(lambda text: b"{" + text.encode() + b"}"))
@example(b"{" + b"a" * 5000 + b"}")
@example(b"{" + os.urandom(2000) + b"}")
def test_what_is_sealed_is_opened(payload):
    body = sealed(payload)
    result = open_body(KEY, body.ct, **PLACE)
    assert (result.salt, result.payload) == (SALT, payload)
    assert body.cmt == commitment_of(result.plaintext) == commitment(SALT, result.flag, result.plaintext[33:])
    assert body.ct_hash == hashlib.sha256(body.ct).digest()
    assert len(body.ct) == len(result.plaintext) + 29


def test_the_commitment_is_a_hash_of_its_prefix_and_the_plaintext():
    assert commitment(SALT, 1, b"rest") == hashlib.sha256(b"scim-ledger/body/v1\0" + SALT + b"\x01rest").digest()


@pytest.mark.parametrize(
    ("payload", "flag"),
    [(b"{" + b"a" * 1022 + b"}", 0), (b"{" + b"a" * 1023 + b"}", 1), (b"{" + os.urandom(3000) + b"}", 0)],
)
def test_only_a_long_payload_that_gets_smaller_is_deflated(payload, flag):
    assert open_body(KEY, sealed(payload).ct, **PLACE).flag == flag


@pytest.mark.parametrize("other", [{"dir": bytes(16)}, {"obj": bytes(16)}, {"seq": 98}])
def test_a_body_opens_only_in_its_own_place(other):
    with pytest.raises(BodyError, match="not those that were sealed"):
        open_body(KEY, sealed(b"{}").ct, **{**PLACE, **other})


def test_a_body_opens_only_under_its_own_key_and_unchanged():
    ct = sealed(b"{}").ct
    with pytest.raises(BodyError):
        open_body(bytes(32), ct, **PLACE)
    for place in (0, 1, 13, 100, len(ct) - 1):
        with pytest.raises(BodyError):
            open_body(KEY, ct[:place] + bytes((ct[place] ^ 1,)) + ct[place + 1 :], **PLACE)


@pytest.mark.parametrize("ct", [b"", b"\x01", sealed(b"{}").ct[:-1], b"\x02" + sealed(b"{}").ct[1:]])
def test_bytes_that_are_too_short_or_of_another_version_are_refused(ct):
    with pytest.raises(BodyError, match="version 1"):
        open_body(KEY, ct, **PLACE)


DEFLATED = zlib.compress(b"{" + b"a" * 2000 + b"}", wbits=-15)


@pytest.mark.parametrize(
    ("plaintext", "message"),
    [
        (SALT + b"\x02" + bytes(223), "unknown flag"),
        (SALT + b"\x00{}" + bytes(222), "not padded"),
        (SALT + b"\x00{}" + bytes(1000), "not padded"),
        (SALT + b"\x01" + b"\xff" * 223, "damaged"),
        (SALT + b"\x01" + b"\x00\x10\x27\xef\xd8" + bytes(218), "does not end"),
        (SALT + b"\x01" + DEFLATED.ljust(222, b"\x00") + b"x", "does not end"),
        (SALT + b"\x01" + DEFLATED.ljust(1000, b"\x00"), "not padded"),
    ],
)
def test_a_plaintext_that_seal_would_not_make_is_refused(plaintext, message):
    with pytest.raises(BodyError, match=message):
        open_body(KEY, stored(plaintext), **PLACE)


def test_a_disclosed_plaintext_is_checked_in_the_same_way():
    whole = open_body(KEY, sealed(b'{"a":1}').ct, **PLACE)
    assert opened(whole.plaintext) == whole
    with pytest.raises(BodyError, match="shorter"):
        opened(whole.plaintext[:255])


@pytest.mark.parametrize("payload", [b"{" + b"a" * 5000 + b"}", b"{" + os.urandom(5000).replace(b"\x00", b"0") + b"}"])
def test_not_more_than_the_limit_is_opened(payload):
    """This holds for deflated and raw bodies: one that is too large is distinguished from a damaged one, and is never inflated
    completely.
    """
    ct = sealed(payload).ct
    assert open_body(KEY, ct, **PLACE, payload_max=len(payload) + 1).payload == payload
    for allowed in (1, 100, len(payload)):
        with pytest.raises(PayloadTooLargeError):
            open_body(KEY, ct, **PLACE, payload_max=allowed)


def test_a_payload_that_could_not_be_inflated_again_is_not_deflated(monkeypatch):
    """A body is inflated only up to a limit: earlier, a larger payload was stored that nobody could read any more."""
    monkeypatch.setattr(module, "PAYLOAD_BYTES_MAX", 4096)
    for size in (4000, 4096, 4097, 10_000):
        payload = b"{" + b"a" * (size - 2) + b"}"
        assert open_body(KEY, sealed(payload).ct, **PLACE).payload == payload


@pytest.mark.parametrize("wrong", [{"salt": b""}, {"nonce": b""}, {"dir": b""}, {"obj": b""}])
def test_values_of_the_wrong_length_are_refused(wrong):
    with pytest.raises(ValueError, match="bytes long"):
        seal(KEY, b"{}", **{**PLACE, "salt": SALT, "nonce": NONCE, **wrong})
