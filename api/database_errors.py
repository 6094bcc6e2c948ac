"""Turn database errors into answers, in SCIM and outside. Faults that an operator must repair are logged here."""

from typing import Final

import psycopg
import structlog

from database.faults import Fault, Kind, fault_of
from scim.errors import InvalidValue, ScimError, Unavailable

RETRY_AFTER_S: Final = 1
_log = structlog.get_logger("api")


def met(error: psycopg.Error) -> Fault:
    """The fault of an error; an operator's fault is logged."""
    fault = fault_of(error)
    if fault.kind is Kind.OPERATOR:
        _log.error("database_refused", sqlstate=error.sqlstate, reason=fault.reason)
    return fault


def given_up() -> Unavailable:
    """The error for requests that are cut because the process ends."""
    text = "The service stopped before this was done, so a change may or may not be stored. Send the request again."
    return Unavailable(text, retry_after=RETRY_AFTER_S)


def scim_error(error: psycopg.Error) -> ScimError:
    """The SCIM error. Nothing was changed by such a request: if a COMMIT is in doubt, the writer gives the answer instead."""
    fault = met(error)
    if fault.kind is Kind.CLIENT:
        return InvalidValue(f"{fault.says} Nothing was changed.")
    return Unavailable(f"{fault.says} Nothing was changed. Send it again.", retry_after=RETRY_AFTER_S)
