"""Settings from the environment: the only place that reads it."""

from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict


class Settings(BaseSettings):
    """Every setting with its meaning; `scim-ledger settings` prints this table. Constructed fully valid or it raises."""

    model_config = SettingsConfigDict(env_prefix="LEDGER_", frozen=True, extra="ignore")

    database_url: SecretStr | None = Field(None, description="PostgreSQL 15 or newer to serve from; unset: the embedded one")
    migrate_url: SecretStr | None = Field(None, description="The same database with the owner role, for migrations and rebuilds")
    data_dir: Path = Field(Path("var"), description="Where the embedded PostgreSQL, the key file and first-run.json live")
    host: str = Field("127.0.0.1", description="Address to listen on")
    port: int = Field(8000, ge=0, le=65535, description="Port to listen on")
    public_url: str | None = Field(None, description="How clients reach the service; unset: http://HOST:PORT")
    kek_file: Path | None = Field(None, description="File with the key-encryption key; unset: DATA_DIR/kek")
    log_format: Literal["console", "json"] = Field("console", description="How log lines look")
    workers: int = Field(1, ge=1, le=64, description="Serving processes")
    delivery_workers: int = Field(1, ge=0, le=64, description="Processes that push to webhooks; 0: none here")
    webhook_allow: str = Field("", description="Networks or hosts a webhook may reach although they are private or loopback")
    webhook_timeout_s: float = Field(15.0, ge=0.5, le=60, description="Seconds until a webhook must have answered")
    url: str | None = Field(
        None, pattern="^https?://.", description="A service for the command line and the demo; unset: that of this machine"
    )
    token: SecretStr | None = Field(None, description="With LEDGER_URL: the token of the command line")
    token_file: Path | None = Field(None, description="The same, in a file that only you can read")

    @property
    def base_url(self) -> str:
        return (self.public_url or f"http://{self.host}:{self.port}").rstrip("/")

    @property
    def kek_path(self) -> Path:
        return self.kek_file or self.data_dir / "kek"

    @property
    def first_run_path(self) -> Path:
        return self.data_dir / "first-run.json"


def load_settings() -> Settings:
    """Read the environment. Raises pydantic.ValidationError naming the variable and what it takes."""
    return Settings()  # pyright: ignore[reportCallIssue]  # every field has a default
