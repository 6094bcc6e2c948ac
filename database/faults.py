"""The meaning of database errors, in one table by SQLSTATE (PostgreSQL documentation, appendix A).

Only the errors that the table names as such are the client's. An error that is not in the table is the operator's: the request is
answered 503 and the SQLSTATE is logged.
"""

from dataclasses import dataclass
from enum import Enum
from typing import Final

import psycopg


class Kind(Enum):
    """What can be done about an error."""

    CLIENT = "client"  # the client must send another value
    AGAIN = "again"  # the same transaction can be tried again
    LOST = "lost"  # the connection is lost: look up whether the transaction is stored
    OPERATOR = "operator"  # an operator must repair something first


@dataclass(frozen=True, slots=True)
class Fault:
    """`reason` is a word for probes and logs. `says` is a sentence for clients, without names and request data."""

    kind: Kind
    reason: str
    says: str


NO_ANSWER: Final = Fault(Kind.LOST, "no_answer", "The database does not answer.")
_CONFLICT: Final = Fault(Kind.AGAIN, "conflict", "Concurrent changes were in conflict with this one.")
_VALUE: Final = Fault(Kind.CLIENT, "value_refused", "The database refused a value of this request.")
_RIGHTS: Final = Fault(Kind.OPERATOR, "not_allowed", "The service lacks a right in the database.")
_SCHEMA: Final = Fault(Kind.OPERATOR, "schema", "The schema of the database is not that of this release.")
_LOGIN: Final = Fault(Kind.OPERATOR, "login_refused", "The database refuses the login of the service.")
_DAMAGED: Final = Fault(Kind.OPERATOR, "damaged", "The database reports damaged data.")
UNKNOWN: Final = Fault(Kind.OPERATOR, "unexpected", "The database answered with an unexpected error.")

# By the whole SQLSTATE, or by its first two characters (the class). The longest match counts.
_BY_SQLSTATE: Final = {
    "08": NO_ANSWER,
    "22": _VALUE,
    "23": _VALUE,
    "25006": Fault(Kind.OPERATOR, "read_only", "The database is read-only."),
    "28": _LOGIN,
    "3D000": Fault(Kind.OPERATOR, "no_such_database", "The database of this name does not exist."),
    "3F": _SCHEMA,
    "40": _CONFLICT,
    "42501": _RIGHTS,
    "42P01": _SCHEMA,
    "42P02": _SCHEMA,
    "42703": _SCHEMA,
    "42704": _SCHEMA,
    "42883": _SCHEMA,
    "53100": Fault(Kind.OPERATOR, "disk_full", "The disk of the database is full."),
    "53200": Fault(Kind.OPERATOR, "out_of_memory", "The database is out of memory."),
    "53300": Fault(Kind.OPERATOR, "too_many_connections", "The database accepts no more connections (max_connections)."),
    "54000": Fault(Kind.CLIENT, "too_large", "A value of this request is too large for the database."),
    "55P03": Fault(Kind.AGAIN, "lock_held", "Another session of the database holds a lock that this needs."),
    "57014": Fault(Kind.AGAIN, "too_slow", "The database took too long for this."),
    "57P01": NO_ANSWER,
    "57P02": NO_ANSWER,
    "57P03": Fault(Kind.LOST, "starting", "The database is starting or stopping."),
    "57P04": NO_ANSWER,
    "57P05": NO_ANSWER,
    "58": Fault(Kind.OPERATOR, "file_error", "The database cannot read or write one of its files."),
    "XX": _DAMAGED,
}  # fmt: skip


def no_fault() -> Fault | None:
    """The default of a check that is not made."""
    return None


def fault_of(error: psycopg.Error) -> Fault:
    """The meaning of an error that a statement, a connection or a pool raised."""
    sqlstate = getattr(error, "sqlstate", None)
    if sqlstate is not None:
        return _BY_SQLSTATE.get(sqlstate) or _BY_SQLSTATE.get(sqlstate[:2]) or UNKNOWN
    if isinstance(error, psycopg.OperationalError | psycopg.InterfaceError):  # PoolTimeout too: no server was asked
        return NO_ANSWER
    return _VALUE if isinstance(error, psycopg.DataError) else UNKNOWN  # psycopg refused to send the value
