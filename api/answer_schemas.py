"""The schemas of answers, made of the return types of the routes."""

from collections.abc import Callable, Iterable
from http import HTTPStatus
from types import UnionType
from typing import Any, Final, Union, get_args, get_origin, get_type_hints

import msgspec
from fastapi import Response

from api.answers import Json
from api.event_schemas import definitions, schema_of_events

Endpoint = Callable[..., Any]
Part = dict[str, Any]
_COMPONENT: Final = "#/components/schemas/{name}"
_EVENT: Final = "Event"


class AnswerSchemas:
    """The answers of some endpoints, and the components that their schemas refer to."""

    def __init__(self, endpoints: Iterable[Endpoint]) -> None:
        self._kinds = {endpoint: _kinds_of(endpoint) for endpoint in endpoints}
        documents = list(
            dict.fromkeys(document for kinds in self._kinds.values() for _, document in kinds if document is not None)
        )
        schemas, parts = msgspec.json.schema_components(documents, ref_template=_COMPONENT)
        self._schemas = {document: _tidy(schema) for document, schema in zip(documents, schemas, strict=True)}
        own = {_name(name): _tidy(schema) for name, schema in parts.items()}
        assert len(own) == len(parts), "two types have one public name"
        for name, schema in own.items():
            schema["title"] = name
        self.components: dict[str, Part] = _joined(own, _events())

    def of(self, endpoint: Endpoint) -> dict[str, Part]:
        """The answers of an endpoint by status, without its errors. One status may have several media types."""
        found: dict[str, Part] = {}
        for status, answer in (self._answer(kind, document) for kind, document in self._kinds[endpoint]):
            found.setdefault(status, answer).get("content", {}).update(answer.get("content", {}))
        return found

    def _answer(self, kind: type[Response], document: Any) -> tuple[str, Part]:
        if kind.media_type is None:
            return "204", {"description": HTTPStatus.NO_CONTENT.phrase}
        status, media = kind.status if issubclass(kind, Json) else 200, kind.media_type.partition(";")[0]
        plain = {"type": "object" if media.endswith("+json") else "string"}
        content = {media: {"schema": plain if document is None else self._schemas[document]}}
        return str(status), {"description": HTTPStatus(status).phrase, "content": content}


def _joined(own: dict[str, Part], events: dict[str, Part]) -> dict[str, Part]:
    twice = [name for name in own.keys() & events.keys() if own[name] != events[name]]
    assert not twice, f"{twice} are names of different types"
    return own | events


def _kinds_of(endpoint: Endpoint) -> list[tuple[type[Response], Any]]:
    """The classes of an endpoint's answers, each with the type of its document, None where it has none."""
    returned = get_type_hints(endpoint, include_extras=True)["return"]
    kinds = get_args(returned) if get_origin(returned) in {Union, UnionType} else (returned,)
    return [(get_origin(kind) or kind, _document_of(kind)) for kind in kinds]


def _document_of(kind: Any) -> Any:
    """The type of the document of an answer: the parameter of `Json[…]`, also where a class without parameters derives from it."""
    for base in (kind, *getattr(kind, "__orig_bases__", ())):
        of = get_origin(base)
        if isinstance(of, type) and issubclass(of, Json):
            return get_args(base)[0]
    return None


def _name(name: str) -> str:
    """The public name of a type: `ListOf[ShownToken]` is a TokenList."""
    form, _, inner = name.rstrip("_").partition("_")
    return f"{inner}{'List' if form == 'ListOf' else form}".replace("Shown", "") if inner else form.removeprefix("Shown")


def _tidy(schema: Any) -> Any:
    """The schema with the public names of the components; a reference stands alone."""
    return with_references(schema, lambda part: {"$ref": _COMPONENT.format(name=_name(str(part["$ref"]).rpartition("/")[2]))})


def _events() -> dict[str, Part]:
    """The schemas of events (event_schemas.py) as components."""
    any_event = {key: part for key, part in schema_of_events().items() if not key.startswith("$")}
    return {name: with_references(schema, _as_component) for name, schema in (definitions() | {_EVENT: any_event}).items()}


def _as_component(part: Part) -> Part:
    return part | {"$ref": _COMPONENT.format(name=str(part["$ref"]).rpartition("/")[2])}


def with_references(schema: Any, put: Callable[[Part], Any]) -> Any:
    """A copy of a schema, with what `put` gives in the place of each part that refers to another schema."""
    if isinstance(schema, list):
        return [with_references(part, put) for part in schema]
    if not isinstance(schema, dict):
        return schema
    if "$ref" in schema:
        return put(schema)
    return {key: with_references(part, put) for key, part in schema.items()}
