"""Other spellings that identity providers use, turned into the spelling of RFC 7643 and 7644.

They are: schema URIs of drafts and of SCIM 1, top-level keys that are paths (`name.givenName`), paths and filters with slashes, single
quotes or a dot after a URN, names of the enterprise extension without its URN, endpoints in another case.
"""

import json
import re
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from types import MappingProxyType
from typing import Any, Final, TypeAlias

from scim.errors import InvalidFilter
from scim.filter_parser import parse_filter
from scim.leniency import Leniency, Tolerance
from scim.schema import ENTERPRISE, GROUP, USER, Attribute, ResourceType
from scim.urns import split_urn, with_colon

KeyPath: TypeAlias = tuple[str, ...]  # names of members of a document, from the outermost inwards; empty: the document itself
Respelling: TypeAlias = Callable[[str, ResourceType], str]

# ---- schema URIs of drafts and of SCIM 1 ------------------------------------------------------------------------------------------

# SCIM 1.0 and 1.1 had one core schema for users and groups (draft-scim-core-schema-01 §9); drafts of 2.0 wrote `urn:scim:`.
_OLD_CORE: Final = frozenset({"urn:scim:schemas:core:1.0", "urn:scim:schemas:core:1.1", "urn:scim:schemas:core:2.0"})
_OLD_ENTERPRISE: Final = frozenset(
    {
        "urn:scim:schemas:extension:enterprise:1.0",
        "urn:scim:schemas:extension:enterprise:1.1",
        "urn:scim:schemas:extension:enterprise:2.0",
        "urn:scim:schemas:extension:enterprise:2.0:user",
    }
)
# The older URIs of a schema or message, by its URI in RFC 7643 and 7644; all casefolded.
_OLD: Final[Mapping[str, frozenset[str]]] = MappingProxyType(
    {
        USER.schema.casefold(): _OLD_CORE | {"urn:scim:schemas:core:2.0:user"},
        GROUP.schema.casefold(): _OLD_CORE | {"urn:scim:schemas:core:2.0:group"},
        "urn:ietf:params:scim:api:messages:2.0:patchop": frozenset(
            {"urn:scim:api:messages:2.0:patchop", "urn:ietf:params:scim:schemas:core:2.0:patchop"}
        ),
    }
)

_OLD_BEGINNING: Final = "urn:scim:"  # of each older URN of a schema, and of no current one


def with_current_uris(uris: set[str], expected: str) -> set[str] | None:
    """Casefolded schema URIs with older ones replaced by those of RFC 7643; None where no older URI stands for `expected`."""
    if not uris & _OLD.get(expected, frozenset()):
        return None
    enterprise = {ENTERPRISE.urn.casefold()} if uris & _OLD_ENTERPRISE else set[str]()
    return uris - _OLD[expected] - _OLD_ENTERPRISE | enterprise | {expected}


def with_current_urn(rt: ResourceType, name: str) -> str:
    """A key or path with the older URN at its beginning replaced by that of RFC 7643; any other name unchanged."""
    if not (folded := name.casefold()).startswith(_OLD_BEGINNING):
        return name
    for old, urn in _current_urns(rt):
        if urn and folded == old:
            return urn
        if folded.startswith((old + ":", old + ".")):
            return urn + name[len(old) :] if urn else name[len(old) + 1 :]
    return name


@lru_cache(maxsize=64)
def _current_urns(rt: ResourceType) -> tuple[tuple[str, str], ...]:
    """Each older URN with the current one. Longer ones stand first, because some older URNs begin like others.

    A query over users and groups together maps the core URN of SCIM 1 to "": it stood for both types, so the name needs no URN.
    """
    found = dict.fromkeys(_OLD.get(rt.schema.casefold(), ()), rt.schema)
    if not rt.name:
        found |= dict.fromkeys(_OLD[GROUP.schema.casefold()], GROUP.schema) | dict.fromkeys(_OLD_CORE, "")
    if ENTERPRISE.urn.casefold() in rt.extensions:
        found |= dict.fromkeys(_OLD_ENTERPRISE, ENTERPRISE.urn)
    return tuple(sorted(found.items(), key=lambda item: -len(item[0])))


# ---- endpoints --------------------------------------------------------------------------------------------------------------------

_ENDPOINTS: Final[Mapping[str, str]] = MappingProxyType({"users": "Users", "groups": "Groups"})


def endpoint_in(segment: str, leniency: Leniency) -> str | None:
    """The endpoint, Users or Groups, that a segment of a path names; None where it names none, or writes it in a case not forgiven."""
    known = _ENDPOINTS.get(segment.casefold())
    return known if known is None or known == segment or leniency.allows(Tolerance.ENDPOINT_CASE) else None


# ---- keys of a resource -----------------------------------------------------------------------------------------------------------


def key_path(rt: ResourceType, key: str, value: Any, leniency: Leniency) -> tuple[KeyPath, Tolerance] | None:
    """The path at which the value of a top-level key is stored, where the key is not an attribute of the schema but stands for one.

    Gives with it the tolerance that the caller must note. None for a key that stands for itself, or is not forgiven. The key that is
    the URN of the core schema has the empty path: its attributes are those of the resource itself.
    """
    folded = key.casefold()
    if folded in rt.extensions:
        return None
    if folded == rt.schema.casefold():
        forgiven = isinstance(value, dict) and leniency.would_allow(Tolerance.DOTTED_KEYS)
        return ((), Tolerance.DOTTED_KEYS) if forgiven else None
    current = with_current_urn(rt, key) if ":" in key else key
    if current != key and leniency.would_allow(Tolerance.OLD_SCHEMA_URIS):
        path = _path_under_current_urn(rt, current, value)
        return None if path is None else (path, Tolerance.OLD_SCHEMA_URIS)
    if "." in key or ":" in key:
        path = _path_of_dotted_key(rt, key) if leniency.would_allow(Tolerance.DOTTED_KEYS) else None
        return (path, Tolerance.DOTTED_KEYS) if path is not None else _path_with_dot_after_urn(rt, key, leniency)
    extension = rt.extensions.get(ENTERPRISE.urn.casefold())
    attribute = None if extension is None else extension.attributes.get(folded)
    if extension is None or attribute is None or not _has_shape_of(attribute, value):
        return None
    forgiven = leniency.would_allow(Tolerance.ENTERPRISE_NAMES)
    return ((extension.urn, attribute.name), Tolerance.ENTERPRISE_NAMES) if forgiven else None


def _path_with_dot_after_urn(rt: ResourceType, key: str, leniency: Leniency) -> tuple[KeyPath, Tolerance] | None:
    """The path of a key `URN.department`, also under a URN that has no schema here."""
    forgiven = leniency.would_allow(Tolerance.DOTTED_KEYS) and leniency.would_allow(Tolerance.PATH_SPELLING)
    spelt = with_colon(rt, key) if forgiven else None
    if spelt is None:
        return None
    urn, rest = split_urn(spelt, rt)
    unknown = urn is not None and urn.casefold() not in rt.extensions
    path = (urn, *rest.split(".")) if urn is not None and unknown else _path_of_dotted_key(rt, spelt)
    return None if path is None else (path, Tolerance.PATH_SPELLING)


def _path_under_current_urn(rt: ResourceType, name: str, value: Any) -> KeyPath | None:
    if name == rt.schema:
        return () if isinstance(value, dict) else None
    return (name,) if name.casefold() in rt.extensions else _path_of_dotted_key(rt, name)


def _has_shape_of(attribute: Attribute, value: Any) -> bool:
    """Whether a value can be one of this attribute of the enterprise extension, whose attributes are strings, and the manager."""
    return isinstance(value, str) or (isinstance(value, dict) and attribute.type == "complex")


def _path_of_dotted_key(rt: ResourceType, key: str) -> KeyPath | None:
    """The path of `name.givenName`, `URN:department`, `URN:manager.value`.

    None where the schema has no such attribute, or where it has several values, so that the key does not say which.
    """
    urn, rest = split_urn(key, rt)
    extension = rt.extensions.get(urn.casefold()) if urn is not None else None
    if urn is not None and extension is None:
        return None
    name, dot, sub = rest.partition(".")
    attribute = (rt.attributes if extension is None else extension.attributes).get(name.casefold())
    if attribute is None:
        return None
    path = (attribute.name,) if extension is None else (extension.urn, attribute.name)
    if not dot:
        return path
    if attribute.multi_valued or attribute.type != "complex" or "." in sub or "[" in sub:
        return None
    inner = attribute.sub_attributes.get(sub.casefold())
    return (*path, sub if inner is None else inner.name)


_END_OF_NAME: Final = re.compile(r"[.\[]")


def is_part_path(rt: ResourceType, key: str) -> bool:
    """Whether a top-level key is the path of a part of an attribute that the schema has: `emails.value`, `emails[type eq "work"]`."""
    urn, rest = split_urn(key, rt)
    name = _END_OF_NAME.split(rest, maxsplit=1)[0]
    table = rt.attributes if urn is None else rt.extensions[urn.casefold()].attributes if urn.casefold() in rt.extensions else {}
    return name != rest and name.casefold() in table


def with_keys_moved(document: Mapping[str, Any], moved: Mapping[str, KeyPath]) -> dict[str, Any]:
    """A document with the value of each key in `moved` at its path; `document` itself is unchanged."""
    whole = {key: value for key, value in document.items() if key not in moved}
    puts: list[tuple[KeyPath, Any]] = []
    for key, path in moved.items():
        puts += [(path, document[key])] if path else [((name,), value) for name, value in document[key].items()]
    return _with_values_put(whole, puts)


def _with_values_put(holder: Mapping[str, Any], puts: list[tuple[KeyPath, Any]]) -> dict[str, Any]:
    """`holder` with each value at its path. Names that differ in case only are the same; two objects at one path are merged."""
    whole = dict(holder)
    names = {name.casefold(): name for name in whole}
    deeper: dict[str, list[tuple[KeyPath, Any]]] = {}
    for (first, *others), value in puts:
        name = names.setdefault(first.casefold(), first)
        if others:
            deeper.setdefault(name, []).append((tuple(others), value))
        elif isinstance(value, dict) and isinstance(whole.get(name), dict):
            deeper.setdefault(name, []).extend(((inner,), held) for inner, held in value.items())  # pyright: ignore[reportUnknownVariableType]
        else:
            whole[name] = value
    for name, inner in deeper.items():
        held = whole.get(name)
        whole[name] = _with_values_put(held if isinstance(held, dict) else {}, inner)
    return whole


# ---- paths of PATCH operations ----------------------------------------------------------------------------------------------------


def respelt_path(rt: ResourceType, text: str, leniency: Leniency) -> tuple[str, Tolerance] | None:
    """A path in the spelling of RFC 7644, with the tolerance that the caller must note once it can be parsed; None where none is forgiven."""
    if leniency.would_allow(Tolerance.PATH_SPELLING):
        path = _rfc_spelling(rt, text)
        if path != text:
            return path, Tolerance.PATH_SPELLING
    of_enterprise = ":" not in text and ENTERPRISE.urn.casefold() in rt.extensions
    if of_enterprise and leniency.would_allow(Tolerance.ENTERPRISE_NAMES):
        return f"{ENTERPRISE.urn}:{text}", Tolerance.ENTERPRISE_NAMES
    return None


def _rfc_spelling(rt: ResourceType, text: str) -> str:
    """The path with dots for the slashes of a JSON pointer, double quotes for single ones, and a colon after a URN."""
    name, bracket, rest = text.strip().partition("[")
    name = name.removeprefix("/")
    if ":" not in name:
        name = name.replace("/", ".")
    return _with_colon(rt, name) + bracket + (rest if '"' in rest else rest.replace("'", '"'))


def _with_colon(rt: ResourceType, name: str) -> str:
    return with_colon(rt, name) or name


# ---- filters, attributes, sortBy --------------------------------------------------------------------------------------------------


def respelt_filter(text: str, rt: ResourceType, leniency: Leniency) -> str:
    """A filter in the spelling of RFC 7644, where the other spelling is forgiven and can be parsed once it is respelt; else unchanged."""
    if _OLD_BEGINNING in text.lower():
        # First: the URN of a draft can be parsed too, as that of an extension without a schema, which no resource has.
        text, relied = _respelt(text, rt, (_OLD_URNS,), leniency)
        leniency.note(*relied)
    if _can_be_parsed(text, rt):
        return text
    respelt, relied = _respelt(text, rt, ((Tolerance.UNQUOTED_VALUES, _with_quotes), *_SPELLINGS), leniency)
    if not relied or not _can_be_parsed(respelt, rt):
        return text
    leniency.note(*relied)
    return respelt


def respelt_names(names: str, rt: ResourceType, leniency: Leniency) -> str:
    """The names in `attributes`, `excludedAttributes` or `sortBy` in the spelling of RFC 7644, where the other spelling is forgiven."""
    respelt, relied = _respelt(names, rt, (_OLD_URNS, *_SPELLINGS), leniency)
    leniency.note(*relied)
    return respelt


def _respelt(
    text: str, rt: ResourceType, spellings: Iterable[tuple[Tolerance, Respelling]], leniency: Leniency
) -> tuple[str, list[Tolerance]]:
    """The text after each respelling that is forgiven, and the tolerances of those that changed it."""
    relied: list[Tolerance] = []
    for tolerance, respelling in spellings:
        spelt = respelling(text, rt) if leniency.would_allow(tolerance) else text
        if spelt != text:
            text = spelt
            relied.append(tolerance)
    return text, relied


def _can_be_parsed(text: str, rt: ResourceType) -> bool:
    try:
        parse_filter(text, rt)
    except InvalidFilter:
        return False
    return True


_VALUES: Final = re.compile(
    r"""
      "(?:[^"\\]|\\.)*"
    | (?P<operator>\b(?:eq|ne|co|sw|ew|gt|ge|lt|le)\s+)(?:'(?P<quoted>[^']*)'|(?P<bare>[^\s"'()\[\]]+))
    """,
    re.VERBOSE | re.IGNORECASE,
)


def _with_quotes(text: str, _: ResourceType) -> str:
    """The filter with double quotes around each value that has single ones or none."""
    return _VALUES.sub(_with_quoted_value, text)


def _with_quoted_value(found: re.Match[str]) -> str:
    value = found["quoted"] if found["bare"] is None else found["bare"]
    if value is None or (found["bare"] is not None and value.lower() in ("true", "false", "null")):
        return found[0]
    return found["operator"] + json.dumps(value, ensure_ascii=False)


_NAMES: Final = re.compile(r'"(?:[^"\\]|\\.)*"|(?P<name>[A-Za-z][-\w.:]*)', re.ASCII)


def _for_each_name(respell: Callable[[ResourceType, str], str]) -> Respelling:
    """Respell each name in a text, and nothing within double quotes."""
    return lambda text, rt: _NAMES.sub(lambda found: respell(rt, found[0]) if found["name"] else found[0], text)


def _with_enterprise_urn(rt: ResourceType, name: str) -> str:
    extension = rt.extensions.get(ENTERPRISE.urn.casefold())
    first = name.partition(".")[0].casefold()
    if extension is None or first not in extension.attributes or first in rt.attributes:
        return name
    return f"{ENTERPRISE.urn}:{name}"


_OLD_URNS: Final = (Tolerance.OLD_SCHEMA_URIS, _for_each_name(with_current_urn))
_SPELLINGS: Final = (
    (Tolerance.PATH_SPELLING, _for_each_name(_with_colon)),
    (Tolerance.ENTERPRISE_NAMES, _for_each_name(_with_enterprise_urn)),
)
