"""Root keys in AWS KMS: each is a KMS key, named by its ARN. Needs the extra `kms`.

`aws-kms:ARN` names the first one; a rotation makes another one in its account and region. AWS destroys a key seven days after it is
asked to, at the earliest; until then somebody with the right to cancel that can open old backups.
Credentials and endpoint come from where AWS tools read them (AWS_PROFILE, AWS_ENDPOINT_URL, the role of the instance).
"""

from collections.abc import Collection
from typing import Any, Final

from database.deadlines import ROOT_KEY
from ledger.root_keys.provider import RootKeyError, RootKeyLostError

_LOST: Final = frozenset(
    {"NotFoundException", "KMSInvalidStateException", "DisabledException", "InvalidCiphertextException", "IncorrectKeyException"}
)
_NOT_HERE: Final = (
    "decrypt",
    "AccessDeniedException",
)  # AWS says so too if the key does not exist, so that nobody learns which do
_PENDING_DAYS: Final = 7  # AWS permits no fewer


class KmsKeys:
    """KMS keys of one account and region."""

    kind = "aws-kms"

    def __init__(self, arn: str) -> None:
        parts = arn.split(":")
        if len(parts) != 6 or parts[2] != "kms" or not parts[5].startswith("key/"):
            raise RootKeyError(
                "LEDGER_ROOT_KEY has the form aws-kms:arn:aws:kms:REGION:ACCOUNT:key/ID: aliases may move to other keys."
            )
        self._first, self._region = arn, parts[3]

    def create(self, used: Collection[str]) -> str:
        if self._first not in used:
            return self._first
        made = self._call("create_key", Description="Root key of scim-ledger", KeySpec="SYMMETRIC_DEFAULT")
        return str(made["KeyMetadata"]["Arn"])

    def wrap(self, name: str, key: bytes, place: bytes) -> bytes:
        return bytes(self._call("encrypt", KeyId=name, Plaintext=key, EncryptionContext=_context(place))["CiphertextBlob"])

    def unwrap(self, name: str, wrapped: bytes, place: bytes) -> bytes:
        return bytes(self._call("decrypt", KeyId=name, CiphertextBlob=wrapped, EncryptionContext=_context(place))["Plaintext"])

    def destroy(self, name: str) -> str | None:
        state = self._call("describe_key", KeyId=name)["KeyMetadata"]
        if state["KeyState"] != "PendingDeletion":
            state = self._call("schedule_key_deletion", KeyId=name.rpartition("/")[2], PendingWindowInDays=_PENDING_DAYS)
        return (
            f"{name} opens nothing from now on, and AWS destroys it for ever on {state['DeletionDate']:%Y-%m-%d}; until then somebody with "
            "kms:CancelKeyDeletion can bring it back."
        )

    def _call(self, operation: str, **arguments: Any) -> Any:
        """Ask KMS. Raises RootKeyError, which says which right or which key is missing."""
        try:
            import boto3
            from botocore.config import Config
            from botocore.exceptions import BotoCoreError, ClientError
        except ImportError:
            raise RootKeyError("LEDGER_ROOT_KEY=aws-kms:… needs the extra: pip install 'scim-ledger[kms]'.") from None
        wait = ROOT_KEY.seconds / 4
        config = Config(connect_timeout=wait, read_timeout=wait, retries={"total_max_attempts": 2})
        try:
            client: Any = boto3.client("kms", region_name=self._region, config=config)  # pyright: ignore[reportUnknownMemberType]
            return getattr(client, operation)(**arguments)
        except ClientError as refused:
            code = str(refused.response.get("Error", {}).get("Code"))
            lost = code in _LOST or (operation, code) == _NOT_HERE
            kind = RootKeyLostError if lost else RootKeyError
            raise kind(
                f"AWS KMS refuses {operation} of {arguments.get('KeyId', 'a new key')}: {code}. {_advice(code)}"
            ) from refused
        except BotoCoreError as away:
            raise RootKeyError(
                f"AWS KMS in {self._region} cannot be asked ({type(away).__name__}). Check credentials and network."
            ) from away


def _context(place: bytes) -> dict[str, str]:
    return {"scim-ledger": place.hex()}


def _advice(code: str) -> str:
    if code in _LOST:
        return "Is it the right key, and is it enabled? A key that waits for its deletion can be brought back with `aws kms cancel-key-deletion`."
    return "The service needs kms:Encrypt, kms:Decrypt, kms:DescribeKey; `key rotate` kms:CreateKey, `key destroy` kms:ScheduleKeyDeletion."
