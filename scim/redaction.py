"""Filters without their values, for logs and the journal: what was filtered by, and nothing about anybody."""

import re
from functools import lru_cache
from typing import Final

from scim.errors import InvalidFilter
from scim.filter_parser import TEXT_BYTES_MAX, parse_filter
from scim.schema import ResourceType

_UNREADABLE: Final = "(unreadable)"
_VALUE = re.compile(r'"(?:[^"\\]|\\.)*"|(?<=\s)-?\d[\w.+-]*')


def redacted_filter(text: str, rt: ResourceType | None) -> str:
    """A filter with each value replaced by `?`. Of one that cannot be parsed nothing is shown: values may stand anywhere in it."""
    # A filter that is too long to be parsed is not remembered either: in the body of a search it may have a megabyte.
    return _redacted(text, rt) if len(text) <= TEXT_BYTES_MAX else _UNREADABLE


@lru_cache(maxsize=1024)
def _redacted(text: str, rt: ResourceType | None) -> str:
    try:
        parse_filter(text, rt)
    except InvalidFilter:
        return _UNREADABLE
    return _VALUE.sub("?", text)


def forget_redacted() -> None:
    """Forget the filters that were redacted: they are remembered by their texts, which may name somebody who was erased."""
    _redacted.cache_clear()
