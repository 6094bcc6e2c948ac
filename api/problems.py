"""Errors outside SCIM: application/problem+json (RFC 9457) with a stable code. One table from exception to answer."""

from collections.abc import Sequence
from typing import Any

import orjson
import psycopg
from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from api.bodies import BodyTooLargeError, TextError
from api.database_errors import met
from database.faults import Fault, Kind
from delivery.consumers import ConsumerRefusedError
from delivery.log_positions import PlaceError, PlaceMovedError
from delivery.runs import ReplayRefusedError
from ledger.cursor import InvalidCursorError
from ledger.feed import CursorAheadError, CursorForkedError
from ledger.lifecycle import LifecycleError
from ledger.refused import RefusedError, StateError
from ledger.tokens import TokenRefusedError
from operations.refusals import ConflictError, ForbiddenError, InvalidError, NotFoundError, OperationError
from projections.history import InvalidAsOfError
from scim.errors import ScimError, TooMany

PLACES_MAX = 10  # places that an error names
PLACE_LENGTH_MAX = 100  # characters of a place, because a name in a body can be as long as the body


class ProblemError(Exception):
    """A problem response to a /v1 request."""

    def __init__(self, status: int, code: str, detail: str, **members: Any) -> None:
        super().__init__(code)
        self.status, self.code, self.detail, self.members = status, code, detail, members
        self.retry_after = 1  # seconds, sent with 429 and 503


def problem_of(error: Exception) -> ProblemError:
    """Map an exception to its response. An exception outside the table is a defect: 500, without its cause."""
    match error:
        case ProblemError():
            return error
        case InvalidCursorError() | CursorAheadError() | CursorForkedError() | PlaceMovedError():
            return _of_a_place(error)
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
        case RequestValidationError():
            return _invalid_parameters(error)
        case HTTPException():
            code = _CODES.get(error.status_code, "refused")
            ours = error.detail if isinstance(error, BodyTooLargeError) else None
            return ProblemError(error.status_code, code, ours or _TEXTS.get(code, "The request was refused."))
        case psycopg.Error():
            return _of_database(met(error))
        case _:
            return ProblemError(500, "internal_error", "An unexpected error. It was logged under this request's id.")


def _of_a_place(error: InvalidCursorError | CursorAheadError | CursorForkedError | PlaceMovedError) -> ProblemError:
    """The response for a place in the log that is invalid, lost, or no longer the consumer's."""
    match error:
        case InvalidCursorError():
            return ProblemError(
                400,
                "invalid_cursor",
                "The place is neither a cursor of this ledger nor an event id. Take `after` of a page, or start without.",
            )
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
            return ProblemError(409, "place_moved", why, acked_position=error.through)


def _of_database(fault: Fault) -> ProblemError:
    if fault.kind is Kind.CLIENT:
        return ProblemError(400, "refused", f"{fault.says} Nothing was changed.")
    return ProblemError(503, "database_unavailable", f"{fault.says} Try again in a moment.")


_STATUSES: dict[type[OperationError], int] = {ForbiddenError: 403, NotFoundError: 404, ConflictError: 409, InvalidError: 400}
# Errors whose text becomes the detail.
_REFUSED: dict[type[Exception], str] = {
    RefusedError: "refused", LifecycleError: "refused", ConsumerRefusedError: "refused", ReplayRefusedError: "refused", TokenRefusedError: "refused",
    PlaceError: "invalid_place", InvalidAsOfError: "invalid_as_of",
}  # fmt: skip
_TEXTS = {
    "not_found": "There is no such route. See /openapi.json for the routes.",
    "method_not_allowed": "This route does not support this method. See /openapi.json.",
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


def _invalid_parameters(error: RequestValidationError) -> ProblemError:
    errors: Sequence[dict[str, Any]] = error.errors()
    broken = next((found for found in errors if found.get("type") == "json_invalid"), None)
    if broken is not None:
        return ProblemError(400, "invalid_parameters", f"The body is not JSON, from character {broken['loc'][-1]} on.")
    places = sorted({_place(found) for found in errors})
    return ProblemError(
        400, "invalid_parameters", f"Not understood: {name_places(places, '; ', 2 * PLACE_LENGTH_MAX)}. See /openapi.json."
    )


def _place(found: dict[str, Any]) -> str:
    """The place of an error in a request, and what is expected there. Never the submitted value, which may be personal."""
    place = ".".join(str(part) for part in found["loc"][1:]) or "body"
    shown = place if len(place) <= PLACE_LENGTH_MAX else place[:PLACE_LENGTH_MAX] + "…"
    wrong = found.get("ctx", {}).get("error")
    if isinstance(wrong, TextError):
        return f"{shown}: {wrong}"
    # the text of a validator of ours could quote the value
    said = found.get("msg") if found.get("type") != "value_error" else None
    return f"{shown}: {said}" if said else shown


def name_places(places: Sequence[str], between: str = ", ", length_max: int = PLACE_LENGTH_MAX) -> str:
    """Join the names of at most PLACES_MAX places, because a request can have as many wrong places as bytes."""
    shown = [place if len(place) <= length_max else place[:length_max] + "…" for place in places[:PLACES_MAX]]
    more = [f"and {len(places) - PLACES_MAX} more"] if len(places) > PLACES_MAX else []
    return between.join([*shown, *more])


def document(problem: ProblemError, request_id: str) -> bytes:
    """The problem as JSON, on one line."""
    return orjson.dumps({
        "type": f"urn:scim-ledger:problem:{problem.code}", "title": problem.code.replace("_", " "), "status": problem.status,
        "code": problem.code, "detail": problem.detail, "request_id": request_id, **problem.members,
    })  # fmt: skip


def answer(problem: ProblemError, request_id: str) -> Response:
    headers = {"WWW-Authenticate": 'Bearer realm="scim-ledger"'} if problem.status == 401 else {}
    if problem.status in {429, 503}:
        headers["Retry-After"] = str(problem.retry_after)
    return Response(document(problem, request_id), problem.status, headers, "application/problem+json")


def request_id_of(request: Request) -> str:
    return str(request.scope.get("request_id", ""))


# The exceptions that problem_of maps; any other is a defect.
EXPECTED = (
    ProblemError, OperationError, StateError, InvalidCursorError, CursorAheadError, CursorForkedError, PlaceMovedError, *_REFUSED,
    ScimError, RequestValidationError, HTTPException, psycopg.Error,
)  # fmt: skip
