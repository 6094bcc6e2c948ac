"""Paths of PATCH operations (RFC 7644 §3.5.2): attr, attr.sub, attr[filter], attr[filter].sub, perhaps after a URN."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

from scim.errors import InvalidPath
from scim.filters import Filter, Reader, Reference, Token, is_after_urn, shown, split_urn, unknown
from scim.normalise import check_unknown
from scim.schema import Attribute, ResourceType, is_of_scim

PATH_CHARACTERS_MAX = 8192


@dataclass(frozen=True, slots=True, eq=False)
class Path:
    """A resolved path: `attribute` is None for a whole extension, `urn` None for the core schema.

    Where the URN is not `known`, only the document tells where it ends. `whole` says how a path reads that nothing stored
    decides: as the URN of an extension, if the value is an object.
    """

    urn: str | None
    attribute: Attribute | None
    filter: Filter | None = None
    sub: Attribute | None = None
    known: bool = True
    whole: bool = False

    @property
    def text(self) -> str:
        """The path in schema spelling, without the filter's values."""
        name = "" if self.attribute is None else self.attribute.name
        if self.urn is not None:
            name = f"{self.urn}:{name}" if name else self.urn
        name += "" if self.filter is None else "[…]"
        return name if self.sub is None else f"{name}.{self.sub.name}"


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
        found.append(_named(token.text, rt))
        attribute = found[0].attribute
        assert attribute is not None
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
    return Path(path.urn, path.attribute, inner, sub, path.known)


def _named(text: str, rt: ResourceType) -> Path:
    urn, rest = split_urn(text, rt)
    if urn is None:
        return in_table(rt.attributes, None, rest)
    extension = rt.extensions.get(urn.casefold())
    if extension is not None:
        return in_table(extension.attributes, extension.urn, rest)
    return _unknown_extension(text, urn, rest, rt)


def _unknown_extension(text: str, urn: str, rest: str, rt: ResourceType) -> Path:
    check_unknown(text, None)
    refuse_of_scim(text, rt)
    if is_after_urn(rt, text):
        raise InvalidPath("The path has a dot after the URN of a schema: write it as urn:…:attribute.")
    if not urn.casefold().startswith("urn:") or not rest:
        raise InvalidPath("The path names no extension: write it as urn:…:attribute.")
    name, dot, sub = rest.partition(".")
    return Path(urn, unknown(name), sub=unknown(sub) if dot else None, known=False, whole=_reads_as_extension(urn, rest))


def _reads_as_extension(urn: str, rest: str) -> bool:
    """By convention a schema URN ends in its version and a name (…:2.0:User), or in its version; then no attribute is left.

    Where no version is there, nothing tells: an object is then taken for the extension.
    """
    *before, last = map(_is_version, urn.split(":"))
    return last or not any(before) or _is_version(rest)


def _is_version(part: str) -> bool:
    return "." in part and part.replace(".", "").isdigit()


def refuse_of_scim(text: str, rt: ResourceType) -> None:
    if is_of_scim(text):
        # Kept as an extension, an `active` in it would be acknowledged and have no effect.
        raise InvalidPath(f"The path has a URN of SCIM itself that is not {rt.schema}: name the attribute alone.")


def in_table(table: Mapping[str, Attribute], urn: str | None, text: str) -> Path:
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
