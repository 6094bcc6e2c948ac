"""Root keys in a PKCS#11 token (a hardware security module, SoftHSM2). They never leave it. Needs the extra `pkcs11`.

The setting is a URI of RFC 7512: `pkcs11:token=LABEL;object=NAME?module-path=/usr/lib/….so&pin-source=file:/path`. Each root key is an
AES-256 secret key with that label, not extractable; its CKA_ID is its number in decimal digits.
"""

import secrets
from collections.abc import Collection, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote

from ledger.root_keys.provider import RootKeyError, RootKeyLostError
from ledger.sealing import NONCE_SIZE

_URI_FORM: Final = "pkcs11:token=LABEL;object=NAME?module-path=/PATH/TO/MODULE.so&pin-source=file:/PATH/TO/PIN"
_PARTS: Final = {"token", "object", "module-path", "pin-source"}


class TokenKeys:
    """The root keys with one label in one token."""

    kind = "pkcs11"

    def __init__(self, token: str, label: str, module: Path, pin: Path) -> None:
        self._token, self._label, self._module, self._pin = token, label, module, pin

    @classmethod
    def read(cls, uri: str) -> "TokenKeys":
        """Read the setting. Raises RootKeyError."""
        path, _, query = uri.removeprefix("pkcs11:").partition("?")
        words = [word.partition("=") for word in (*path.split(";"), *query.split("&")) if word]
        found = {name: unquote(value) for name, _, value in words}
        if set(found) != _PARTS or not found["pin-source"].startswith("file:"):
            raise RootKeyError(f"LEDGER_ROOT_KEY has the form {_URI_FORM}. A PIN itself is refused there: settings are shown.")
        return cls(found["token"], found["object"], Path(found["module-path"]), Path(found["pin-source"].removeprefix("file:")))

    def create(self, used: Collection[str]) -> str:
        import pkcs11

        wanted = pkcs11.Attribute
        template = {wanted.SENSITIVE: True, wanted.EXTRACTABLE: False, wanted.ENCRYPT: True, wanted.DECRYPT: True}
        with self._session(writes=True) as session:
            found = session.get_objects({wanted.LABEL: self._label, wanted.CLASS: pkcs11.ObjectClass.SECRET_KEY})
            there = [int(key.id) for key in found if bytes(key.id).isdigit()]
            name = str(max([0, *there, *map(int, used)]) + 1)
            session.generate_key(pkcs11.KeyType.AES, 256, id=name.encode(), label=self._label, store=True, template=template)
        return name

    def wrap(self, name: str, key: bytes, place: bytes) -> bytes:
        import pkcs11

        nonce = secrets.token_bytes(NONCE_SIZE)
        with self._session() as session:
            root = self._key(session, name)
            sealed = root.encrypt(key, mechanism=pkcs11.Mechanism.AES_GCM, mechanism_param=pkcs11.GCMParams(nonce, place, 128))
        return nonce + bytes(sealed)

    def unwrap(self, name: str, wrapped: bytes, place: bytes) -> bytes:
        import pkcs11

        with self._session() as session:
            root, param = self._key(session, name), pkcs11.GCMParams(wrapped[:NONCE_SIZE], place, 128)
            try:
                opened = root.decrypt(wrapped[NONCE_SIZE:], mechanism=pkcs11.Mechanism.AES_GCM, mechanism_param=param)
            except (
                pkcs11.PKCS11Error
            ) as refused:  # a wrong tag has no code of its own: modules answer CKR_GENERAL_ERROR and others
                raise RootKeyLostError(
                    f"Root key {self._label} {name} of token {self._token} is another one than this ledger was sealed with "
                    f"({type(refused).__name__})."
                ) from refused
        return bytes(opened)

    def destroy(self, name: str) -> str | None:
        with self._session(writes=True) as session:
            try:
                self._key(session, name).destroy()
            except RootKeyLostError:
                return None
        return f"Root key {self._label} {name} is destroyed in token {self._token}. Destroy it in every clone and backup of the token too."

    def _key(self, session: Any, name: str) -> Any:
        import pkcs11

        try:
            return session.get_key(object_class=pkcs11.ObjectClass.SECRET_KEY, label=self._label, id=name.encode())
        except pkcs11.NoSuchKey:
            raise RootKeyLostError(f"Token {self._token} has no root key {self._label} with id {name}.") from None

    @contextmanager
    def _session(self, *, writes: bool = False) -> Generator[Any]:
        """A session of the token's user. Raises RootKeyError where it cannot be had."""
        try:
            import pkcs11
        except ImportError:
            raise RootKeyError("LEDGER_ROOT_KEY=pkcs11:… needs the extra: pip install 'scim-ledger[pkcs11]'.") from None
        try:
            pin = self._pin.read_text(encoding="ascii").strip()
        except (OSError, ValueError) as unreadable:
            raise RootKeyError(f"The PIN of token {self._token} cannot be read from {self._pin} ({unreadable}).") from unreadable
        try:
            with pkcs11.lib(str(self._module)).get_token(token_label=self._token).open(rw=writes, user_pin=pin) as session:
                yield session
        except pkcs11.PKCS11Error as refused:
            raise RootKeyError(f"Token {self._token} cannot be used through {self._module}: {_why(refused)}.") from refused


def _why(refused: Exception) -> str:
    """The name of the error is that of its CKR code; few have a text."""
    return f"{type(refused).__name__} {refused}".strip()
