"""What the attributes of a resource say of the IdP's mapping. Names of attributes only, never values."""

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from scim.schema import ResourceType

OTHER: Final = "(other)"  # in place of a name that may itself be a value, such as an address
_PLAIN: Final = re.compile(r"[A-Za-z$][A-Za-z0-9$_:./-]{0,99}")
_MAIL: Final = re.compile(r"[^@\s]+@[^@\s]+")


def unknown_attributes(rt: ResourceType, document: Mapping[str, Any]) -> Iterator[str]:
    """The names of attributes that are in no schema of the resource type, those of extensions after their URN (RFC 7644 §3.10)."""
    for key, value in document.items():
        folded = key.casefold()
        if folded in rt.attributes or folded == rt.schema.casefold():
            continue
        extension = rt.extensions.get(folded)
        if extension is not None:
            yield from _shown(key, (name for name in value if name.casefold() not in extension.attributes))
        elif ":" in key and isinstance(value, dict):
            yield from _shown(key, value)
        else:
            yield key if _PLAIN.fullmatch(key) else OTHER


def _shown(urn: str, names: Iterable[str]) -> Iterator[str]:
    for name in names:
        path = f"{urn}:{name}"
        yield path if _PLAIN.fullmatch(path) else OTHER


def is_email(user_name: str) -> bool:
    """Whether a userName has the form of an e-mail address."""
    return _MAIL.fullmatch(user_name) is not None
