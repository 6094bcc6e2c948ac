"""What is wrong with the parameters and the body of a request: the field, the reason, and what is allowed there.

No part of an answer quotes what was sent, because that may be personal; a suggestion is one of the values that are allowed.
"""

import json
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, Final, get_args, get_origin
from urllib.parse import parse_qsl

from fastapi.routing import APIRoute
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from api.bodies import TextError
from operations.refusals import PLACES_MAX, InvalidField, InvalidFieldsError, did_you_mean

_A_TIME: Final = "is not a time with its zone, such as 2026-10-01T00:00:00Z"
_TWICE: Final = "is there more than once"
_PLUS: Final = "; in an address a + is a space: write Z, or %2B"
_Fields = Mapping[str, FieldInfo]


class InvalidBodyError(HTTPException):
    """A body cannot be read, or has a member twice. A starlette exception, because FastAPI passes on no other while it reads a body."""

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(400, "invalid body")
        self.field, self.reason = field, reason


class StrictRoute(APIRoute):
    """A route of /v1 whose JSON bodies have each member once. JSON parsers disagree about which of two holds (RFC 8259 §4)."""

    def get_route_handler(self) -> Callable[[Request], Any]:
        handler = super().get_route_handler()

        async def strictly(request: Request) -> Response:
            return await handler(_StrictRequest(request.scope, request.receive))

        return strictly


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
    """Refuse query parameters that the route does not know, or that come twice. Raises InvalidFieldsError.

    A parameter that is ignored is a filter that does not filter, and of two values only one could hold.
    """
    known = [field.alias for field in route.dependant.query_params]
    seen, again, unknown = set[str](), dict[str, None](), dict[str, None]()
    for name, _ in parse_qsl(query.decode("latin-1"), keep_blank_values=True):
        if name not in known:
            unknown[name] = None
        elif name in seen:
            again[name] = None
        seen.add(name)
    _refuse([InvalidField(name, _TWICE) for name in again], list(unknown), known, "parameter")


def check_members(body: Mapping[str, Any], known: Collection[str]) -> None:
    """Refuse members of a body that is read without a model. Raises InvalidFieldsError."""
    _refuse([], [name for name in body if name not in known], known, "field")


def _refuse(wrong: list[InvalidField], unknown: Sequence[str], known: Collection[str], what: str) -> None:
    named = unknown[: max(0, PLACES_MAX - len(wrong))]
    wrong += [_unknown(name, known, what) for name in named]
    if wrong:
        raise InvalidFieldsError(wrong, more=len(unknown) - len(named))


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
        found.append(InvalidField(name or str(where), *_reason(error, field, tuple(fields), body)))
    return list(dict.fromkeys(found))


def _members(route: APIRoute | None) -> _Fields:
    """The fields of the body of a route."""
    annotations = [field.field_info.annotation for field in route.dependant.body_params] if route else []
    models = [model for annotation in annotations for model in (annotation, *get_args(annotation))]  # a body may be left out
    return next((model.model_fields for model in models if isinstance(model, type) and issubclass(model, BaseModel)), {})


def _reason(
    error: Mapping[str, Any], field: FieldInfo | None, names: Collection[str], body: object
) -> tuple[str, tuple[str, ...]]:
    """What is wrong, and what is allowed."""
    kind, context = str(error["type"]), error.get("ctx", {})
    wrong = context.get("error")
    if isinstance(wrong, TextError):
        return str(wrong), ()
    if kind == "extra_forbidden":
        _, reason, allowed = _unknown(str(error["loc"][-1]), names, "field")
        return reason, allowed
    if kind == "literal_error":
        allowed = _values(field)
        return f"is not one of {', '.join(allowed)}{did_you_mean(error.get('input'), allowed)}", allowed
    if kind == "json_invalid":
        return _no_json(int(error["loc"][-1]), body), ()
    if kind.startswith(("datetime", "timezone", "date")):
        return _A_TIME + (_PLUS if " " in str(error.get("input")).strip() else ""), ()
    return _plain_reason(kind, _bounds(field) if len(error["loc"]) == 2 else {}), ()  # of a list's item nothing is known


def _plain_reason(kind: str, rule: Mapping[str, int]) -> str:
    """What is wrong, by the type of pydantic's error (docs.pydantic.dev/latest/errors/validation_errors)."""
    match kind:
        case "missing":
            return "is missing"
        case _ if kind.startswith("bool"):
            return "is not true or false"
        case _ if kind.startswith(("int", "greater_than", "less_than")):
            return "is not a number" + _between(rule.get("ge"), rule.get("le"))
        case "string_type" | "string_too_short" | "string_too_long":
            return "is not text" + (_between(rule.get("min_length"), rule.get("max_length"), " characters") if rule else "")
        case "too_long" | "too_short":
            return "is not a list" + _between(rule.get("min_length"), rule.get("max_length"), " items")
        case _ if kind.startswith(("list", "tuple")):
            return "is not a list"
        case _ if kind.startswith(("dict", "model")):
            return "is not an object"
        case _ if kind.startswith("uuid"):
            return "is not an id (a UUID)"
        case _:
            return "is not valid"


def _bounds(field: FieldInfo | None) -> dict[str, int]:
    """The bounds that a field declares (`ge`, `le`, `min_length`, `max_length` of pydantic's Field)."""
    rules = field.metadata if field else ()
    names = ("ge", "le", "min_length", "max_length")
    return {name: value for rule in rules for name in names if (value := getattr(rule, name, None)) is not None}


def _between(least: int | None, most: int | None, unit: str = "") -> str:
    if most is None:
        return f" of {least}{unit} or more" if least is not None else ""
    if least is None:
        return f" of at most {most}{unit}"
    return f" of {least} to {most}{unit}" if unit else f" from {least} to {most}"


def _values(field: FieldInfo | None) -> tuple[str, ...]:
    """The values of a field that is a Literal, also if it may be left out or be a list."""
    return tuple(_literals(field.annotation)) if field else ()


def _literals(annotation: Any) -> Iterable[str]:
    for argument in get_args(annotation):
        if isinstance(argument, str):
            yield argument
        elif get_origin(argument) is not None:
            yield from _literals(argument)


def _unknown(name: str, known: Collection[str], what: str) -> InvalidField:
    if not known:
        return InvalidField(name, f"is not a {what} of this request, which takes none")
    return InvalidField(name, f"is not a {what} of this request{did_you_mean(name, known)}", tuple(sorted(known)))


def _no_json(character: int, body: object) -> str:
    if isinstance(body, str) and character >= len(body.rstrip()):
        return f"is not JSON: it ends at character {character}" if body.strip() else "is empty; send a JSON object"
    return f"is not JSON, from character {character} on"
