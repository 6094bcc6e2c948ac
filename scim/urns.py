"""Where the URN in a name ends (RFC 7644 §3.10), also where a dot stands after it instead of a colon."""

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
    """Extension URN (None for the core schema) and the rest of an attribute path."""
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
    """Casefolded; those of both types where a filter is for all of them."""
    return (rt.schema.casefold(),) if rt.name else _CORE_URNS


def type_in(text: str) -> str:
    """The name of the resource type whose core URN the text begins with."""
    return next(rt.name for rt in (USER, GROUP) if text.casefold().startswith(rt.schema.casefold() + ":"))


def is_version(part: str) -> bool:
    """Whether a part of a URN is a version, such as 2.0 or v1.2."""
    return _VERSION.fullmatch(part) is not None


# ---- a dot after the URN -----------------------------------------------------------------------------------------------------------


def with_colon(rt: ResourceType, name: str) -> str | None:
    """The name as the RFC writes it, where a dot or slash follows a URN of this type's schemas: `URN.manager`, `URN.manager:value`.

    Also where the URN is nobody's here and by its form can end nowhere else. None for any other name.
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
    if found is None or found.sure != "dot" or found.by_dot is None:
        return None
    return found.by_dot.text


def is_after_known_urn(rt: ResourceType, name: str) -> bool:
    """Whether a dot follows the URN of one of this type's schemas: then the name is no extension of its own."""
    spelt = with_colon(rt, name)
    if spelt is None:
        return False
    urn, _ = split_urn(spelt, rt)
    return urn is None or urn.casefold() in rt.extensions


class Name(NamedTuple):
    """One reading of a name under a URN that has no schema here."""

    urn: str
    attribute: str
    sub: str | None

    @property
    def text(self) -> str:
        name = f"{self.urn}:{self.attribute}"
        return name if self.sub is None else f"{name}.{self.sub}"


@dataclass(frozen=True, slots=True)
class Readings:
    """What a name with a dot behind a URN that has no schema here can mean; what is stored decides between them.

    `urn:a:hr:desk.floor` is the part `floor` of `desk` (the colon ends the URN) or the attribute `floor` of `urn:a:hr:desk` (the
    dot does). Where nothing is stored, `sure` is the reading that the form of the URN leaves: a schema's URN ends in its version,
    or in its version and a name with a capital (…:2.0:User). None: nobody can tell.
    """

    by_colon: Name | None
    by_dot: Name | None
    sure: Reading | None

    @property
    def all(self) -> tuple[Name, ...]:
        return tuple(found for found in (self.by_colon, self.by_dot) if found is not None)


@lru_cache(maxsize=1024)
def readings(urn: str, rest: str) -> Readings | None:
    """The readings of `urn:rest`, which is split at the last colon; None where no dot leaves a doubt."""
    before = urn.rpartition(":")[2]
    if not urn.casefold().startswith("urn:") or is_version(rest) or not ("." in rest or has_dot(urn)):
        return None
    by_colon = _named(urn, rest) if urn.count(":") > 1 else None
    by_dot = _by_dot(urn, *_parted(rest)) if "." in rest else _by_dot(urn.rpartition(":")[0], *_parted(before), rest)
    if by_dot is not None and _ends_a_schema(by_dot.urn):
        return Readings(by_colon, by_dot, "dot")
    plain = by_colon is not None and not is_version(before) and not has_dot(urn) and _ends_a_schema(urn)
    return Readings(by_colon, by_dot, "colon" if plain else None)


def has_dot(urn: str) -> bool:
    """Whether the last part of a URN has a dot that is not that of a version: it may be a URN and an attribute."""
    last = urn.rpartition(":")[2]
    return "." in last and urn.casefold().startswith("urn:") and not is_version(last)


def _parted(part: str) -> tuple[str, str]:
    """The end of a URN and what follows its dot."""
    version = _VERSION.match(part)
    if version is not None and part[version.end() :].startswith("."):
        return version[0], part[version.end() + 1 :]
    head, _, tail = part.partition(".")
    return head, tail


def _by_dot(before: str, head: str, tail: str, sub: str | None = None) -> Name | None:
    return _named(f"{before}:{head}", tail if sub is None else f"{tail}.{sub}")


def _named(urn: str, rest: str) -> Name | None:
    name, dot, sub = rest.partition(".")
    if not _ATTRIBUTE.fullmatch(name) or (dot and not _ATTRIBUTE.fullmatch(sub)):
        return None
    return Name(urn, name, sub if dot else None)


def _ends_a_schema(urn: str) -> bool:
    *_, before, last = urn.split(":")
    return is_version(last) or (is_version(before) and last[:1].isupper())
