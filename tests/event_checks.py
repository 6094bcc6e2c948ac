"""Checks each event that passes through a test against the published schema of its type. Here the schemas are closed: a field that they lack fails."""

import functools
import json
from collections.abc import Callable, Iterator
from copy import deepcopy
from typing import Any

import httpx
import jsonschema_rs

from api.event_schemas import schema_of_event
from ledger.events import BY_TOPIC

OPEN = {"ScimUser", "ScimGroup"}  # an IdP may send any further attribute
NEXT = b'"object":"event"'


def closed(part: Any) -> Any:
    """A schema that refuses unknown fields, except those of SCIM resources."""
    if isinstance(part, list):
        return [closed(item) for item in part]
    if not isinstance(part, dict):
        return part
    found = {name: closed(value) for name, value in part.items()}
    if isinstance(part.get("properties"), dict) and part.get("title") not in OPEN:
        found["additionalProperties"] = False
    return found


@functools.cache
def validator(topic: str) -> jsonschema_rs.Draft202012Validator:
    return jsonschema_rs.Draft202012Validator(closed(deepcopy(schema_of_event(BY_TOPIC[topic]))), validate_formats=True)


def check(event: dict[str, Any]) -> None:
    """Raise AssertionError if an event is not what its schema says."""
    faults = [
        f"{'/'.join(map(str, fault.instance_path))}: {fault.message}" for fault in validator(event["type"]).iter_errors(event)
    ]
    assert not faults, (event["type"], faults)


def check_events_of(document: Any) -> None:
    """Check the events of an answer: a page, or one event."""
    if isinstance(document, dict) and document.get("object") == "event":
        check(document)
    elif isinstance(document, dict) and document.get("object") == "list":
        for item in document["data"]:
            if isinstance(item, dict) and item.get("object") == "event":
                check(item)


def watch_httpx(check_answer: Callable[[httpx.Response, bytes], None] = lambda _response, _content: None) -> None:
    """From now on each answer that a client of httpx reads is checked, also events of a stream."""
    read, iter_lines = httpx.Response.read, httpx.Response.iter_lines
    if getattr(read, "watched", False):
        return

    def checked_read(self: httpx.Response) -> bytes:
        first = not hasattr(self, "_content")
        content = read(self)
        if first and NEXT in content and self.headers.get("content-type", "").startswith("application/json"):
            check_events_of(json.loads(content))
        if first:
            check_answer(self, content)
        return content

    def checked_lines(self: httpx.Response) -> Iterator[str]:
        for line in iter_lines(self):
            if line.startswith('data: {"object":"event"'):
                check(json.loads(line.removeprefix("data: ")))
            yield line

    _replace(checked_read, checked_lines)


def _replace(read: Callable[[httpx.Response], bytes], lines: Callable[[httpx.Response], Iterator[str]]) -> None:
    read.watched = True  # type: ignore[attr-defined]
    httpx.Response.read = read  # type: ignore[method-assign]
    httpx.Response.iter_lines = lines  # type: ignore[method-assign]
