"""Keys and sealed bodies: attributes can be read only with the key-encryption key (docs/concepts.md, "Personal data")."""

import hashlib
import hmac
from collections.abc import Callable, Iterable
from dataclasses import dataclass
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
from proofs.keys import WrapError, unwrap, wrap
from scim.casefolding import casefold

USER_NAME, EXTERNAL_ID, DISPLAY_NAME, EMAIL = b"u", b"x", b"d", b"e"
MAC_SIZE: Final = 16
NONCE_SIZE, SALT_SIZE, KEY_SIZE = 12, 32, 32
_NOTE: Final = b"scim-ledger/note/v1\0"
_NOTE_OF_KIND: Final = b"scim-ledger/note/v2\0"
_CURSOR: Final = b"scim-ledger/cursor/v1\0"
CURSOR_MARK_SIZE: Final = 8


@dataclass(frozen=True, slots=True)
class Kek:
    """The key-encryption key. `id` can be stored in the clear; it shows at start whether the key file is the right one."""

    key: bytes
    id: bytes

    @classmethod
    def of(cls, key: bytes) -> "Kek":
        return cls(key, hashlib.sha256(b"scim-ledger/kek-id/v1\0" + key).digest()[:8])

    def mac(self, domain: bytes, content: bytes) -> bytes:
        """HMAC-SHA256 of `content` with a key derived from the KEK for `domain`."""
        return hmac.digest(hmac.digest(self.key, domain, "sha256"), content, "sha256")

    @classmethod
    def read(cls, text: str) -> "Kek":
        """Read the content of a key file: 64 hexadecimal digits. Raises ValueError."""
        key = bytes.fromhex(text.strip())
        if len(key) != KEY_SIZE:
            raise ValueError("a key has 32 bytes")
        return cls.of(key)


def wrap_key(kek: Kek, key: bytes, *, directory: DirectoryUuid, obj: UUID, nonce: bytes) -> bytes:
    """Wrap a resource's key (or a directory's index key, obj = the directory) for storage."""
    return wrap(kek.key, key, dir=directory.bytes, obj=obj.bytes, nonce=nonce)


def unwrap_key(kek: Kek, wrapped: bytes, *, directory: DirectoryUuid, obj: UUID) -> bytes:
    """Unwrap a key. Raises proofs.keys.WrapError if the KEK, the directory or the resource is not the one it was wrapped for."""
    return unwrap(kek.key, wrapped, dir=directory.bytes, obj=obj.bytes)


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
    nonce = random(NONCE_SIZE)
    return nonce + AESGCM(kek.key).encrypt(nonce, text.encode("utf-8", "surrogatepass"), _place(kind, owner))


def open_note(kek: Kek, sealed: bytes, *, kind: NoteKind, owner: UUID) -> str:
    """Open a sealed text. Raises proofs.keys.WrapError if KEK, kind or owner is not the one it was sealed for."""
    try:
        opened = AESGCM(kek.key).decrypt(sealed[:NONCE_SIZE], sealed[NONCE_SIZE:], _place(kind, owner))
    except (InvalidTag, ValueError):
        raise WrapError("not sealed with this key-encryption key as this kind of note for this owner") from None
    return opened.decode("utf-8", "surrogatepass")


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
