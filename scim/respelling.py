"""Names that identity providers write differently: schema URIs of older drafts, flat keys, paths in another spelling."""

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

Place: TypeAlias = tuple[str, ...]
Respelling: TypeAlias = Callable[[str, ResourceType], str]

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
_OLD: Final[Mapping[str, frozenset[str]]] = MappingProxyType(
    {
        USER.schema.casefold(): _OLD_CORE | {"urn:scim:schemas:core:2.0:user"},
        GROUP.schema.casefold(): _OLD_CORE | {"urn:scim:schemas:core:2.0:group"},
        "urn:ietf:params:scim:api:messages:2.0:patchop": frozenset(
            {"urn:scim:api:messages:2.0:patchop", "urn:ietf:params:scim:schemas:core:2.0:patchop"}
        ),
    }
)

_OLD_BEGINNING: Final = "urn:scim:"  # of every older URN of a schema; no current one begins so


def of_today(uris: set[str], expected: str) -> set[str] | None:
    """Casefolded schema URIs with those of older drafts renamed; None where none of them means the expected one."""
    if not uris & _OLD.get(expected, frozenset()):
        return None
    renamed = {ENTERPRISE.urn.casefold()} if uris & _OLD_ENTERPRISE else set[str]()
    return uris - _OLD[expected] - _OLD_ENTERPRISE | renamed | {expected}


_ENDPOINTS: Final[Mapping[str, str]] = MappingProxyType({"users": "Users", "groups": "Groups"})


def endpoint(segment: str, leniency: Leniency) -> str | None:
    """The endpoint of a type of resources that a segment of a path names, in another case where the profile forgives it."""
    known = _ENDPOINTS.get(segment.casefold())
    return known if known is None or known == segment or leniency.allows(Tolerance.ENDPOINT_CASE) else None


def renamed(rt: ResourceType, name: str) -> str:
    """A key or path with the URN of an older draft at its beginning replaced by that of today; others as they are."""
    if not (folded := name.casefold()).startswith(_OLD_BEGINNING):
        return name
    for old, urn in _replaced(rt):
        if urn and folded == old:
            return urn
        if folded.startswith((old + ":", old + ".")):
            return urn + name[len(old) :] if urn else name[len(old) + 1 :]
    return name


@lru_cache(maxsize=64)
def _replaced(rt: ResourceType) -> tuple[tuple[str, str], ...]:
    """Older URNs with those of today, longer ones first: some begin like others.

    Where users and groups are asked for together, the one core schema of SCIM 1 means both: no URN at all.
    """
    found = dict.fromkeys(_OLD.get(rt.schema.casefold(), ()), rt.schema)
    if not rt.name:
        found |= dict.fromkeys(_OLD[GROUP.schema.casefold()], GROUP.schema) | dict.fromkeys(_OLD_CORE, "")
    if ENTERPRISE.urn.casefold() in rt.extensions:
        found |= dict.fromkeys(_OLD_ENTERPRISE, ENTERPRISE.urn)
    return tuple(sorted(found.items(), key=lambda item: -len(item[0])))


def place_of(rt: ResourceType, key: str, value: Any, leniency: Leniency) -> tuple[Place, Tolerance] | None:
    """Where a top-level key that no schema has belongs, and the tolerance that says so; None where it is what it says.

    The place of the core schema's own URN is the resource itself, without a name.
    """
    folded = key.casefold()
    if folded in rt.extensions:
        return None
    if folded == rt.schema.casefold():
        forgiven = isinstance(value, dict) and leniency.would_allow(Tolerance.DOTTED_KEYS)
        return ((), Tolerance.DOTTED_KEYS) if forgiven else None
    today = renamed(rt, key) if ":" in key else key
    today = today if today != key and leniency.would_allow(Tolerance.OLD_SCHEMA_URIS) else key
    if today != key:
        place = _place_today(rt, today, value)
        return None if place is None else (place, Tolerance.OLD_SCHEMA_URIS)
    extension = rt.extensions.get(ENTERPRISE.urn.casefold())
    if "." in key or ":" in key:
        place = _flat(rt, key) if leniency.would_allow(Tolerance.DOTTED_KEYS) else None
        return (place, Tolerance.DOTTED_KEYS) if place is not None else _after_dot(rt, key, leniency)
    attribute = None if extension is None else extension.attributes.get(folded)
    if extension is None or attribute is None or not _could_be(attribute, value):
        return None
    forgiven = leniency.would_allow(Tolerance.ENTERPRISE_NAMES)
    return ((extension.urn, attribute.name), Tolerance.ENTERPRISE_NAMES) if forgiven else None


def _after_dot(rt: ResourceType, key: str, leniency: Leniency) -> tuple[Place, Tolerance] | None:
    """The place of `URN.department` as a key, also under a URN that has no schema here."""
    forgiven = leniency.would_allow(Tolerance.DOTTED_KEYS) and leniency.would_allow(Tolerance.PATH_SPELLING)
    spelt = with_colon(rt, key) if forgiven else None
    if spelt is None:
        return None
    urn, rest = split_urn(spelt, rt)
    unknown = urn is not None and urn.casefold() not in rt.extensions
    place = (urn, *rest.split(".")) if urn is not None and unknown else _flat(rt, spelt)
    return None if place is None else (place, Tolerance.PATH_SPELLING)


_END_OF_NAME: Final = re.compile(r"[.\[]")


def _place_today(rt: ResourceType, name: str, value: Any) -> Place | None:
    if name == rt.schema:
        return () if isinstance(value, dict) else None
    return (name,) if name.casefold() in rt.extensions else _flat(rt, name)


def _could_be(attribute: Attribute, value: Any) -> bool:
    return isinstance(value, str) or (isinstance(value, dict) and attribute.type == "complex")


def _flat(rt: ResourceType, key: str) -> Place | None:
    """The place of `name.givenName`, `URN:department`, `URN:manager.value`; None for unknown names and multi-valued ones."""
    urn, rest = split_urn(key, rt)
    extension = rt.extensions.get(urn.casefold()) if urn is not None else None
    if urn is not None and extension is None:
        return None
    name, dot, sub = rest.partition(".")
    attribute = (rt.attributes if extension is None else extension.attributes).get(name.casefold())
    if attribute is None:
        return None
    place = (attribute.name,) if extension is None else (extension.urn, attribute.name)
    if not dot:
        return place
    if attribute.multi_valued or attribute.type != "complex" or "." in sub or "[" in sub:
        return None
    inner = attribute.sub_attributes.get(sub.casefold())
    return (*place, sub if inner is None else inner.name)


def is_path(rt: ResourceType, key: str) -> bool:
    """Whether a top-level key is a path to a part of an attribute of the resource: `emails.value`, `emails[type eq "work"]`."""
    urn, rest = split_urn(key, rt)
    name = _END_OF_NAME.split(rest, maxsplit=1)[0]
    table = rt.attributes if urn is None else rt.extensions[urn.casefold()].attributes if urn.casefold() in rt.extensions else {}
    return name != rest and name.casefold() in table


def with_values_at(document: Mapping[str, Any], moved: Mapping[str, Place]) -> dict[str, Any]:
    """The document with the values of some keys where they belong; `document` itself is unchanged."""
    whole = {key: value for key, value in document.items() if key not in moved}
    puts: list[tuple[Place, Any]] = []
    for key, place in moved.items():
        puts += [(place, document[key])] if place else [((name,), value) for name, value in document[key].items()]
    return _with(whole, puts)


def _with(holder: Mapping[str, Any], puts: list[tuple[Place, Any]]) -> dict[str, Any]:
    """`holder` with values put under names that are compared ignoring case; objects that meet become one."""
    whole = dict(holder)
    names = {name.casefold(): name for name in whole}
    deeper: dict[str, list[tuple[Place, Any]]] = {}
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
        whole[name] = _with(held if isinstance(held, dict) else {}, inner)
    return whole


def respelled(rt: ResourceType, text: str, leniency: Leniency) -> tuple[str, Tolerance] | None:
    """A path as the RFC writes it, and the tolerance that allows the other spelling; None where there is none."""
    if leniency.would_allow(Tolerance.PATH_SPELLING):
        path = _as_rfc(rt, text)
        if path != text:
            return path, Tolerance.PATH_SPELLING
    of_enterprise = ":" not in text and ENTERPRISE.urn.casefold() in rt.extensions
    if of_enterprise and leniency.would_allow(Tolerance.ENTERPRISE_NAMES):
        return f"{ENTERPRISE.urn}:{text}", Tolerance.ENTERPRISE_NAMES
    return None


def _as_rfc(rt: ResourceType, text: str) -> str:
    """Without the slashes of a JSON pointer, with double quotes for single ones, with a colon after a URN."""
    name, bracket, rest = text.strip().partition("[")
    name = name.removeprefix("/")
    if ":" not in name:
        name = name.replace("/", ".")
    return _with_colon(rt, name) + bracket + (rest if '"' in rest else rest.replace("'", '"'))


def _with_colon(rt: ResourceType, name: str) -> str:
    return with_colon(rt, name) or name


_VALUES: Final = re.compile(
    r"""
      "(?:[^"\\]|\\.)*"
    | (?P<operator>\b(?:eq|ne|co|sw|ew|gt|ge|lt|le)\s+)(?:'(?P<quoted>[^']*)'|(?P<bare>[^\s"'()\[\]]+))
    """,
    re.VERBOSE | re.IGNORECASE,
)


def filter_as_meant(text: str, rt: ResourceType, leniency: Leniency) -> str:
    """A filter as the RFC writes it, where another spelling is forgiven and makes it readable; otherwise as it is."""
    if _OLD_BEGINNING in text.lower():
        # First: the URN of a draft reads like that of somebody's extension.
        text, relied = _respelt(text, rt, (_OLDER,), leniency)
        leniency.note(*relied)
    if _readable(text, rt):
        return text
    meant, relied = _respelt(text, rt, ((Tolerance.UNQUOTED_VALUES, _quoted), *_SPELLINGS), leniency)
    if not relied or not _readable(meant, rt):
        return text
    leniency.note(*relied)
    return meant


def _readable(text: str, rt: ResourceType) -> bool:
    try:
        parse_filter(text, rt)
    except InvalidFilter:
        return False
    return True


def _in_quotes(found: re.Match[str]) -> str:
    value = found["quoted"] if found["bare"] is None else found["bare"]
    if value is None or (found["bare"] is not None and value.lower() in ("true", "false", "null")):
        return found[0]
    return found["operator"] + json.dumps(value, ensure_ascii=False)


def _quoted(text: str, _: ResourceType) -> str:
    return _VALUES.sub(_in_quotes, text)


_NAMES: Final = re.compile(r'"(?:[^"\\]|\\.)*"|(?P<name>[A-Za-z][-\w.:]*)', re.ASCII)


def _by_name(change: Callable[[ResourceType, str], str]) -> Respelling:
    """Change each name in a text, and nothing within quotes."""
    return lambda text, rt: _NAMES.sub(lambda found: change(rt, found[0]) if found["name"] else found[0], text)


def _with_enterprise_urn(rt: ResourceType, name: str) -> str:
    extension = rt.extensions.get(ENTERPRISE.urn.casefold())
    first = name.partition(".")[0].casefold()
    if extension is None or first not in extension.attributes or first in rt.attributes:
        return name
    return f"{ENTERPRISE.urn}:{name}"


_OLDER: Final = (Tolerance.OLD_SCHEMA_URIS, _by_name(renamed))
_SPELLINGS: Final = (
    (Tolerance.PATH_SPELLING, _by_name(_with_colon)),
    (Tolerance.ENTERPRISE_NAMES, _by_name(_with_enterprise_urn)),
)


def _respelt(
    text: str, rt: ResourceType, spellings: Iterable[tuple[Tolerance, Respelling]], leniency: Leniency
) -> tuple[str, list[Tolerance]]:
    """The text with each spelling that the profile forgives undone, one after the other, and the tolerances that took."""
    relied: list[Tolerance] = []
    for tolerance, respelling in spellings:
        spelt = respelling(text, rt) if leniency.would_allow(tolerance) else text
        if spelt != text:
            text = spelt
            relied.append(tolerance)
    return text, relied


def names_as_meant(texts: str, rt: ResourceType, leniency: Leniency) -> str:
    """The names in `attributes`, `excludedAttributes` or `sortBy` as the RFC writes them, where that is forgiven."""
    meant, relied = _respelt(texts, rt, (_OLDER, *_SPELLINGS), leniency)
    leniency.note(*relied)
    return meant
