"""Index cover: what the indexes of the database can tell about a filter before the evaluator looks at a document."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal, TypeAlias

from scim.filters import And, Compare, Filter, Or, ValuePath
from scim.schema import GROUP, USER

AtomKind: TypeAlias = Literal["id", "userName", "externalId", "displayName", "emails.value", "members.value"]


@dataclass(frozen=True, slots=True)
class Atom:
    """An equality that an index can answer; `value` is casefolded if the attribute ignores case."""

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
    """Conditions that each matching resource satisfies: the value of `active`, and times in microseconds since the epoch, inclusive.

    The times of a resource are whole microseconds.
    """

    active: bool | None = None
    created_min: int | None = None
    created_max: int | None = None
    modified_min: int | None = None
    modified_max: int | None = None


def bounds(f: Filter) -> Bounds:
    """The bounds that follow from the terms which `and` joins at the top of the filter. No resource outside them matches."""
    active: bool | None = None
    windows: dict[str, tuple[int | None, int | None]] = {_CREATED: (None, None), _MODIFIED: (None, None)}
    for term in _conjuncts(f):
        name = term.reference.dotted
        if not _is_bound(term):
            continue
        if name == _ACTIVE:
            active = term.operand
        else:
            windows[name] = _narrowed(windows[name], term)
    return Bounds(active, *windows[_CREATED], *windows[_MODIFIED])


def says_only_bounds(f: Filter, resource_type: str) -> bool:
    """Whether each resource within the bounds of the filter matches it, so that SQL alone can count and page the matches.

    The index of groups has no `meta.lastModified`.
    """
    if isinstance(f, And):
        terms = list(_conjuncts(f))
        named = [term.reference.dotted for term in terms]
        return all(says_only_bounds(term, resource_type) for term in f.terms) and named.count(_ACTIVE) <= 1
    return isinstance(f, Compare) and _is_bound(f) and f.reference.dotted in _INDEXED[resource_type]


_ACTIVE, _CREATED, _MODIFIED = "active", "meta.created", "meta.lastModified"
_INDEXED: Mapping[str, frozenset[str]] = MappingProxyType(
    {USER.name: frozenset({_ACTIVE, _CREATED, _MODIFIED}), GROUP.name: frozenset({_CREATED})}
)


def _is_bound(term: Compare) -> bool:
    """Whether Bounds can express the term."""
    name = term.reference.dotted
    if term.value is None or term.reference.resource_type is not None:
        return False
    return (name == _ACTIVE and term.operator == "eq") or (name in (_CREATED, _MODIFIED) and term.operator in _RANGES)


def _conjuncts(f: Filter) -> Iterator[Compare]:
    if isinstance(f, And):
        for term in f.terms:
            yield from _conjuncts(term)
    elif isinstance(f, Compare):
        yield f


_RANGES = frozenset({"eq", "gt", "ge", "lt", "le"})
_MICRO = 10**6


def _narrowed(window: tuple[int | None, int | None], term: Compare) -> tuple[int | None, int | None]:
    """The microseconds of the window that satisfy the term, whose operand is in picoseconds."""
    low, high = window
    floor, ceiling = term.operand // _MICRO, -(-term.operand // _MICRO)
    if term.operator in ("gt", "ge", "eq"):
        least = floor + 1 if term.operator == "gt" else ceiling
        low = least if low is None else max(low, least)
    if term.operator in ("lt", "le", "eq"):
        most = ceiling - 1 if term.operator == "lt" else floor
        high = most if high is None else min(high, most)
    return low, high
