"""Root keys in Vault's transit engine: the versions of one transit key. Needs the extra `vault`.

The setting is `vault:MOUNT/NAME`, such as `vault:transit/scim-ledger`; the key must exist, of type aes256-gcm96. Address and token come
from where the vault command reads them: VAULT_ADDR, VAULT_TOKEN, VAULT_CACERT.
"""

import base64
from collections.abc import Callable, Collection, Mapping
from functools import partial
from typing import Any, Final, TypeVar

from database.deadlines import ROOT_KEY
from ledger.root_keys.provider import RootKeyError, RootKeyLostError

T = TypeVar("T")
_PATH_FORM: Final = "LEDGER_ROOT_KEY has the form vault:MOUNT/NAME, such as vault:transit/scim-ledger."


class TransitKeys:
    """The versions of one transit key; the name of a root key is its version."""

    kind = "vault"

    def __init__(self, path: str, environment: Mapping[str, str]) -> None:
        self._mount, _, self._name = path.rpartition("/")
        if not self._mount or not self._name:
            raise RootKeyError(_PATH_FORM)
        self._environment = environment

    def create(self, used: Collection[str]) -> str:
        newest = self._newest()
        if str(newest) not in used:
            return str(newest)
        self._call(lambda transit: transit.rotate_key(self._name, mount_point=self._mount))
        return str(self._newest())

    def wrap(self, name: str, key: bytes, place: bytes) -> bytes:
        answer = self._call(
            lambda transit: transit.encrypt_data(
                self._name, plaintext=_text(key), key_version=int(name), associated_data=_text(place), mount_point=self._mount
            )
        )
        return str(answer["data"]["ciphertext"]).encode()

    def unwrap(self, name: str, wrapped: bytes, place: bytes) -> bytes:
        if not wrapped.startswith(f"vault:v{name}:".encode()):
            raise RootKeyLostError(f"Stored for version {name} of {self._name} is something else: it was changed.")
        answer = self._call(
            lambda transit: transit.decrypt_data(
                self._name, ciphertext=wrapped.decode("ascii"), associated_data=_text(place), mount_point=self._mount
            ),
            refused=RootKeyLostError,
        )
        return base64.b64decode(answer["data"]["plaintext"])

    def destroy(self, name: str) -> str | None:
        """Vault trims its oldest versions, so the epochs are destroyed from the oldest on."""
        known, next_version = self._read(), int(name) + 1
        if known["min_available_version"] < next_version:
            for bound in (
                "min_encryption_version",
                "min_decryption_version",
            ):  # one by one: hvac refuses both at the same version
                self._call(partial(self._configure, **{bound: next_version}))
            self._call(lambda transit: transit.trim_key(self._name, min_version=next_version, mount_point=self._mount))
        return (
            f"Version {name} of {self._name} is trimmed in Vault. Snapshots of Vault from before still have it: they must go too."
        )

    def _configure(self, transit: Any, **bounds: int) -> None:
        transit.update_key_configuration(self._name, mount_point=self._mount, **bounds)

    def _newest(self) -> int:
        return int(self._read()["latest_version"])

    def _read(self) -> dict[str, Any]:
        return self._call(lambda transit: transit.read_key(self._name, mount_point=self._mount))["data"]

    def _call(self, ask: Callable[[Any], T], refused: type[RootKeyError] = RootKeyError) -> T:
        """Ask Vault. Raises `refused` where it answers with an error, else RootKeyError."""
        try:
            import hvac
            import requests
            from hvac import exceptions
        except ImportError:
            raise RootKeyError("LEDGER_ROOT_KEY=vault:… needs the extra: pip install 'scim-ledger[vault]'.") from None
        address, token = self._environment.get("VAULT_ADDR"), self._environment.get("VAULT_TOKEN")
        if not address or not token:
            raise RootKeyError("LEDGER_ROOT_KEY=vault:… needs VAULT_ADDR and VAULT_TOKEN in the environment of the service.")
        client = hvac.Client(url=address, token=token, timeout=round(ROOT_KEY.seconds / 4))
        try:
            return ask(client.secrets.transit)
        except exceptions.InvalidPath as missing:
            raise RootKeyLostError(
                f"Vault has no transit key {self._name} under {self._mount}. Make it: `vault write -f {self._mount}/keys/{self._name}`."
            ) from missing
        except exceptions.InvalidRequest as wrong:
            raise refused(
                f"Vault refuses version or content for {self._name}: {'; '.join(map(str, wrong.errors or []))[:200]}."
            ) from wrong
        except exceptions.VaultError as denied:
            raise RootKeyError(
                f"Vault at {address} refuses ({type(denied).__name__}). Is it sealed, is VAULT_TOKEN valid, and has it the rights of docs/operations.md?"
            ) from denied
        except requests.RequestException as away:
            raise RootKeyError(f"Vault at {address} cannot be asked ({type(away).__name__}).") from away


def _text(content: bytes) -> str:
    return base64.b64encode(content).decode()
