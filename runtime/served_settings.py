"""The settings with which a service was last started, noted in its data directory.

A command that works without a running service uses them. With its own environment it would print another address of the service, or
let a webhook reach a network that the service refuses.
"""

import os
from collections.abc import Collection
from pathlib import Path
from typing import Final

import orjson
from pydantic import ValidationError

from runtime.exits import USAGE, CommandError
from runtime.local_socket import service_name
from runtime.settings import Settings

DECIDED: Final = frozenset(
    {"host", "port", "public_url", "kek_file", "root_key", "webhook_allow", "webhook_timeout_s"}
)  # by the service alone
# not noted: what a command needs to find the service, and what is secret
_OWN: Final = frozenset({"database_url", "migrate_url", "direct_url", "data_dir", "url", "token", "token_file"})


def note_settings(settings: Settings) -> None:
    """Write all but secrets. Raises OSError."""
    path = _path(settings)
    draft = path.with_name(f"{path.name}.{os.getpid()}")
    noted = settings.model_copy(update={"kek_file": settings.kek_path.absolute()}).model_dump(mode="json", exclude=set(_OWN))
    draft.write_bytes(orjson.dumps(noted))
    draft.chmod(0o600)
    draft.replace(path)


def as_served(settings: Settings) -> Settings:
    """The settings of a command, with those that its service decides. Without a note, the settings as they are.

    Raises CommandError if the note is damaged.
    """
    return _noted(settings, DECIDED)[0]


def all_as_served(settings: Settings) -> tuple[Settings, frozenset[str]]:
    """The settings of the last start of the service, as far as they are noted, and the names of those. Raises CommandError likewise."""
    return _noted(settings, None)


def _noted(settings: Settings, wanted: Collection[str] | None) -> tuple[Settings, frozenset[str]]:
    path = _path(settings)
    try:
        noted = {name: value for name, value in orjson.loads(path.read_bytes()).items() if wanted is None or name in wanted}
        return Settings(**noted), frozenset(noted)  # arguments win over the environment
    except FileNotFoundError:
        return settings, frozenset()
    except (OSError, ValueError, TypeError, AttributeError, ValidationError) as wrong:
        raise CommandError(f"{path} cannot be read. Start the service: it writes the file anew.", USAGE) from wrong


def _path(settings: Settings) -> Path:
    url = settings.database_url.get_secret_value() if settings.database_url else None
    return settings.data_dir / f"{service_name(url)}.json"
