"""The shape of a filter: what was asked, without the values (for logs and journals)."""

import re
from functools import lru_cache

from scim.errors import InvalidFilter
from scim.filters import parse_filter
from scim.schema import ResourceType

_VALUE = re.compile(r'"(?:[^"\\]|\\.)*"|(?<=\s)-?\d[\w.+-]*')


@lru_cache(maxsize=1024)
def filter_shape(text: str, rt: ResourceType | None) -> str:
    """Give a filter with each value replaced by `?`. One that cannot be read may hold anything anywhere, so nothing of it is shown."""
    try:
        parse_filter(text, rt)
    except InvalidFilter:
        return "(unreadable)"
    return _VALUE.sub("?", text)
