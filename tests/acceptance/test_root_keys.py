"""Every provider of root keys passes one contract: a file, a variable, a real SoftHSM2, moto's AWS KMS, and Vault's transit interface."""

import os
import secrets
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest
from moto.kms.models import kms_backends
from moto.server import ThreadedMotoServer

from ledger.root_keys.aws_kms import KmsKeys
from ledger.root_keys.local import EnvironmentKeys, FileKeys
from ledger.root_keys.opening import root_keys
from ledger.root_keys.pkcs11_token import TokenKeys
from ledger.root_keys.provider import RootKeyError, RootKeyLostError, RootKeys
from ledger.root_keys.vault_transit import TransitKeys
from tests.debian import program
from tests.root_keys import KEY, PLACE, RootKeysContract
from tests.vault import TOKEN, Transit, vault

MODULE = Path("/usr/lib/softhsm/libsofthsm2.so")
PIN = "4711"


class TestFile(RootKeysContract):
    @pytest.fixture(autouse=True)
    def place(self, tmp_path: Path) -> None:
        self.path = tmp_path / "keys" / "kek"

    def make(self) -> RootKeys:
        return FileKeys(self.path)

    def away(self) -> RootKeys:
        return FileKeys(self.path.with_name("elsewhere"))

    def test_only_its_owner_can_read_it_and_a_first_key_stands_as_earlier_releases_read_it(self) -> None:
        self.make().create(())
        assert self.path.stat().st_mode & 0o777 == 0o600
        assert len(bytes.fromhex(self.path.read_text().strip())) == 32

    @pytest.mark.parametrize("text", ["", "ab" * 31, "1 x", "1 " + "ab" * 32 + "\n1 " + "cd" * 32, "0 " + "ab" * 32, "ä"])
    def test_a_file_that_holds_no_keys_is_refused_without_a_word_of_it(self, text: str) -> None:
        self.path.parent.mkdir()
        self.path.write_text(text, encoding="utf-8")
        with pytest.raises(RootKeyError) as refused:
            self.make().wrap("1", KEY, PLACE)
        assert "ab" * 31 not in str(refused.value)


class TestEnvironment(RootKeysContract):
    @pytest.fixture(autouse=True)
    def variables(self) -> None:
        self.environment = {"ROOT": ",".join(f"{number}:{secrets.token_hex(32)}" for number in (1, 2, 3))}

    def make(self) -> RootKeys:
        return EnvironmentKeys("ROOT", self.environment)

    def away(self) -> RootKeys:
        return EnvironmentKeys("ROOT", {})

    def by_hand(self, name: str) -> None:
        parts = self.environment["ROOT"].split(",")
        self.environment["ROOT"] = ",".join(part for part in parts if not part.startswith(f"{name}:"))

    def test_only_a_person_makes_and_destroys_its_keys_and_is_told_how(self) -> None:
        with pytest.raises(RootKeyError, match=r"Add number 4 to it"):
            self.make().create(["1", "2", "3"])
        with pytest.raises(RootKeyError, match="remove `1:…` from it"):
            self.make().destroy("1")

    def test_a_variable_with_one_key_alone_is_number_1(self) -> None:
        self.environment["ROOT"] = secrets.token_hex(32)
        assert self.make().create(()) == "1"


class TestToken(RootKeysContract):
    """A real token of SoftHSM2."""

    @pytest.fixture(autouse=True)
    def token(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        util = program("softhsm2-util", "softhsm2")
        (tmp_path / "tokens").mkdir()
        (tmp_path / "softhsm2.conf").write_text(
            f"directories.tokendir = {tmp_path / 'tokens'}\nobjectstore.backend = file\nlog.level = ERROR\n"
        )
        monkeypatch.setenv("SOFTHSM2_CONF", str(tmp_path / "softhsm2.conf"))
        self.label = f"ledger-{secrets.token_hex(4)}"
        command = [util, "--init-token", "--free", "--label", self.label, "--so-pin", "0000", "--pin", PIN]
        subprocess.run(command, check=True, capture_output=True)
        (tmp_path / "pin").write_text(f"{PIN}\n")
        self.uri = f"pkcs11:token={self.label};object=scim-ledger?module-path={MODULE}&pin-source=file:{tmp_path / 'pin'}"
        import pkcs11

        pkcs11.lib(str(MODULE)).reinitialize()  # the module has read the configuration of the test before

    def make(self) -> RootKeys:
        return TokenKeys.read(self.uri)

    def away(self) -> RootKeys:
        return TokenKeys.read(self.uri.replace(self.label, "gone"))

    def test_its_keys_cannot_leave_it(self) -> None:
        import pkcs11

        name = self.make().create(())
        with pkcs11.lib(str(MODULE)).get_token(token_label=self.label).open(user_pin=PIN) as session:
            key = session.get_key(label="scim-ledger", id=name.encode())
            assert key[pkcs11.Attribute.EXTRACTABLE] is False
            with pytest.raises(pkcs11.exceptions.AttributeSensitive):
                key[pkcs11.Attribute.VALUE]

    def test_a_wrong_pin_is_told_and_not_shown(self, tmp_path: Path) -> None:
        (tmp_path / "pin").write_text("0815")
        with pytest.raises(RootKeyError, match="PinIncorrect") as refused:
            self.make().create(())
        assert "0815" not in str(refused.value)

    def test_a_pin_in_the_setting_is_refused(self) -> None:
        with pytest.raises(RootKeyError, match="A PIN itself is refused"):
            TokenKeys.read(f"pkcs11:token=x;object=y?module-path={MODULE}&pin-value=4711")


@pytest.fixture(scope="module")
def aws() -> Iterator[str]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


class TestKms(RootKeysContract):
    """boto3 against moto's server. It is no AWS: what it does not check, only AWS shows."""

    @pytest.fixture(autouse=True)
    def key(self, aws: str, monkeypatch: pytest.MonkeyPatch) -> None:
        for name, value in {
            "AWS_ENDPOINT_URL": aws, "AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_EC2_METADATA_DISABLED": "true",
        }.items():  # fmt: skip
            monkeypatch.setenv(name, value)
        import boto3

        self.environment = monkeypatch
        self.client: Any = boto3.client("kms", region_name="eu-central-1")
        self.arn = self.client.create_key()["KeyMetadata"]["Arn"]

    def make(self) -> RootKeys:
        return KmsKeys(self.arn)

    def away(self) -> RootKeys:
        self.environment.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
        return KmsKeys(self.arn)

    def wait_until_gone(self, name: str) -> None:
        """moto goes on to decrypt with a key that waits for its deletion, which AWS does not. So the seven days pass here."""
        del kms_backends["123456789012"]["eu-central-1"].keys[name.rpartition("/")[2]]

    def never(self, name: str) -> str:
        return name.rpartition("/")[0] + "/00000000-0000-0000-0000-000000000000"

    def test_the_first_root_key_is_the_one_that_is_named(self) -> None:
        assert self.make().create(()) == self.arn

    def test_it_says_when_aws_destroys_a_key_and_who_can_stop_that(self) -> None:
        said = self.make().destroy(self.arn)
        assert said is not None
        assert "kms:CancelKeyDeletion" in said
        assert self.client.describe_key(KeyId=self.arn)["KeyMetadata"]["KeyState"] == "PendingDeletion"

    @pytest.mark.parametrize("arn", ["alias/ledger", "arn:aws:kms:eu-central-1:123456789012:alias/ledger", "x"])
    def test_a_name_that_can_move_to_another_key_is_refused(self, arn: str) -> None:
        with pytest.raises(RootKeyError, match="aliases may move"):
            KmsKeys(arn)


class TestVault(RootKeysContract):
    """hvac against a small server of our own that speaks the documented interface: no Vault is to be had here."""

    transit: ClassVar[Transit]
    address: ClassVar[str]

    @pytest.fixture(scope="class", autouse=True)
    @classmethod
    def running(cls) -> Iterator[None]:
        with vault() as (cls.address, cls.transit):
            yield

    @pytest.fixture(autouse=True)
    def key(self) -> None:
        self.transit.make("scim-ledger")
        self.environment = {"VAULT_ADDR": self.address, "VAULT_TOKEN": TOKEN}

    def make(self) -> RootKeys:
        return TransitKeys("transit/scim-ledger", self.environment)

    def away(self) -> RootKeys:
        return TransitKeys("transit/scim-ledger", {**self.environment, "VAULT_ADDR": "http://127.0.0.1:9"})

    def test_a_key_that_is_not_there_says_how_to_make_it(self) -> None:
        with pytest.raises(RootKeyLostError, match="vault write -f transit/keys/other"):
            TransitKeys("transit/other", self.environment).create(())

    def test_a_token_that_vault_refuses_is_told_and_not_shown(self) -> None:
        with pytest.raises(RootKeyError, match="is VAULT_TOKEN valid") as refused:
            TransitKeys("transit/scim-ledger", {**self.environment, "VAULT_TOKEN": "hvs.wrong"}).create(())
        assert "hvs.wrong" not in str(refused.value)

    def test_without_address_or_token_it_says_what_to_set(self) -> None:
        with pytest.raises(RootKeyError, match="needs VAULT_ADDR and VAULT_TOKEN"):
            TransitKeys("transit/scim-ledger", {}).create(())


@pytest.mark.parametrize(
    "setting", ["", "file:", "kek", "ftp:x", "vault:scim-ledger", "file:a file:b", "pkcs11:token=x", "aws-kms:x"]
)
def test_a_setting_that_names_no_root_key_says_the_form(setting: str) -> None:
    with pytest.raises(RootKeyError, match="LEDGER_ROOT_KEY"):
        root_keys(setting, os.environ)
