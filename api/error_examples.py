"""An example of each error that the description shows: code, status, title, type and detail are those of a real answer."""

import json
from collections.abc import Iterable, Iterator
from typing import Any, Final

from api.error_codes import CODES
from api.problems import ProblemError, document
from scim.errors import Forbidden, InvalidFilter, InvalidValue, NotFound, ScimError, Unauthorized, Unavailable, Uniqueness

ERRORS: Final = ("4XX", "5XX")
_REQUEST: Final = "0197f2c4-5d1e-7c3a-9b44-3f0e2a6c1d58"
_WRONG: Final = {"errors": [{"field": "limit", "reason": "is not a number from 1 to 1000"}]}
_PROBLEMS: Final = {
    "invalid_parameters": "`limit` is not a number from 1 to 1000.",
    "unauthorized": "Send a token in the header: Authorization: Bearer sl_...",
    "forbidden": "There is no directory of that name, or the token does not reach it.",
    "not_found": "There is nothing of that name or id, or the token does not reach it.",
    "method_not_allowed": "This route takes GET.",
    "overtaken": "Other requests changed the same thing at the same moment. Nothing was changed; send the request again.",
    "internal_error": "An unexpected error. It was logged under this request's id.",
    "database_unavailable": "The database does not answer. Try again in a moment.",
}
_SCIM_ERRORS: Final[dict[str, ScimError]] = {
    "scim_invalid_filter": InvalidFilter("The filter needs a value at character 13: text in double quotes, a number, true, false or null."),
    "scim_invalid_value": InvalidValue("userName is required."),
    "scim_unauthorized": Unauthorized(),
    "scim_forbidden": Forbidden(),
    "scim_not_found": NotFound(),
    "scim_uniqueness": Uniqueness(),
    "scim_internal_error": ScimError("An unexpected error. It was logged under this request's id."),
    "scim_unavailable": Unavailable(),
}  # fmt: skip


def error_examples() -> dict[str, Any]:
    """The components that operations refer to."""
    statuses = {code.code: code.status for code in CODES}
    problems = {name: _shown_problem(statuses[name], name, detail) for name, detail in _PROBLEMS.items()}
    shown = problems | {name: error.document() for name, error in _SCIM_ERRORS.items()}
    return {name: {"summary": name.replace("_", " "), "value": value} for name, value in shown.items()}


def errors_of(method: str, path: str, *, scim: bool, secured: bool) -> dict[str, dict[str, Any]]:
    """References to the examples of an operation's errors, by the key of the response."""
    named = _of_scim(method, path) if scim else _of_problems(method, path, secured=secured)
    defects = ("scim_internal_error", "scim_unavailable") if scim else ("internal_error", "database_unavailable")
    return {key: _references(names) for key, names in zip(ERRORS, (named, defects), strict=True)}


def _references(names: Iterable[str]) -> dict[str, Any]:
    return {name: {"$ref": f"#/components/examples/{name}"} for name in names}


def _shown_problem(status: int, code: str, detail: str) -> Any:
    members = _WRONG if code == "invalid_parameters" else {}
    return json.loads(document(ProblemError(status, code, detail, **members), _REQUEST))


def _of_problems(method: str, path: str, *, secured: bool) -> Iterator[str]:
    yield "method_not_allowed"
    if not secured:
        return
    yield from ("invalid_parameters", "unauthorized", "forbidden")
    if "{" in path:
        yield "not_found"
    if method in {"put", "delete"}:
        yield "overtaken"


def _of_scim(method: str, path: str) -> Iterator[str]:
    yield from ("scim_unauthorized", "scim_forbidden")
    if path.endswith("/{id}"):
        yield "scim_not_found"
    if method == "get" or path.endswith("/.search"):
        yield "scim_invalid_filter"
    elif method in {"post", "put", "patch"}:
        yield from ("scim_invalid_value", "scim_uniqueness")
