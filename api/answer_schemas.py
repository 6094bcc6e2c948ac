"""The schemas of answers, made of the return types of the routes."""

from collections.abc import Callable, Iterable
from http import HTTPStatus
from typing import Any, Final, get_args, get_origin, get_type_hints

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
        """The answers of an endpoint by status, without its errors."""
        return dict(self._answer(kind, document) for kind, document in self._kinds[endpoint])

    def _answer(self, kind: type[Response], document: Any) -> tuple[str, Part]:
        status = kind.status if issubclass(kind, Json) else 204 if kind.media_type is None else 200
        found: Part = {"description": HTTPStatus(status).phrase}
        if issubclass(kind, Json):
            found["content"] = {kind.type: {"schema": self._schemas[document]}}
        elif kind.media_type is not None:
            media = kind.media_type.partition(";")[0]
            found["content"] = {media: {"schema": {"type": "object" if media.endswith("+json") else "string"}}}
        return str(status), found


def _joined(own: dict[str, Part], events: dict[str, Part]) -> dict[str, Part]:
    twice = [name for name in own.keys() & events.keys() if own[name] != events[name]]
    assert not twice, f"{twice} are names of different types"
    return own | events


def _kinds_of(endpoint: Endpoint) -> list[tuple[type[Response], Any]]:
    """The classes of an endpoint's answers, each with the type of its document, None where it has none."""
    returned = get_type_hints(endpoint, include_extras=True)["return"]
    kinds: list[tuple[type[Response], Any]] = []
    for kind in get_args(returned) if _is_union(returned) else (returned,):
        of = get_origin(kind) or kind
        kinds.append((of, _document_of(kind)))
    return kinds


def _is_union(hint: Any) -> bool:
    return (get_origin(hint) is not None and not isinstance(get_origin(hint), type)) or type(hint).__name__ == "UnionType"


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
    """The schema with the names of the components; a reference stands alone."""
    if isinstance(schema, list):
        return [_tidy(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    if "$ref" in schema:
        start, _, name = str(schema["$ref"]).rpartition("/")
        return {"$ref": f"{start}/{_name(name)}"}
    return {key: _tidy(part) for key, part in schema.items()}


def _events() -> dict[str, Part]:
    """The schemas of events (event_schemas.py) as components."""
    any_event = {key: part for key, part in schema_of_events().items() if not key.startswith("$")}
    return {name: _as_components(schema) for name, schema in (definitions() | {_EVENT: any_event}).items()}


def _as_components(schema: Any) -> Any:
    if isinstance(schema, list):
        return [_as_components(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    return {
        key: str(part).replace("#/$defs/", "#/components/schemas/") if key == "$ref" else _as_components(part)
        for key, part in schema.items()
    }
