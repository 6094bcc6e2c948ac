"""Root keys that are 32 bytes at hand: numbered lines of a key file, or of an environment variable.

A key file has one line for each root key: its number and 64 hexadecimal digits, or its number and the word `destroyed`. Key files of
releases before key epochs have 64 digits alone: key 1. In the variable the same, with commas: `1:4f…,2:a0…`.
"""

import secrets
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from ledger.private_files import write_private
from ledger.root_keys.provider import RootKeyError, RootKeyLostError
from ledger.sealing import KEY_SIZE, NONCE_SIZE, key_id, key_in

_DESTROYED: Final = "destroyed"


class FileKeys:
    """The key file; only its owner may read it."""

    kind = "file"

    def __init__(self, path: Path) -> None:
        self.path = path

    def create(self, used: Collection[str]) -> str:
        lines = self._lines() if self.path.exists() else {}
        name = str(max([0, *map(int, lines), *map(int, used)]) + 1)
        write_private(self.path, _file_text({**lines, name: secrets.token_bytes(KEY_SIZE).hex()}))
        return name

    def key(self, name: str) -> bytes:
        """Root key number `name`. Raises RootKeyError."""
        if not self.path.exists():
            raise RootKeyLostError(
                f"The key file {self.path} is missing, which opens the ledger's key-encryption key. Restore it, or point LEDGER_KEK_FILE at it. "
                "Without it nobody can read the stored attributes."
            )
        return _key(self._lines(), name, f"the key file {self.path}")

    def wrap(self, name: str, key: bytes, place: bytes) -> bytes:
        return _wrap(self.key(name), key, place)

    def unwrap(self, name: str, wrapped: bytes, place: bytes) -> bytes:
        root = self.key(name)
        said = f"has id {key_id(root).hex()} and does not open this ledger's key-encryption key. Point LEDGER_KEK_FILE at the right file."
        return _unwrap(root, wrapped, place, f"Root key {name} in the key file {self.path} {said}")

    def destroy(self, name: str) -> str | None:
        lines = self._lines()
        if lines.get(name) != _DESTROYED:
            write_private(self.path, _file_text({**lines, name: _DESTROYED}))
        return (
            f"Root key {name} is no longer in {self.path}. Remove it from every copy of that file too, on other hosts and in backups: whoever has "
            "such a copy and an old backup of the database can still open it."
        )

    def _lines(self) -> dict[str, str]:
        try:
            text = self.path.read_text(encoding="ascii")
        except (OSError, ValueError) as unreadable:
            raise RootKeyError(f"The key file {self.path} cannot be read ({unreadable}).") from unreadable
        return _parsed(text.splitlines(), " ", f"the key file {self.path}")


class EnvironmentKeys:
    """An environment variable. The service cannot change it, so a person makes and destroys its keys."""

    kind = "env"

    def __init__(self, variable: str, environment: Mapping[str, str]) -> None:
        self._variable, self._environment = variable, environment

    def create(self, used: Collection[str]) -> str:
        fresh = [name for name in sorted(self._keys(), key=int) if name not in used]
        if not fresh:
            number = max([0, *map(int, used)]) + 1
            raise RootKeyError(
                f"{self._variable} has no root key that is not in use. Add number {number} to it on every host, `{number}:` and the output of `openssl rand "
                f"-hex 32` (with a comma before it if it has others), restart the services with it, and run this command again."
            )
        return fresh[0]

    def wrap(self, name: str, key: bytes, place: bytes) -> bytes:
        return _wrap(self._key(name), key, place)

    def unwrap(self, name: str, wrapped: bytes, place: bytes) -> bytes:
        said = f"Root key {name} in {self._variable} is another one than this ledger was sealed with."
        return _unwrap(self._key(name), wrapped, place, said)

    def destroy(self, name: str) -> str | None:
        if name in self._keys():
            raise RootKeyError(
                f"{self._variable} still has root key {name}, and only you can destroy it: remove `{name}:…` from it on every host and wherever the "
                "variable comes from, and run this command again."
            )
        return f"Root key {name} is not in {self._variable} here. Make sure that no copy of it is left where the variable comes from."

    def _key(self, name: str) -> bytes:
        return _key(self._keys(), name, self._variable)

    def _keys(self) -> dict[str, str]:
        text = self._environment.get(self._variable, "")
        if not text.strip():
            raise RootKeyLostError(
                f"The environment variable {self._variable} is not set, and LEDGER_ROOT_KEY says that it has the root key. Set it."
            )
        return _parsed(text.split(","), ":", self._variable)


def _parsed(parts: Collection[str], between: str, where: str) -> dict[str, str]:
    """The keys by number, as hexadecimal digits or `destroyed`. Raises RootKeyError, which quotes nothing of them."""
    found: dict[str, str] = {}
    for part in map(str.strip, parts):
        if part:
            number, _, digits = part.partition(between) if between in part else ("1", "", part)
            if not _is_number(number) or number in found or not _is_key(digits):
                raise RootKeyError(
                    f"{where} does not hold root keys: 64 hexadecimal digits are expected, or numbered ones, `1{between}…`."
                )
            found[number] = digits.strip()
    return found


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and 0 < int(text) < 2**31 and text == str(int(text))


def _is_key(digits: str) -> bool:
    try:
        return digits.strip() == _DESTROYED or bool(key_in(digits))
    except ValueError:
        return False


def _key(keys: Mapping[str, str], name: str, where: str) -> bytes:
    digits = keys.get(name)
    if digits == _DESTROYED:
        raise RootKeyLostError(f"Root key {name} of {where} was destroyed.")
    if digits is None:
        raise RootKeyLostError(
            f"Root key {name} is not in {where}. Restore it there: on another host there may be a copy that has it."
        )
    return key_in(digits)


def _wrap(root: bytes, key: bytes, place: bytes) -> bytes:
    nonce = secrets.token_bytes(NONCE_SIZE)
    return nonce + AESGCM(root).encrypt(nonce, key, place)


def _unwrap(root: bytes, wrapped: bytes, place: bytes, otherwise: str) -> bytes:
    try:
        return AESGCM(root).decrypt(wrapped[:NONCE_SIZE], wrapped[NONCE_SIZE:], place)
    except (InvalidTag, ValueError):
        raise RootKeyLostError(otherwise) from None


def _file_text(lines: Mapping[str, str]) -> str:
    """One line for each key. A first key alone stands without its number, as releases before key epochs read it."""
    if set(lines) == {"1"} and lines["1"] != _DESTROYED:
        return f"{lines['1']}\n"
    return "".join(f"{name} {lines[name]}\n" for name in sorted(lines, key=int))
