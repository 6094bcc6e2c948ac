"""What is wrong with the parameters and the body of a request: the field, the reason, and what is allowed there.

No part of an answer quotes what was sent, because that may be personal; a suggestion is one of the values that are allowed.
"""

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Final, get_args
from urllib.parse import parse_qsl

from fastapi.routing import APIRoute
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from api.field_reasons import reason_of, unknown
from operations.refusals import PLACES_MAX, InvalidField, InvalidFieldsError, invalid

_TWICE: Final = "is there more than once"
_PLACES: Final = frozenset({"after", "from", "to", "as_of"})  # an empty one has an error with a code of its own
_EMPTY: Final = "is empty: give it a value, or leave it out"
_Fields = Mapping[str, FieldInfo]


class InvalidBodyError(HTTPException):
    """A body cannot be read, or has a member twice. A starlette exception, because FastAPI passes on no other while it reads a body."""

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(400, "invalid body")
        self.field, self.reason = field, reason


class StrictRoute(APIRoute):
    """A route of /v1 whose JSON bodies have each member once. JSON parsers disagree about which of two holds (RFC 8259 §4).

    A route that takes no body refuses one: a field that is ignored, `dry_run` say, is an act that was not wanted.
    """

    def __init__(self, path: str, endpoint: Callable[..., Any], **options: Any) -> None:
        # The type of the answer is for the type checker and the description (answer_schemas.py): FastAPI would read it as a model of pydantic.
        options["response_model"] = None
        super().__init__(path, endpoint, **options)

    reads_body = False  # whether it reads the body itself, because its model is not pydantic's

    def get_route_handler(self) -> Callable[[Request], Any]:
        handler = super().get_route_handler()
        bodiless = self.body_field is None and not self.reads_body and not {"GET", "HEAD"} & (self.methods or set())

        async def strictly(request: Request) -> Response:
            strict = _StrictRequest(request.scope, request.receive)
            if bodiless:
                _refuse_fields(await strict.body())
            return await handler(strict)

        return strictly


class DocumentRoute(StrictRoute):
    """A strict route that reads its body itself: a document (scim.body.read_json), or a form."""

    reads_body = True


def _refuse_fields(body: bytes) -> None:
    """Refuse a body of a request that takes none, unless it is an empty object."""
    if body.strip() in {b"", b"{}"}:
        return
    try:
        sent = json.loads(body)
    except (ValueError, RecursionError):
        sent = None
    if not isinstance(sent, dict):
        raise invalid("body", "is not empty, but this request takes no fields")
    check_members(sent, ())


class _StrictRequest(Request):
    async def json(self) -> Any:
        body = await self.body()
        try:
            return json.loads(body, object_pairs_hook=_distinct)
        except json.JSONDecodeError:  # FastAPI tells where
            raise
        except UnicodeDecodeError as broken:
            raise InvalidBodyError("body", "is not UTF-8") from broken
        except ValueError as broken:
            raise InvalidBodyError("body", "has a number with too many digits") from broken
        except RecursionError as broken:
            raise InvalidBodyError("body", "is nested too deeply") from broken


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        seen = set[str]()
        raise InvalidBodyError(next(name for name, _ in pairs if name in seen or seen.add(name)), _TWICE)
    return found


def check_query(route: APIRoute, query: bytes) -> None:
    """Refuse query parameters that the route does not know, that come twice, or that are empty. Raises InvalidFieldsError.

    A parameter that is ignored is a filter that does not filter, of two values only one could hold, and an empty one comes from a
    variable that is not set.
    """
    known = [field.alias for field in route.dependant.query_params]
    seen, wrong, others = set[str](), dict[str, str](), dict[str, None]()
    for name, value in parse_qsl(query.decode("latin-1"), keep_blank_values=True):
        if name not in known:
            others[name] = None
        elif name in seen:
            wrong[name] = _TWICE
        elif not value and name not in _PLACES:
            wrong[name] = _EMPTY
        seen.add(name)
    _refuse([InvalidField(*each) for each in wrong.items()], list(others), known, "parameter")


def check_members(body: Mapping[str, Any], known: Collection[str]) -> None:
    """Refuse members of a body that is read without a model. Raises InvalidFieldsError."""
    _refuse([], [name for name in body if name not in known], known, "field")


def _refuse(wrong: list[InvalidField], others: Sequence[str], known: Collection[str], what: str) -> None:
    named = others[: max(0, PLACES_MAX - len(wrong))]
    wrong += [InvalidField(name, *unknown(name, known, what)) for name in named]
    if wrong:
        raise InvalidFieldsError(wrong, more=len(others) - len(named))


def refused(errors: Sequence[Mapping[str, Any]], route: APIRoute | None, body: object) -> InvalidFieldsError:
    """The error about what pydantic found invalid. `body`: the text of a body that is no JSON."""
    return InvalidFieldsError(_invalid_fields(errors[:PLACES_MAX], route, body), more=max(0, len(errors) - PLACES_MAX))


def _invalid_fields(errors: Sequence[Mapping[str, Any]], route: APIRoute | None, body: object) -> list[InvalidField]:
    query: _Fields = {field.alias: field.field_info for field in route.dependant.query_params} if route else {}
    members = _members(route)
    found: list[InvalidField] = []
    for error in errors:
        where, *path = error["loc"]
        fields = members if where == "body" else query
        field = next((fields[str(name)] for name in path if str(name) in fields), None)
        name = ".".join(str(part) for part in path) if error["type"] != "json_invalid" else ""
        found.append(InvalidField(name or str(where), *reason_of(error, field, tuple(fields), body)))
    return list(dict.fromkeys(found))


def _members(route: APIRoute | None) -> _Fields:
    """The fields of the body of a route."""
    annotations = [field.field_info.annotation for field in route.dependant.body_params] if route else []
    models = [model for annotation in annotations for model in (annotation, *get_args(annotation))]  # a body may be left out
    return next((model.model_fields for model in models if isinstance(model, type) and issubclass(model, BaseModel)), {})
