"""Answers of /v1. The type of an answer says what its JSON is: the description of the interface is made of the routes' return types."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import ClassVar, Generic, Literal, TypedDict, TypeVar

import orjson
from fastapi import Response

T = TypeVar("T")


class ListMetadata(TypedDict):
    """`after`: where the next page begins; null at the end."""

    after: str | int | None


class ListOf(TypedDict, Generic[T]):
    """One page of a list. Ask for the next one until `has_more` is false."""

    object: Literal["list"]
    data: Sequence[T]
    list_metadata: ListMetadata
    has_more: bool


class Json(Response, Generic[T]):
    """A document of type T as JSON. Times are RFC 3339 in UTC, always with microseconds (orjson omits them if they are 0)."""

    status: ClassVar[int] = 200
    media_type = "application/json"

    def __init__(self, document: T) -> None:
        super().__init__(encoded(document), self.status)


class Created(Json[T]):
    status = 201


class Accepted(Json[T]):
    status = 202


class Encoded(Json[T]):
    """A document of type T, whose JSON is given as bytes."""

    def __init__(self, text: bytes) -> None:
        super(Json, self).__init__(text, self.status)


class NoContent(Response):
    """Done; there is nothing to say."""

    def __init__(self) -> None:
        super().__init__(status_code=204)


def encoded(document: object) -> bytes:
    """A document as JSON."""
    return orjson.dumps(document, _plain, orjson.OPT_PASSTHROUGH_DATETIME)


def _plain(value: object) -> str:
    return f"{value.astimezone(UTC):%Y-%m-%dT%H:%M:%S.%fZ}" if isinstance(value, datetime) else str(value)


def list_of(rows: Sequence[T], after: str | int | None = None) -> ListOf[T]:
    """The form of every list. `after`: where the next page begins, None at the end."""
    return {"object": "list", "data": rows, "list_metadata": {"after": after}, "has_more": after is not None}


def listed(rows: Sequence[T], *, after: str | int | None = None) -> Json[ListOf[T]]:
    """A list as an answer."""
    return Json(list_of(rows, after))
