"""PATCH operations on the members of a group: they never meet a document, so that a large group need not be loaded."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from scim.errors import InvalidFilter, InvalidPath, InvalidValue, Mutability, NoTarget
from scim.filters import And, Compare, Filter, Not, Or
from scim.leniency import Leniency, Tolerance
from scim.normalise import as_list, check_members
from scim.paths import Path

Op: TypeAlias = Literal["add", "remove", "replace"]
EdgeKind: TypeAlias = Literal["add", "remove", "clear", "remove_where", "require"]
MISSING: Any = object()  # an operation without a value


@dataclass(frozen=True, slots=True)
class EdgeOperation:
    """One change of a group's members, as `(id, type or None)`; `filter` is over one member's object.

    `require` changes nothing: one of the members must be in the group at that point (noTarget otherwise).
    """

    kind: EdgeKind
    members: tuple[tuple[str, str | None], ...] = ()
    filter: Filter | None = None


def no_such_member() -> NoTarget:
    """What `require` is answered where the group has none of its members."""
    return NoTarget("members: the filter of the path selects no member of this group.")


def read_edges(op: Op, path: Path, value: Any, leniency: Leniency) -> Iterator[EdgeOperation]:
    if path.sub is not None:
        raise Mutability("The sub-attributes of a member cannot be changed: remove the member and add another.")
    if path.filter is not None:
        yield from _selected_edges(op, path, path.filter, value, leniency)
    elif op == "remove":
        yield _removal(value, leniency)
    else:
        if value is MISSING:
            raise InvalidValue(f"{op} needs a value for members.")
        if op == "replace":
            yield EdgeOperation("clear")
        # Only null and [] say that there is nobody (RFC 7643 §2.5): anything else is somebody, or a mistake that empties no group.
        if value not in (None, []):
            yield EdgeOperation("add", _pairs(value, leniency))


def _pairs(value: Any, leniency: Leniency) -> tuple[tuple[str, str | None], ...]:
    if isinstance(value, str) and value and leniency.allows(Tolerance.BARE_VALUES):
        # Microsoft's test suite adds one member as a bare id (AzureAD/SCIMReferenceCode issue 24).
        value = [{"value": value}]
    items = as_list(value, "members", leniency)
    return tuple((member["value"], member.get("type")) for member in check_members(items, leniency))


def _removal(value: Any, leniency: Leniency) -> EdgeOperation:
    if value is MISSING or value is None:
        return EdgeOperation("clear")
    if not leniency.allows(Tolerance.REMOVE_VALUE_LIST):
        raise InvalidValue('remove has no value: select the member in the path, as members[value eq "…"].')
    # An empty list names nobody: it must not empty the group.
    return EdgeOperation("remove", _pairs(value, leniency))


def _selected_edges(op: Op, path: Path, selection: Filter, value: Any, leniency: Leniency) -> Iterator[EdgeOperation]:
    ids = _member_ids(selection)
    if ids is None and not _leaves(selection) <= {"value", "type"}:
        # It would select nobody, and the access that was to be taken away would stay.
        raise InvalidFilter("members: select them by value or type, nothing else is kept of them.")
    if op == "remove":
        if ids is None:
            yield EdgeOperation("remove_where", filter=selection)
        else:
            yield EdgeOperation("remove", tuple((member, None) for member in ids))
        return
    if ids is None:
        raise InvalidPath(f'{op} can select a member by its id only, as members[value eq "…"].')
    if value is MISSING:
        raise InvalidValue(f"{op} needs a value for {path.text}.")
    selected = tuple((member, None) for member in ids)
    value = None if value == [] else element(value, path, leniency)
    if value == {}:
        raise InvalidValue(
            "members: the value is an empty object, which names nobody. Send the member, or remove the one selected."
        )
    if op == "add":
        yield EdgeOperation("add", _agreeing(selected, value, leniency))
        return
    # RFC 7644 §3.5.2.3. Also where values that are missing may be created: nobody gets access by a filter that missed.
    yield EdgeOperation("require", selected)
    yield EdgeOperation("remove", selected)
    if value is not None:
        yield EdgeOperation("add", _pairs(value, leniency))


def _agreeing(selected: tuple[tuple[str, str | None], ...], value: Any, leniency: Leniency) -> tuple[tuple[str, str | None], ...]:
    """The members to add under a filter: those of the value, or those of the filter where the value names nobody."""
    if value is None or (isinstance(value, dict) and "value" not in {key.casefold() for key in value}):
        return selected
    named = _pairs(value, leniency)
    if not {member for member, _ in named} <= {member for member, _ in selected}:
        raise InvalidValue("members: the value names another member than the filter of its path. Name the same in both.")
    return named


def _member_ids(selection: Filter) -> tuple[str, ...] | None:
    """The ids, where the filter is `value eq` an id or `$ref eq` a link to one, or several of these joined by `or`."""
    terms = selection.terms if isinstance(selection, Or) else (selection,)
    ids: list[str] = []
    for term in terms:
        if not isinstance(term, Compare) or term.operator != "eq" or term.value is None:
            return None
        name = term.reference.leaf.name
        if name not in ("value", "$ref"):
            return None
        ids.append(term.value if name == "value" else term.value.rpartition("/")[2])
    return tuple(ids)


def _leaves(selection: Filter) -> set[str]:
    """The names of the sub-attributes that a filter within brackets asks for."""
    if isinstance(selection, And | Or):
        return set[str]().union(*map(_leaves, selection.terms))
    if isinstance(selection, Not):
        return _leaves(selection.term)
    return {selection.reference.leaf.name}


def element(value: Any, path: Path, leniency: Leniency) -> Any:
    if not isinstance(value, list):
        return value
    if len(value) != 1 or not leniency.would_allow(Tolerance.SINGLE_FOR_MULTI):
        raise InvalidValue(f"{path.text} selects single values: send one object.")
    if value[0] is None:
        raise InvalidValue(f"{path.text}: the value is a list of null. Send an object, or null alone to remove what is selected.")
    leniency.note(Tolerance.SINGLE_FOR_MULTI)
    return value[0]
