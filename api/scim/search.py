"""The parameters of a list request, from a query string or a SearchRequest message (RFC 7644 §3.4.2, §3.4.3, RFC 9865)."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from scim.errors import InvalidCount, InvalidCursor, InvalidSyntax, InvalidValue
from scim.sorting import check_order

SEARCH_URN = "urn:ietf:params:scim:api:messages:2.0:SearchRequest"
COUNT_MAX = 200  # default and cap of `count`


@dataclass(frozen=True, slots=True)
class Search:
    """A list request. `start` counts from 1; `attributes` and `excluded` are comma-separated names.

    `cursor` is None where pages go by index, and empty for the first page by cursor.
    """

    filter: str | None
    attributes: str | None
    excluded: str | None
    sort_by: str | None
    descending: bool
    start: int
    count: int
    cursor: str | None


def from_query(query: Mapping[str, str]) -> Search:
    """Read a query string. Raises InvalidValue naming the parameter, InvalidCount, InvalidCursor."""
    cursor = query.get("cursor")
    return _checked_search(
        query.get("filter"), query.get("attributes"), query.get("excludedAttributes"), query.get("sortBy"), query.get("sortOrder"),
        _integer("startIndex", query.get("startIndex"), 1), _count(query.get("count"), cursor), cursor,
    )  # fmt: skip


def from_message(message: Mapping[str, Any]) -> Search:
    """Read a SearchRequest. Raises InvalidSyntax or InvalidValue naming the attribute, InvalidCount, InvalidCursor."""
    given = {key.casefold(): value for key, value in message.items()}
    listed = given.get("schemas")
    if not isinstance(listed, list) or SEARCH_URN.casefold() not in {str(urn).casefold() for urn in listed}:  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
        raise InvalidSyntax(f"schemas must list {SEARCH_URN}.")
    cursor = given.get("cursor")
    if cursor is not None and not isinstance(cursor, str):
        raise InvalidCursor("cursor must be text: empty for the first page, then the nextCursor of the page before.")
    return _checked_search(
        _text(given, "filter"), _joined_names(given, "attributes"), _joined_names(given, "excludedAttributes"), _text(given, "sortBy"),
        _text(given, "sortOrder"), _integer("startIndex", given.get("startindex"), 1), _count(given.get("count"), cursor), cursor,
    )  # fmt: skip


def filter_in(message: Mapping[str, Any]) -> str | None:
    """The filter in a SearchRequest, for the journal also in one that is refused."""
    found = next((value for name, value in message.items() if name.casefold() == "filter"), None)
    return found if isinstance(found, str) else None


def _checked_search(
    wanted: str | None,
    attributes: str | None,
    excluded: str | None,
    sort_by: str | None,
    order: str | None,
    start: int,
    count: int,
    cursor: str | None,
) -> Search:
    if cursor is not None and start > 1:
        raise InvalidCursor("Send either cursor or startIndex: a cursor says where the page begins.")
    return Search(
        wanted,
        attributes or None,
        excluded or None,
        sort_by or None,
        check_order(order),
        max(1, start),
        min(COUNT_MAX, max(0, count)),
        cursor,
    )


def _text(given: Mapping[str, Any], name: str) -> str | None:
    value = given.get(name.casefold())
    if value is not None and not isinstance(value, str):
        raise InvalidValue(f"{name} must be text.")
    return value


def _joined_names(given: Mapping[str, Any], name: str) -> str | None:
    value = given.get(name.casefold())
    if value is None:
        return None
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):  # pyright: ignore[reportUnknownVariableType]
        raise InvalidValue(f"{name} must be a list of attribute names.")
    return ",".join(value)  # pyright: ignore[reportUnknownArgumentType]


def _count(value: Any, cursor: str | None) -> int:
    try:
        count = _integer("count", value, COUNT_MAX)
    except InvalidValue as wrong:
        if cursor is None:
            raise
        raise InvalidCount(wrong.detail) from wrong
    if cursor is not None and count < 1:
        # An empty page has no last item for a cursor, and without nextCursor it would say that the list ends here.
        raise InvalidCount("count: with a cursor, send at least 1. Without one, 0 gives the number of resources alone.")
    return count


def _integer(name: str, value: Any, default: int) -> int:
    if value is None or value == "":
        return default
    if isinstance(value, bool) or not isinstance(value, int | str) or not re.fullmatch(r"[+-]?\d{1,18}", str(value), re.ASCII):
        raise InvalidValue(f"{name} must be a whole number.")
    return int(value)
