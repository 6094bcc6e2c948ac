"""Filters (RFC 7644 §3.4.2.2) as values, and the one evaluator: whether a document satisfies one."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, TypeAlias

from scim.casefolding import casefold
from scim.datetimes import instant
from scim.schema import Attribute
from scim.work import Work

LONG_TEXT = 256  # characters of a value; to compare more costs steps
UNKNOWN_TYPE = "any"


def unknown(name: str) -> Attribute:
    """An attribute that no schema here has."""
    return Attribute(name, UNKNOWN_TYPE)


@dataclass(frozen=True, slots=True)
class Reference:
    """An attribute that a filter names: the URN of its extension or None, the attribute, and perhaps a sub-attribute.

    `resource_type` is set where the filter is for several types and names one by its core URN. `alternative` is the other reading of a
    name whose URN may end at the last colon or at a dot (see urns.Readings); each document decides between them.
    """

    urn: str | None
    attribute: Attribute
    sub: Attribute | None
    resource_type: str | None = None
    alternative: "Reference | None" = None

    @property
    def leaf(self) -> Attribute:
        return self.sub or self.attribute

    @property
    def dotted(self) -> str:
        name = self.attribute.name if self.sub is None else f"{self.attribute.name}.{self.sub.name}"
        return name if self.urn is None else f"{self.urn}:{name}"

    def decided_by(self, document: Mapping[str, Any]) -> "Reference":
        """The reference itself or its alternative: the one whose extension, or attribute, the document has."""
        assert self.urn is not None
        assert self.alternative is not None
        assert self.alternative.urn is not None
        own, other = look_up(document, self.urn), look_up(document, self.alternative.urn)
        has_own = isinstance(own, dict) and look_up(own, self.attribute.name) is not None  # pyright: ignore[reportUnknownArgumentType]
        return self.alternative if isinstance(other, dict) and not has_own else self

    def values(self, document: Mapping[str, Any], work: Work | None = None) -> list[Any]:
        """All values of the attribute in a document. Raises as Work.spend does."""
        if self.alternative is not None:
            return replace(self.decided_by(document), alternative=None).values(document, work)
        if self.resource_type is not None and document.get("meta", {}).get("resourceType") != self.resource_type:
            return []
        holder: Any = document
        if self.urn is not None:
            holder = look_up(document, self.urn)
            if not isinstance(holder, dict):
                # The last part of a URN without a schema looks like an attribute: the name may be an extension as a whole.
                return _flat(look_up(document, self.dotted)) if self.attribute.type == UNKNOWN_TYPE else []
        found = _found(holder, self.attribute.name, work)
        if self.sub is None:
            return found
        name = self.sub.name
        return [value for item in found if isinstance(item, dict) for value in _found(item, name, work)]


def _found(holder: Mapping[str, Any], name: str, work: Work | None) -> list[Any]:
    """The values under `name`. It costs more where the name is absent or in another case: then all names are compared."""
    found = _flat(look_up(holder, name))
    if work is not None:
        work.spend(1 + len(found) + len(holder) // 8)
    return found


def look_up(holder: Mapping[str, Any], name: str) -> Any:
    """The value under `name`, in any case: attributes without a schema are stored as they were sent."""
    value = holder.get(name)
    if value is not None or name in holder:
        return value
    folded = name.casefold()
    return next((held for key, held in holder.items() if key.casefold() == folded), None)


def _flat(value: Any) -> list[Any]:
    if value is None or value == {}:
        return []
    return value if isinstance(value, list) else [value]


@dataclass(frozen=True, slots=True)
class Compare:
    """`attribute operator value`; `operand` is the value in the form in which it is compared."""

    reference: Reference
    operator: str
    value: Any
    operand: Any

    def holds(self, document: Mapping[str, Any], work: Work | None = None) -> bool:
        values = self.reference.values(document, work)
        if self.value is None:
            return (not values) == (self.operator == "eq")
        if not values:
            return self.operator == "ne"
        return any(_test(self, value, work) for value in values)


@dataclass(frozen=True, slots=True)
class Present:
    """`attribute pr`: the attribute has a value."""

    reference: Reference

    def holds(self, document: Mapping[str, Any], work: Work | None = None) -> bool:
        return any(value != "" for value in self.reference.values(document, work))


@dataclass(frozen=True, slots=True)
class And:
    terms: tuple["Filter", ...]

    def holds(self, document: Mapping[str, Any], work: Work | None = None) -> bool:
        return all(term.holds(document, work) for term in self.terms)


@dataclass(frozen=True, slots=True)
class Or:
    terms: tuple["Filter", ...]

    def holds(self, document: Mapping[str, Any], work: Work | None = None) -> bool:
        return any(term.holds(document, work) for term in self.terms)


@dataclass(frozen=True, slots=True)
class Not:
    term: "Filter"

    def holds(self, document: Mapping[str, Any], work: Work | None = None) -> bool:
        return not self.term.holds(document, work)


@dataclass(frozen=True, slots=True)
class ValuePath:
    """`attribute[filter]`: a single value of the attribute satisfies the whole filter."""

    reference: Reference
    inner: "Filter"

    def holds(self, document: Mapping[str, Any], work: Work | None = None) -> bool:
        return any(self.inner.holds(as_value(value), work) for value in self.reference.values(document, work))


def as_value(item: Any) -> Mapping[str, Any]:
    """A value as the filter in brackets is evaluated on it: a simple value is the `value` of an object (RFC 7643 §2.4)."""
    return item if isinstance(item, dict) else {"value": item}


Filter: TypeAlias = Compare | Present | And | Or | Not | ValuePath


def matches(f: Filter, document: Mapping[str, Any], work: Work | None = None) -> bool:
    """Whether the document satisfies the filter: the one evaluator.

    With `work`, each value that a term visits costs steps. Raises as Work.spend does.
    """
    return f.holds(document, work)


OPERATORS: Mapping[str, Callable[[Any, Any], bool]] = MappingProxyType(
    {
        "eq": lambda held, asked: held == asked,
        "ne": lambda held, asked: held != asked,
        "co": lambda held, asked: asked in held,
        "sw": lambda held, asked: held.startswith(asked),
        "ew": lambda held, asked: held.endswith(asked),
        "gt": lambda held, asked: held > asked,
        "ge": lambda held, asked: held >= asked,
        "lt": lambda held, asked: held < asked,
        "le": lambda held, asked: held <= asked,
    }
)
TEXTUAL = frozenset({"co", "sw", "ew"})


def _test(node: Compare, held: Any, work: Work | None) -> bool:
    operand = node.operand
    if work is not None and isinstance(held, str) and len(held) > LONG_TEXT:
        work.spend(len(held) // (LONG_TEXT if held.isascii() else LONG_TEXT // 4))
    compared = comparable(node.reference.leaf, node.operator, held)
    if compared is None or type(compared) is not type(operand):
        numbers = isinstance(compared, int | float) and isinstance(operand, int | float)
        if not numbers or isinstance(compared, bool) or isinstance(operand, bool):
            return node.operator == "ne"
    return OPERATORS[node.operator](compared, operand)


def comparable(attribute: Attribute, operator: str, value: Any) -> Any:
    if not isinstance(value, str):
        return value
    if attribute.type == "dateTime" and operator not in TEXTUAL:
        return instant(value)
    return value if attribute.case_exact else casefold(value)
