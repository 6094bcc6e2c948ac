"""The providers of root keys that LEDGER_ROOT_KEY names."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from ledger.root_keys.aws_kms import KmsKeys
from ledger.root_keys.local import EnvironmentKeys, FileKeys
from ledger.root_keys.pkcs11_token import TokenKeys
from ledger.root_keys.provider import RootKeyError, RootKeys
from ledger.root_keys.vault_transit import TransitKeys

_FORMS: Final = "file:PATH, env:NAME, pkcs11:URI, aws-kms:ARN or vault:MOUNT/NAME"


def root_keys(setting: str, environment: Mapping[str, str]) -> Sequence[RootKeys]:
    """The providers of a setting: the first makes new root keys, further ones (after a space) open those of earlier epochs.

    Raises RootKeyError for a setting that names none.
    """
    providers = [_provider(word, environment) for word in setting.split()]
    if not providers or len({provider.kind for provider in providers}) < len(providers):
        raise RootKeyError(f"LEDGER_ROOT_KEY names one provider, or several of different kinds with spaces between: {_FORMS}.")
    return providers


def _provider(word: str, environment: Mapping[str, str]) -> RootKeys:
    kind, _, rest = word.partition(":")
    match kind, rest:
        case "file", str(path) if path:
            return FileKeys(Path(path))
        case "env", str(name) if name:
            return EnvironmentKeys(name, environment)
        case "pkcs11", str(path) if path:
            return TokenKeys.read(word)
        case "aws-kms", str(arn) if arn:
            return KmsKeys(arn)
        case "vault", str(path) if path:
            return TransitKeys(path, environment)
        case _:
            raise RootKeyError(f"LEDGER_ROOT_KEY does not name a root key; it has the form {_FORMS}.")
