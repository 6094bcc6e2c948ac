"""Index cover: what the indexes of the database can tell about a filter before the evaluator looks at a document."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal, TypeAlias

from scim.filters import And, Compare, Filter, Or, ValuePath

AtomKind: TypeAlias = Literal["id", "userName", "externalId", "displayName", "emails.value", "members.value"]


@dataclass(frozen=True, slots=True)
class Atom:
    """An equality that an index can answer; `value` is folded where the attribute ignores case."""

    kind: AtomKind
    value: str


_ATOMS: Mapping[str, AtomKind] = MappingProxyType(
    {
        "id": "id",
        "userName": "userName",
        "externalId": "externalId",
        "displayName": "displayName",
        "emails.value": "emails.value",
        "members.value": "members.value",
    }
)


def cover(f: Filter) -> frozenset[Atom] | None:
    """Equalities of which every matching document satisfies at least one; None when there is no such set."""
    return _cover(f, "")


def _cover(f: Filter, prefix: str) -> frozenset[Atom] | None:
    if isinstance(f, Compare):
        return _equality(f, prefix)
    if isinstance(f, ValuePath):
        return _cover(f.inner, f"{f.reference.dotted}.")
    if isinstance(f, And):
        covers = [found for found in (_cover(term, prefix) for term in f.terms) if found is not None]
        return min(covers, key=len, default=None)
    if isinstance(f, Or):
        return _union([_cover(term, prefix) for term in f.terms])
    return None


def _equality(f: Compare, prefix: str) -> frozenset[Atom] | None:
    kind = _ATOMS.get(prefix + f.reference.dotted)
    if kind is None or f.operator != "eq" or f.value is None:
        return None
    return frozenset({Atom(kind, f.operand)})


def _union(covers: list[frozenset[Atom] | None]) -> frozenset[Atom] | None:
    found: set[Atom] = set()
    for one in covers:
        if one is None:
            return None
        found |= one
    return frozenset(found)


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a match must satisfy at least: `active`, and instants in microseconds since the epoch, inclusive."""

    active: bool | None = None
    created_min: int | None = None
    created_max: int | None = None
    modified_min: int | None = None
    modified_max: int | None = None


def bounds(f: Filter) -> Bounds:
    """The bounds that the top-level conjunction implies; they never exclude a match."""
    active: bool | None = None
    windows: dict[str, tuple[int | None, int | None]] = {"meta.created": (None, None), "meta.lastModified": (None, None)}
    for term in _conjuncts(f):
        name = term.reference.dotted
        if name == "active" and term.operator == "eq" and term.value is not None:
            active = term.operand
        elif name in windows and term.value is not None:
            windows[name] = _narrowed(windows[name], term)
    return Bounds(active, *windows["meta.created"], *windows["meta.lastModified"])


def _conjuncts(f: Filter) -> Iterator[Compare]:
    if isinstance(f, And):
        for term in f.terms:
            yield from _conjuncts(term)
    elif isinstance(f, Compare):
        yield f


_MICRO = 10**6


def _narrowed(window: tuple[int | None, int | None], term: Compare) -> tuple[int | None, int | None]:
    low, high = window
    if term.operator in ("gt", "ge", "eq"):
        floor = term.operand // _MICRO
        low = floor if low is None else max(low, floor)
    if term.operator in ("lt", "le", "eq"):
        ceiling = -(-term.operand // _MICRO)
        high = ceiling if high is None else min(high, ceiling)
    return low, high
