"""JSON responses of /v1."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import orjson
from fastapi import Response


def as_json(document: Any, status: int = 200) -> Response:
    """A document as JSON. Times are RFC 3339 in UTC, always with microseconds (orjson omits them if they are 0)."""
    return Response(orjson.dumps(document, _plain, orjson.OPT_PASSTHROUGH_DATETIME), status, media_type="application/json")


def _plain(value: object) -> str:
    return f"{value.astimezone(UTC):%Y-%m-%dT%H:%M:%S.%fZ}" if isinstance(value, datetime) else str(value)


def listed(rows: Sequence[Any], status: int = 200, *, after: str | int | None = None) -> Response:
    """A list. `after`: where the next page begins, None at the end."""
    return as_json(list_of(rows, after), status)


def list_of(rows: Sequence[Any], after: str | int | None) -> dict[str, Any]:
    """The form of every list."""
    return {"object": "list", "data": rows, "list_metadata": {"after": after}, "has_more": after is not None}
