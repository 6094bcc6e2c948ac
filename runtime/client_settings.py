"""The settings that a command needs to find the service, read without pydantic: its import would take half of a command's time.

Their names and meanings stand in runtime/settings.py with all others; a test holds these against those.
"""

import os
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class ClientSettings:
    """Where the service is, and with which token. An empty variable counts as unset."""

    url: str | None
    token: str | None
    token_file: Path | None
    data_dir: Path
    database_url: str | None


def client_settings() -> ClientSettings:
    """Read the environment."""
    file = _read("TOKEN_FILE")
    return ClientSettings(
        url=_read("URL"),
        token=_read("TOKEN"),
        token_file=Path(file) if file else None,
        data_dir=Path(_read("DATA_DIR") or "var"),
        database_url=_read("DATABASE_URL"),
    )


def _read(name: str) -> str | None:
    return os.environ.get(f"LEDGER_{name}") or None
