"""What a filter asks of an attribute that costs much to load, and which members it names."""

from collections.abc import Mapping
from dataclasses import replace

from scim.errors import InvalidFilter
from scim.filters import And, Compare, Filter, Not, Or, Present, Reference, ValuePath

Values = frozenset[str]
NONE: Values = frozenset()


def asked(f: Filter, name: str) -> Values | None:
    """The values of `name` that the filter's truth depends on: none where it does not mention the attribute, None for all.

    A document that holds only those of its values matches exactly if the whole document does.
    """
    match f:
        case And(terms) | Or(terms):
            return _together([asked(term, name) for term in terms])
        case Not(term):
            return asked(term, name)
        case ValuePath(reference, inner):
            return _needed(inner) if _is(reference, name) else NONE
        case Present(reference):
            return None if _is(reference, name) else NONE
        case _:
            return _needed(f) if _is(f.reference, name) else NONE


def mentions(f: Filter, name: str) -> bool:
    """Whether the filter asks for the attribute at all."""
    return asked(f, name) != NONE


def _is(reference: Reference, name: str) -> bool:
    return reference.urn is None and reference.attribute.name == name


def _together(found: list[Values | None]) -> Values | None:
    """Every part's values: the truth of each part must come out right, however they are joined."""
    if None in found:
        return None
    return NONE.union(*(values for values in found if values is not None))


def _needed(f: Filter) -> Values | None:
    """Values of which one is in every value that satisfies a filter on the attribute's own values; None if that cannot be said."""
    match f:
        case Compare(reference, "eq", value, operand) if reference.leaf.name == "value" and value is not None:
            return frozenset({operand})
        case And(terms):
            return min((found for found in map(_needed, terms) if found is not None), key=len, default=None)
        case Or(terms):
            return _together([_needed(term) for term in terms])
        case _:
            return None


# ---- members that have another key than our id -----------------------------------------------------------------------------------


def named_members(f: Filter, *, within: bool = False) -> frozenset[str]:
    """The texts that a filter compares with members' values; `within` where it is a filter on one member, as in `members[…]`.

    Raises InvalidFilter for a comparison that needs more than one whole value: it cannot be asked of another key than ours.
    """
    match f:
        case And(terms) | Or(terms):
            return NONE.union(*(named_members(term, within=within) for term in terms))
        case Not(term):
            return named_members(term, within=within)
        case ValuePath(reference, inner):
            return named_members(inner, within=within or _is(reference, "members"))
        case Compare(reference, operator, str() as value) if _is_member(reference, within=within):
            if operator not in ("eq", "ne"):
                raise InvalidFilter("members: this directory names members by another key than the id: compare it with eq or ne.")
            return frozenset({value})
        case _:
            return NONE


def whole_members(f: Filter) -> frozenset[str]:
    """The texts that a filter on one member compares as a whole with its value."""
    match f:
        case And(terms) | Or(terms):
            return NONE.union(*map(whole_members, terms))
        case Not(term):
            return whole_members(term)
        case Compare(reference, "eq" | "ne", str() as value) if reference.leaf.name == "value":
            return frozenset({value})
        case _:
            return NONE


def with_member_ids(f: Filter, ids: Mapping[str, str], *, within: bool = False) -> Filter:
    """The filter with our ids in place of the texts that stand for them."""
    match f:
        case And(terms) | Or(terms):
            return replace(f, terms=tuple(with_member_ids(term, ids, within=within) for term in terms))
        case Not(term):
            return Not(with_member_ids(term, ids, within=within))
        case ValuePath(reference, inner):
            return ValuePath(reference, with_member_ids(inner, ids, within=within or _is(reference, "members")))
        case Compare(reference, operator, str() as value) if value in ids and _is_member(reference, within=within):
            return Compare(reference, operator, ids[value], ids[value])
        case _:
            return f


def _is_member(reference: Reference, *, within: bool) -> bool:
    return reference.leaf.name == "value" and (within or _is(reference, "members"))
