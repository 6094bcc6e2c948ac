"""Settings. Only this module reads the environment (except runtime/client_settings.py)."""

import difflib
import ipaddress
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final, Literal

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

PREFIX: Final = "LEDGER_"
# A host name has a letter in it: digits and dots alone are an address that is not one.
_HOST: Final = re.compile(r"(?=.*[a-z])[a-z0-9]([a-z0-9._-]{0,251}[a-z0-9])?", re.IGNORECASE)


class Settings(BaseSettings):
    """Every setting with its meaning; `scim-ledger settings` prints them. Construction raises for an invalid value."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="ignore")

    database_url: SecretStr | None = Field(None, description="PostgreSQL 15 or newer to serve from; unset: the embedded one")
    migrate_url: SecretStr | None = Field(None, description="The same database with the owner role, for migrations and rebuilds")
    direct_url: SecretStr | None = Field(
        None,
        description="The same database without its pooler, if LEDGER_DATABASE_URL leads to a pooler in transaction mode",
    )
    database_wait_s: float = Field(
        0, ge=0, le=3_600, description="Seconds that a start waits for a database that does not answer yet"
    )
    data_dir: Path = Field(Path("var"), description="Where the embedded PostgreSQL, the key file and first-run.json live")
    host: str = Field("127.0.0.1", description="Address to listen on")
    port: int = Field(8000, ge=0, le=65535, description="Port to listen on")
    connections: int = Field(1_000, ge=1, le=100_000, description="Open connections of a serving process; further ones get 503")
    public_url: str | None = Field(None, description="The URL that clients use; unset: http://HOST:PORT")
    kek_file: Path | None = Field(None, description="The key file, if LEDGER_ROOT_KEY is unset; unset: DATA_DIR/kek")
    root_key: str | None = Field(
        None,
        description="Where the root key is: file:PATH, env:NAME, pkcs11:URI, aws-kms:ARN or vault:MOUNT/NAME; with a space between, also where "
        "those of earlier epochs are; unset: the key file",
    )
    log_format: Literal["console", "json"] = Field("console", description="How log lines look")
    tracing: Literal["off", "otlp"] = Field(
        "off", description="otlp: send spans to the collector that OTEL_EXPORTER_OTLP_ENDPOINT names; needs the extra `otel`"
    )
    workers: int = Field(1, ge=1, le=64, description="Serving processes")
    metrics_port: int | None = Field(
        None, ge=1, le=65_535, description="Port on 127.0.0.1 for /metrics with names, of all processes of the service"
    )
    delivery_workers: int = Field(1, ge=0, le=64, description="Processes that push to webhooks; 0: none here")
    webhook_allow: str = Field("", description="Private or loopback networks or hosts that webhooks and jwks_uri may reach")
    webhook_timeout_s: float = Field(15.0, ge=0.5, le=60, description="Seconds within which a webhook must answer")
    url: str | None = Field(None, description="A service for the command line and the demo; unset: that of this machine")
    token: SecretStr | None = Field(None, description="With LEDGER_URL: the token of the command line")
    token_file: Path | None = Field(None, description="The same, in a file that only you can read")

    @field_validator("url", "public_url")
    @classmethod
    def _is_an_address(cls, url: str | None) -> str | None:
        if url is not None and not url.startswith(("http://", "https://")):
            raise ValueError("begins with http:// or https://")
        if url is not None and ("?" in url or "#" in url):
            raise ValueError("has a query or a fragment: paths are added to its end")
        return url

    @field_validator("webhook_allow")
    @classmethod
    def _names_networks_or_hosts(cls, text: str) -> str:
        for word in text.replace(",", " ").split():
            if not _is_network(word) and not _HOST.fullmatch(word):
                raise ValueError(f"has `{word}`, which is no network, no address and no host name")
        return text

    @property
    def base_url(self) -> str:
        return (self.public_url or f"http://{self.host}:{self.port}").rstrip("/")

    @property
    def kek_path(self) -> Path:
        return self.kek_file or self.data_dir / "kek"

    @property
    def erasure_list_path(self) -> Path:
        """The list of erasures: beside the key, because it must outlive a restore of the database as the key does."""
        scheme, _, place = self.root_key_place.partition(":")
        key = Path(place) if scheme == "file" else self.kek_path
        return key.with_name(key.name + ".erasures")

    @property
    def root_key_place(self) -> str:
        """LEDGER_ROOT_KEY, or the key file."""
        return self.root_key or f"file:{self.kek_path}"

    @property
    def first_run_path(self) -> Path:
        return self.data_dir / "first-run.json"


def load_settings() -> Settings:
    """Read the environment. Raises pydantic.ValidationError, which names the variable and the valid values."""
    return Settings()  # pyright: ignore[reportCallIssue]  # every field has a default


def environment() -> Mapping[str, str]:
    """The environment for providers of root keys, which read variables of their own (VAULT_ADDR) and those that LEDGER_ROOT_KEY names."""
    return os.environ  # noqa: TID251 - this module reads the environment


def unknown_settings() -> dict[str, str | None]:
    """Variables that look like settings and are none, each with the setting that was probably meant."""
    known = {f"{PREFIX}{name.upper()}" for name in Settings.model_fields}
    strange = sorted(name for name in os.environ if name.startswith(PREFIX) and name not in known)  # noqa: TID251 - what is no setting is only here
    return {name: next(iter(difflib.get_close_matches(name, known, 1, cutoff=0.8)), None) for name in strange}


def _is_network(word: str) -> bool:
    try:
        ipaddress.ip_network(word, strict=False)
    except ValueError:
        return False
    return True
