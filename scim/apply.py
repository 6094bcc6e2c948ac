"""PATCH (RFC 7644 §3.5.2): applying operations that were read (`scim/patch.py`) to a document, but for those on members."""

from collections.abc import Hashable, Mapping
from dataclasses import replace
from typing import Any

import orjson

from scim.diff import same_values
from scim.errors import InvalidFilter, InvalidPath, InvalidValue, Mutability, NoTarget, TooMany
from scim.extension import check_immutable
from scim.filters import And, Compare, Filter, Not, Or, as_value, look_up, matches, unknown
from scim.leniency import Leniency, Tolerance
from scim.normalise import (
    check_partial,
    check_primary,
    check_required,
    is_blank,
    is_empty_string,
    refuse_own_name,
    schemas_of,
    unnested,
    unwrapped,
)
from scim.patch import Operation, Patch, adds_nothing, check_schemaless
from scim.paths import DOT_AFTER_URN, Ambiguity, Path
from scim.schema import Attribute, ResourceType
from scim.strictness import Strictness
from scim.urns import has_dot
from scim.work import STEP_BYTES, Work

PATCH_STEPS = 250_000  # of one PATCH: a second or two of one core


def changed_names(patch: Patch) -> frozenset[tuple[str, str]]:
    """The casefolded URN and name of each attribute of an extension that a PATCH may change."""
    paths = (operation.path for operation in patch.operations)
    return frozenset((p.urn.casefold(), p.attribute.name.casefold()) for p in paths if p.urn and p.attribute)


def apply_patch(
    rt: ResourceType, before: dict[str, Any], patch: Patch, leniency: Leniency, work: Work | None = None
) -> dict[str, Any]:
    """The document after all operations. It is a new one: `before` stays as it is, also where an operation fails.

    Raises NoTarget where a filter selects nothing to add to or replace, Mutability for the id and for immutable attributes,
    InvalidValue where a required attribute would be missing or two values primary, TooMany where many operations change long lists.
    """
    after = dict(before)
    work = work or Work(PATCH_STEPS)
    for as_read in patch.operations:
        operation = as_read if as_read.path.known else _with_path_decided(after, as_read, leniency)
        try:
            work.spend(max(1, _steps_for(after, operation)))
        except TooMany:
            raise TooMany(
                f"Operations[{operation.index}]: too many changes of long lists or large extensions in one request. Send several requests."
            ) from None
        _apply(after, operation, leniency)
    check_required(rt, after, before)
    check_immutable(rt, before, after)
    after["schemas"] = schemas_of(rt, after)
    return after


# ---- where the URN of an extension without a schema ends --------------------------------------------------------------------------


def _with_path_decided(after: Mapping[str, Any], operation: Operation, leniency: Leniency) -> Operation:
    """The operation with the one path that its name stands for in this document, of those that it can stand for.

    Raises InvalidPath where the document does not decide it, and where the URN ends at a dot and the profile does not forgive that.
    """
    path = operation.path
    if path.ambiguity is not None and not _is_extension(after, path.ambiguity.name):
        path = _path_decided(after, path.ambiguity, operation.index)
        by_dot = path is operation.path.ambiguity.by_dot  # pyright: ignore[reportOptionalMemberAccess]
        if by_dot and not leniency.allows(Tolerance.PATH_SPELLING):
            raise InvalidPath(f"Operations[{operation.index}]: {DOT_AFTER_URN}")
    urn = path.urn or ""
    if operation.op != "remove" and has_dot(urn) and not _is_extension(after, urn) and not _is_extension(after, path.text):
        raise _ambiguous_path(operation.index)
    return replace(operation, path=path)


def _path_decided(after: Mapping[str, Any], ambiguity: Ambiguity, index: int) -> Path:
    by_colon, by_dot = ambiguity.by_colon, ambiguity.by_dot
    if by_colon is not None and _has_value(after, by_colon):
        return by_colon
    if by_dot is not None and (_is_extension(after, by_dot.urn) or ambiguity.by_form == "dot"):
        return by_dot
    if by_colon is not None and (_is_extension(after, by_colon.urn) or ambiguity.by_form == "colon"):
        return by_colon
    raise _ambiguous_path(index)


def _ambiguous_path(index: int) -> InvalidPath:
    return InvalidPath(
        f"Operations[{index}]: the URN in the path may end at its last colon or at a dot, and the stored resource does not show where. "
        "Send the URN of the extension with an object of its attributes."
    )


def _is_extension(after: Mapping[str, Any], urn: str | None) -> bool:
    return urn is not None and isinstance(after.get(_stored_name(after, urn)), dict)


def _has_value(after: Mapping[str, Any], path: Path) -> bool:
    assert path.urn is not None
    assert path.attribute is not None
    holder = after.get(_stored_name(after, path.urn))
    return isinstance(holder, dict) and look_up(holder, path.attribute.name) is not None  # pyright: ignore[reportUnknownArgumentType]


# ---- one operation -----------------------------------------------------------------------------------------------------------------


def _steps_for(after: Mapping[str, Any], operation: Operation) -> int:
    """The steps that an operation costs: the values of the list that it visits, times the comparisons made with each of them."""
    path = operation.path
    holder: Mapping[str, Any] = after
    if path.urn is not None:
        holder = after.get(path.urn if path.known else _stored_name(after, path.urn)) or {}
    held = look_up(holder, path.attribute.name) if path.attribute is not None else None
    whole = None if path.known else after.get(_stored_name(after, _name_as_sent(path)))
    # Names are visited too; sixteen of them cost as much as one value.
    names = sum(len(found) for found in (after, holder, held, whole, operation.value) if isinstance(found, Mapping)) // 16
    if isinstance(whole, Mapping) and isinstance(operation.value, Mapping):
        changed = [look_up(whole, name) for name in operation.value]  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType]
        names += sum(len(found) for found in changed if isinstance(found, list))  # pyright: ignore[reportUnknownArgumentType]
    if not isinstance(held, list):
        return names
    removed = operation.value if operation.op == "remove" and isinstance(operation.value, list) else ()
    compared = max(1, len(removed)) if path.filter is None else _comparisons(path.filter)  # pyright: ignore[reportUnknownArgumentType]
    # A list of few values can be as costly as one of many: each value is compared whole, whatever its size.
    return names + max(len(held), len(orjson.dumps(held)) // STEP_BYTES) * compared  # pyright: ignore[reportUnknownArgumentType]


def _comparisons(selection: Filter) -> int:
    """The number of comparisons that a filter makes at most with one value."""
    if isinstance(selection, And | Or):
        return sum(map(_comparisons, selection.terms))
    return _comparisons(selection.term) if isinstance(selection, Not) else 1


def _apply(after: dict[str, Any], operation: Operation, leniency: Leniency) -> None:
    path = operation.path
    attribute = path.attribute
    if path.urn is None:
        assert attribute is not None
        if attribute.name == "id":
            _check_own_id(after, operation, leniency)
        else:
            _change(after, attribute.name, operation, leniency)
        return
    urn = path.urn if path.known else _stored_name(after, path.urn)
    if attribute is None:
        after.pop(urn, None)
        return
    extension = None if path.known or path.filter is not None else _whole_extension(after, urn, operation)
    if extension is not None:
        _change_schemaless_extension(after, extension, operation, leniency)
        return
    inner = dict(after.get(urn) or {})
    _change(inner, attribute.name if path.known else _stored_name(inner, attribute.name), operation, leniency)
    _assign(after, urn, inner)


def _name_as_sent(path: Path) -> str:
    """The name in the path as it was sent, not split into a URN and an attribute."""
    return path.text if path.ambiguity is None else path.ambiguity.name


def _whole_extension(after: Mapping[str, Any], shorter: str, operation: Operation) -> str | None:
    """The URN of the extension that the path names as a whole, or None. The stored document decides it, else the form of the path."""
    full = _stored_name(after, _name_as_sent(operation.path))
    if isinstance(after.get(full), dict):
        return full
    return (
        full if operation.path.whole and isinstance(operation.value, dict) and not isinstance(after.get(shorter), dict) else None
    )


def _change_schemaless_extension(after: dict[str, Any], urn: str, operation: Operation, leniency: Leniency) -> None:
    """Change an extension without a schema, attribute by attribute."""
    if operation.op == "remove" and operation.value is None:
        del after[urn]
        return
    if operation.op == "replace" and is_blank(operation.value, leniency):
        after.pop(urn, None)
        return
    given = unnested(urn, unwrapped(operation.value, leniency), leniency)
    if operation.op == "remove" or not isinstance(given, dict):
        raise InvalidValue(f"Operations[{operation.index}]: the path names an extension: send an object with its attributes.")
    refuse_own_name(urn, given)
    inner: dict[str, Any] = dict(after.get(urn) or {})
    names = {name.casefold(): name for name in inner}
    for name, value in given.items():
        if name.casefold() == "schemas":
            continue  # IdPs repeat `schemas` there; the URN says the same
        gone = value is None or is_empty_string(value, leniency)
        if operation.op == "add" and (gone or adds_nothing(value, leniency)):
            continue  # `add` of no value removes nothing
        path = Path(urn, unknown(name), known=False)
        held = unnested(name, value, leniency)
        change = (
            Operation("remove", path, None, operation.index)
            if gone
            else Operation(operation.op, path, check_schemaless(operation.op, name, held, leniency), operation.index)
        )
        _change(inner, names.setdefault(name.casefold(), name), change, leniency)
    _assign(after, urn, inner)


def _stored_name(holder: Mapping[str, Any], name: str) -> str:
    folded = name.casefold()
    return name if name in holder else next((key for key in holder if key.casefold() == folded), name)


def _check_own_id(after: dict[str, Any], operation: Operation, leniency: Leniency) -> None:
    if operation.value != after.get("id"):
        raise Mutability(f"Operations[{operation.index}]: id is read-only: leave it out.")
    leniency.note(Tolerance.ID_IN_VALUE)


def _assign(holder: dict[str, Any], name: str, value: Any) -> None:
    if value in (None, [], {}):
        holder.pop(name, None)
    else:
        holder[name] = value


def _change(holder: dict[str, Any], name: str, operation: Operation, leniency: Leniency) -> None:
    """Change the attribute `name` of `holder`, which is already a copy."""
    path, old = operation.path, holder.get(name)
    attribute = path.attribute
    assert attribute is not None
    if path.filter is not None:
        new = _with_selected_changed(old, operation, leniency)
    elif path.sub is not None:
        new = _with_sub_changed(old, operation, path.sub, leniency)
    elif operation.op == "remove":
        new = _without_values(attribute, old, operation.value)
    elif attribute.type == "any":
        new = _changed_schemaless(attribute, old, operation)
    elif attribute.multi_valued:
        new = _with_values_added(attribute, old, operation)
    else:
        new = _merged(_kept_beside(old, operation, leniency), operation.value) if attribute.type == "complex" else operation.value
    if attribute.mutability == "immutable" and old is not None and not same_values(old, new):
        raise Mutability(f"Operations[{operation.index}]: {path.text} cannot be changed once it is set.")
    _assign(holder, name, new)


def _kept_beside(old: Any, operation: Operation, leniency: Leniency) -> Mapping[str, Any]:
    """The sub-attributes that stay where the operation does not name them: all (RFC 7644 §3.5.2.3), or none where `replace` replaces whole."""
    whole = operation.op == "replace" and leniency.demands(Strictness.REPLACE_WHOLE)
    return {} if whole else old or {}


def _changed_schemaless(attribute: Attribute, old: Any, operation: Operation) -> Any:
    """The new value of an attribute without a schema. The stored value shows what kind of attribute it is.

    A stored list has several values: `add` adds to it (RFC 7644 §3.5.2.1). A stored object has sub-attributes: those that the operation
    does not name stay (§3.5.2.3), so that an empty object changes nothing.
    """
    value = operation.value
    if operation.op == "add" and isinstance(old, list):
        return _with_values_added(attribute, old, operation)
    if isinstance(old, dict) and isinstance(value, dict):
        return _merged_schemaless(old, value, operation)
    blank = isinstance(value, list) and all(item in (None, [], {}) for item in value)  # pyright: ignore[reportUnknownVariableType]
    if (value == {} and old is not None) or (blank and not isinstance(old, list | None)):
        raise _empty_value(operation)
    return _without_absent_parts(value)


def _without_absent_parts(value: Any) -> Any:
    return {key: inner for key, inner in value.items() if inner not in (None, [])} if isinstance(value, dict) else value


def _merged_schemaless(old: Mapping[str, Any], value: Mapping[str, Any], operation: Operation) -> dict[str, Any]:
    """`_merged` for parts without a schema. An empty object leaves a stored object as it is, an empty list removes a stored list.

    Raises InvalidValue where the stored part is of another type: then the empty value says nothing about it.
    """
    parts: dict[str, Any] = {}
    for name, inner in value.items():
        if inner in ([], {}):
            if not isinstance(look_up(old, name), type(inner) | None):
                raise _empty_value(operation)
            if inner == {}:
                continue
        parts[name] = None if inner == [] else inner
    return _merged(old, parts)


def _empty_value(operation: Operation) -> InvalidValue:
    return InvalidValue(
        f"Operations[{operation.index}]: an empty object or list changes nothing at {operation.path.text}. "
        "Send null to remove what is stored there."
    )


def _merged(old: Mapping[str, Any], value: Mapping[str, Any]) -> dict[str, Any]:
    """The complex value with the given sub-attributes replaced, those given as None removed."""
    if not value.keys() <= old.keys():
        # Sub-attributes without a schema are stored as they were sent, and names that differ in case only are the same (RFC 7643 §2.1).
        names = {name.casefold(): name for name in old}
        value = {names.get(name.casefold(), name): inner for name, inner in value.items()}
    new = {**old, **value}
    if "$ref" in old and "$ref" not in value and new.get("value") != old.get("value"):
        # The link is that of the value which this operation replaces.
        del new["$ref"]
    return {key: inner for key, inner in new.items() if inner is not None}


def _with_sub_changed(old: Any, operation: Operation, sub: Attribute, leniency: Leniency) -> Any:
    value = {sub.name: None if operation.op == "remove" else operation.value}
    if isinstance(old, list) and all(isinstance(item, dict) for item in old):
        return _with_one_primary([_merged(item, value) for item in old], range(len(old)), operation)
    if old is not None and not isinstance(old, dict):
        raise NoTarget(f"Operations[{operation.index}]: the stored value of the attribute has no sub-attributes.")
    if operation.path.attribute is not None and operation.path.attribute.multi_valued:
        if operation.op == "remove":
            return None
        if not leniency.allows(Tolerance.REPLACE_CREATES):
            raise NoTarget(f"Operations[{operation.index}]: {operation.path.text} has no value to change: add one to the list.")
        return [value]
    return _merged(old or {}, value)


def _without_values(attribute: Attribute, old: Any, selected: list[Any] | None) -> Any:
    if selected is None or (selected and not isinstance(old, list)):
        return None
    if not isinstance(old, list):
        return old  # an empty list names nothing
    return [item for item in old if not any(_is_named_by(attribute, item, wanted) for wanted in selected)]


def _is_named_by(attribute: Attribute, item: Any, wanted: Any) -> bool:
    if not isinstance(item, dict) or not isinstance(wanted, dict):
        return _is_equal(attribute, item, wanted)
    names = ("value",) if "value" in wanted else tuple(wanted)
    return all(_is_equal(attribute.sub_attributes.get(name.casefold()), look_up(item, name), wanted[name]) for name in names)


def _is_equal(sub: Attribute | None, held: Any, wanted: Any) -> bool:
    if sub is not None and sub.type != "any" and not sub.case_exact and isinstance(held, str) and isinstance(wanted, str):
        return held.casefold() == wanted.casefold()
    return held == wanted


def _with_values_added(attribute: Attribute, old: Any, operation: Operation) -> list[Any]:
    """The list after `add` or `replace`. `add` adds no value that the list has already."""
    given: list[Any] = operation.value if isinstance(operation.value, list) else [operation.value]
    if attribute.type == "any":
        given = [item for item in given if item not in (None, [], {})]
    new: list[Any] = list(old) if operation.op == "add" and isinstance(old, list) else []
    fresh: list[int] = []
    places: dict[Hashable, int] = {}
    for n, held in enumerate(new):
        places.setdefault(_identity(held), n)
    for item in given:
        place = places.setdefault(_identity(item), len(new))
        if place == len(new):
            fresh.append(len(new))
            new.append(item)
        elif isinstance(item, dict) and "primary" in item and operation.op == "add":
            fresh.append(place)
            new[place] = {**new[place], "primary": item["primary"]}
        elif operation.op == "replace":
            new.append(item)
    return _with_one_primary(new, fresh, operation) if attribute.type == "complex" else new


def _identity(value: Any) -> Hashable:
    """A key that is equal for equal values; `primary` does not make a value a different one."""
    return _hashable(_without_primary(value) if isinstance(value, dict) else value)


def _hashable(value: Any) -> Hashable:
    if isinstance(value, dict):
        return frozenset((key, _hashable(inner)) for key, inner in value.items())
    return tuple(map(_hashable, value)) if isinstance(value, list) else value


def _without_primary(value: Mapping[str, Any]) -> dict[str, Any]:
    return {key: inner for key, inner in value.items() if key != "primary"}


def _with_selected_changed(old: Any, operation: Operation, leniency: Leniency) -> Any:
    path = operation.path
    assert path.filter is not None
    items: list[Any] = old if isinstance(old, list) else [] if old is None else [old]
    selected = [matches(path.filter, as_value(item)) for item in items]
    if operation.op == "remove" and path.sub is None:
        return _in_stored_form(old, [item for item, gone in zip(items, selected, strict=True) if not gone])
    chosen = [n for n, picked in enumerate(selected) if picked]
    if operation.op == "remove" and not chosen:
        return old
    if len(chosen) > 1 and leniency.demands(Strictness.ONE_MATCH):
        raise InvalidFilter(f"Operations[{operation.index}]: the filter of {path.text} selects more than one value.")
    value = operation.value if path.sub is None else {path.sub.name: None if operation.op == "remove" else operation.value}
    new = list(items)
    if not chosen and value == {}:
        raise _no_target(operation)
    if not chosen:
        new.append(_value_of_filter(operation, leniency))
        chosen = [len(items)]
    created = new[len(items) :]
    for n in chosen:
        new[n] = _changed_item(new[n], value, operation)
    if created and not matches(path.filter, new[-1]):
        # A value is created so that the filter selects it. One that the filter would not select was meant for another value.
        raise _no_target(operation)
    return _in_stored_form(old, _with_one_primary(new, chosen, operation))


def _changed_item(item: Any, value: Any, operation: Operation) -> Any:
    if isinstance(item, dict) and isinstance(value, dict):
        of_any = operation.path.sub is None and operation.path.attribute is not None and operation.path.attribute.type == "any"
        return _merged_schemaless(item, value, operation) if of_any else _merged(item, value)
    if value == {}:
        raise _empty_value(operation)
    if operation.path.sub is not None:
        raise NoTarget(f"Operations[{operation.index}]: a selected value of the attribute has no sub-attributes.")
    return value


def _in_stored_form(old: Any, items: list[Any]) -> Any:
    """The items as a list, or as the one object where the attribute has a single value, which was treated as a list of one."""
    return items if not isinstance(old, dict) else items[0] if items else None


def _value_of_filter(operation: Operation, leniency: Leniency) -> dict[str, Any]:
    """The value to create for a filter that selects none: the one that its `eq` terms, joined by `and`, describe.

    Raises NoTarget for any other filter, and where the profile does not forgive that the value is missing.
    """
    path = operation.path
    assert path.filter is not None
    members = _equated_values(path.filter)
    several = path.attribute is not None and path.attribute.multi_valued and path.attribute.type == "complex"
    if members is None or not several or not leniency.allows(Tolerance.REPLACE_CREATES):
        raise _no_target(operation)
    assert path.attribute is not None
    return check_partial(path.attribute, members, path.text, leniency) or {}


def _no_target(operation: Operation) -> NoTarget:
    return NoTarget(f"Operations[{operation.index}]: the filter of {operation.path.text} selects no value of this resource.")


def _equated_values(selection: Filter) -> dict[str, Any] | None:
    members: dict[str, Any] = {}
    for term in selection.terms if isinstance(selection, And) else (selection,):
        if not isinstance(term, Compare) or term.operator != "eq" or term.value is None:
            return None
        leaf = term.reference.leaf
        if leaf.mutability == "readOnly":
            return None
        members[leaf.name] = term.operand if leaf.type == "boolean" else term.value
    return members


def _with_one_primary(items: list[Any], fresh: Any, operation: Operation) -> list[Any]:
    """The list without values that became empty. A value of `fresh` (places of changed values) that is primary is the only primary one."""
    primary = {n for n in fresh if isinstance(items[n], dict) and items[n].get("primary") is True}
    if primary:
        check_primary([items[n] for n in primary], operation.path.text)
        for n, item in enumerate(items):
            if n not in primary and isinstance(item, dict) and item.get("primary") is True:
                items[n] = {**item, "primary": False}
    return [item for item in items if item not in ({}, None)]
