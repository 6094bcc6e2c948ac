import pytest

from proofs.keys import WrapError, epoch_of, unwrap, wrap

KEK, KEY, NONCE = bytes(range(32)), bytes(range(50, 82)), bytes(range(12))
PLACE = {"dir": bytes(range(16)), "obj": bytes(range(16, 32))}


def test_a_wrapped_key_is_unwrapped_to_the_same_key():
    wrapped = wrap(KEK, KEY, **PLACE, nonce=NONCE)
    assert len(wrapped) == 60
    assert unwrap(KEK, wrapped, **PLACE) == KEY


@pytest.mark.parametrize("other", [{"dir": bytes(16)}, {"obj": bytes(16)}, {"dir": PLACE["obj"], "obj": PLACE["dir"]}])
def test_a_wrapped_key_can_be_unwrapped_only_for_its_own_subject(other):
    with pytest.raises(WrapError):
        unwrap(KEK, wrap(KEK, KEY, **PLACE, nonce=NONCE), **{**PLACE, **other})


def test_a_wrapped_key_needs_its_key_encryption_key_and_all_its_bytes():
    wrapped = wrap(KEK, KEY, **PLACE, nonce=NONCE)
    with pytest.raises(WrapError):
        unwrap(bytes(32), wrapped, **PLACE)
    with pytest.raises(WrapError, match="60 bytes"):
        unwrap(KEK, wrapped[:-1], **PLACE)


@pytest.mark.parametrize("wrong", [{"key": b""}, {"nonce": b""}, {"dir": b""}, {"obj": b""}])
def test_values_of_the_wrong_length_are_refused(wrong):
    with pytest.raises(ValueError, match="bytes long"):
        wrap(KEK, **{"key": KEY, **PLACE, "nonce": NONCE, **wrong})


def test_a_key_of_a_later_epoch_has_its_number_in_front():
    wrapped = wrap(KEK, KEY, **PLACE, nonce=NONCE, epoch=7)
    assert wrapped == b"\0\0\0\7" + wrap(KEK, KEY, **PLACE, nonce=NONCE)
    assert (epoch_of(wrapped), epoch_of(wrapped[4:])) == (7, 1)
    assert unwrap(KEK, wrapped, **PLACE) == KEY
    with pytest.raises(WrapError, match="64 with its epoch"):
        epoch_of(wrapped[1:])
