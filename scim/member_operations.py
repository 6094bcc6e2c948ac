"""PATCH operations on the members of a group.

They become operations on single memberships, not on the group's document: a group of 100 000 members need not be loaded to add one.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from scim.errors import InvalidFilter, InvalidPath, InvalidValue, Mutability, NoTarget
from scim.filters import And, Compare, Filter, Not, Or
from scim.leniency import Leniency, Tolerance
from scim.normalise import as_list, check_exact_id, check_members
from scim.paths import Path

Op: TypeAlias = Literal["add", "remove", "replace"]
MemberOperationKind: TypeAlias = Literal["add", "remove", "clear", "remove_where", "require"]
Member: TypeAlias = tuple[str, str | None]  # the id, and "User" or "Group" where the request says it
MISSING: Any = object()  # the value of an operation that has no `value`


@dataclass(frozen=True, slots=True)
class MemberOperation:
    """One change of a group's members.

    `add` and `remove` change the members that are listed, `clear` removes all, `remove_where` those whose object satisfies `filter`.
    `require` changes nothing: the PATCH fails with noTarget unless one of the members is in the group at that point.
    """

    kind: MemberOperationKind
    members: tuple[Member, ...] = ()
    filter: Filter | None = None


def no_such_member() -> NoTarget:
    """The error where the group has none of the members that `require` lists."""
    return NoTarget("members: the filter of the path selects no member of this group.")


def read_member_operations(op: Op, path: Path, value: Any, leniency: Leniency) -> Iterator[MemberOperation]:
    """The member operations that one operation of a PATCH comes to, in the order in which they are applied.

    Raises Mutability for a path to a part of a member, InvalidFilter, InvalidPath and InvalidValue where the operation cannot be
    understood: a removal that selects nobody by mistake would leave the access that it was meant to end.
    """
    if path.sub is not None:
        raise Mutability("The sub-attributes of a member cannot be changed: remove the member and add another.")
    if path.filter is not None:
        yield from _read_selecting(op, path, path.filter, value, leniency)
    elif op == "remove":
        yield _read_removal(value, leniency)
    else:
        if value is MISSING:
            raise InvalidValue(f"{op} needs a value for members.")
        if op == "replace":
            yield MemberOperation("clear")
        # Only null and [] say that there is nobody (RFC 7643 §2.5): anything else is somebody, or a mistake that empties no group.
        if value not in (None, []):
            yield MemberOperation("add", _members_of(value, leniency))


def _members_of(value: Any, leniency: Leniency) -> tuple[Member, ...]:
    """The members in the value of an operation."""
    if isinstance(value, str) and value and leniency.allows(Tolerance.BARE_VALUES):
        # Microsoft's test suite adds one member as a bare id (AzureAD/SCIMReferenceCode issue 24).
        value = [{"value": value}]
    items = as_list(value, "members", leniency)
    return tuple((member["value"], member.get("type")) for member in check_members(items, leniency))


def _read_removal(value: Any, leniency: Leniency) -> MemberOperation:
    """`remove` with the path `members`."""
    if value is MISSING or value is None:
        return MemberOperation("clear")
    if not leniency.allows(Tolerance.REMOVE_VALUE_LIST):
        raise InvalidValue('remove has no value: select the member in the path, as members[value eq "…"].')
    # An empty list names nobody: it must not empty the group.
    return MemberOperation("remove", _members_of(value, leniency))


def _read_selecting(op: Op, path: Path, selection: Filter, value: Any, leniency: Leniency) -> Iterator[MemberOperation]:
    """An operation whose path selects members by a filter, `members[…]`."""
    ids = _member_ids(selection)
    for member in ids or ():
        check_exact_id(member, "members: the value in the path", leniency)
    if ids is None and not _sub_attributes(selection) <= {"value", "type"}:
        # It would select nobody, and the access that was to be taken away would stay.
        raise InvalidFilter("members: select them by value or type; no other sub-attribute of a member is stored.")
    if op == "remove":
        if ids is None:
            yield MemberOperation("remove_where", filter=selection)
        else:
            yield MemberOperation("remove", tuple((member, None) for member in ids))
        return
    if ids is None:
        raise InvalidPath(f'{op} can select a member by its id only, as members[value eq "…"].')
    if value is MISSING:
        raise InvalidValue(f"{op} needs a value for {path.text}.")
    selected = tuple((member, None) for member in ids)
    value = None if value == [] else single_object(value, path, leniency)
    if value == {}:
        raise InvalidValue(
            "members: the value is an empty object, which names nobody. Send the member, or remove the one selected."
        )
    if op == "add":
        yield MemberOperation("add", _members_to_add(selected, value, leniency))
        return
    # RFC 7644 §3.5.2.3. Also where values that are missing may be created: nobody gets access by a filter that selected nobody.
    yield MemberOperation("require", selected)
    yield MemberOperation("remove", selected)
    if value is not None:
        yield MemberOperation("add", _members_of(value, leniency))


def _members_to_add(selected: tuple[Member, ...], value: Any, leniency: Leniency) -> tuple[Member, ...]:
    """The members that `add` under a filter adds: those of its value, or those of the filter where the value has no id."""
    if value is None or (isinstance(value, dict) and "value" not in {key.casefold() for key in value}):
        return selected
    named = _members_of(value, leniency)
    if not {member for member, _ in named} <= {member for member, _ in selected}:
        raise InvalidValue("members: the value names another member than the filter of its path. Name the same in both.")
    return named


def _member_ids(selection: Filter) -> tuple[str, ...] | None:
    """The ids, where the filter is `value eq` an id or `$ref eq` a link to one, or several of these joined by `or`; else None."""
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


def _sub_attributes(selection: Filter) -> set[str]:
    """The names of the sub-attributes that a filter within brackets refers to."""
    if isinstance(selection, And | Or):
        return set[str]().union(*map(_sub_attributes, selection.terms))
    if isinstance(selection, Not):
        return _sub_attributes(selection.term)
    return {selection.reference.leaf.name}


def single_object(value: Any, path: Path, leniency: Leniency) -> Any:
    """The value for what a filter in a path selects; where it is a list of one, that one, if the profile forgives it.

    Raises InvalidValue for any other list.
    """
    if not isinstance(value, list):
        return value
    if len(value) != 1 or not leniency.would_allow(Tolerance.SINGLE_FOR_MULTI):
        raise InvalidValue(f"{path.text} selects single values: send one object.")
    if value[0] is None:
        raise InvalidValue(f"{path.text}: the value is a list of null. Send an object, or null alone to remove what is selected.")
    leniency.note(Tolerance.SINGLE_FOR_MULTI)
    return value[0]
