"""Sorting of lists (RFC 7644 §3.4.2.3)."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from heapq import merge
from typing import Any, Final, Protocol, TypeVar

from scim.casefolding import casefold
from scim.datetimes import instant
from scim.errors import InvalidPath, InvalidValue
from scim.filter_parser import parse_filter
from scim.filters import Present, Reference
from scim.schema import Attribute, ResourceType
from scim.work import Work

ORDERS = ("ascending", "descending")
KEY_STEP: Final = (
    32  # characters of a sort key that cost one step: it is made, compared, and held in memory until the list is sorted
)
RUN: Final = 2_000  # items that are sorted in one go, which takes a few milliseconds
SortKey = tuple[int, Any]
T = TypeVar("T")


class Order(Protocol):
    """Gives the key that a document is sorted by. Raises as Work.spend does."""

    def __call__(self, document: Mapping[str, Any], work: Work | None = None) -> SortKey: ...


def sort_key(sort_by: str, rt: ResourceType | None) -> Order:
    """Give the key function for `sortBy`; resources without a value come last in ascending order.

    A multi-valued attribute is sorted by its primary value, else its first; text ignores case unless the schema says otherwise.
    Raises InvalidPath where the schema has no such attribute, or it is complex without a value.
    """
    try:
        parsed = parse_filter(f"{sort_by} pr", rt)
    except Exception as unreadable:
        raise InvalidPath("sortBy must name one attribute of the schema.") from unreadable
    if not isinstance(parsed, Present):
        raise InvalidPath("sortBy must name one attribute of the schema.")
    reference = parsed.reference
    sub = reference.sub
    if reference.leaf.type == "complex":
        sub = reference.attribute.sub_attributes.get("value")
        if sub is None:
            raise InvalidPath("sortBy names a complex attribute: name one of its sub-attributes after a dot.")
    leaf = sub or reference.leaf
    several = replace(reference, sub=None)

    def key(document: Mapping[str, Any], work: Work | None = None) -> SortKey:
        if reference.alternative is None:
            value = _picked(several.values(document, work), sub)
        else:
            decided = reference.decided_by(document)
            value = _picked(replace(decided, sub=None, alternative=None).values(document, work), decided.sub)
        if work is not None and isinstance(value, str):
            work.spend(len(value) // KEY_STEP)
        return (1, "") if value is None else (0, _sort_value(value, leaf.type, case_exact=leaf.case_exact))

    return key


def in_runs(items: list[T], key: Callable[[T], Any], *, reverse: bool = False) -> list[T]:
    """The items in their order, stable. They are sorted in runs that are merged: one sort of all would block every other thread meanwhile."""
    starts = range(0, len(items), RUN)
    runs = [sorted(items[start : start + RUN], key=key, reverse=reverse) for start in starts]
    return list(merge(*runs, key=key, reverse=reverse))


def check_order(order: str | None) -> bool:
    """Whether `sortOrder` asks for descending. Raises InvalidValue."""
    if order is None or order == "":
        return False
    if order.casefold() not in ORDERS:
        raise InvalidValue("sortOrder must be ascending or descending.")
    return order.casefold() == "descending"


def _picked(values: list[Any], sub: Attribute | None) -> Any:
    """The primary value, else the first, or its sub-attribute `sub`; None where there is none."""
    chosen = next((v for v in values if isinstance(v, dict) and v.get("primary") is True), values[0] if values else None)
    if sub is None:
        return chosen
    held = Reference(None, sub, None).values(chosen) if isinstance(chosen, dict) else []
    return held[0] if held else None


def _sort_value(value: Any, kind: str, *, case_exact: bool) -> tuple[int, Any]:
    """A key that never compares unlike types: numbers before text."""
    if kind == "dateTime" and isinstance(value, str):
        return (0, instant(value) or 0)
    if isinstance(value, bool | int | float):
        return (0, value)
    text = value if isinstance(value, str) else str(value)
    return (1, text if case_exact else casefold(text))
