"""Key-encryption keys by epoch: what each opens, what a process has yet to learn, and MACs that outlive their epoch."""

import hashlib
import hmac
from uuid import UUID

import pytest

from ledger.ids import DirectoryUuid
from ledger.sealing import (
    BASE,
    DOMAINS,
    TOKEN_SEAL,
    Kek,
    UnknownEpochError,
    key_id,
    key_in,
    note_head,
    open_note,
    seal_note,
    unwrap_key,
    wrap_key,
)
from proofs.keys import WrapError

FIRST, SECOND, KEY = bytes(32), bytes(range(32)), bytes(range(50, 82))
DIRECTORY, OBJ = DirectoryUuid(UUID(int=1)), UUID(int=2)
OLD, NEW = Kek.of(FIRST), Kek({1: FIRST, 2: SECOND}, 2, {})


def wrapped(kek: Kek) -> bytes:
    return wrap_key(kek, KEY, directory=DIRECTORY, obj=OBJ, nonce=bytes(12))


def opened(kek: Kek, content: bytes) -> bytes:
    return unwrap_key(kek, content, directory=DIRECTORY, obj=OBJ)


def sealed(kek: Kek, random: bytes = bytes(12)) -> bytes:
    return seal_note(kek, "a reason", kind="parked", owner=OBJ, random=lambda _: random)


def test_keys_and_notes_of_every_epoch_are_opened_and_new_ones_are_of_the_current_one() -> None:
    assert (len(wrapped(OLD)), wrapped(NEW)[:4]) == (60, b"\0\0\0\2")
    assert opened(NEW, wrapped(OLD)) == opened(NEW, wrapped(NEW)) == KEY
    assert sealed(NEW).startswith(note_head(2))
    for note in (sealed(OLD), sealed(NEW)):
        assert open_note(NEW, note, kind="parked", owner=OBJ) == "a reason"


def test_what_the_next_epoch_sealed_is_to_be_asked_for_again_and_what_a_destroyed_one_sealed_is_damaged() -> None:
    with pytest.raises(UnknownEpochError) as later:
        opened(OLD, wrapped(NEW))
    assert later.value.retry_after == 5
    with pytest.raises(UnknownEpochError):
        open_note(OLD, sealed(NEW), kind="parked", owner=OBJ)
    late = Kek({3: KEY}, 3, {})
    for epoch in (OLD, NEW):
        with pytest.raises(WrapError, match="destroyed"):
            opened(late, wrapped(epoch))
    far = Kek({9: KEY}, 9, {})
    with pytest.raises(WrapError):
        opened(OLD, wrapped(far))


def test_a_note_of_the_first_epoch_that_begins_like_one_of_a_later_is_read_all_the_same() -> None:
    unlucky = sealed(OLD, note_head(2) + bytes(4))
    assert open_note(NEW, unlucky, kind="parked", owner=OBJ) == "a reason"
    with pytest.raises(WrapError):
        open_note(Kek({2: SECOND}, 2, {}), unlucky, kind="parked", owner=OBJ)


def test_a_note_that_is_cut_does_not_open() -> None:
    with pytest.raises(WrapError):
        open_note(NEW, sealed(NEW)[:9], kind="parked", owner=OBJ)


def test_epochs_are_learnt_and_forgotten() -> None:
    kek = Kek.of(FIRST)
    kek.learn(2, SECOND)
    assert (kek.epochs, kek.current, kek.id) == ([1, 2], 1, key_id(FIRST))
    kek.current = 2
    kek.forget(1)
    kek.forget(1)
    assert (kek.epochs, kek.id) == ([2], key_id(SECOND))


def test_macs_stay_the_same_when_the_epoch_in_which_they_were_made_is_gone() -> None:
    kept = Kek({2: SECOND}, 2, {**OLD.first_domain_keys(), BASE: KEY})
    assert set(OLD.first_domain_keys()) == set(DOMAINS)
    assert kept.mac(TOKEN_SEAL, b"x") == OLD.mac(TOKEN_SEAL, b"x") == NEW.mac(TOKEN_SEAL, b"x")
    other = hmac.digest(hmac.digest(KEY, b"other", "sha256"), b"x", hashlib.sha256)
    assert kept.mac(b"other", b"x") == kept.mac(b"other", b"x") == other


@pytest.mark.parametrize("text", ["", "ab", "zz" * 32, "ab" * 33])
def test_a_key_is_64_hexadecimal_digits(text: str) -> None:
    assert key_in(FIRST.hex() + "\n") == FIRST
    with pytest.raises(ValueError, match=r"32 bytes|hexadecimal"):
        key_in(text)
