"""Paths of PATCH operations (RFC 7644 §3.5.2): attr, attr.sub, attr[filter], attr[filter].sub, perhaps after a URN."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache

from scim.errors import InvalidPath, UnknownAttribute
from scim.filter_parser import Lexeme, Reader, shown
from scim.filters import Filter, Reference, unknown
from scim.normalise import check_unknown
from scim.schema import Attribute, ResourceType, is_scim_urn
from scim.urns import Reading, Readings, SplitName, is_after_known_urn, is_version, readings, split_urn

PATH_CHARACTERS_MAX = 8192


@dataclass(frozen=True, slots=True, eq=False)
class Path:
    """A resolved path. `attribute` is None where it names a whole extension, `urn` None where it names an attribute of the core schema.

    `known` is false for an extension without a schema here: its URN and the name of an attribute look alike, so that only the stored
    document shows where the URN ends. Where the document has neither, a path that is `whole` is the URN of an extension if the value
    is an object. `ambiguity` has the readings of a path with a dot after its last colon; the document decides between these too.
    """

    urn: str | None
    attribute: Attribute | None
    filter: Filter | None = None
    sub: Attribute | None = None
    known: bool = True
    whole: bool = False
    ambiguity: "Ambiguity | None" = None

    @property
    def text(self) -> str:
        """The path in schema spelling, without the filter's values."""
        name = "" if self.attribute is None else self.attribute.name
        if self.urn is not None:
            name = f"{self.urn}:{name}" if name else self.urn
        name += "" if self.filter is None else "[…]"
        return name if self.sub is None else f"{name}.{self.sub.name}"


@dataclass(frozen=True, slots=True, eq=False)
class Ambiguity:
    """The two paths that a name can stand for: its URN ends at the last colon, or at a dot.

    `name` is the name as it was sent, `by_form` the reading that the form of the URN suggests (see urns.Readings).
    """

    name: str
    by_colon: Path | None
    by_dot: Path | None
    by_form: Reading | None


@lru_cache(maxsize=2048)
def parse_path(text: str, rt: ResourceType) -> Path:
    """The path in `text`: attr, attr.sub, attr[filter], attr[filter].sub, each perhaps after a URN, or the URN of an extension alone.

    Raises InvalidPath where it cannot be parsed or names an attribute that the resource type does not have, InvalidFilter for its filter.
    """
    if len(text) > PATH_CHARACTERS_MAX:
        raise InvalidPath(f"The path is longer than {PATH_CHARACTERS_MAX} characters.")
    extension = rt.extensions.get(text.casefold())
    if extension is not None:
        return Path(extension.urn, None)
    if text.casefold() == rt.schema.casefold():
        raise InvalidPath("The path is the URN of the resource's own schema: name an attribute after it.")
    found: list[Path] = []

    def resolve(lexeme: Lexeme) -> Reference:
        if lexeme.text.casefold() in rt.extensions:
            raise InvalidPath("The path must name an attribute of the extension before a filter.")
        found.append(_before_filter(_without_filter(lexeme.text, rt)))
        attribute = found[0].attribute
        if attribute is None:
            raise InvalidPath("The path must name an attribute of the extension before a filter.")
        return Reference(found[0].urn, attribute, found[0].sub)

    if "[" not in text:
        return _without_filter(text.strip(), rt)
    return _read_with_filter(Reader(text, resolve), found)


def _read_with_filter(reader: Reader, found: list[Path]) -> Path:
    name = reader.lexeme
    reader.place += 1
    reference = reader.resolve(name)
    path = found[0]
    if not reader.take("["):
        raise InvalidPath(f"The path needs [ at character {reader.lexeme.at + 1}.")
    inner = reader.selection(reference, name)
    sub: Attribute | None = None
    if reader.lexeme.kind == "sub":
        sub = _sub(reference.attribute, reader.lexeme.text[1:])
        reader.place += 1
    if reader.lexeme.kind != "end":
        raise InvalidPath(f"The path should end at character {reader.lexeme.at + 1}.")
    return _filtered(path, inner, sub)


def _before_filter(path: Path) -> Path:
    """A path before a filter: without the readings as a sub-attribute, after which no filter can stand."""
    ambiguity = path.ambiguity
    if ambiguity is None:
        return path
    by_colon, by_dot = (p if p is not None and p.sub is None else None for p in (ambiguity.by_colon, ambiguity.by_dot))
    first = by_colon or by_dot
    return path if first is None else replace(first, ambiguity=replace(ambiguity, by_colon=by_colon, by_dot=by_dot))


def _filtered(path: Path, inner: Filter, sub: Attribute | None) -> Path:
    ambiguity = path.ambiguity
    if ambiguity is not None:
        by_colon, by_dot = (p and replace(p, filter=inner, sub=sub) for p in (ambiguity.by_colon, ambiguity.by_dot))
        ambiguity = replace(ambiguity, by_colon=by_colon, by_dot=by_dot)
    return Path(path.urn, path.attribute, inner, sub, path.known, ambiguity=ambiguity)


def _without_filter(text: str, rt: ResourceType) -> Path:
    urn, rest = split_urn(text, rt)
    if urn is None:
        return path_in(rt.attributes, None, rest)
    extension = rt.extensions.get(urn.casefold())
    if extension is not None:
        return path_in(extension.attributes, extension.urn, rest)
    return _schemaless(text, urn, rest, rt)


def _schemaless(text: str, urn: str, rest: str, rt: ResourceType) -> Path:
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
        return _ambiguous(text, found)
    if "/" in rest:
        raise InvalidPath("The path has a slash after a URN: write it as urn:…:attribute.")
    return Path(urn, unknown(rest), known=False, whole=_has_form_of_schema_urn(urn))


DOT_AFTER_URN = "The path has a dot after the URN of a schema: write it as urn:…:attribute."


def _ambiguous(text: str, found: Readings) -> Path:
    if not found.all:
        raise InvalidPath("The path has dots after its URN that name no attribute: write it as urn:…:attribute.sub.")
    by_colon, by_dot = (name and _as_path(name) for name in (found.by_colon, found.by_dot))
    first = by_colon or by_dot
    assert first is not None
    return replace(first, ambiguity=Ambiguity(text, by_colon, by_dot, found.by_form))


def _as_path(name: SplitName) -> Path:
    return Path(name.urn, unknown(name.attribute), sub=None if name.sub is None else unknown(name.sub), known=False)


def _has_form_of_schema_urn(urn: str) -> bool:
    """Whether the name after this URN belongs to it, by the convention that a schema's URN ends in its version, or in a version and a name.

    So `…:2.0` before `User` belongs to the URN `…:2.0:User`. A URN without any version may belong to either: then the name is taken
    into it, and an object at the path is the whole extension.
    """
    *before, last = map(is_version, urn.split(":"))
    return last or not any(before)


def refuse_scim_urn(text: str, rt: ResourceType) -> None:
    """Raises InvalidPath for a URN in a namespace of SCIM itself that this resource type does not have."""
    if is_scim_urn(text):
        # Kept as an extension, an `active` in it would be acknowledged and have no effect.
        raise InvalidPath(f"The path has a URN of SCIM itself that is not {rt.schema}: name the attribute alone.")


def path_in(table: Mapping[str, Attribute], urn: str | None, text: str) -> Path:
    """The path `attr` or `attr.sub` of an attribute in a schema's table. Raises InvalidPath where the table has no such attribute."""
    name, dot, sub = text.partition(".")
    attribute = table.get(name.casefold())
    if attribute is None:
        raise UnknownAttribute(f"The path names an attribute{shown(name)} that this resource type does not have.")
    return Path(urn, attribute, sub=_sub(attribute, sub) if dot else None)


def _sub(attribute: Attribute, name: str) -> Attribute:
    if attribute.type == "any":
        return unknown(name)
    sub = attribute.sub_attributes.get(name.casefold())
    if sub is None:
        raise UnknownAttribute(f"{attribute.name} has no sub-attribute{shown(name)}.")
    return sub
