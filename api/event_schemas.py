"""JSON Schemas (2020-12) of events at /v1/schemas/events, made of the event types and of the types of their data."""

from functools import cache
from typing import Any, Final

import msgspec
import orjson
from fastapi import APIRouter, Response

from api.invalid_fields import StrictRoute
from api.services import Services
from ledger.event_data import Envelope, GroupData, MembershipData, Subject, UserData
from ledger.events import BY_TOPIC, CAUSES, EVENT_TYPES, GROUP, USER, EventType, Fact
from operations.refusals import NotFoundError

Schema = dict[str, Any]
DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"
ADDRESS: Final = "/v1/schemas/events"
SCHEMA_TYPE: Final = "application/schema+json"
# They say nothing about this installation, so caches may keep them.
PUBLIC: Final = {"Cache-Control": "public, max-age=3600"}
_REF: Final = "#/$defs/{name}"
_TRUE: Final = {"type": "boolean", "const": True}


class JsonSchema(Response):
    """A JSON Schema. It says nothing about this installation."""

    media_type = SCHEMA_TYPE

    def __init__(self, schema: Schema) -> None:
        super().__init__(orjson.dumps(schema), headers=PUBLIC)


def routes(services: Services) -> APIRouter:  # noqa: ARG001  # the signature of all parts
    """The routes of the schemas."""
    router = APIRouter(route_class=StrictRoute)

    @router.get(ADDRESS, name="events.schemas")
    async def schemas_of_all() -> JsonSchema:
        """The JSON Schema of any event, with the schema of each event type as a definition."""
        return JsonSchema(schema_of_events())

    @router.get(ADDRESS + "/{event_type}", name="events.schema")
    async def schema_of_type(event_type: str) -> JsonSchema:
        """The JSON Schema of the events of one type."""
        if event_type not in BY_TOPIC:
            raise NotFoundError(f"There is no such event type; {ADDRESS} has all.")
        return JsonSchema(schema_of_event(BY_TOPIC[event_type]))

    return router


@cache
def schema_of_events() -> Schema:
    """One document for all event types."""
    kinds = [_ref(name_of(kind)) for kind in EVENT_TYPES]
    said = "An event of the feed, of the stream or of a webhook. Later releases add fields and event types: ignore what you do not know."
    return {"$schema": DIALECT, "$id": ADDRESS, "title": "Event", "description": said, "oneOf": kinds, "$defs": definitions()}


@cache
def schema_of_event(kind: EventType) -> Schema:
    """A document for one event type, complete in itself."""
    every, own = definitions(), definitions()[name_of(kind)]
    return {
        "$schema": DIALECT,
        "$id": f"{ADDRESS}/{kind.topic}",
        **own,
        "$defs": {name: every[name] for name in sorted(_needed(own))},
    }


def name_of(kind: EventType) -> str:
    """The name of a type's schema, such as `UserCreatedEvent`."""
    return "".join(part.capitalize() for part in kind.topic.replace(".", "_").split("_")) + "Event"


@cache
def definitions() -> dict[str, Schema]:
    """The schemas of the event types and of all that they refer to, by name."""
    forms = {UserData, GroupData, MembershipData, Envelope} | {kind.about for kind in EVENT_TYPES if kind.about is not None}
    ordered = sorted(forms, key=lambda form: form.__name__)
    parts = msgspec.json.schema_components(ordered, ref_template=_REF)[1]
    envelope, subject = parts.pop(Envelope.__name__), parts.pop(Subject.__name__)
    subjects = {f"{name}Subject": _subject_of(name, subject) for name in {kind.subject for kind in EVENT_TYPES}}
    acts = {_data_name(kind): _data_of_act(kind) for kind in EVENT_TYPES if kind.about is not None}
    events = {name_of(kind): _event(kind, envelope) for kind in EVENT_TYPES}
    return {**events, **dict(sorted((parts | subjects | acts | _NAMED).items()))}


# What stands in the place of `data` that a reader does not get.
_ABSENT: Final[dict[str, Schema]] = {
    name: {"title": name, "description": said, "type": "object", "properties": {field: _TRUE}, "required": [field]}
    for name, field, said in (
        ("Withheld", "withheld", "The token may not read attributes."),
        ("Erased", "erased", "The resource was erased, with the attributes of all its events."),
        ("Unreadable", "unreadable", "The stored attributes cannot be opened, because they or their key were damaged."),
    )
}
_NO_DATA: Final[Schema] = {
    "title": "NoData", "description": "The end of a resource whose attributes could not be opened any more.",
    "type": "object", "maxProperties": 0,
}  # fmt: skip
_CAUSE: Final[Schema] = {
    "title": "Cause", "description": "Why an event happened; later releases may add causes.", "type": "string", "enum": list(CAUSES),
}  # fmt: skip
_NAMED: Final = {**_ABSENT, "NoData": _NO_DATA, "Cause": _CAUSE}


def _ref(name: str) -> Schema:
    return {"$ref": _REF.format(name=name)}


def _event(kind: EventType, envelope: Schema) -> Schema:
    own: dict[str, Schema] = {
        "type": {"const": kind.topic}, "cause": _ref("Cause"), "subject": _ref(f"{kind.subject}Subject"), "data": _data(kind),
    }  # fmt: skip
    fields = envelope["properties"] | own
    order = list(Envelope.__annotations__)
    return {
        "title": name_of(kind), "description": f"`{kind.topic}`, see docs/events.md.", "type": "object",
        "properties": {name: fields[name] for name in order}, "required": [name for name in order if name in envelope["required"]],
    }  # fmt: skip


def _subject_of(name: str, subject: Schema) -> Schema:
    """The resource that an event is about, where its type is known."""
    fixed = {"type": {"const": name}, "id": subject["properties"]["id"]}
    return {**subject, "title": f"{name}Subject", "properties": fixed}


def _data(kind: EventType) -> Schema:
    """What `data` may be. Structure is never withheld or erased; attributes can be."""
    if kind.membership:
        return _ref(MembershipData.__name__)
    absent = [*_ABSENT, *(["NoData"] if Fact.ENDS_RESOURCE in kind.facts else [])]
    return {"oneOf": [_ref(_data_name(kind)), *map(_ref, absent)]}


def _data_name(kind: EventType) -> str:
    by_subject = {USER: UserData, GROUP: GroupData}
    if kind.subject in by_subject:
        return by_subject[kind.subject].__name__
    assert kind.about is not None, "the definition of an operator's event type says what it is about"
    return f"{kind.about.__name__}Data"


def _data_of_act(kind: EventType) -> Schema:
    """The data of events that operators cause."""
    assert kind.about is not None
    properties = {"object": _ref(kind.about.__name__), "changes": {"type": "array", "items": _ref("Change")}}
    return {"title": _data_name(kind), "type": "object", "properties": properties, "required": list(properties)}


def _needed(schema: Any) -> set[str]:
    """The names of all definitions that a schema refers to, also through others."""
    found: set[str] = set()
    waiting: list[Any] = [schema]
    while waiting:
        part = waiting.pop()
        if isinstance(part, dict):
            name = str(part.get("$ref", "")).removeprefix("#/$defs/")
            if name and name not in found:
                found.add(name)
                waiting.append(definitions()[name])
            waiting += part.values()
        elif isinstance(part, list):
            waiting += part
    return found
