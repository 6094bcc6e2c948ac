"""The shape of a filter: what was asked, without the values (for logs and journals)."""

import re
from functools import lru_cache
from typing import Final

from scim.errors import InvalidFilter
from scim.filter_parser import TEXT_BYTES_MAX, parse_filter
from scim.schema import ResourceType

_UNREADABLE: Final = "(unreadable)"
_VALUE = re.compile(r'"(?:[^"\\]|\\.)*"|(?<=\s)-?\d[\w.+-]*')


def filter_shape(text: str, rt: ResourceType | None) -> str:
    """Give a filter with each value replaced by `?`. One that cannot be read may hold anything anywhere, so nothing of it is shown."""
    # What is too long to be read is not remembered either: in the body of a search it may have a megabyte.
    return _shape(text, rt) if len(text) <= TEXT_BYTES_MAX else _UNREADABLE


@lru_cache(maxsize=1024)
def _shape(text: str, rt: ResourceType | None) -> str:
    try:
        parse_filter(text, rt)
    except InvalidFilter:
        return _UNREADABLE
    return _VALUE.sub("?", text)
