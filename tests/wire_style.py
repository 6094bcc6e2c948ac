"""One wire style for all answers of /v1: names in snake_case and times in RFC 3339, UTC, with microseconds, outside of SCIM objects."""

import re
from collections.abc import Iterator
from typing import Any

SNAKE = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")
LIKE_A_TIME = re.compile(r"\d{4}-\d{2}-\d{2}[T ]\d{2}:\d{2}.*")
TIME = re.compile(r"\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}\.\d{6}Z")
# Members whose values are documents or words of others: SCIM objects and their paths, schemas, profiles, requests, words of callers.
FOREIGN = {
    "changes",
    "schema",
    "requested",
    "document",
    "before",
    "after",
    "user",
    "name",
    "reason",
    "note",
    "detail",
    "last_answer",
    "answer",
    "custom",
    "stored",
}
KEYED_BY_DATA = {
    "common",
    "not_acked",
    "not_acknowledged",
    "counts",
    "tolerances",
    "operations",
}  # slugs, reasons and names of operations
OLDER = {"userName", "displayName", "externalId"}  # of the audit's population: snake_case stands beside them


def style_faults(document: Any, place: str = "") -> Iterator[str]:
    """Places where an answer has another style."""
    if isinstance(document, list):
        for number, item in enumerate(document):
            yield from style_faults(item, f"{place}[{number}]")
    elif isinstance(document, dict):
        older = OLDER if document.get("type") in {"User", "Group"} and "active" in document else set()
        for name, value in document.items():
            if not SNAKE.fullmatch(name) and place.rpartition(".")[2] not in KEYED_BY_DATA and name not in older:
                yield f"{place}.{name} is not in snake_case"
            if name in FOREIGN or (name in {"object", "data"} and _is_scim(value)):
                continue
            yield from style_faults(value, f"{place}.{name}")
    elif isinstance(document, str) and LIKE_A_TIME.fullmatch(document) and not TIME.fullmatch(document):
        yield f"{place} is no time in UTC with microseconds"


def _is_scim(value: Any) -> bool:
    return isinstance(value, dict) and "schemas" in value
