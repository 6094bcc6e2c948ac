"""From the resource that an identity provider sends to the document that is stored (RFC 7643 §2, RFC 7644 §3.3 and §3.5.1)."""

import binascii
import re
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any

from scim.datetimes import instant
from scim.errors import InvalidSyntax, InvalidValue, Mutability
from scim.filter_parser import shown
from scim.leniency import Leniency, Tolerance
from scim.respelling import is_part_path, key_path, with_current_uris, with_keys_moved
from scim.schema import Attribute, Extension, ResourceType, is_scim_urn
from scim.strictness import Strictness, is_other_spelling_of_id, undefined
from scim.urns import is_after_known_urn, readings, split_urn

NAME_CHARACTERS_MAX = 128
_MEMBER_TYPES: Mapping[str, str] = MappingProxyType({"user": "User", "group": "Group"})
# What str.strip takes for white space, and the spaces without a width.
_WHITE_SPACE = "".join(character for character in map(chr, range(0x3001)) if character.isspace()) + "\u200b\u2060\ufeff"


def normalise(rt: ResourceType, document: dict[str, Any], leniency: Leniency) -> dict[str, Any]:
    """The document that POST and PUT store: names in the spelling of the schema, checked types, no read-only attributes, no password.

    Attributes without a schema are stored as they were sent. null, [] and {} are absence (RFC 7643 §2.5). `document` is unchanged.
    Raises InvalidValue for wrong types and missing required attributes, InvalidSyntax for names and `schemas`.
    """
    kept: dict[str, Any] = {"schemas": None}
    for key, value in document.items():
        attribute = rt.attributes.get(key) or rt.attributes.get(key.casefold())
        if attribute is None:
            if key_path(rt, key, value, leniency) is not None:
                return normalise(rt, _with_keys_at_their_paths(rt, document, leniency), leniency)
            _keep_schemaless(rt, key, value, kept, leniency)
            if ":" in key and key.casefold() not in rt.extensions:
                _refuse_dot_after_urn(rt, key, document)
        elif type(value) is str and value and attribute.is_text:
            kept[attribute.name] = value  # most values; what follows would give the same
        elif attribute.mutability != "readOnly" and value is not None and attribute.name != "schemas":
            checked = check_value(attribute, value, attribute.name, leniency)
            if checked is not None and attribute.mutability != "writeOnly":
                kept[attribute.name] = checked
    _check_schemas(rt, document, kept, leniency)
    check_required(rt, kept, {})
    return kept


def _with_keys_at_their_paths(rt: ResourceType, document: dict[str, Any], leniency: Leniency) -> dict[str, Any]:
    """The document with the value of each key that stands for a path at that path."""
    moved: dict[str, tuple[str, ...]] = {}
    for key, value in document.items():
        found = key_path(rt, key, value, leniency) if key.casefold() not in rt.attributes else None
        if found is not None:
            moved[key], tolerance = found
            leniency.note(tolerance)
    return with_keys_moved(document, moved)


def check_user_name(document: Mapping[str, Any], before: Mapping[str, Any] | None = None) -> None:
    """Raises InvalidValue where a new userName has white space around it, which nobody sees and no login finds.

    One that is stored already may stay: the IdP must still be able to deactivate the user.
    """
    name: str = document["userName"]
    if name != name.strip(_WHITE_SPACE) and (before is None or before.get("userName") != name):
        raise InvalidValue("userName has white space at its beginning or end: send it without.")


def check_required(rt: ResourceType, document: Mapping[str, Any], before: Mapping[str, Any]) -> None:
    """Raises InvalidValue where a required attribute is missing or blank (RFC 7643 §2.2).

    The required attributes of an extension are checked where it is present and is not as it was `before`: it may have been stored
    before its schema was registered.
    """
    for extension in rt.extensions.values():
        inner = document.get(extension.urn)
        if inner is not None and inner != before.get(extension.urn):
            _check_required_in(extension, inner, before.get(extension.urn) or {})
    for name in _required(rt):
        value = document.get(name)
        if value is None or (isinstance(value, str) and not value.strip()):
            raise InvalidValue(f"{name} is required: send it with a value that is not empty.")


def _check_required_in(extension: Extension, inner: Mapping[str, Any], before: Mapping[str, Any]) -> None:
    for attribute in extension.attributes.values():
        value = inner.get(attribute.name)
        if attribute.required and attribute.returned != "never" and (value is None or value == ""):
            if value is None and attribute.name in before:
                raise Mutability(
                    f"{extension.urn}:{attribute.name} is required and cannot be removed: replace it with another value."
                )
            raise InvalidValue(f"{extension.urn}:{attribute.name} is required with this extension: send it with a value.")
        if attribute.sub_attributes:
            stored = _values(before.get(attribute.name))
            for item in _values(value):
                missing = _missing_required_sub(attribute, item)
                if missing is not None and item not in stored:
                    raise InvalidValue(f"{extension.urn}:{attribute.name}.{missing} is required.")


def _values(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [] if value is None else [value]


def _missing_required_sub(attribute: Attribute, kept: Mapping[str, Any]) -> str | None:
    """The name of a required sub-attribute that has no value."""
    for sub in attribute.sub_attributes.values():
        if sub.required and sub.returned != "never" and kept.get(sub.name) in (None, ""):
            return sub.name
    return None


# Required of a stored resource, not of a request: the server fills them in.
_DEFAULTED = frozenset({"schemas", "active"})
_REQUIRED: dict[ResourceType, tuple[str, ...]] = {}


def _required(rt: ResourceType) -> tuple[str, ...]:
    names = _REQUIRED.get(rt)
    if names is None:
        names = tuple(a.name for a in rt.attributes.values() if a.required and a.name not in _DEFAULTED)
        _REQUIRED[rt] = names
    return names


# ---- schemas ---------------------------------------------------------------------------------------------------------------------


def schemas_of(rt: ResourceType, document: Mapping[str, Any]) -> list[str]:
    """The core URN and that of each extension that has data, in the order of the document."""
    return [rt.schema, *(key for key, value in document.items() if ":" in key and isinstance(value, dict))]


def _check_schemas(rt: ResourceType, document: dict[str, Any], kept: dict[str, Any], leniency: Leniency) -> None:
    kept["schemas"] = present = schemas_of(rt, kept)
    listed = document.get("schemas")
    if listed == present:
        return
    listed = listed or next((v for k, v in document.items() if k.casefold() == "schemas"), None)
    if not listed and leniency.allows(Tolerance.MISSING_SCHEMAS):
        return
    folded = listed_schemas(listed, rt.schema, leniency)
    known = {rt.schema.casefold(), *rt.extensions, *(urn.casefold() for urn in present)}
    if not folded <= known and leniency.demands(Strictness.KNOWN_ATTRIBUTES):
        raise undefined("A URI that schemas lists")
    if not folded <= known and not leniency.allows(Tolerance.UNKNOWN_SCHEMA_URIS):
        raise InvalidValue(
            "schemas lists a URI that this resource type does not have and the request has no data for: remove it."
        )


def listed_schemas(listed: Any, expected: str, leniency: Leniency) -> set[str]:
    """The casefolded URIs of a `schemas` list. Raises InvalidSyntax where it is no list of URIs or lacks the expected one."""
    if isinstance(listed, str) and leniency.allows(Tolerance.SINGLE_FOR_MULTI):
        listed = [listed]
    if not listed:
        raise InvalidSyntax(f"schemas is missing: send a list with {expected}.")
    if not isinstance(listed, list) or not all(isinstance(urn, str) for urn in listed):
        raise InvalidSyntax("schemas must be a list of URIs.")
    folded = {urn.casefold() for urn in listed}
    if expected.casefold() not in folded:
        current = with_current_uris(folded, expected.casefold())
        if current is None or not leniency.allows(Tolerance.OLD_SCHEMA_URIS):
            raise InvalidSyntax(f"schemas must list {expected}.")
        return current
    return folded


# ---- attributes without a schema of their own ------------------------------------------------------------------------------------


def _keep_schemaless(rt: ResourceType, key: str, value: Any, kept: dict[str, Any], leniency: Leniency) -> None:
    extension = rt.extensions.get(key.casefold())
    if extension is not None:
        if not isinstance(value, dict) or len(value) == 1:
            value = _extension_value(extension.urn, extension.urn, value, leniency)
        inner = _checked_attributes(extension.attributes, value, f"{extension.urn}:", leniency)
        if inner:
            kept[extension.urn] = inner
        return
    if leniency.demands(Strictness.KNOWN_ATTRIBUTES):
        raise undefined(f"The attribute{shown(key)} or schema URI")
    if key.casefold() == rt.schema.casefold():
        raise InvalidSyntax(
            f"{rt.schema} is the resource's own schema, not an extension: send its attributes at the top level of the resource."
        )
    if key.casefold().startswith(rt.schema.casefold() + ":"):
        raise InvalidSyntax("A top-level name is the URN of the resource's own schema with an attribute that it does not have.")
    if is_scim_urn(key):
        # Stored as an extension, an `active` in it would be answered with 200 and have no effect.
        raise InvalidSyntax(
            f"A top-level name is a URN of SCIM itself that is not {rt.schema}: send its attributes at the top level of the resource."
        )
    check_unknown(key, value)
    if is_part_path(rt, key):
        # Stored under this name, the value would not be among those of the attribute, and nobody would see it.
        raise InvalidSyntax("A top-level name is a path to a part of an attribute: send the attribute with all its values.")
    if ":" in key:
        value = _extension_as_sent(key, value, leniency)
    if value not in (None, [], {}) and not is_empty_string(value, leniency):
        kept[key] = value


def _extension_as_sent(urn: str, value: Any, leniency: Leniency) -> dict[str, Any]:
    """The attributes of an extension without a schema, as they were sent, but for those that the profile takes for absent."""
    what = "A top-level name with a colon is the URN of an extension: its value"
    value = _extension_value(urn, what, value, leniency)
    refuse_own_name(urn, value)
    if not leniency.would_allow(Tolerance.EMPTY_STRINGS):
        return value
    return {name: inner for name, inner in value.items() if not is_empty_string(inner, leniency)}


def _refuse_dot_after_urn(rt: ResourceType, key: str, document: Mapping[str, Any]) -> None:
    """Raises InvalidSyntax for a key that looks like the URN of an extension with a dot and an attribute, unless `schemas` lists it.

    Stored as an extension of that name, the value would be answered with 200 and stand where nobody looks for it.
    """
    urn, rest = split_urn(key, rt)
    if urn is None or (readings(urn, rest) is None and not is_after_known_urn(rt, key)):
        return
    listed = next((value for name, value in document.items() if name.casefold() == "schemas"), None)
    uris = {str(uri).casefold() for uri in listed} if isinstance(listed, list) else set[str]()  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
    if key.casefold() not in uris or is_after_known_urn(rt, key):
        raise InvalidSyntax("A top-level name has a dot after a URN: send the extension's URN with an object of its attributes.")


def _extension_value(urn: str, what: str, value: Any, leniency: Leniency) -> dict[str, Any]:
    value = unnested(urn, unwrapped(value, leniency), leniency)
    if value in (None, []) or is_blank(value, leniency):
        return {}
    if not isinstance(value, dict):
        raise InvalidValue(f"{what} must be an object with attributes.")
    return value


def check_unknown(key: str, value: Any) -> None:
    """Raises InvalidSyntax unless the name of an attribute without a schema, and each name in its value, is ASCII and short."""
    if not key or len(key) > NAME_CHARACTERS_MAX or not key.isascii():
        raise InvalidSyntax(f"An attribute name is empty, longer than {NAME_CHARACTERS_MAX} characters or not ASCII.")
    _check_names(value)


def _check_names(value: Any) -> None:
    if isinstance(value, dict):
        for key, inner in value.items():
            check_unknown(key, inner)
    elif isinstance(value, list):
        for inner in value:
            _check_names(inner)


def refuse_own_name(name: str, members: Iterable[str]) -> None:
    """Raises InvalidValue where a value has a member of the attribute's own name, beside others: no filter and no path finds it there."""
    if any(member.casefold() == name.casefold() for member in members):
        raise InvalidValue(
            f"{name} holds a member that is also called {name}: send the value itself, without an object around it."
        )


def _checked_attributes(
    table: Mapping[str, Attribute], value: Mapping[str, Any], prefix: str, leniency: Leniency
) -> dict[str, Any]:
    """The attributes of an extension, or sub-attributes of a complex value, that have a value and can be written, in normal form.

    `prefix` is the path of what has them, with its separator, for the text of an error.
    """
    kept: dict[str, Any] = {}
    for key, inner in value.items():
        attribute = table.get(key) or table.get(key.casefold())
        if attribute is None:
            if leniency.demands(Strictness.KNOWN_ATTRIBUTES):
                raise undefined(f"The attribute{shown(key)} in {_name_before(prefix)}")
            check_unknown(key, inner)
            refuse_own_name(_name_before(prefix), (key,))
            if inner not in (None, [], {}) and not is_empty_string(inner, leniency):
                kept[key] = inner
        elif type(inner) is str and inner and attribute.is_text:
            kept[attribute.name] = inner  # most values; what follows would give the same
        elif inner is not None and attribute.mutability != "readOnly":
            checked = check_value(attribute, inner, prefix + attribute.name, leniency)
            if checked is not None and attribute.returned != "never":
                kept[attribute.name] = checked
    return kept


_INDEX = re.compile(r"\[[^\]]*\]\Z")


def _name_before(prefix: str) -> str:
    """The name of the attribute in a prefix such as `emails[0].`, or the URN in one such as `urn:…:User:`."""
    if prefix.endswith(":"):
        return prefix[:-1]
    return _INDEX.sub("", prefix[:-1]).rpartition(":")[2]


# ---- values ----------------------------------------------------------------------------------------------------------------------


def check_value(attribute: Attribute, value: Any, path: str, leniency: Leniency) -> Any:
    """The value of an attribute in normal form, None where it is absent. Raises InvalidValue, naming `path`, where its type is wrong."""
    if attribute.multi_valued:
        return _check_list(attribute, value, path, leniency)
    return check_single(attribute, value, path, leniency)


def check_single(attribute: Attribute, value: Any, path: str, leniency: Leniency) -> Any:
    """The same for a single value, also one of several."""
    kind = attribute.type
    if kind == "string":
        if type(value) is not str:
            value = _check_string(attribute, value, path, leniency)
        if attribute.only_canonical:
            _check_canonical(attribute, value, path)
        return None if not value and is_empty_string(value, leniency) else value
    if kind == "complex":
        return _check_complex(attribute, value, path, leniency)
    if kind == "boolean":
        return value if value is True or value is False else _check_boolean(attribute, value, path, leniency)
    if kind == "any":
        check_unknown(attribute.name, value)
        return None if value in ([], {}) or is_empty_string(value, leniency) else value
    if isinstance(value, dict | list):
        value = _unwrapped_simple(attribute, value, leniency)
    if value == "" and is_empty_string(value, leniency):
        return None
    accepted, described = _SIMPLE[kind]
    if not accepted(value):
        raise _wrong(path, described)
    return value


def _check_canonical(attribute: Attribute, value: str, path: str) -> None:
    if value.casefold() not in {known.casefold() for known in attribute.canonical_values}:
        raise _wrong(path, f"one of {', '.join(attribute.canonical_values)}")


def _wrong(path: str, expected: str) -> InvalidValue:
    return InvalidValue(f"{path} must be {expected}.")


def is_empty_string(value: Any, leniency: Leniency) -> bool:
    """Whether a value is an empty string, and the profile takes that for absence in any attribute."""
    return value == "" and leniency.allows(Tolerance.EMPTY_STRINGS)


def is_blank(value: Any, leniency: Leniency) -> bool:
    """Whether it is an empty string in the place of an object, a list or an id, and the profile takes that for absence there."""
    return value == "" and (leniency.allows(Tolerance.BLANK_OBJECTS) or leniency.allows(Tolerance.EMPTY_STRINGS))


def unwrapped(value: Any, leniency: Leniency) -> Any:
    """The object in a list of one, where the profile forgives the list; any other value as it is."""
    wrapped = isinstance(value, list) and len(value) == 1 and isinstance(value[0], dict)
    return value[0] if wrapped and leniency.allows(Tolerance.WRAPPED_VALUES) else value


def unnested(name: str, value: Any, leniency: Leniency) -> Any:
    """The inner value of an object whose one member has the name of the attribute, `{"emails": […]}` as the value of emails.

    Any other value as it is. Raises InvalidValue where the profile does not forgive it: no filter and no path would find the value.
    """
    if not isinstance(value, dict) or len(value) != 1:  # pyright: ignore[reportUnknownArgumentType]
        return value
    ((key, inner),) = value.items()  # pyright: ignore[reportUnknownVariableType]
    if key.casefold() != name.casefold():  # pyright: ignore[reportUnknownMemberType]
        return value  # pyright: ignore[reportUnknownVariableType]
    if not leniency.allows(Tolerance.WRAPPED_VALUES):
        refuse_own_name(name, (key,))  # pyright: ignore[reportUnknownArgumentType]
    return inner  # pyright: ignore[reportUnknownVariableType]


def _unwrapped_simple(attribute: Attribute, value: Any, leniency: Leniency) -> Any:
    """The simple value in `[{"value": x, "$ref": null}]` (Entra ID's older jobs), `{"value": x}` or `{"displayName": x}`, if forgiven."""
    inner = value[0] if isinstance(value, list) and len(value) == 1 else value
    if not isinstance(inner, dict):
        return value
    members = {key.casefold(): held for key, held in inner.items() if held is not None}
    members.pop("$ref", None)
    wrapped = len(members) == 1 and not members.keys().isdisjoint({"value", attribute.name.casefold()})
    return members.popitem()[1] if wrapped and leniency.allows(Tolerance.WRAPPED_VALUES) else value


# The attributes whose values are digits, so that a template or an HR system may well send a number (RFC 7643 §4.1.2, §4.3).
_NUMBER_LIKE = frozenset({"employeeNumber", "costCenter", "externalId", "postalCode"})


def _check_string(attribute: Attribute, value: Any, path: str, leniency: Leniency) -> str:
    value = _unwrapped_simple(attribute, value, leniency)
    if type(value) is str:
        return value
    of_digits = attribute.name in _NUMBER_LIKE or path.startswith("phoneNumbers")
    if type(value) is not int or not of_digits or not leniency.allows(Tolerance.NUMERIC_STRINGS):
        raise _wrong(path, "a string")
    return str(value)


def _check_boolean(attribute: Attribute, value: Any, path: str, leniency: Leniency) -> bool | None:
    value = _unwrapped_simple(attribute, value, leniency)
    if isinstance(value, bool):
        return value
    if is_empty_string(value, leniency):
        return None
    if isinstance(value, str) and value.lower() in ("true", "false") and leniency.allows(Tolerance.STRING_BOOLEANS):
        return value.lower() == "true"
    if type(value) in (int, str) and value in (0, 1, "0", "1") and leniency.allows(Tolerance.NUMERIC_BOOLEANS):
        return value in (1, "1")
    raise _wrong(path, "true or false")


def _is_binary(value: Any) -> bool:
    if not isinstance(value, str) or not value.isascii():
        return False
    try:
        binascii.a2b_base64(value.replace("-", "+").replace("_", "/") + "=" * (-len(value) % 4), strict_mode=True)
    except binascii.Error:
        return False
    return True


_SIMPLE: Mapping[str, tuple[Callable[[Any], bool], str]] = MappingProxyType(
    {
        "integer": (lambda value: type(value) is int, "an integer"),
        "decimal": (lambda value: type(value) in (int, float), "a number"),
        "dateTime": (
            lambda value: isinstance(value, str) and instant(value) is not None,
            "a date and time such as 2008-01-23T04:56:22Z",
        ),
        "reference": (lambda value: isinstance(value, str), "a string with a URI"),
        "binary": (_is_binary, "a string in base64"),
    }
)


def _check_complex(attribute: Attribute, value: Any, path: str, leniency: Leniency) -> dict[str, Any] | None:
    kept = check_partial(attribute, value, path, leniency)
    missing = None if kept is None else _missing_required_sub(attribute, kept)
    if missing is not None:
        raise InvalidValue(f"{path}.{missing} is required.")
    return kept


def check_partial(attribute: Attribute, value: Any, path: str, leniency: Leniency) -> dict[str, Any] | None:
    """The same for a complex value that PATCH merges into a stored one: a required sub-attribute that it lacks may be stored already."""
    if isinstance(value, dict) and len(value) == 1 and "value" not in value:
        value = unnested_value(attribute, value, leniency)
    if not isinstance(value, dict):
        value = _as_complex(attribute, value, path, leniency)
    kept = _checked_attributes(attribute.sub_attributes, value, f"{path}.", leniency)
    if "value" in attribute.sub_attributes and not kept.get("value"):
        kept = _without_empty_value(attribute, value, kept, leniency)
    return kept or None


def unnested_value(attribute: Attribute, value: Any, leniency: Leniency) -> Any:
    """`unnested` for the value of an attribute; an attribute that has a sub-attribute of its own name keeps the object as it is."""
    return value if attribute.name.casefold() in attribute.sub_attributes else unnested(attribute.name, value, leniency)


def _without_empty_value(
    attribute: Attribute, value: Mapping[str, Any], kept: dict[str, Any], leniency: Leniency
) -> dict[str, Any]:
    """The value without an empty `value`: an empty id of a manager names nobody, and an item of a list with an empty `value` is no item."""
    if attribute.multi_valued:
        sent = next((inner for key, inner in value.items() if key.casefold() == "value"), None)
        return {} if is_empty_string(sent, leniency) else kept
    if is_blank(kept.get("value"), leniency):
        del kept["value"]
    return kept


def _as_complex(attribute: Attribute, value: Any, path: str, leniency: Leniency) -> dict[str, Any]:
    """The object that a value in its place stands for: a bare string is its `value`, a list of one object that object, if forgiven."""
    if not attribute.multi_valued:
        value = unwrapped(value, leniency)
        if isinstance(value, dict):
            return value
    if value == [] or is_blank(value, leniency):
        return {}
    tolerance = Tolerance.BARE_VALUES if attribute.multi_valued else Tolerance.MANAGER_STRING
    if not isinstance(value, str) or "value" not in attribute.sub_attributes or not leniency.allows(tolerance):
        raise _wrong(path, "an object with sub-attributes")
    return {"value": value} if value else {}


def as_list(value: Any, path: str, leniency: Leniency) -> list[Any]:
    """The values of a multi-valued attribute. Raises InvalidValue for what is no list, unless the profile forgives it."""
    if isinstance(value, list):
        return value
    # Not for members: an empty string must not remove all members of a group.
    if path != "members" and is_blank(value, leniency):
        return []
    # Only an object is taken for the one value of the list: a bare string is more likely meant for another attribute.
    if not isinstance(value, dict) or not leniency.allows(Tolerance.SINGLE_FOR_MULTI):
        raise _wrong(path, "a list")
    return [value]


def _check_list(attribute: Attribute, value: Any, path: str, leniency: Leniency) -> list[Any] | None:
    if path != "members" and not isinstance(value, list):
        value = _with_single_in_list(attribute, value, leniency)
    items = as_list(value, path, leniency)
    if path == "members" and attribute.type == "complex":
        return check_members(items, leniency) or None
    kept: list[Any] = []
    for index, item in enumerate(items):
        checked = None if item is None else check_single(attribute, item, f"{path}[{index}]", leniency)
        if checked is not None:
            kept.append(checked)
    if attribute.type == "complex":
        check_primary(kept, path)
    return kept or None


def _with_single_in_list(attribute: Attribute, value: Any, leniency: Leniency) -> Any:
    """The value of a list that is not one: without an object of the attribute's own name around it, and a plain value as a list of one."""
    value = unnested_value(attribute, value, leniency)
    plain = attribute.type != "complex" and not isinstance(value, dict | list) and value != ""
    return [value] if plain and leniency.allows(Tolerance.SINGLE_FOR_MULTI) else value


def check_primary(values: list[Any], path: str) -> None:
    """Raises InvalidValue where more than one value is primary (RFC 7643 §2.4)."""
    primaries = 0
    for value in values:
        if value.get("primary") is True:
            primaries += 1
    if primaries > 1:
        raise InvalidValue(f"{path} has more than one primary value: set primary to true on one only.")


def check_members(items: list[Any], leniency: Leniency) -> list[dict[str, str]]:
    """The members of a group as `{"value", "type"?}`, each id once. Display names and links are derived, and not stored.

    Raises InvalidValue, naming the member, for one without an id or of an unknown type.
    """
    kept: dict[str, dict[str, str]] = {}
    known_only, exact = leniency.demands(Strictness.KNOWN_ATTRIBUTES), leniency.demands(Strictness.EXACT_IDS)
    for index, item in enumerate(items):
        member = item if isinstance(item, dict) else _member_of_id(item, index, leniency)
        if known_only:
            _refuse_undefined_of_member(member, index)
        value = member.get("value")
        kind = member.get("type")
        if type(value) is not str or kind is not None or len(member) > 2:
            value, kind = _read_member(member, index, leniency)
        if not value:
            raise InvalidValue(f"members[{index}].value is required: send the id of the member.")
        if exact:
            check_exact_id(value, f"members[{index}].value", leniency)
        if value not in kept:
            # Most members of a large group have nothing but a `value`: they are stored as they are, without a second dict for each.
            kept[value] = member if len(member) == 1 and "value" in member else _as_member(value, kind)
    return list(kept.values())


_OF_A_MEMBER = frozenset({"value", "type", "display", "$ref"})


def _refuse_undefined_of_member(member: Mapping[str, Any], index: int) -> None:
    for name in member:
        if name.casefold() not in _OF_A_MEMBER:
            raise undefined(f"The attribute{shown(name)} in members[{index}]")


def check_exact_id(value: str, path: str, leniency: Leniency) -> None:
    """Raises InvalidValue for an id in another spelling, where the profile compares ids exactly. Taken for a stranger's, it would end no access."""
    if leniency.demands(Strictness.EXACT_IDS) and is_other_spelling_of_id(value):
        raise InvalidValue(f"{path} is the id of no resource: ids are compared exactly, and are written in lower case.")


def _as_member(value: str, kind: str | None) -> dict[str, str]:
    return {"value": value} if kind is None else {"value": value, "type": kind}


def _member_of_id(item: Any, index: int, leniency: Leniency) -> dict[str, Any]:
    if not isinstance(item, str) or not leniency.allows(Tolerance.BARE_VALUES):
        raise InvalidValue(f"members[{index}] must be an object with a value.")
    return {"value": item}


def _read_member(member: Mapping[str, Any], index: int, leniency: Leniency) -> tuple[str | None, str | None]:
    folded = {key.casefold(): value for key, value in member.items()}
    value = folded.get("value")
    if value is not None and not isinstance(value, str):
        raise _wrong(f"members[{index}].value", "a string")
    kind = folded.get("type")
    if kind is None or is_blank(kind, leniency):
        return value, None
    if not isinstance(kind, str) or kind.casefold() not in _MEMBER_TYPES:
        raise InvalidValue(f"members[{index}].type must be User or Group.")
    return value, _MEMBER_TYPES[kind.casefold()]
