"""Where the URN at the beginning of a name ends (RFC 7644 §3.10), also where a dot follows it instead of a colon."""

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, Literal, NamedTuple, TypeAlias

from scim.schema import GROUP, USER, ResourceType

Reading: TypeAlias = Literal["colon", "dot"]
_CORE_URNS: Final = (USER.schema.casefold(), GROUP.schema.casefold())
_VERSION: Final = re.compile(r"v?\d+(?:\.\d+)+", re.IGNORECASE | re.ASCII)
_ATTRIBUTE: Final = re.compile(r"[A-Za-z$][-\w$]*", re.ASCII)


def split_urn(text: str, rt: ResourceType) -> tuple[str | None, str]:
    """The URN of the extension that a name begins with, None for the core schema or no URN, and the rest of the name.

    A URN that has no schema here ends at the last colon.
    """
    if ":" not in text:
        return None, text
    folded = text.casefold()
    for urn in core_urns(rt):
        if folded.startswith(urn + ":"):
            return None, text[len(urn) + 1 :]
    for extension in rt.extensions.values():
        if folded.startswith(extension.urn.casefold() + ":"):
            return extension.urn, text[len(extension.urn) + 1 :]
    urn, _, rest = text.rpartition(":")
    return urn, rest


def core_urns(rt: ResourceType) -> tuple[str, ...]:
    """The URN of the core schema of a resource type, casefolded; those of users and groups for a filter on both."""
    return (rt.schema.casefold(),) if rt.name else _CORE_URNS


def type_in(text: str) -> str:
    """The name of the resource type whose core URN the text begins with."""
    return next(rt.name for rt in (USER, GROUP) if text.casefold().startswith(rt.schema.casefold() + ":"))


def is_version(part: str) -> bool:
    """Whether a part of a URN is a version, such as 2.0 or v1.2."""
    return _VERSION.fullmatch(part) is not None


# ---- a dot after the URN -----------------------------------------------------------------------------------------------------------


def with_colon(rt: ResourceType, name: str) -> str | None:
    """The name in the spelling of the RFC, where a dot or slash follows the URN of a schema: `URN.manager`, `URN.manager:value`.

    Also after a URN that has no schema here, where by its form it ends at the dot. None for any other name.
    """
    if ":" not in name or name.casefold() in rt.extensions:
        return None
    urn, rest = split_urn(name, rt)
    if urn is None or urn.casefold() in rt.extensions:
        return None
    folded = name.casefold()
    for known in (*(rt.schema,) * bool(rt.schema), *(extension.urn for extension in rt.extensions.values())):
        tail = name[len(known) + 1 :]
        if folded.startswith((known.casefold() + ".", known.casefold() + "/")) and _ATTRIBUTE.match(tail):
            return f"{known}:{tail.replace(':', '.').replace('/', '.')}"
    found = readings(urn, rest)
    if found is None or found.by_form != "dot" or found.by_dot is None:
        return None
    return found.by_dot.text


def is_after_known_urn(rt: ResourceType, name: str) -> bool:
    """Whether a name is the URN of one of this type's schemas with a dot after it, so that it is not the URN of another extension."""
    spelt = with_colon(rt, name)
    if spelt is None:
        return False
    urn, _ = split_urn(spelt, rt)
    return urn is None or urn.casefold() in rt.extensions


class SplitName(NamedTuple):
    """A name split into a URN that has no schema here, an attribute, and perhaps a sub-attribute."""

    urn: str
    attribute: str
    sub: str | None

    @property
    def text(self) -> str:
        name = f"{self.urn}:{self.attribute}"
        return name if self.sub is None else f"{name}.{self.sub}"


@dataclass(frozen=True, slots=True)
class Readings:
    """The ways to split a name that begins with a URN without a schema here and has a dot. The stored document decides between them.

    `urn:a:hr:desk.floor` is the sub-attribute `floor` of `desk` if the URN ends at the colon, or the attribute `floor` of the extension
    `urn:a:hr:desk` if it ends at the dot. `by_form` is the reading for a document that has neither: the URN of a schema ends in its
    version, or in its version and a name with a capital (…:2.0:User). None where the form does not decide it.
    """

    by_colon: SplitName | None
    by_dot: SplitName | None
    by_form: Reading | None

    @property
    def all(self) -> tuple[SplitName, ...]:
        return tuple(found for found in (self.by_colon, self.by_dot) if found is not None)


@lru_cache(maxsize=1024)
def readings(urn: str, rest: str) -> Readings | None:
    """The readings of `urn:rest`, split at the last colon; None where no dot makes a second reading possible."""
    before = urn.rpartition(":")[2]
    if not urn.casefold().startswith("urn:") or is_version(rest) or not ("." in rest or has_dot(urn)):
        return None
    by_colon = _split_name(urn, rest) if urn.count(":") > 1 else None
    by_dot = _by_dot(urn, *_split_at_dot(rest)) if "." in rest else _by_dot(urn.rpartition(":")[0], *_split_at_dot(before), rest)
    if by_dot is not None and _is_schema_urn(by_dot.urn):
        return Readings(by_colon, by_dot, "dot")
    plain = by_colon is not None and not is_version(before) and not has_dot(urn) and _is_schema_urn(urn)
    return Readings(by_colon, by_dot, "colon" if plain else None)


def has_dot(urn: str) -> bool:
    """Whether the last part of a URN has a dot that is not in a version number, so that the part after it may be an attribute."""
    last = urn.rpartition(":")[2]
    return "." in last and urn.casefold().startswith("urn:") and not is_version(last)


def _split_at_dot(part: str) -> tuple[str, str]:
    """A part of a name, split at the dot at which a URN may end: not one within a version number."""
    version = _VERSION.match(part)
    if version is not None and part[version.end() :].startswith("."):
        return version[0], part[version.end() + 1 :]
    head, _, tail = part.partition(".")
    return head, tail


def _by_dot(before: str, head: str, tail: str, sub: str | None = None) -> SplitName | None:
    return _split_name(f"{before}:{head}", tail if sub is None else f"{tail}.{sub}")


def _split_name(urn: str, rest: str) -> SplitName | None:
    name, dot, sub = rest.partition(".")
    if not _ATTRIBUTE.fullmatch(name) or (dot and not _ATTRIBUTE.fullmatch(sub)):
        return None
    return SplitName(urn, name, sub if dot else None)


def _is_schema_urn(urn: str) -> bool:
    *_, before, last = urn.split(":")
    return is_version(last) or (is_version(before) and last[:1].isupper() and not urn.isupper())
