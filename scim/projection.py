"""Which attributes an answer carries (RFC 7644 §3.4.2.5 and §3.9; `returned` of RFC 7643 §7)."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any, TypeAlias

from scim.errors import InvalidValue
from scim.leniency import Leniency
from scim.respelling import respelt_names
from scim.schema import Attribute, ResourceType
from scim.urns import is_after_known_urn, readings, split_urn

# Names of attributes, casefolded, each with the tree of its parts; an empty tree is the whole attribute.
Tree: TypeAlias = dict[str, "Tree"]
_ALWAYS = frozenset({"id", "schemas"})
NAMES_CHARACTERS_MAX = 8_192  # of attributes and of excludedAttributes, as of a filter: two milliseconds to read
_REMEMBERED_CHARACTERS_MAX = 2_048  # of names that are read once for many requests: what is remembered stays small


@dataclass(frozen=True, slots=True, eq=False)
class Projection:
    """What an answer shows: only `include` where it is not None, else all but `exclude`.

    `sent` are the attributes returned on request that a write shows because it sent them.
    """

    rt: ResourceType
    include: Tree | None
    exclude: Tree
    sent: Tree = field(default_factory=dict[str, Tree])


def read_projection(rt: ResourceType, attributes: str | None, excluded: str | None, leniency: Leniency) -> Projection:
    """parse_projection for names that may be in another spelling, where the profile forgives it.

    The names as they were sent count too: an attribute without a schema may be stored under one. Raises InvalidValue as
    parse_projection does, and for more than NAMES_CHARACTERS_MAX characters.
    """
    if attributes is None and excluded is None:  # most requests
        return _read_remembered(rt, None, None)
    for parameter, names in (("attributes", attributes), ("excludedAttributes", excluded)):
        if names is not None and len(names) > NAMES_CHARACTERS_MAX:
            raise InvalidValue(f"{parameter} has more than {NAMES_CHARACTERS_MAX} characters. Name fewer attributes.")

    def in_both_spellings(names: str | None) -> str | None:
        respelt = respelt_names(names, rt, leniency) if names else names
        if names is None or respelt == names:
            return names
        return ",".join([respelt or "", *(name for name in names.split(",") if not is_after_known_urn(rt, name.strip()))])

    return parse_projection(rt, in_both_spellings(attributes), in_both_spellings(excluded))


def parse_projection(rt: ResourceType, attributes: str | None, excluded: str | None) -> Projection:
    """The projection that the two comma-separated parameters ask for. A name that no document has is ignored.

    Raises InvalidValue where both are given, which RFC 7644 §3.4.2.5 makes alternatives, and for a dot after the URN of a schema.
    """
    short = len(attributes or "") + len(excluded or "") <= _REMEMBERED_CHARACTERS_MAX
    return (_read_remembered if short else _read)(rt, attributes, excluded)


def _read(rt: ResourceType, attributes: str | None, excluded: str | None) -> Projection:
    include, exclude = _tree(rt, attributes), _tree(rt, excluded)
    if include is not None and exclude is not None:
        raise InvalidValue("attributes and excludedAttributes exclude each other: send one of them.")
    return Projection(rt, include, exclude or {})


_read_remembered = lru_cache(maxsize=1024)(_read)


def _tree(rt: ResourceType, names: str | None) -> Tree | None:
    paths = [name.strip() for name in (names or "").split(",")]
    tree: Tree = {}
    for path in filter(None, paths):
        for steps in _ways_to_read(rt, path):
            _add_to(tree, steps)
    return tree or None


def _ways_to_read(rt: ResourceType, path: str) -> list[list[str]]:
    """The paths that a name can stand for, as lists of names from the outermost inwards.

    The last part of a URN without a schema may be an attribute, or belong to the URN of an extension: the answer shows either.
    """
    folded = path.casefold()
    if folded in rt.extensions:
        return [[folded]]
    if is_after_known_urn(rt, path):
        # Taken for a name without a schema it would select nothing, and the answer would lack the attribute without a word.
        raise InvalidValue(
            "A name in attributes or excludedAttributes has a dot after the URN of a schema: write urn:…:attribute."
        )
    urn, rest = split_urn(path, rt)
    steps = rest.casefold().split(".")
    if urn is None:
        return [steps]
    named = [urn.casefold(), *steps]
    if urn.casefold() in rt.extensions:
        return [named]
    found = readings(urn, rest)
    if found is None or found.by_dot is None:
        return [named, [folded]]
    return [named, [folded], [step.casefold() for step in found.by_dot if step is not None]]


def after_write(projection: Projection, sent: frozenset[tuple[str, str]] | None) -> Projection:
    """The projection for the answer to a write, which shows an attribute returned on request where the write sent it (RFC 7643 §7).

    `sent` has the casefolded URN and name of each attribute of an extension that a PATCH changed; None for PUT and POST, which send all.
    """
    if projection.include is not None:
        return projection
    tree: Tree = {}
    for steps in _returned_on_request(projection.rt):
        if sent is None or steps[:2] in sent:
            _add_to(tree, list(steps))
    return replace(projection, sent=tree) if tree else projection


@lru_cache(maxsize=64)
def _returned_on_request(rt: ResourceType) -> tuple[tuple[str, ...], ...]:
    """The casefolded paths of attributes and sub-attributes that are returned on request; only extensions have such."""
    found: list[tuple[str, ...]] = []
    for urn, extension in rt.extensions.items():
        for name, attribute in extension.attributes.items():
            if attribute.returned == "request":
                found.append((urn, name))
            found += [(urn, name, n) for n, sub in attribute.sub_attributes.items() if sub.returned == "request"]
    return tuple(found)


def _add_to(tree: Tree, steps: list[str]) -> None:
    for step in steps[:-1]:
        if step in tree and not tree[step]:
            return
        tree = tree.setdefault(step, {})
    tree[steps[-1]] = {}


def needs(projection: Projection, name: str) -> bool:
    """Whether an answer can show the attribute, so that it must be loaded."""
    folded = name.casefold()
    if projection.include is not None:
        return folded in projection.include or folded in _ALWAYS
    return projection.exclude.get(folded) != {} or folded in _ALWAYS


def shows_whole(projection: Projection, name: str) -> bool:
    """Whether an answer shows a value of the attribute as it is, with all its sub-attributes."""
    value: list[dict[str, Any]] = [{}]
    return project(projection, {name: value}).get(name) is value


def project(projection: Projection, document: Mapping[str, Any]) -> dict[str, Any]:
    """The document as the projection shows it: always with id and schemas, never with an attribute that is never returned."""
    rt, include, exclude, sent = projection.rt, projection.include, projection.exclude, projection.sent
    in_parts = _shown_in_parts(rt)
    always_whole = _NOTHING if include is not None or exclude else _shown_whole(rt)
    shown: dict[str, Any] = {}
    for key, value in document.items():
        if key in always_whole and value is not None:
            shown[key] = value
            continue
        folded = key.casefold()
        if include is None and folded not in exclude and folded not in in_parts:
            if value is not None:
                shown[key] = value
            continue
        extension = rt.extensions.get(folded)
        table = extension.attributes if extension is not None else None
        visible = _visible(rt.attributes.get(folded), table, folded, value, include, exclude, sent)
        if visible is not None:
            shown[key] = visible
    return shown


_NOTHING: frozenset[str] = frozenset()


@lru_cache(maxsize=64)
def _shown_whole(rt: ResourceType) -> frozenset[str]:
    """The attributes of the schema, as it spells them, and `meta`, that an answer shows whole if the request asked for nothing special."""
    in_parts = _shown_in_parts(rt)
    return frozenset(attribute.name for name, attribute in rt.attributes.items() if name not in in_parts)


@lru_cache(maxsize=64)
def _shown_in_parts(rt: ResourceType) -> frozenset[str]:
    """The casefolded attributes and extension URNs of which something is not returned by default: of all others a value is shown whole."""
    attributes = {name for name, attribute in rt.attributes.items() if _has_other_than_default({name: attribute})}
    return frozenset(
        attributes | {urn for urn, extension in rt.extensions.items() if _has_other_than_default(extension.attributes)}
    )


def _visible(
    attribute: Attribute | None,
    table: Mapping[str, Attribute] | None,
    name: str,
    value: Any,
    include: Tree | None,
    exclude: Tree,
    sent: Tree,
) -> Any:
    returned = "default" if attribute is None else attribute.returned
    if returned == "never":
        return None
    if returned == "always":
        return value
    if include is not None:
        return _only_included(attribute, table, value, include.get(name))
    if returned == "request" and name not in sent:
        return None
    return _all_but(attribute, table, value, exclude.get(name), sent.get(name, {}))


def _all_but(
    attribute: Attribute | None, table: Mapping[str, Attribute] | None, value: Any, tree: Tree | None, sent: Tree
) -> Any:
    if tree == {}:
        return _always(table, value)
    inner = table if table is not None else None if attribute is None else attribute.sub_attributes
    if tree is None and not _has_other_than_default(inner):
        return value
    return _projected(inner, value, None, tree or {}, sent)


def _only_included(attribute: Attribute | None, table: Mapping[str, Attribute] | None, value: Any, tree: Tree | None) -> Any:
    inner = table if table is not None else None if attribute is None else attribute.sub_attributes
    if tree is None:
        return _always(table, value)
    if not tree and not _has_other_than_default(inner):
        return value
    return _projected(inner, value, tree or None, {}, {})


def _always(table: Mapping[str, Attribute] | None, value: Any) -> Any:
    """The attributes that an extension shows although it is not asked for; None where it has none, and for any other attribute."""
    if table is None or not isinstance(value, dict):
        return None
    kept = {k: v for k, v in value.items() if k.casefold() in table and table[k.casefold()].returned == "always"}
    return kept or None


def _has_other_than_default(table: Mapping[str, Attribute] | None) -> bool:
    """Whether an attribute of the table, or a sub-attribute, is returned otherwise than by default."""
    return table is not None and any(
        attribute.returned != "default" or (attribute.sub_attributes and _has_other_than_default(attribute.sub_attributes))
        for attribute in table.values()
    )


def _projected(table: Mapping[str, Attribute] | None, value: Any, include: Tree | None, exclude: Tree, sent: Tree) -> Any:
    if isinstance(value, list):
        return [shown for item in value if (shown := _projected(table, item, include, exclude, sent)) is not None] or None
    if not isinstance(value, dict):
        return value
    shown = {}
    for key, inner in value.items():
        folded = key.casefold()
        visible = _visible(None if table is None else table.get(folded), None, folded, inner, include, exclude, sent)
        if visible is not None:
            shown[key] = visible
    return shown or None
