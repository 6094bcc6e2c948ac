"""Answers of /v1 as JSON."""

from collections.abc import Sequence
from typing import Any

import orjson
from fastapi import Response


def as_json(document: Any, status: int = 200) -> Response:
    return Response(orjson.dumps(document, default=str), status, media_type="application/json")


def listed(rows: Sequence[Any], status: int = 200, **metadata: Any) -> Response:
    """A list; `metadata` says where the next page begins."""
    more = {"list_metadata": metadata} if metadata else {}
    return as_json({"object": "list", "data": rows, **more}, status)
