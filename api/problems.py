"""Errors outside SCIM: application/problem+json (RFC 9457) with a stable code. One table from exception to answer."""

from collections.abc import Collection, Sequence
from typing import Any

import orjson
import psycopg
from fastapi import Request, Response
from starlette.exceptions import HTTPException

from api.bodies import BodyTooLargeError
from api.database_errors import met
from api.error_codes import type_of
from api.invalid_fields import InvalidBodyError
from database.faults import Fault, Kind
from delivery.consumers import ConsumerRefusedError
from delivery.log_positions import PlaceError, PlaceMovedError
from delivery.runs import ReplayRefusedError
from ledger.cursor import InvalidCursorError
from ledger.feed import CursorAheadError, CursorForkedError
from ledger.lifecycle import LifecycleError
from ledger.refused import RefusedError, StateError
from ledger.tokens import TokenRefusedError
from operations.refusals import (
    PLACE_LENGTH_MAX,
    PLACES_MAX,
    ConflictError,
    ForbiddenError,
    InvalidError,
    InvalidField,
    InvalidFieldsError,
    NotFoundError,
    OperationError,
    UnmetError,
    invalid,
)
from projections.history import InvalidAsOfError
from scim.errors import ScimError, TooMany

ALLOWED_MAX = 100  # values that an error lists: all event types, but not as many names as a service has


class MethodError(HTTPException):
    """405 with the methods that the path takes (RFC 9110 §15.5.6)."""

    def __init__(self, methods: Collection[str]) -> None:
        self.allow = ", ".join(sorted(methods))
        super().__init__(405, f"This route takes {self.allow}.")


class ProblemError(Exception):
    """A problem response to a /v1 request."""

    def __init__(self, status: int, code: str, detail: str, **members: Any) -> None:
        super().__init__(code)
        self.status, self.code, self.detail, self.members = status, code, detail, members
        self.retry_after = 1  # seconds, sent with 429 and 503
        self.allow = ""  # the methods of the route, sent with 405


def problem_of(error: Exception) -> ProblemError:
    """Map an exception to its response. An exception outside the table is a defect: 500, without its cause."""
    match error:
        case ProblemError():
            return error
        case InvalidCursorError() | CursorAheadError() | CursorForkedError() | PlaceMovedError():
            return _of_a_place(error)
        case InvalidFieldsError():
            return ProblemError(400, error.code, error.detail, errors=[_shown(field) for field in error.fields])
        case OperationError():
            return ProblemError(_STATUSES[type(error)], error.code, error.detail)
        case StateError():
            return ProblemError(409, error.code, str(error))
        case _ if type(error) in _REFUSED:
            return ProblemError(400, _REFUSED[type(error)], str(error))
        case ScimError():
            problem = ProblemError(
                error.status, "too_many" if isinstance(error, TooMany) else _CODES.get(error.status, "refused"), error.detail
            )
            problem.retry_after = getattr(error, "retry_after", 1)
            return problem
        case InvalidBodyError():
            return problem_of(invalid(error.field, error.reason))
        case HTTPException():
            code = _CODES.get(error.status_code, "refused")
            ours = error.detail if isinstance(error, BodyTooLargeError | MethodError) else None
            problem = ProblemError(error.status_code, code, ours or _TEXTS.get(code, "The request was refused."))
            problem.allow = error.allow if isinstance(error, MethodError) else ""
            return problem
        case psycopg.Error():
            return _of_database(met(error))
        case _:
            return ProblemError(500, "internal_error", "An unexpected error. It was logged under this request's id.")


def _of_a_place(error: InvalidCursorError | CursorAheadError | CursorForkedError | PlaceMovedError) -> ProblemError:
    """The response for a place in the log that is invalid, lost, or no longer the consumer's."""
    match error:
        case InvalidCursorError():
            why = "The place is neither a cursor of this ledger nor an event id. Take `list_metadata.after` of a page, or the `id` of an event."
            return ProblemError(400, "invalid_cursor", str(error) or why)
        case CursorAheadError():
            why = f"The ledger ends at {error.head}, before the cursor's {error.number}: it was restored. Compare your state with it, then read on."
            return ProblemError(409, "cursor_ahead", why, cursor=error.number, head=error.head)
        case CursorForkedError():
            why = f"Another event is at {error.number} now: the ledger was restored and has grown again. Compare your state with it."
            return ProblemError(409, "cursor_forked", why, cursor=error.number, head=error.head)
        case PlaceMovedError():
            why = (
                "The consumer was moved, or its filter changed, after the page was read, so nothing was acknowledged. "
                f"Read on with GET /v1/consumers/{{name}}/events, which begins after position {error.through}."
            )
            return ProblemError(409, "place_moved", why, position=error.through, acked_position=error.through)


def _of_database(fault: Fault) -> ProblemError:
    if fault.kind is Kind.CLIENT:
        return ProblemError(400, "refused", f"{fault.says} Nothing was changed.")
    return ProblemError(503, "database_unavailable", f"{fault.says} Try again in a moment.")


_STATUSES: dict[type[OperationError], int] = {
    ForbiddenError: 403, NotFoundError: 404, ConflictError: 409, UnmetError: 412, InvalidError: 400,
}  # fmt: skip
# Errors whose text becomes the detail.
_REFUSED: dict[type[Exception], str] = {
    RefusedError: "refused", LifecycleError: "refused", ConsumerRefusedError: "refused", ReplayRefusedError: "refused", TokenRefusedError: "refused",
    PlaceError: "invalid_place", InvalidAsOfError: "invalid_as_of",
}  # fmt: skip
_TEXTS = {
    "not_found": "There is no such route. /openapi.json lists the routes; none ends with a slash.",
}
_CODES = {
    401: "unauthorized",
    403: "forbidden",
    404: "not_found",
    405: "method_not_allowed",
    413: "too_large",
    429: "too_many_requests",
    503: "database_unavailable",
}


def _shown(wrong: InvalidField) -> dict[str, Any]:
    allowed = {"allowed": wrong.allowed[:ALLOWED_MAX]} if wrong.allowed else {}
    return {"field": wrong.field, "reason": wrong.reason, **allowed}


def name_places(places: Sequence[str], between: str = ", ", length_max: int = PLACE_LENGTH_MAX) -> str:
    """Join the names of at most PLACES_MAX places, because a request can have as many wrong places as bytes."""
    shown = [place if len(place) <= length_max else place[:length_max] + "…" for place in places[:PLACES_MAX]]
    more = [f"and {len(places) - PLACES_MAX} more"] if len(places) > PLACES_MAX else []
    return between.join([*shown, *more])


def document(problem: ProblemError, request_id: str) -> bytes:
    """The problem as JSON, on one line."""
    return orjson.dumps({
        "type": type_of(problem.code), "title": problem.code.replace("_", " "), "status": problem.status,
        "code": problem.code, "detail": problem.detail, "request_id": request_id, **problem.members,
    })  # fmt: skip


def answer(problem: ProblemError, request_id: str) -> Response:
    headers = {"WWW-Authenticate": 'Bearer realm="scim-ledger"'} if problem.status == 401 else {}
    if problem.allow:
        headers["Allow"] = problem.allow
    if problem.status in {429, 503}:
        headers["Retry-After"] = str(problem.retry_after)
    return Response(document(problem, request_id), problem.status, headers, "application/problem+json")


def request_id_of(request: Request) -> str:
    return str(request.scope.get("request_id", ""))


# The exceptions that problem_of maps; any other is a defect.
EXPECTED = (
    ProblemError, OperationError, StateError, InvalidCursorError, CursorAheadError, CursorForkedError, PlaceMovedError, *_REFUSED,
    ScimError, HTTPException, psycopg.Error,
)  # fmt: skip
