"""What is wrong with the parameters and the body of a request: the field, the reason, and what is allowed there.

No part of an answer quotes what was sent, because that may be personal; a suggestion is one of the values that are allowed.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from urllib.parse import parse_qsl

from fastapi.routing import APIRoute
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from api.field_reasons import reason_of, unknown
from operations.refusals import InvalidField, InvalidFieldsError

_Fields = Mapping[str, FieldInfo]


class RepeatedMemberError(HTTPException):
    """A JSON object has a member twice. A starlette exception, because FastAPI passes on no other while it reads a body."""

    def __init__(self, name: str) -> None:
        super().__init__(400, "repeated")
        self.name = name


class StrictRoute(APIRoute):
    """A route of /v1 whose JSON bodies have each member once. JSON parsers disagree about which of two holds (RFC 8259 §4)."""

    def get_route_handler(self) -> Callable[[Request], Any]:
        handler = super().get_route_handler()

        async def strictly(request: Request) -> Response:
            return await handler(_StrictRequest(request.scope, request.receive))

        return strictly


class _StrictRequest(Request):
    async def json(self) -> Any:
        return json.loads(await self.body(), object_pairs_hook=_distinct)


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        seen = set[str]()
        raise RepeatedMemberError(next(name for name, _ in pairs if name in seen or seen.add(name)))
    return found


def check_query(route: APIRoute, query: bytes) -> None:
    """Refuse query parameters that the route does not know, or that come twice. Raises InvalidFieldsError.

    A parameter that is ignored is a filter that does not filter, and of two values only one could hold.
    """
    known = [field.alias for field in route.dependant.query_params]
    seen, wrong = set[str](), list[InvalidField]()
    for name, _ in parse_qsl(query.decode("latin-1"), keep_blank_values=True):
        if name not in known:
            wrong.append(InvalidField(name, *unknown(name, known, "parameter")))
        elif name in seen:
            wrong.append(InvalidField(name, "is there more than once"))
        seen.add(name)
    if wrong:
        raise InvalidFieldsError(list(dict.fromkeys(wrong)))


def invalid_fields(errors: Sequence[Mapping[str, Any]], route: APIRoute | None, body: object) -> list[InvalidField]:
    """The fields that pydantic found invalid. `body`: the text of a body that is no JSON."""
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
    models = [field.field_info.annotation for field in route.dependant.body_params] if route else []
    return next((model.model_fields for model in models if isinstance(model, type) and issubclass(model, BaseModel)), {})
