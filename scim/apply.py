"""PATCH (RFC 7644 §3.5.2): applying the operations that were read to a document, as far as they are not about members."""

from collections.abc import Hashable, Mapping
from dataclasses import replace
from typing import Any

import orjson

from scim.diff import same_values
from scim.errors import InvalidPath, InvalidValue, Mutability, NoTarget, TooMany
from scim.extension import check_immutable
from scim.filters import And, Compare, Filter, Not, Or, as_value, look_up, matches, unknown
from scim.leniency import Leniency, Tolerance
from scim.normalise import (
    check_primary,
    check_required,
    check_some,
    is_blank,
    is_empty_string,
    refuse_own_name,
    schemas_of,
    unnested,
    unwrapped,
)
from scim.patch import Operation, Patch, adds_nothing, check_schemaless
from scim.paths import DOT_AFTER_URN, Doubt, Path
from scim.schema import Attribute, ResourceType
from scim.urns import has_dot
from scim.work import STEP_BYTES, Work

PATCH_STEPS = 250_000  # of one patch: a second or two of one core


def changed_names(patch: Patch) -> frozenset[tuple[str, str]]:
    """The casefolded URN and name of each attribute of an extension that the patch may change."""
    paths = (operation.path for operation in patch.operations)
    return frozenset((p.urn.casefold(), p.attribute.name.casefold()) for p in paths if p.urn and p.attribute)


def apply_patch(
    rt: ResourceType, before: dict[str, Any], patch: Patch, leniency: Leniency, work: Work | None = None
) -> dict[str, Any]:
    """The document after all operations, as a new one; `before` is never changed, also when an operation fails.

    Raises NoTarget where a filter selects nothing to add to or replace, Mutability for the id and for immutable attributes,
    InvalidValue where a required attribute would be missing or two values primary, TooMany where many operations change long lists.
    """
    after = dict(before)
    work = work or Work(PATCH_STEPS)
    for asked in patch.operations:
        operation = asked if asked.path.known else _decided(after, asked, leniency)
        try:
            work.spend(max(1, _visits(after, operation)))
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


def _decided(after: Mapping[str, Any], operation: Operation, leniency: Leniency) -> Operation:
    """The operation with the one path that its name means in this document.

    Raises InvalidPath where nobody can tell, and where the URN ends at a dot that the profile does not forgive.
    """
    path = operation.path
    if path.doubt is not None and not _is_extension(after, path.doubt.name):
        path = _meant(after, path.doubt, operation.index)
        by_dot = path is operation.path.doubt.by_dot  # pyright: ignore[reportOptionalMemberAccess]
        if by_dot and not leniency.allows(Tolerance.PATH_SPELLING):
            raise InvalidPath(f"Operations[{operation.index}]: {DOT_AFTER_URN}")
    urn = path.urn or ""
    if operation.op != "remove" and has_dot(urn) and not _is_extension(after, urn) and not _is_extension(after, path.text):
        raise _unclear(operation.index)
    return replace(operation, path=path)


def _meant(after: Mapping[str, Any], doubt: Doubt, index: int) -> Path:
    by_colon, by_dot = doubt.by_colon, doubt.by_dot
    if by_colon is not None and _holds(after, by_colon):
        return by_colon
    if by_dot is not None and (_is_extension(after, by_dot.urn) or doubt.sure == "dot"):
        return by_dot
    if by_colon is not None and (_is_extension(after, by_colon.urn) or doubt.sure == "colon"):
        return by_colon
    raise _unclear(index)


def _unclear(index: int) -> InvalidPath:
    return InvalidPath(
        f"Operations[{index}]: nothing tells where the URN of the path ends, at its last colon or at a dot. "
        "Send the URN of the extension with an object of its attributes."
    )


def _is_extension(after: Mapping[str, Any], urn: str | None) -> bool:
    return urn is not None and isinstance(after.get(_stored_name(after, urn)), dict)


def _holds(after: Mapping[str, Any], path: Path) -> bool:
    assert path.urn is not None
    assert path.attribute is not None
    holder = after.get(_stored_name(after, path.urn))
    return isinstance(holder, dict) and look_up(holder, path.attribute.name) is not None  # pyright: ignore[reportUnknownArgumentType]


# ---- one operation -----------------------------------------------------------------------------------------------------------------


def _visits(after: Mapping[str, Any], operation: Operation) -> int:
    """How many values of a list the operation goes through; each is compared with all that a filter or a removal by value names."""
    path = operation.path
    holder: Mapping[str, Any] = after
    if path.urn is not None:
        holder = after.get(path.urn if path.known else _stored_name(after, path.urn)) or {}
    held = look_up(holder, path.attribute.name) if path.attribute is not None else None
    whole = None if path.known else after.get(_stored_name(after, _name(path)))
    # Names are gone through too, but quickly.
    names = sum(len(found) for found in (after, holder, held, whole, operation.value) if isinstance(found, Mapping)) // 16
    if isinstance(whole, Mapping) and isinstance(operation.value, Mapping):
        changed = [look_up(whole, name) for name in operation.value]  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType]
        names += sum(len(found) for found in changed if isinstance(found, list))  # pyright: ignore[reportUnknownArgumentType]
    if not isinstance(held, list):
        return names
    removed = operation.value if operation.op == "remove" and isinstance(operation.value, list) else ()
    compared = max(1, len(removed)) if path.filter is None else _terms(path.filter)  # pyright: ignore[reportUnknownArgumentType]
    # A few values may be large: they are compared whole.
    return names + max(len(held), len(orjson.dumps(held)) // STEP_BYTES) * compared  # pyright: ignore[reportUnknownArgumentType]


def _terms(selection: Filter) -> int:
    """How many comparisons a filter makes at most."""
    if isinstance(selection, And | Or):
        return sum(map(_terms, selection.terms))
    return _terms(selection.term) if isinstance(selection, Not) else 1


def _apply(after: dict[str, Any], operation: Operation, leniency: Leniency) -> None:
    path = operation.path
    attribute = path.attribute
    if path.urn is None:
        assert attribute is not None
        if attribute.name == "id":
            _own_id(after, operation, leniency)
        else:
            _change(after, attribute.name, operation, leniency)
        return
    urn = path.urn if path.known else _stored_name(after, path.urn)
    if attribute is None:
        after.pop(urn, None)
        return
    whole = None if path.known or path.filter is not None else _whole(after, urn, operation)
    if whole is not None:
        _change_whole(after, whole, operation, leniency)
        return
    inner = dict(after.get(urn) or {})
    _change(inner, attribute.name if path.known else _stored_name(inner, attribute.name), operation, leniency)
    _assign(after, urn, inner)


def _name(path: Path) -> str:
    """The path as a whole, as it was sent where it has several readings."""
    return path.text if path.doubt is None else path.doubt.name


def _whole(after: Mapping[str, Any], shorter: str, operation: Operation) -> str | None:
    """The name of the extension that the path names as a whole: what is stored decides, then how the path reads."""
    full = _stored_name(after, _name(operation.path))
    if isinstance(after.get(full), dict):
        return full
    return (
        full if operation.path.whole and isinstance(operation.value, dict) and not isinstance(after.get(shorter), dict) else None
    )


def _change_whole(after: dict[str, Any], urn: str, operation: Operation, leniency: Leniency) -> None:
    """Change an extension kept as sent, attribute by attribute."""
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
            continue  # it says what the URN says already
        gone = value is None or is_empty_string(value, leniency)
        if operation.op == "add" and (gone or adds_nothing(value, leniency)):
            continue  # `add` takes nothing
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


def _own_id(after: dict[str, Any], operation: Operation, leniency: Leniency) -> None:
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
        new = _change_selected(old, operation, leniency)
    elif path.sub is not None:
        new = _change_sub(old, operation, path.sub, leniency)
    elif operation.op == "remove":
        new = _without(attribute, old, operation.value)
    elif attribute.type == "any":
        new = _changed_any(attribute, old, operation)
    elif attribute.multi_valued:
        new = _extend(attribute, old, operation)
    else:
        new = _merged(old or {}, operation.value) if attribute.type == "complex" else operation.value
    if attribute.mutability == "immutable" and old is not None and not same_values(old, new):
        raise Mutability(f"Operations[{operation.index}]: {path.text} cannot be changed once it is set.")
    _assign(holder, name, new)


def _changed_any(attribute: Attribute, old: Any, operation: Operation) -> Any:
    """The value of an attribute without a schema: what it holds says what it is.

    What holds a list has several values, and is added to (RFC 7644 §3.5.2.1). What holds an object has sub-attributes, and those
    that are not given stay (§3.5.2.3), so that an empty object changes nothing.
    """
    value = operation.value
    if operation.op == "add" and isinstance(old, list):
        return _extend(attribute, old, operation)
    if isinstance(old, dict) and isinstance(value, dict):
        return _merged_any(old, value, operation)
    blank = isinstance(value, list) and all(item in (None, [], {}) for item in value)  # pyright: ignore[reportUnknownVariableType]
    if (value == {} and old is not None) or (blank and not isinstance(old, list | None)):
        raise _says_nothing(operation)
    return _assigned(value)


def _assigned(value: Any) -> Any:
    return {key: inner for key, inner in value.items() if inner not in (None, [])} if isinstance(value, dict) else value


def _merged_any(old: Mapping[str, Any], value: Mapping[str, Any], operation: Operation) -> dict[str, Any]:
    """`_merged` for parts without a schema: an empty object leaves one that is an object, an empty list removes one that is a list."""
    parts: dict[str, Any] = {}
    for name, inner in value.items():
        if inner in ([], {}):
            if not isinstance(look_up(old, name), type(inner) | None):
                raise _says_nothing(operation)
            if inner == {}:
                continue
        parts[name] = None if inner == [] else inner
    return _merged(old, parts)


def _says_nothing(operation: Operation) -> InvalidValue:
    return InvalidValue(
        f"Operations[{operation.index}]: an empty object or list says nothing of what is stored at {operation.path.text}. "
        "Send null to remove it."
    )


def _merged(old: Mapping[str, Any], value: Mapping[str, Any]) -> dict[str, Any]:
    """The complex value with the given sub-attributes replaced, those given as None removed."""
    if not value.keys() <= old.keys():
        # Sub-attributes without a schema are stored as sent; names that differ in case only are the same (RFC 7643 §2.1).
        names = {name.casefold(): name for name in old}
        value = {names.get(name.casefold(), name): inner for name, inner in value.items()}
    new = {**old, **value}
    if "$ref" in old and "$ref" not in value and new.get("value") != old.get("value"):
        # The link belongs to the value that has just been replaced.
        del new["$ref"]
    return {key: inner for key, inner in new.items() if inner is not None}


def _change_sub(old: Any, operation: Operation, sub: Attribute, leniency: Leniency) -> Any:
    value = {sub.name: None if operation.op == "remove" else operation.value}
    if isinstance(old, list) and all(isinstance(item, dict) for item in old):
        return _settled([_merged(item, value) for item in old], range(len(old)), operation)
    if old is not None and not isinstance(old, dict):
        raise NoTarget(f"Operations[{operation.index}]: the stored value of the attribute has no sub-attributes.")
    if operation.path.attribute is not None and operation.path.attribute.multi_valued:
        if operation.op == "remove":
            return None
        if not leniency.allows(Tolerance.REPLACE_CREATES):
            raise NoTarget(f"Operations[{operation.index}]: {operation.path.text} has no value to change: add one to the list.")
        return [value]
    return _merged(old or {}, value)


def _without(attribute: Attribute, old: Any, selected: list[Any] | None) -> Any:
    if selected is None or (selected and not isinstance(old, list)):
        return None
    if not isinstance(old, list):
        return old  # an empty list names nothing
    return [item for item in old if not any(_named_by(attribute, item, wanted) for wanted in selected)]


def _named_by(attribute: Attribute, item: Any, wanted: Any) -> bool:
    if not isinstance(item, dict) or not isinstance(wanted, dict):
        return _equal(attribute, item, wanted)
    names = ("value",) if "value" in wanted else tuple(wanted)
    return all(_equal(attribute.sub_attributes.get(name.casefold()), look_up(item, name), wanted[name]) for name in names)


def _equal(sub: Attribute | None, held: Any, wanted: Any) -> bool:
    if sub is not None and sub.type != "any" and not sub.case_exact and isinstance(held, str) and isinstance(wanted, str):
        return held.casefold() == wanted.casefold()
    return held == wanted


def _extend(attribute: Attribute, old: Any, operation: Operation) -> list[Any]:
    """Add to or replace a list; a value that is there already is not added again."""
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
    return _settled(new, fresh, operation) if attribute.type == "complex" else new


def _identity(value: Any) -> Hashable:
    """Equal for values that are the same; whether one is primary makes no other value of it."""
    return _frozen(_unflagged(value) if isinstance(value, dict) else value)


def _frozen(value: Any) -> Hashable:
    if isinstance(value, dict):
        return frozenset((key, _frozen(inner)) for key, inner in value.items())
    return tuple(map(_frozen, value)) if isinstance(value, list) else value


def _unflagged(value: Mapping[str, Any]) -> dict[str, Any]:
    return {key: inner for key, inner in value.items() if key != "primary"}


def _change_selected(old: Any, operation: Operation, leniency: Leniency) -> Any:
    path = operation.path
    assert path.filter is not None
    items: list[Any] = old if isinstance(old, list) else [] if old is None else [old]
    selected = [matches(path.filter, as_value(item)) for item in items]
    if operation.op == "remove" and path.sub is None:
        return _listed_again(old, [item for item, gone in zip(items, selected, strict=True) if not gone])
    chosen = [n for n, picked in enumerate(selected) if picked]
    if operation.op == "remove" and not chosen:
        return old
    value = operation.value if path.sub is None else {path.sub.name: None if operation.op == "remove" else operation.value}
    new = list(items)
    if not chosen and value == {}:
        raise _selects_nothing(operation)
    if not chosen:
        new.append(_described(operation, leniency))
        chosen = [len(items)]
    created = new[len(items) :]
    for n in chosen:
        new[n] = _altered(new[n], value, operation)
    if created and not matches(path.filter, new[-1]):
        # What is created is what the filter asks for; a value that contradicts it was meant for another one.
        raise _selects_nothing(operation)
    return _listed_again(old, _settled(new, chosen, operation))


def _altered(item: Any, value: Any, operation: Operation) -> Any:
    if isinstance(item, dict) and isinstance(value, dict):
        of_any = operation.path.sub is None and operation.path.attribute is not None and operation.path.attribute.type == "any"
        return _merged_any(item, value, operation) if of_any else _merged(item, value)
    if value == {}:
        raise _says_nothing(operation)
    if operation.path.sub is not None:
        raise NoTarget(f"Operations[{operation.index}]: a selected value of the attribute has no sub-attributes.")
    return value


def _listed_again(old: Any, items: list[Any]) -> Any:
    """A singular complex attribute was treated as a list of one."""
    return items if not isinstance(old, dict) else items[0] if items else None


def _described(operation: Operation, leniency: Leniency) -> dict[str, Any]:
    """The value that a filter of `eq` joined by `and` describes; NoTarget for any other filter."""
    path = operation.path
    assert path.filter is not None
    members = _equalities(path.filter)
    several = path.attribute is not None and path.attribute.multi_valued and path.attribute.type == "complex"
    if members is None or not several or not leniency.allows(Tolerance.REPLACE_CREATES):
        raise _selects_nothing(operation)
    assert path.attribute is not None
    return check_some(path.attribute, members, path.text, leniency) or {}


def _selects_nothing(operation: Operation) -> NoTarget:
    return NoTarget(f"Operations[{operation.index}]: the filter of {operation.path.text} selects no value of this resource.")


def _equalities(selection: Filter) -> dict[str, Any] | None:
    members: dict[str, Any] = {}
    for term in selection.terms if isinstance(selection, And) else (selection,):
        if not isinstance(term, Compare) or term.operator != "eq" or term.value is None:
            return None
        leaf = term.reference.leaf
        if leaf.mutability == "readOnly":
            return None
        members[leaf.name] = term.operand if leaf.type == "boolean" else term.value
    return members


def _settled(items: list[Any], fresh: Any, operation: Operation) -> list[Any]:
    """Values that became empty go; a newly set primary turns the others off (RFC 7644 §3.5.2)."""
    primary = {n for n in fresh if isinstance(items[n], dict) and items[n].get("primary") is True}
    if primary:
        check_primary([items[n] for n in primary], operation.path.text)
        for n, item in enumerate(items):
            if n not in primary and isinstance(item, dict) and item.get("primary") is True:
                items[n] = {**item, "primary": False}
    return [item for item in items if item not in ({}, None)]
