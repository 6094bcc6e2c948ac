"""What an error of the database is to a client, in SCIM and outside; what an operator must put right is logged where it is answered."""

from typing import Final

import psycopg
import structlog

from database.faults import Fault, Kind, fault_of
from scim.errors import InvalidValue, ScimError, Unavailable

RETRY_AFTER_S: Final = 1
_log = structlog.get_logger("api")


def met(error: psycopg.Error) -> Fault:
    """The fault, on record where it is the operator's."""
    fault = fault_of(error)
    if fault.kind is Kind.OPERATOR:
        _log.error("database_refused", sqlstate=error.sqlstate, reason=fault.reason)
    return fault


def given_up() -> Unavailable:
    """Whoever is cut because the process ends, and waits for it no longer."""
    text = "The service stopped before this was done, so a change may or may not be stored. Send the request again."
    return Unavailable(text, retry_after=RETRY_AFTER_S)


def scim_error(error: psycopg.Error) -> ScimError:
    """As SCIM answers it. Nothing of a request that ends so was changed: what a COMMIT may have stored, the writer answers."""
    fault = met(error)
    if fault.kind is Kind.CLIENT:
        return InvalidValue(f"{fault.says} Nothing was changed.")
    return Unavailable(f"{fault.says} Nothing was changed. Send it again.", retry_after=RETRY_AFTER_S)
