"""Keys and sealed bodies: attributes can be read only with the key-encryption key (docs/concepts.md, "Personal data")."""

import hashlib
import hmac
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from typing import Any, Final, Literal
from uuid import UUID

import msgspec
import orjson
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.hmac import HMAC

from ledger.events import GROUP, Body, Macs
from ledger.ids import DirectoryUuid, Seq
from proofs.body import SealedBody, open_body, seal
from proofs.keys import WrapError, epoch_of, unwrap, wrap
from scim.casefolding import casefold
from scim.errors import Unavailable

USER_NAME, EXTERNAL_ID, DISPLAY_NAME, EMAIL = b"u", b"x", b"d", b"e"
MAC_SIZE: Final = 16
NONCE_SIZE, SALT_SIZE, KEY_SIZE = 12, 32, 32
_NOTE: Final = b"scim-ledger/note/v1\0"
_NOTE_OF_KIND: Final = b"scim-ledger/note/v2\0"
_NOTE_HEAD: Final = b"\xe5KEK"
NOTE_HEAD_SIZE: Final = 8
_KEYS_ROTATED: Final = (
    "The keys are being rotated, and this process has not loaded the new one yet. Send the request again in a moment."
)
_LEARNT_S: Final = 5
# The domains of MACs that ledgers had before keys had epochs: their keys are derived from the KEK of epoch 1, and stored.
TOKEN_SEAL: Final = b"scim-ledger/token-seal/v1\0"
CLIENT_SEAL: Final = b"scim-ledger/client-seal/v1\0"
ACCESS_SEAL: Final = b"scim-ledger/access-token-seal/v1\0"
BACKUP_SEAL: Final = b"scim-ledger/backup/v1\0"
REFUSAL_MARK: Final = b"scim-ledger/journal-reason/v1\0"
DOMAINS: Final = (TOKEN_SEAL, CLIENT_SEAL, ACCESS_SEAL, BACKUP_SEAL, REFUSAL_MARK)
BASE: Final = b"scim-ledger/base/v1\0"  # the key from which those of all other domains are derived
_CURSOR: Final = b"scim-ledger/cursor/v1\0"
CURSOR_MARK_SIZE: Final = 8


class UnknownEpochError(Unavailable):
    """A key or note was sealed in the epoch that follows the newest one of this process, which learns of it in a moment."""


class Kek:
    """The key-encryption keys (KEKs), one for each epoch that is not destroyed. Whoever holds it sees a rotation at once.

    `current`: the epoch with which new keys and notes are sealed. `domains`: keys of MACs by domain. They outlive the epoch in which
    they were made, because a seal in an event can never be made anew.
    """

    __slots__ = ("_domains", "_keys", "current")

    def __init__(self, keys: Mapping[int, bytes], current: int, domains: Mapping[bytes, bytes]) -> None:
        self._keys, self.current, self._domains = dict(keys), current, dict(domains)

    @classmethod
    def of(cls, key: bytes) -> "Kek":
        """That of a ledger in its first epoch."""
        return cls({1: key}, 1, {})

    @property
    def epochs(self) -> list[int]:
        """The epochs whose KEK is at hand, in order."""
        return sorted(self._keys)

    @property
    def id(self) -> bytes:
        """The id of the current KEK."""
        return key_id(self._keys[self.current])

    def key(self, epoch: int) -> bytes:
        """The KEK of an epoch. Raises WrapError if it is destroyed, and UnknownEpochError if this process has yet to learn of it."""
        key = self._keys.get(epoch)
        if key is None:
            if epoch == max(self._keys) + 1:
                raise UnknownEpochError(_KEYS_ROTATED, retry_after=_LEARNT_S)
            raise WrapError(f"sealed in key epoch {epoch}, which is destroyed")
        return key

    def learn(self, epoch: int, key: bytes) -> None:
        """Take in the KEK of an epoch."""
        self._keys[epoch] = key

    def forget(self, epoch: int) -> None:
        """Drop the KEK of a destroyed epoch."""
        self._keys.pop(epoch, None)

    def mac(self, domain: bytes, content: bytes) -> bytes:
        """HMAC-SHA256 of `content` with the key of `domain`, which is the same in all epochs."""
        return hmac.digest(self._domain_key(domain), content, "sha256")

    def first_domain_keys(self) -> dict[bytes, bytes]:
        """The keys of MACs that are derived from the KEK of epoch 1, to be stored before that epoch can be destroyed."""
        return {domain: hmac.digest(self.key(1), domain, "sha256") for domain in DOMAINS}

    def _domain_key(self, domain: bytes) -> bytes:
        known = self._domains.get(domain)
        if known is None:
            known = self._domains[domain] = hmac.digest(self._domains.get(BASE) or self.key(1), domain, "sha256")
        return known


def key_id(key: bytes) -> bytes:
    """The id of a KEK. It can be stored in the clear, and shows whether a key is the right one."""
    return hashlib.sha256(b"scim-ledger/kek-id/v1\0" + key).digest()[:8]


def key_in(text: str) -> bytes:
    """A key as it stands in a file: 64 hexadecimal digits. Raises ValueError."""
    key = bytes.fromhex(text.strip())
    if len(key) != KEY_SIZE:
        raise ValueError("a key has 32 bytes")
    return key


def wrap_key(kek: Kek, key: bytes, *, directory: DirectoryUuid, obj: UUID, nonce: bytes) -> bytes:
    """Wrap a resource's key (or a directory's index key, obj = the directory) for storage, in the current epoch."""
    epoch = kek.current
    return wrap(kek.key(epoch), key, dir=directory.bytes, obj=obj.bytes, nonce=nonce, epoch=epoch)


def unwrap_key(kek: Kek, wrapped: bytes, *, directory: DirectoryUuid, obj: UUID) -> bytes:
    """Unwrap a key. Raises proofs.keys.WrapError if the KEK, the directory or the resource is not the one it was wrapped for."""
    return unwrap(kek.key(epoch_of(wrapped)), wrapped, dir=directory.bytes, obj=obj.bytes)


NoteKind = Literal[
    "secret", "answer", "reply", "refusal", "filter", "url", "parked", "skipped", "sought", "replay_name", "replay_reason", "fork",
    "use", "matter", "erasure",
]  # fmt: skip


def seal_note(kek: Kek, text: str, *, kind: NoteKind, owner: UUID, random: Callable[[int], bytes]) -> bytes:
    """Seal a short text outside the log. Kind and owner are authenticated, so a sealed text cannot be moved to another row.

    secret: signs a consumer's webhooks. url: of a webhook. answer: of a receiver. parked, skipped, sought, fork: an operator's reason
    for parking or skipping a delivery, moving a consumer, closing a fork. replay_name, replay_reason: of a replay. reply: an answer
    kept for an Idempotency-Key. refusal, filter: of a request in the journal. use: where a token was used last. matter: of a legal hold.
    erasure: the reason of one.
    """
    epoch, nonce = kek.current, random(NONCE_SIZE)
    sealed = nonce + AESGCM(kek.key(epoch)).encrypt(nonce, text.encode("utf-8", "surrogatepass"), _place(kind, owner))
    return note_head(epoch) + sealed


def open_note(kek: Kek, sealed: bytes, *, kind: NoteKind, owner: UUID) -> str:
    """Open a sealed text. Raises proofs.keys.WrapError if KEK, kind or owner is not the one it was sealed for."""
    place = _place(kind, owner)
    opened = _opened(kek, sealed, place)
    if opened is None:
        raise WrapError("not sealed with this key-encryption key as this kind of note for this owner")
    return opened.decode("utf-8", "surrogatepass")


def _opened(kek: Kek, sealed: bytes, place: bytes) -> bytes | None:
    """The content of a note, or None. A note of epoch 1 has no head, so what begins like one is tried as that too."""
    if sealed.startswith(_NOTE_HEAD):
        opened = _decrypted(kek.key(int.from_bytes(sealed[4:NOTE_HEAD_SIZE], "big")), sealed[NOTE_HEAD_SIZE:], place)
        return _decrypted(kek.key(1), sealed, place) if opened is None and 1 in kek.epochs else opened
    return _decrypted(kek.key(1), sealed, place)


def _decrypted(key: bytes, sealed: bytes, place: bytes) -> bytes | None:
    try:
        return AESGCM(key).decrypt(sealed[:NONCE_SIZE], sealed[NONCE_SIZE:], place)
    except (InvalidTag, ValueError):
        return None


def note_head(epoch: int) -> bytes:
    """What the notes of an epoch begin with: nothing in epoch 1, else 8 bytes, the last four its number."""
    return b"" if epoch == 1 else _NOTE_HEAD + epoch.to_bytes(4, "big")


def open_optional(kek: Kek, sealed: bytes | None, *, kind: NoteKind, owner: UUID) -> str | None:
    """Open a sealed text, or return None for None. Raises proofs.keys.WrapError."""
    return None if sealed is None else open_note(kek, sealed, kind=kind, owner=owner)


def _place(kind: NoteKind, owner: UUID) -> bytes:
    """The associated data of a note. Secrets keep the older form without a kind, because stored ones were sealed with it."""
    return _NOTE + owner.bytes if kind == "secret" else _NOTE_OF_KIND + kind.encode() + b"\0" + owner.bytes


def cursor_key(index_key: bytes) -> bytes:
    """The key of cursor marks, derived from the index key of `_system`; so it needs no storage of its own."""
    return hmac.digest(index_key, _CURSOR, "sha256")


def cursor_mark(key: bytes, leaf_hash: bytes) -> bytes:
    """The mark of a cursor: shows whether the same event is still there, and reveals nothing about the event."""
    return hmac.digest(key, leaf_hash, "sha256")[:CURSOR_MARK_SIZE]


def payload_of(body: Body) -> bytes:
    """Encode a body."""
    shown = {"object": body.object, "changes": body.changes}
    if body.user:
        shown["user"] = body.user
    return orjson.dumps({"data": shown, "key": body.key})


class _Payload(msgspec.Struct):
    """What `payload_of` makes; `data` stays bytes."""

    data: msgspec.Raw


_PAYLOADS: Final = msgspec.json.Decoder(_Payload)


def data_of(payload: bytes) -> bytes:
    """The bytes of `data` in an opened payload, as they were stored: the feed sends them on without making objects of them."""
    return bytes(_PAYLOADS.decode(payload).data)


def seal_body(
    key: bytes, body: Body, *, directory: DirectoryUuid, obj: UUID, seq: Seq, random: Callable[[int], bytes]
) -> SealedBody:
    """Seal a body for its place in the log; `random` gives salt and nonce."""
    entropy = random(SALT_SIZE + NONCE_SIZE)
    return seal(
        key, payload_of(body), dir=directory.bytes, obj=obj.bytes, seq=seq, salt=entropy[:SALT_SIZE], nonce=entropy[SALT_SIZE:]
    )


def open_payload(
    key: bytes, ct: bytes, *, directory: DirectoryUuid, obj: UUID, seq: Seq, payload_max: int | None = None
) -> bytes:
    """Open a sealed body and return its payload JSON. Raises proofs.body.BodyError if it was moved or changed.

    Raises its subclass PayloadTooLargeError if the payload has `payload_max` bytes or more.
    """
    return open_body(key, ct, dir=directory.bytes, obj=obj.bytes, seq=seq, payload_max=payload_max).payload


def mac(index_key: bytes, kind: bytes, value: str) -> bytes:
    """The HMAC of a casefolded value. `kind` is part of it, so equal values of different attributes give different HMACs."""
    started = _keyed(index_key).copy()
    started.update(kind + b"\0" + value.encode())
    return started.finalize()[:MAC_SIZE]


@lru_cache(maxsize=256)
def _keyed(index_key: bytes) -> HMAC:
    """An HMAC-SHA256 that has taken in the key, to be copied: a third of the time of one that begins anew for each value."""
    return HMAC(index_key, SHA256())


def index_macs(index_key: bytes, ot: str, key: str, document: dict[str, Any]) -> Macs:
    """The HMACs of a resource, from its casefolded key and its document. Both the write path and rebuild call it."""
    external = document.get("externalId")
    external_mac = mac(index_key, EXTERNAL_ID, external) if isinstance(external, str) else None
    if ot == GROUP:
        return Macs(mac(index_key, DISPLAY_NAME, key), external_mac)
    display = document.get("displayName")
    return Macs(
        name=mac(index_key, USER_NAME, key),
        external_id=external_mac,
        display_name=mac(index_key, DISPLAY_NAME, casefold(display)) if isinstance(display, str) else None,
        emails=tuple(mac(index_key, EMAIL, casefold(value)) for value in _email_values(document.get("emails"))),
    )


def _email_values(emails: Any) -> Iterable[str]:
    if not isinstance(emails, list):
        return ()
    found = (item.get("value") for item in emails if isinstance(item, dict))  # pyright: ignore[reportUnknownMemberType]
    return dict.fromkeys(value for value in found if isinstance(value, str))
