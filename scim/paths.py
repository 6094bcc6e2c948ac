"""Paths of PATCH operations (RFC 7644 §3.5.2): attr, attr.sub, attr[filter], attr[filter].sub, perhaps after a URN."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache

from scim.errors import InvalidPath
from scim.filter_parser import Reader, Token, shown
from scim.filters import Filter, Reference, unknown
from scim.normalise import check_unknown
from scim.schema import Attribute, ResourceType, is_scim_urn
from scim.urns import Name, Reading, Readings, is_after_known_urn, is_version, readings, split_urn

PATH_CHARACTERS_MAX = 8192


@dataclass(frozen=True, slots=True, eq=False)
class Path:
    """A resolved path: `attribute` is None for a whole extension, `urn` None for the core schema.

    Where the URN is not `known`, only the document tells where it ends. `whole` says how a path reads that nothing stored
    decides: as the URN of an extension, if the value is an object. `doubt` holds the readings of one with a dot behind its URN.
    """

    urn: str | None
    attribute: Attribute | None
    filter: Filter | None = None
    sub: Attribute | None = None
    known: bool = True
    whole: bool = False
    doubt: "Doubt | None" = None

    @property
    def text(self) -> str:
        """The path in schema spelling, without the filter's values."""
        name = "" if self.attribute is None else self.attribute.name
        if self.urn is not None:
            name = f"{self.urn}:{name}" if name else self.urn
        name += "" if self.filter is None else "[…]"
        return name if self.sub is None else f"{name}.{self.sub.name}"


@dataclass(frozen=True, slots=True, eq=False)
class Doubt:
    """The paths that a name can mean whose URN ends at its last colon, or at a dot; `sure` as in Readings, `name` as sent."""

    name: str
    by_colon: Path | None
    by_dot: Path | None
    sure: Reading | None


@lru_cache(maxsize=2048)
def parse_path(text: str, rt: ResourceType) -> Path:
    """The path in `text`: attr, attr.sub, attr[filter], attr[filter].sub, each perhaps after a URN, or an extension's URN.

    Raises InvalidPath for what cannot be read and for attributes the resource type does not have, InvalidFilter for the filter.
    """
    if len(text) > PATH_CHARACTERS_MAX:
        raise InvalidPath(f"The path is longer than {PATH_CHARACTERS_MAX} characters.")
    extension = rt.extensions.get(text.casefold())
    if extension is not None:
        return Path(extension.urn, None)
    if text.casefold() == rt.schema.casefold():
        raise InvalidPath("The path is the URN of the resource's own schema: name an attribute after it.")
    found: list[Path] = []

    def resolve(token: Token) -> Reference:
        if token.text.casefold() in rt.extensions:
            raise InvalidPath("The path must name an attribute of the extension before a filter.")
        found.append(_with_filter(_named(token.text, rt)))
        attribute = found[0].attribute
        if attribute is None:
            raise InvalidPath("The path must name an attribute of the extension before a filter.")
        return Reference(found[0].urn, attribute, found[0].sub)

    if "[" not in text:
        return _named(text.strip(), rt)
    return _selecting(Reader(text, resolve), found)


def _selecting(reader: Reader, found: list[Path]) -> Path:
    name = reader.token
    reader.place += 1
    reference = reader.resolve(name)
    path = found[0]
    if not reader.take("["):
        raise InvalidPath(f"The path needs [ at character {reader.token.at + 1}.")
    inner = reader.selection(reference, name)
    sub: Attribute | None = None
    if reader.token.kind == "sub":
        sub = _sub(reference.attribute, reader.token.text[1:])
        reader.place += 1
    if reader.token.kind != "end":
        raise InvalidPath(f"The path should end at character {reader.token.at + 1}.")
    return _selecting_in(path, inner, sub)


def _with_filter(path: Path) -> Path:
    """Of several readings one to which a filter can belong: sub-attributes have none."""
    doubt = path.doubt
    if doubt is None:
        return path
    by_colon, by_dot = (p if p is not None and p.sub is None else None for p in (doubt.by_colon, doubt.by_dot))
    first = by_colon or by_dot
    return path if first is None else replace(first, doubt=replace(doubt, by_colon=by_colon, by_dot=by_dot))


def _selecting_in(path: Path, inner: Filter, sub: Attribute | None) -> Path:
    doubt = path.doubt
    if doubt is not None:
        by_colon, by_dot = (p and replace(p, filter=inner, sub=sub) for p in (doubt.by_colon, doubt.by_dot))
        doubt = replace(doubt, by_colon=by_colon, by_dot=by_dot)
    return Path(path.urn, path.attribute, inner, sub, path.known, doubt=doubt)


def _named(text: str, rt: ResourceType) -> Path:
    urn, rest = split_urn(text, rt)
    if urn is None:
        return path_in(rt.attributes, None, rest)
    extension = rt.extensions.get(urn.casefold())
    if extension is not None:
        return path_in(extension.attributes, extension.urn, rest)
    return _unknown_extension(text, urn, rest, rt)


def _unknown_extension(text: str, urn: str, rest: str, rt: ResourceType) -> Path:
    check_unknown(text, None)
    refuse_scim_urn(text, rt)
    if is_after_known_urn(rt, text):
        raise InvalidPath(DOT_AFTER_URN)
    if not urn.casefold().startswith("urn:") or not rest:
        raise InvalidPath("The path names no extension: write it as urn:…:attribute.")
    if is_version(rest):
        return Path(text, None, known=False)
    found = readings(urn, rest)
    if found is not None:
        return _doubtful(text, found)
    if "/" in rest:
        raise InvalidPath("The path has a slash after a URN: write it as urn:…:attribute.")
    return Path(urn, unknown(rest), known=False, whole=_reads_as_extension(urn))


DOT_AFTER_URN = "The path has a dot after the URN of a schema: write it as urn:…:attribute."


def _doubtful(text: str, found: Readings) -> Path:
    if not found.all:
        raise InvalidPath("The path has dots after its URN that name no attribute: write it as urn:…:attribute.sub.")
    by_colon, by_dot = (name and _as_path(name) for name in (found.by_colon, found.by_dot))
    first = by_colon or by_dot
    assert first is not None
    return replace(first, doubt=Doubt(text, by_colon, by_dot, found.sure))


def _as_path(name: Name) -> Path:
    return Path(name.urn, unknown(name.attribute), sub=None if name.sub is None else unknown(name.sub), known=False)


def _reads_as_extension(urn: str) -> bool:
    """By convention a schema URN ends in its version and a name (…:2.0:User), or in its version; then no attribute is left.

    Where no version is there, nothing tells: an object is then taken for the extension.
    """
    *before, last = map(is_version, urn.split(":"))
    return last or not any(before)


def refuse_scim_urn(text: str, rt: ResourceType) -> None:
    if is_scim_urn(text):
        # Kept as an extension, an `active` in it would be acknowledged and have no effect.
        raise InvalidPath(f"The path has a URN of SCIM itself that is not {rt.schema}: name the attribute alone.")


def path_in(table: Mapping[str, Attribute], urn: str | None, text: str) -> Path:
    name, dot, sub = text.partition(".")
    attribute = table.get(name.casefold())
    if attribute is None:
        raise InvalidPath(f"The path names an attribute{shown(name)} that this resource type does not have.")
    return Path(urn, attribute, sub=_sub(attribute, sub) if dot else None)


def _sub(attribute: Attribute, name: str) -> Attribute:
    if attribute.type == "any":
        return unknown(name)
    sub = attribute.sub_attributes.get(name.casefold())
    if sub is None:
        raise InvalidPath(f"{attribute.name} has no sub-attribute{shown(name)}.")
    return sub
