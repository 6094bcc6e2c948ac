"""The settings with which a service was last started, noted in its data directory.

A command that works without a running service uses them. With its own environment it would print another address of the service, or
let a webhook reach a network that the service refuses.
"""

import os
from pathlib import Path
from typing import Final

import orjson
from pydantic import ValidationError

from runtime.exits import USAGE, CommandError
from runtime.local_socket import service_name
from runtime.settings import Settings

NOTED: Final = ("host", "port", "public_url", "kek_file", "webhook_allow", "webhook_timeout_s")


def note_settings(settings: Settings) -> None:
    """Write what a command must know. Raises OSError."""
    path = _path(settings)
    draft = path.with_name(f"{path.name}.{os.getpid()}")
    noted = settings.model_copy(update={"kek_file": settings.kek_path.absolute()}).model_dump(mode="json", include=set(NOTED))
    draft.write_bytes(orjson.dumps(noted))
    draft.chmod(0o600)
    draft.replace(path)


def as_served(settings: Settings) -> Settings:
    """The settings of a command, with those that its service decides. Without a note, the settings as they are.

    Raises CommandError if the note is damaged.
    """
    path = _path(settings)
    try:
        return Settings(**orjson.loads(path.read_bytes()))  # arguments win over the environment
    except FileNotFoundError:
        return settings
    except (OSError, ValueError, TypeError, ValidationError) as wrong:
        raise CommandError(f"{path} cannot be read. Start the service: it writes the file anew.", USAGE) from wrong


def _path(settings: Settings) -> Path:
    url = settings.database_url.get_secret_value() if settings.database_url else None
    return settings.data_dir / f"{service_name(url)}.json"
