"""The description of the feed, the stream and the webhooks at /asyncapi.json: an AsyncAPI 3 document, made of the schemas of events."""

from functools import cache
from typing import Any, Final

import orjson
from fastapi import APIRouter, Response

from api.description import VERSION
from api.event_schemas import PUBLIC, Schema, definitions, name_of
from api.invalid_fields import StrictRoute
from api.services import Services
from ledger.events import EVENT_TYPES

ASYNCAPI_PAGE: Final = "/asyncapi.json"
_JSON: Final = "application/json"
_TEXT: Final[Schema] = {"type": "string"}
_NUMBER: Final[Schema] = {"type": "integer", "minimum": 0}
_TIME: Final[Schema] = {"type": "string", "format": "date-time"}
_SIGNATURE: Final = {"webhook-id": _TEXT, "webhook-timestamp": _TEXT, "webhook-signature": _TEXT}


def routes(services: Services) -> APIRouter:  # noqa: ARG001  # the signature of all parts
    """GET /asyncapi.json."""
    router = APIRouter(route_class=StrictRoute)

    @router.get(ASYNCAPI_PAGE, name="asyncapi", include_in_schema=False)
    async def asyncapi() -> Response:
        return Response(orjson.dumps(asyncapi_document()), media_type=_JSON, headers=PUBLIC)

    return router


@cache
def asyncapi_document() -> dict[str, Any]:
    """The document. The operations are those of the service: it sends, readers receive."""
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Events of the provisioning ledger", "version": VERSION,
            "description": "Each change of users, groups and memberships, in order: to be pulled, streamed or received. "
            "Later releases add fields and event types: ignore what you do not know.",
            "license": {"name": "Apache-2.0"}, "tags": [{"name": "events"}],
        },
        "defaultContentType": _JSON,
        "servers": {
            "ledger": {
                "host": "{host}", "protocol": "https", "description": "A running service.",
                "variables": {"host": {"default": "127.0.0.1:8000", "description": "Its host and port."}},
                "security": [{"$ref": "#/components/securitySchemes/bearer"}],
            }
        },
        "channels": _channels(), "operations": _sent(),
        "components": {
            "messages": _messages(), "schemas": _schemas(),
            "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer", "description": "`sl_<role>_<id>_<secret>`"}},
        },
    }  # fmt: skip


_HTTP: Final = {
    "feed": ("readFeed", "GET", "Pages of events in order, from a cursor that the reader keeps."),
    "pull": ("pullEvents", "GET", "Pages of events after the place of a consumer, which acknowledges them."),
    "stream": ("followStream", "GET", "Events as Server-Sent Events, as they come. Every event of the stream has a name."),
    "webhook": ("deliverEvents", "POST", "Signed requests to the address of a consumer (Standard Webhooks)."),
}


def _channels() -> dict[str, Any]:
    ledger = [{"$ref": "#/servers/ledger"}]
    name = {"name": {"description": "The name of the consumer."}}
    return {
        "feed": {"address": "/v1/events", "servers": ledger, "messages": _named("page")},
        "pull": {"address": "/v1/consumers/{name}/events", "servers": ledger, "parameters": name, "messages": _named("page")},
        "stream": {
            "address": "/v1/events/stream", "servers": ledger,
            "messages": _named(*(kind.topic for kind in EVENT_TYPES), "covered", "error"),
        },
        "webhook": {"address": None, "description": "The `url` of a consumer.", "messages": _named("delivery", "batch", "ping")},
    }  # fmt: skip


def _named(*messages: str) -> dict[str, Any]:
    return {name: {"$ref": f"#/components/messages/{name}"} for name in messages}


def _sent() -> dict[str, Any]:
    return {
        operation: {
            "action": "send", "channel": {"$ref": f"#/channels/{channel}"}, "summary": said,
            "bindings": {"http": {"method": method, "bindingVersion": "0.3.0"}},
        }
        for channel, (operation, method, said) in _HTTP.items()
    }  # fmt: skip


def _messages() -> dict[str, Any]:
    events = {kind.topic: _message(kind.topic, name_of(kind), f"An event `{kind.topic}`.") for kind in EVENT_TYPES}
    delivery = _message("delivery", "Delivery", "One event for a webhook.")
    batch = _message("batch", "Batch", "Events for a webhook that takes several at once.")
    return {
        **events,
        "page": _message("page", "Page", "A page of the log."),
        "covered": _message(
            "covered", "Covered", "With a filter, every 5 seconds: the range of the log that the reader has seen."
        ),
        "error": _message("error", "Problem", "The log lost its end; the stream ends."),
        "delivery": delivery | {"headers": _headers()},
        "batch": batch | {"headers": _headers()},
        "ping": _message("ping", "Ping", "Sent when an operator tries the webhook.")
        | {"headers": _object("Signature", _SIGNATURE)},
    }


def _message(name: str, schema: str, said: str) -> dict[str, Any]:
    return {"name": name, "title": schema, "summary": said, "contentType": _JSON, "payload": _schema(schema)}


def _schema(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


def _schemas() -> dict[str, Schema]:
    """The schemas of events as in their JSON Schema documents, and the forms in which they are sent."""
    events = orjson.loads(orjson.dumps(definitions()).replace(b'"#/$defs/', b'"#/components/schemas/'))
    return {
        "Event": {"title": "Event", "oneOf": [_schema(name_of(kind)) for kind in EVENT_TYPES]},
        "Page": _object("Page", {
            "object": {"const": "list"}, "data": _list_of("Event"), "list_metadata": _object("ListMetadata", {"after": _TEXT}),
            "covered": _schema("Covered"), "head_position": _NUMBER, "has_more": {"type": "boolean"},
        }),
        "Covered": _object("Covered", {"from_position": _NUMBER, "to_position": _NUMBER}),
        "Problem": _object("Problem", {
            "type": _TEXT, "title": _TEXT, "status": {"type": "integer"}, "code": _TEXT, "detail": _TEXT, "request_id": _TEXT,
        }),
        "Delivery": _object("Delivery", {"type": _TEXT, "timestamp": _TIME, "data": _schema("Event")}),
        "Batch": _object("Batch", {"type": {"const": "batch"}, "timestamp": _TIME, "data": _list_of("Event")}),
        "Ping": _object("Ping", {"type": {"const": "ping"}, "timestamp": _TIME, "data": {"type": "object"}}),
        **events,
    }  # fmt: skip


def _object(title: str, properties: dict[str, Schema]) -> Schema:
    return {"title": title, "type": "object", "properties": properties, "required": list(properties)}


def _list_of(name: str) -> Schema:
    return {"type": "array", "items": _schema(name)}


def _headers() -> Schema:
    """The headers of a delivery to a webhook."""
    always = _object("DeliveryHeaders", {**_SIGNATURE, "ledger-seq": _TEXT, "ledger-attempt": _TEXT})
    return always | {"properties": {**always["properties"], "ledger-replay": _TEXT, "ledger-previous-seq": _TEXT}}
