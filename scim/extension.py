"""Extension schemas that an operator registers (RFC 7643 §7), read strictly, so that all other code can rely on them."""

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

from scim.diff import same_values
from scim.errors import InvalidValue, Mutability
from scim.schema import ENTERPRISE, GROUP, USER, Attribute, Extension, ResourceType, is_scim_urn

ATTRIBUTES_MAX: Final = 200
TYPES: Final = ("string", "boolean", "decimal", "integer", "dateTime", "binary", "reference", "complex")
_MUTABILITY: Final = ("readWrite", "readOnly", "immutable", "writeOnly")
_RETURNED: Final = ("default", "always", "never", "request")
_UNIQUENESS: Final = ("none", "server", "global")
_URN: Final = re.compile(r"urn:[a-z0-9][a-z0-9-]{0,31}(:[\w.()+,=@;$!*'-]+)+", re.IGNORECASE | re.ASCII)
_NAME: Final = re.compile(r"[A-Za-z][-\w$]{0,63}|\$ref", re.ASCII)
TYPES_BY_NAME: Final[Mapping[str, ResourceType]] = MappingProxyType({"User": USER, "Group": GROUP})


def read_extension(document: Mapping[str, Any]) -> Extension:
    """The extension that a Schema document describes. Raises InvalidValue, naming the place."""
    urn = document.get("id")
    if not isinstance(urn, str) or len(urn) > 255 or not _URN.fullmatch(urn):
        raise InvalidValue("id must be the URN of the schema, such as urn:example:scim:schemas:extension:2.0:User.")
    if is_scim_urn(urn) or urn.casefold() == ENTERPRISE.urn.casefold():
        raise InvalidValue("id is a URN that SCIM itself defines. Choose one of your own.")
    listed = document.get("attributes")
    if not isinstance(listed, list) or not listed:
        raise InvalidValue("attributes must be a list with at least one attribute.")
    count = [0]
    table = _read_table(listed, "attributes", count, nested=False)
    return Extension(urn, table, _read_text(document, "name", "") or urn, _read_text(document, "description", ""))


def _read_table(listed: list[Any], place: str, count: list[int], *, nested: bool) -> Mapping[str, Attribute]:
    found: dict[str, Attribute] = {}
    for index, item in enumerate(listed):
        count[0] += 1
        if count[0] > ATTRIBUTES_MAX:
            raise InvalidValue(f"A schema has at most {ATTRIBUTES_MAX} attributes, sub-attributes included.")
        attribute = _read_attribute(item, f"{place}[{index}]", count, nested=nested)
        if attribute.name.casefold() in found:
            raise InvalidValue(f"{place}[{index}].name is already used by an attribute before it.")
        found[attribute.name.casefold()] = attribute
    return MappingProxyType(found)


def _read_attribute(item: Any, place: str, count: list[int], *, nested: bool) -> Attribute:
    if not isinstance(item, dict):
        raise InvalidValue(f"{place} must be an object that describes an attribute.")
    name = item.get("name")
    if not isinstance(name, str) or not _NAME.fullmatch(name) or (name.casefold() == "schemas" and not nested):
        raise InvalidValue(f"{place}.name must begin with a letter, then letters, digits, - and _; schemas is taken.")
    kind = _read_one_of(item, place, "type", TYPES, "string")
    subs = item.get("subAttributes")
    if kind == "complex":
        if nested:
            raise InvalidValue(f"{place}.type: a sub-attribute cannot be complex itself (RFC 7643 §2.3.8).")
        if not isinstance(subs, list) or not subs:
            raise InvalidValue(f"{place}.subAttributes must be a list: a complex attribute has at least one.")
    elif subs:
        raise InvalidValue(f"{place}.subAttributes: only a complex attribute has them.")
    mutability = _read_one_of(item, place, "mutability", _MUTABILITY, "readWrite")
    returned = _read_one_of(item, place, "returned", _RETURNED, "default")
    if (mutability == "writeOnly") is not (returned == "never"):
        raise InvalidValue(f"{place}: mutability writeOnly and returned never go together.")
    if mutability == "readOnly" and item.get("required") is True:
        raise InvalidValue(f"{place}: nobody could send an attribute that is both required and readOnly.")
    if nested and mutability == "immutable":
        raise InvalidValue(f"{place}.mutability: an attribute can be immutable, a sub-attribute cannot.")
    if _read_one_of(item, place, "uniqueness", _UNIQUENESS, "none") != "none":
        raise InvalidValue(f"{place}.uniqueness: extensions support none only; userName is the one attribute that is unique.")
    return Attribute(
        name,
        kind,
        multi_valued=_read_flag(item, place, "multiValued"),
        required=_read_flag(item, place, "required"),
        case_exact=_read_flag(item, place, "caseExact"),
        mutability=mutability,
        returned=returned,
        sub_attributes=_read_table(subs or [], f"{place}.subAttributes", count, nested=True),
        canonical_values=_read_texts(item, place, "canonicalValues"),
        reference_types=_read_texts(item, place, "referenceTypes"),
        description=_read_text(item, "description", place + "."),
    )


def _read_one_of(item: Mapping[str, Any], place: str, name: str, known: tuple[str, ...], default: str) -> str:
    value = item.get(name, default)
    if value not in known:
        raise InvalidValue(f"{place}.{name} must be one of {', '.join(known)}.")
    return value


def _read_flag(item: Mapping[str, Any], place: str, name: str) -> bool:
    value = item.get(name, False)
    if not isinstance(value, bool):
        raise InvalidValue(f"{place}.{name} must be true or false.")
    return value


def _read_text(item: Mapping[str, Any], name: str, place: str) -> str:
    value = item.get(name, "")
    if not isinstance(value, str):
        raise InvalidValue(f"{place}{name} must be text.")
    return value


def _read_texts(item: Mapping[str, Any], place: str, name: str) -> tuple[str, ...]:
    values = item.get(name, [])
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise InvalidValue(f"{place}.{name} must be a list of texts.")
    return tuple(values)


# ---- what is kept of them on writes ----------------------------------------------------------------------------------------------


def check_immutable(rt: ResourceType, before: Mapping[str, Any], after: Mapping[str, Any]) -> None:
    """Raises Mutability where an immutable attribute of an extension had a value and would have another one, or none."""
    for extension in rt.extensions.values():
        old, new = before.get(extension.urn) or {}, after.get(extension.urn) or {}
        for attribute in extension.attributes.values():
            if attribute.mutability != "immutable" or attribute.name not in old:
                continue
            if not same_values(old[attribute.name], new.get(attribute.name)):
                raise Mutability(f"{extension.urn}:{attribute.name} is immutable: send the value it has.")
