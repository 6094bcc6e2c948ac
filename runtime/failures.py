"""Errors of commands that work on the machine itself, as a sentence and an exit code."""

from collections.abc import Generator
from contextlib import contextmanager
from typing import Final

import psycopg

from database.faults import UNKNOWN, fault_of
from database.migrate import MigrationError
from database.server import ServerRefusedError
from ledger.refused import RefusedError
from proofs.body import BodyError
from proofs.keys import WrapError
from runtime.bootstrap import StartError
from runtime.exits import FINDING, UNREACHABLE, USAGE, CommandError
from runtime.reaching import unreachable
from runtime.settings import Settings
from scim.profile import ProfileError, UnknownProfileError

_NO_OWNER: Final = (
    "The login of this database may not change the schema `ledger`: migrations and rebuilds need the role that owns it. "
    "Set LEDGER_MIGRATE_URL to the same database with that role (docs/operations.md)."
)


@contextmanager
def explained(settings: Settings) -> Generator[None]:
    """Turn known errors into a CommandError. Any other error is a defect and shows its traceback."""
    try:
        yield
    except (StartError, ServerRefusedError, MigrationError, RefusedError, ProfileError, UnknownProfileError) as refused:
        raise CommandError(str(refused), USAGE) from refused  # something on this machine must be repaired first
    except (psycopg.OperationalError, ConnectionError) as away:
        url = settings.database_url.get_secret_value() if settings.database_url else "host=localhost"
        raise unreachable(url, away) from away
    except psycopg.errors.InsufficientPrivilege as refused:
        raise CommandError(_NO_OWNER, USAGE) from refused
    except psycopg.InternalError as refused:  # the server refuses it, most likely because it is read-only
        if (fault := fault_of(refused)) is UNKNOWN:
            raise
        raise CommandError(fault.says, UNREACHABLE) from refused
    except (WrapError, BodyError) as sealed:
        text = "A stored key or body does not open with this key-encryption key. Run `scim-ledger replay verify`."
        raise CommandError(text, FINDING) from sealed
