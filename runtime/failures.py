"""What goes wrong where a command works on the machine itself, as a sentence and an exit code."""

from collections.abc import Generator
from contextlib import contextmanager

import psycopg
from psycopg.conninfo import conninfo_to_dict

from database.migrate import MigrationError
from ledger.refused import RefusedError
from proofs.body import BodyError
from proofs.keys import WrapError
from runtime.bootstrap import StartError
from runtime.exits import FINDING, UNREACHABLE, USAGE, CommandError
from runtime.settings import Settings
from scim.profile import ProfileError, UnknownProfileError


@contextmanager
def explained(settings: Settings) -> Generator[None]:
    """Turn what is known to go wrong into a CommandError; anything else is a defect of ours and shows its traceback."""
    try:
        yield
    except (StartError, MigrationError, RefusedError, ProfileError, UnknownProfileError) as refused:
        raise CommandError(str(refused), USAGE) from refused  # something on this machine must be put right first
    except (psycopg.OperationalError, ConnectionError) as away:
        text = f"The database{_place(settings)} cannot be reached. Is the service running (make run), and is LEDGER_DATABASE_URL right?"
        raise CommandError(text, UNREACHABLE) from away
    except (WrapError, BodyError) as sealed:
        text = "A stored key or body does not open with this key-encryption key. Run `scim-ledger replay verify`."
        raise CommandError(text, FINDING) from sealed


def _place(settings: Settings) -> str:
    """Host and port of the configured database; never its user or password."""
    if settings.database_url is None:
        return ""
    try:
        parts = conninfo_to_dict(settings.database_url.get_secret_value())
    except psycopg.ProgrammingError:
        return ""
    host, port = parts.get("host") or parts.get("hostaddr") or "localhost", parts.get("port") or 5432
    return f" at {host}:{port}"
