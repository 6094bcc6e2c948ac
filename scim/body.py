"""Request bodies: strict JSON with the place of the first fault (RFC 7644 §3.12, RFC 8259)."""

import json
import re
from functools import lru_cache
from typing import Any, Final

import orjson

from scim.errors import InvalidSyntax, TooMany

_BRACKET_OR_STRING = re.compile(rb'"(?:[^"\\]|\\.)*"?|[\[{\]}]', re.DOTALL)
_NAME_TO_SHOW = re.compile(r"[A-Za-z$][-\w$.:]{0,127}", re.ASCII)
# Of a body that is no JSON: searched for nesting that is too deep, a better error. A bracket costs a microsecond; there may be millions.
SEARCHED_BYTES: Final = 2**16
# Limits of one body, checked before it is parsed: a parsed value takes many times the memory of its bytes, and the parser blocks every
# other thread. A group of 200 000 members that an IdP sends with $ref, display and type has 200 001 objects, 800 000 commas and
# 1 000 000 colons. A million names in one object take as long to parse as four million in small ones.
OBJECTS_MAX: Final = 250_000  # and lists
COMMAS_MAX: Final = 2_000_000
COLONS_MAX: Final = 1_500_000
COLONS_BESIDE_MAX: Final = 20_000  # besides COLONS_EACH_MAX for each object and list
COLONS_EACH_MAX: Final = 10
_INT_MAX = 2**63 - 1
_INT_MIN = -(2**63)


class _SuspicionError(Exception):
    """The quick check found something that may be wrong: the slow check decides, and names the place."""


class _Members(list[tuple[str, Any]]):
    """The members of a JSON object in the order of the text, names that occur twice included."""


class _Integer(str):
    """The digits of an integer, kept as text: their number is not limited."""

    __slots__ = ()


def read_json(raw: bytes, *, depth_max: int = 32) -> dict[str, Any]:
    """The JSON object in `raw`.

    Raises InvalidSyntax, naming line and column or the path, for what is not one JSON object in UTF-8, for names that occur twice
    in an object (also when they differ in case only), NUL characters, lone surrogates, integers beyond 64 bit
    and nesting deeper than `depth_max`. Raises TooMany for more objects, lists, values or names
    than the limits above.
    """
    if len(raw) > COLONS_BESIDE_MAX and _holds_too_many(raw):
        raise TooMany(
            f"The request body holds too many values: at most {OBJECTS_MAX} objects and lists, {COMMAS_MAX} values and {COLONS_MAX} names; "
            f"of the names at most {COLONS_BESIDE_MAX}, and {COLONS_EACH_MAX} more for each object or list."
        )
    try:
        document = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise _malformed(raw, error.lineno, error.colno, depth_max) from None
    if type(document) is not dict:
        raise InvalidSyntax("The request body must be a JSON object: it must begin with { and end with }.")
    try:
        members = _count(document, depth_max)
    except _SuspicionError:
        members = -1
    # A member has a quote, perhaps white space, and a colon: the colons counted so are at least as many as the members of the text.
    # The parser keeps one member of each name. Equal numbers prove that no name occurs twice.
    if members != _colons(raw) or b"\\u0000" in raw:
        _inspect(raw, depth_max)
    return document


def has_lone_surrogate(text: str) -> bool:
    """Whether a text holds half of a surrogate pair, which is no character: UTF-8 cannot write it, and PostgreSQL not keep it."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return True
    return False


def _holds_too_many(raw: bytes) -> bool:
    objects, colons = raw.count(b"{") + raw.count(b"["), raw.count(b":")
    return (
        objects > OBJECTS_MAX
        or colons > min(COLONS_MAX, COLONS_BESIDE_MAX + COLONS_EACH_MAX * objects)
        or raw.count(b",") > COMMAS_MAX
    )


def _colons(raw: bytes) -> int:
    return raw.count(b'":') + raw.count(b" :") + raw.count(b"\n:") + raw.count(b"\t:") + raw.count(b"\r:")


def _count(node: dict[str, Any], depth: int) -> int:
    """The number of members in and under `node`. Raises _SuspicionError where the slow check must decide."""
    if depth <= 0 or not _distinct(tuple(node)):
        raise _SuspicionError
    members = len(node)
    for value in node.values():
        kind = type(value)
        if kind is dict:
            members += _count(value, depth - 1)
        elif kind is list:
            members += _count_list(value, depth - 1)
        elif kind is int or kind is float:
            _small(value)
    return members


def _distinct(names: tuple[str, ...]) -> bool:
    """Whether no two names differ in case only. The result is remembered: an IdP sends objects with the same few sets of names."""
    return (_distinct_known if len(names) <= _REMEMBERED_NAMES_MAX else _compare_names)(names)


def _compare_names(names: tuple[str, ...]) -> bool:
    folded: set[str] = set()
    for start in range(0, len(names), NAMES_AT_ONCE):  # in pieces: a million in one call would keep every other thread waiting
        folded.update(map(str.casefold, names[start : start + NAMES_AT_ONCE]))
    return len(folded) == len(names)


NAMES_AT_ONCE: Final = 1_000
_REMEMBERED_NAMES_MAX = 64  # of one object: what is remembered stays small whatever is sent
_distinct_known = lru_cache(maxsize=1024)(_compare_names)


def _count_list(node: list[Any], depth: int) -> int:
    if depth <= 0:
        raise _SuspicionError
    members = 0
    for value in node:
        kind = type(value)
        if kind is dict:
            members += _count(value, depth - 1)
        elif kind is list:
            members += _count_list(value, depth - 1)
        elif kind is int or kind is float:
            _small(value)
    return members


def _small(value: float) -> None:
    # An integer beyond 64 bit arrives as a float of at least this size.
    if not -_INT_MAX < value < _INT_MAX:
        raise _SuspicionError


def _malformed(raw: bytes, line: int, column: int, depth_max: int) -> InvalidSyntax:
    if not raw.strip():
        return InvalidSyntax("The request body is empty: send a JSON object.")
    if raw.startswith(b"\xef\xbb\xbf"):
        return InvalidSyntax("The request body begins with a byte order mark at line 1, column 1: send UTF-8 without it.")
    try:
        raw.decode()
    except UnicodeDecodeError as error:
        return InvalidSyntax(f"The request body is not UTF-8: byte {error.start + 1} belongs to no character.")
    if _deeper(raw[:SEARCHED_BYTES], depth_max):
        return _too_deep(depth_max)
    return InvalidSyntax(f"The request body is not valid JSON at line {line}, column {column}.")


def _deeper(raw: bytes, depth_max: int) -> bool:
    """Whether objects and lists nest deeper than `depth_max`. It visits each bracket, up to the first one that is too deep."""
    depth = 0
    for token in _BRACKET_OR_STRING.finditer(raw):
        first = token[0][:1]
        if first in b"[{":
            depth += 1
            if depth > depth_max:
                return True
        elif first in b"]}":
            depth -= 1
    return False


def _too_deep(depth_max: int) -> InvalidSyntax:
    return InvalidSyntax(f"The request body nests objects and lists more than {depth_max} levels deep.")


def _inspect(raw: bytes, depth_max: int) -> None:
    """The slow check of a body that is JSON. Raises InvalidSyntax, naming the place, where it finds a fault."""
    if _deeper(raw, depth_max):
        raise _too_deep(depth_max)
    _inspect_node(json.loads(raw, object_pairs_hook=_Members, parse_int=_Integer), "the body")


def _inspect_node(node: Any, place: str) -> None:
    if isinstance(node, _Members):
        _inspect_object(node, place)
    elif isinstance(node, list):
        for index, value in enumerate(node):
            _inspect_node(value, f"{place}[{index}]")
    elif isinstance(node, _Integer):
        if len(node) > 20 or not _INT_MIN <= int(node) <= _INT_MAX:
            raise InvalidSyntax(f"The integer at {place} does not fit in 64 bit.")
    elif isinstance(node, str) and "\0" in node:
        raise InvalidSyntax(f"The text at {place} holds a NUL character: remove it.")


def _inspect_object(node: _Members, place: str) -> None:
    seen: set[str] = set()
    for name, value in node:
        shown = name if _NAME_TO_SHOW.fullmatch(name) else "a name"
        if "\0" in name:
            raise InvalidSyntax(f"A name in {place} holds a NUL character: remove it.")
        if name.casefold() in seen:
            raise InvalidSyntax(f"{shown} occurs twice in {place}: names are compared ignoring case (RFC 7643 §2.1).")
        seen.add(name.casefold())
        _inspect_node(value, shown if place == "the body" else f"{place}.{shown}")
