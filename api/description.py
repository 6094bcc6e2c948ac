"""The description of /v1 at /openapi.json: made of the routes, of the operations behind them and of the permission table."""

from collections.abc import Iterator, Sequence
from typing import Any, Final

import msgspec
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute
from starlette.routing import BaseRoute

from api.answer_schemas import AnswerSchemas, with_references
from api.error_examples import ERRORS, error_examples, errors_of
from api.examples import MEDIA_EXAMPLES, example_of, explain
from api.scim import description as scim
from operations.admission import SENTENCES
from operations.permissions import ROLES, TABLE, open_to_strangers

TITLE: Final = "Provisioning ledger"
VERSION: Final = "1"
_TAGS: Final = {
    "probes": "Whether the service lives, and whether it can serve.", "metrics": "Figures for Prometheus.",
    "events": "The feed: every change, in order.", "snapshot": "All state of a directory, to begin with.",
    "consumers": "Named readers of the feed, whose place the ledger keeps.", "deliveries": "Deliveries that failed, and what to do about them.",
    "replays": "Send events again.", "surges": "The surge brake of a directory.", "erasures": "Erase users and groups.", "holds": "Legal holds, which keep from erasing.", "requests": "The journal of SCIM requests.",
    "schemas": "Extension schemas of a directory.", "profiles": "How kinds of IdP write SCIM.", "rate_limits": "How many SCIM requests a directory may send.", "directories": "Connections of IdPs.", "users": "The current users of a directory.", "groups": "The current groups of a directory.",
    "tokens": "Bearer tokens.", "clients": "OAuth 2.0 clients of IdPs.", "oauth": "Where they get access tokens.", "keys": "Key epochs.", "audit": "Past states.", scim.TAG: "What IdPs write and read (RFC 7644).",
}  # fmt: skip
_PROBLEM: Final = "#/components/schemas/Problem"
_SECURITY: Final = [{"bearer": list[str]()}]
_SECURITY_SCHEMES: Final = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "`sl_<role>_<id>_<secret>`"},
    "oauth2": {
        "type": "oauth2",
        "description": "An access token of an OAuth 2.0 client of the directory, from the token endpoint of that directory.",
        "flows": {"clientCredentials": {"tokenUrl": "/oauth/{directory}/token", "scopes": {"scim": "Read and write SCIM."}}},
    },
}


def described(routes: Sequence[BaseRoute]) -> dict[str, Any]:
    """The OpenAPI document."""
    document = get_openapi(title=TITLE, version=VERSION, routes=routes, separate_input_output_schemas=False)
    paths, shown = document["paths"], [r for r in routes if isinstance(r, APIRoute) and r.include_in_schema]
    answers = AnswerSchemas(route.endpoint for route in shown)
    for route in shown:
        for operation in _operations(paths, route):
            operation.update(_of(route), responses=answers.of(route.endpoint) | {key: _problem_answer() for key in ERRORS})
    components = document.setdefault("components", {})
    bodies = {
        name: schema
        for name, schema in components.get("schemas", {}).items()
        if name not in {"HTTPValidationError", "ValidationError"}
    }
    paths.update(scim.paths())
    components["schemas"] = dict(sorted((bodies | answers.components | scim.components() | {"Problem": _problem()}).items()))
    components["examples"] = error_examples()
    for path, item in paths.items():
        for method, operation in item.items():
            _exemplify(operation, components["schemas"])
            _exemplify_errors(method, path, operation)
    components["securitySchemes"] = _SECURITY_SCHEMES
    document["servers"] = [{"url": "/"}]
    document["info"]["license"] = {"name": "Apache-2.0", "identifier": "Apache-2.0"}
    document["tags"] = [{"name": name, "description": text} for name, text in _TAGS.items()]
    return document


def _exemplify(operation: dict[str, Any], schemas: dict[str, Any]) -> None:
    """Give parameters a sentence, and all values an example."""
    for parameter in operation.get("parameters", ()):
        explain(parameter)
    answers = [answer for status, answer in operation["responses"].items() if status not in ERRORS]
    for part in (operation.get("requestBody", {}), *answers):
        for media, content in part.get("content", {}).items():
            if media.endswith("json"):
                content["example"] = MEDIA_EXAMPLES.get(media) or example_of(content["schema"], schemas)


def _exemplify_errors(method: str, path: str, operation: dict[str, Any]) -> None:
    shown = errors_of(method, path, scim=operation["tags"] == [scim.TAG], secured=bool(operation["security"]))
    for status, examples in shown.items():
        (content,) = operation["responses"][status]["content"].values()
        content["examples"] = examples


def _operations(paths: dict[str, Any], route: APIRoute) -> Iterator[dict[str, Any]]:
    for method in route.methods or ():
        if method.lower() in paths.get(route.path_format, {}):
            yield paths[route.path_format][method.lower()]


def _of(route: APIRoute) -> dict[str, Any]:
    """What the description says of a route besides its parameters and its answer."""
    named = {"security": list[Any]() if open_to_strangers(route.name) else _SECURITY}
    return {
        "operationId": _id(route), "tags": [route.name.partition(".")[0]], "summary": sentence_of(route),
        "description": _roles(route.name), **named,
    }  # fmt: skip


def _id(route: APIRoute) -> str:
    """The name of its operation; acts that share one are told apart by the end of their paths."""
    if route.name == "deliveries.act":
        return "_".join(
            ["deliveries", *[part for part in route.path.split("/") if part in {"blocked", "parked", "retry", "park", "skip"}]]
        )
    return route.name.replace(".", "_")


def document_of(sentence: str, form: type) -> dict[str, Any]:
    """The description of a body that a route reads itself, for `openapi_extra`. `form`: the type of the body."""
    schema = msgspec.json.schema(form)
    return {
        "requestBody": {
            "required": True,
            "description": sentence,
            "content": {"application/json": {"schema": _inlined(schema, schema["$defs"])}},
        }
    }


def _inlined(schema: dict[str, Any], parts: dict[str, Any]) -> Any:
    """A schema in which each reference is replaced by what it names."""
    own = {key: part for key, part in schema.items() if key != "$defs"}
    return with_references(own, lambda part: _inlined(parts[str(part["$ref"]).rpartition("/")[2]], parts))


def sentence_of(route: APIRoute) -> str:
    """What the route does: the first sentence of its own docstring, or of that of its operation."""
    own = " ".join((route.endpoint.__doc__ or "").split("\n\n")[0].split())
    return own.partition(". ")[0].rstrip(".") + "." if own else SENTENCES[route.name]


def _roles(operation: str) -> str:
    if open_to_strangers(operation):
        return "Needs no token."
    roles = [role for role in ROLES if role in TABLE[operation].roles]
    return f"For tokens of role {', '.join(roles)}."


def _problem_answer() -> dict[str, Any]:
    return {"description": "An error (RFC 9457).", "content": {"application/problem+json": {"schema": {"$ref": _PROBLEM}}}}


def _problem() -> dict[str, Any]:
    text = {"type": "string"}
    field = {
        "type": "object", "required": ["field", "reason"],
        "properties": {"field": text, "reason": text, "allowed": {"type": "array", "items": text}},
    }  # fmt: skip
    return {
        "type": "object", "required": ["type", "title", "status", "code", "detail", "request_id"], "title": "Problem",
        "description": "An error. `code` is stable, `detail` is for people; some codes have further members.",
        "properties": {
            "type": {"type": "string", "format": "uri-reference"}, "title": text, "status": {"type": "integer"},
            "code": text | {"examples": ["invalid_parameters"]}, "detail": text | {"examples": ["`limit` is not a number from 1 to 1000."]},
            "request_id": {"type": "string", "format": "uuid"}, "errors": {"type": "array", "items": field},
        },
    }  # fmt: skip
