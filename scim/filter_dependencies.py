"""What a filter depends on: which values of `members` or `groups` must be loaded to evaluate it, and which members it names.

A group can have 100 000 members. Who evaluates a filter loads only those that can change its result.
"""

from collections.abc import Mapping
from dataclasses import replace

from scim.errors import InvalidFilter
from scim.filters import And, Compare, Filter, Not, Or, Present, Reference, ValuePath

Values = frozenset[str]
NO_VALUES: Values = frozenset()


def values_needed(f: Filter, name: str) -> Values | None:
    """The values of the attribute `name` that can change the filter's result; None for all of them.

    A document that holds only these of its values matches exactly if the whole document does. NO_VALUES where the filter does not
    refer to the attribute.
    """
    match f:
        case And(terms) | Or(terms):
            return _union_of_values([values_needed(term, name) for term in terms])
        case Not(term):
            return values_needed(term, name)
        case ValuePath(reference, inner):
            return _values_in_each_match(inner) if _is_attribute(reference, name) else NO_VALUES
        case Present(reference):
            return None if _is_attribute(reference, name) else NO_VALUES
        case _:
            return _values_in_each_match(f) if _is_attribute(f.reference, name) else NO_VALUES


def refers_to(f: Filter, name: str) -> bool:
    """Whether the filter refers to the attribute, so that its result can depend on it."""
    return values_needed(f, name) != NO_VALUES


def _is_attribute(reference: Reference, name: str) -> bool:
    return reference.urn is None and reference.attribute.name == name


def _union_of_values(found: list[Values | None]) -> Values | None:
    """The values of all parts: each part must give its true result, whether `and` or `or` joins them."""
    if None in found:
        return None
    return NO_VALUES.union(*(values for values in found if values is not None))


def _values_in_each_match(f: Filter) -> Values | None:
    """Values of which each item that satisfies a filter on one item has one; None where the filter does not limit them."""
    match f:
        case Compare(reference, "eq", value, operand) if reference.leaf.name == "value" and value is not None:
            return frozenset({operand})
        case And(terms):
            return min((found for found in map(_values_in_each_match, terms) if found is not None), key=len, default=None)
        case Or(terms):
            return _union_of_values([_values_in_each_match(term) for term in terms])
        case _:
            return None


# ---- members that a filter names by externalId or userName ------------------------------------------------------------------------


def compared_members(f: Filter, *, of_one_member: bool = False) -> frozenset[str]:
    """The texts that a filter compares with the `value` of members; `of_one_member` where it is the filter within `members[…]`.

    For directories whose IdP names members by externalId or userName. Raises InvalidFilter for an operator other than eq and ne:
    the result of any other depends on the id, which these texts are not.
    """
    match f:
        case And(terms) | Or(terms):
            return NO_VALUES.union(*(compared_members(term, of_one_member=of_one_member) for term in terms))
        case Not(term):
            return compared_members(term, of_one_member=of_one_member)
        case ValuePath(reference, inner):
            return compared_members(inner, of_one_member=of_one_member or _is_attribute(reference, "members"))
        case Compare(reference, operator, str() as value) if _is_member_value(reference, of_one_member=of_one_member):
            if operator not in ("eq", "ne"):
                raise InvalidFilter("members: this directory names members by another key than the id: compare it with eq or ne.")
            return frozenset({value})
        case _:
            return NO_VALUES


def equated_members(f: Filter) -> frozenset[str]:
    """The texts that a filter within `members[…]` compares with `value` by eq or ne, as whole ids."""
    match f:
        case And(terms) | Or(terms):
            return NO_VALUES.union(*map(equated_members, terms))
        case Not(term):
            return equated_members(term)
        case Compare(reference, "eq" | "ne", str() as value) if reference.leaf.name == "value":
            return frozenset({value})
        case _:
            return NO_VALUES


def with_member_ids(f: Filter, ids: Mapping[str, str], *, of_one_member: bool = False) -> Filter:
    """The filter with each text that `compared_members` gives replaced by its id, where `ids` has one."""
    match f:
        case And(terms) | Or(terms):
            return replace(f, terms=tuple(with_member_ids(term, ids, of_one_member=of_one_member) for term in terms))
        case Not(term):
            return Not(with_member_ids(term, ids, of_one_member=of_one_member))
        case ValuePath(reference, inner):
            is_member_filter = of_one_member or _is_attribute(reference, "members")
            return ValuePath(reference, with_member_ids(inner, ids, of_one_member=is_member_filter))
        case Compare(reference, operator, str() as value) if value in ids and _is_member_value(
            reference, of_one_member=of_one_member
        ):
            return Compare(reference, operator, ids[value], ids[value])
        case _:
            return f


def _is_member_value(reference: Reference, *, of_one_member: bool) -> bool:
    return reference.leaf.name == "value" and (of_one_member or _is_attribute(reference, "members"))
