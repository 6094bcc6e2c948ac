"""What a filter asks of an attribute that costs much to load, so that no more of it is loaded than the answer depends on."""

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
