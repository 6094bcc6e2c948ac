"""Checks each answer that a test reads against the description of the interface. Here the schemas are closed: a field that they lack fails."""

import functools
import json
import re
from typing import Any

import httpx
import jsonschema_rs

from api.description import described
from tests.event_checks import closed
from tests.served import served
from tests.wire_style import style_faults

Schema = dict[str, Any]
PROBLEM = "application/problem+json"


@functools.cache
def description() -> Schema:
    return described(served())


@functools.cache
def _operations() -> list[tuple[str, re.Pattern[str], Schema]]:
    return [
        (method.upper(), re.compile(re.sub(r"\\\{[^{}]+\\\}", "[^/]+", re.escape(path))), operation)
        for path, item in description()["paths"].items()
        for method, operation in item.items()
    ]


@functools.cache
def _validator(schema: str) -> jsonschema_rs.Draft202012Validator:
    """The validator of a schema of the description. Events have their own check (event_checks.py)."""
    components = {
        # a problem has members by its code, a SCIM document attributes by its schema, of which `attributes` may leave out any
        name: part if name == "Problem" else part | {"required": ["schemas"]} if name.startswith("Scim") else closed(part)
        for name, part in description()["components"]["schemas"].items()
    }
    components["Event"] = {"type": "object"}
    return jsonschema_rs.Draft202012Validator(json.loads(schema) | {"components": {"schemas": components}}, validate_formats=True)


def faults_of(method: str, path: str, status: int, content_type: str, content: bytes) -> list[str]:
    """What an answer has that the description does not say."""
    operation = next((found for verb, pattern, found in _operations() if verb == method and pattern.fullmatch(path)), None)
    if operation is None:
        return []  # SCIM, and paths that nothing serves
    media = content_type.partition(";")[0]
    answer = operation["responses"].get(str(status)) or operation["responses"].get(f"{status // 100}XX")
    if answer is None:
        return [f"{status} is not described"]
    described_media = answer.get("content", {})
    if not content and not described_media:
        return []
    if media not in described_media:
        return [f"{media} is not described for {status}"]
    if not media.endswith(("/json", "+json")):
        return []
    faults = _validator(json.dumps(described_media[media]["schema"])).iter_errors(json.loads(content))
    return [f"{'/'.join(map(str, fault.instance_path))}: {fault.message}"[:500] for fault in faults]


def check(response: httpx.Response, content: bytes) -> None:
    """Raise AssertionError if an answer of /v1 or of a probe is not what the description says."""
    request = getattr(response, "_request", None)
    if request is None or request.method == "HEAD" or "x-request-id" not in response.headers:  # not of the application
        return
    faults = faults_of(request.method, request.url.path, response.status_code, response.headers.get("content-type", ""), content)
    if request.url.path.startswith("/v1/") and not request.url.path.startswith("/v1/schemas/"):
        faults += [fault for document in _documents(response, content) for fault in style_faults(document)]
    assert not faults, (request.method, request.url.path, response.status_code, faults)


def _documents(response: httpx.Response, content: bytes) -> list[Any]:
    """The JSON documents of an answer: one, or one a line."""
    match response.headers.get("content-type", "").partition(";")[0]:
        case "application/x-ndjson":
            return [json.loads(line) for line in content.splitlines()]
        case "application/json" | "application/problem+json":
            return [json.loads(content)] if content else []
        case _:
            return []
