"""What the attributes of a resource say of the IdP's mapping. Names of attributes only, never values."""

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from scim.schema import Attribute, ResourceType

OTHER: Final = "(other)"  # in place of a name that may itself be a value, such as an address
_PLAIN: Final = re.compile(r"[A-Za-z$][A-Za-z0-9$_:./-]{0,99}")
_MAIL: Final = re.compile(r"[^@\s]+@[^@\s]+")


def unknown_attributes(rt: ResourceType, document: Mapping[str, Any]) -> Iterator[str]:
    """The names of attributes that are in no schema of the resource type, those of extensions after their URN (RFC 7644 §3.10)."""
    for key, value in document.items():
        extension = rt.extensions.get(key.casefold())
        if extension is not None:
            yield from _unknown_in(extension.attributes, value, f"{key}:")
        elif ":" in key and isinstance(value, dict):
            yield from _unknown_in({}, value, f"{key}:")
        else:
            yield from _unknown_in(rt.attributes, {key: value}, "")


def _unknown_in(known: Mapping[str, Attribute], value: Mapping[str, Any], prefix: str) -> Iterator[str]:
    """The paths of what is not known in an object. Sub-attributes of an attribute without a schema are not told."""
    for name, inner in value.items():
        attribute, path = known.get(name.casefold()), prefix + name
        if attribute is None:
            yield path if _PLAIN.fullmatch(path) else OTHER
        elif attribute.sub_attributes:
            for part in inner if isinstance(inner, list) else [inner]:
                if isinstance(part, dict):
                    yield from _unknown_in(attribute.sub_attributes, part, f"{path}.")


def is_email(user_name: str) -> bool:
    """Whether a userName has the form of an e-mail address."""
    return _MAIL.fullmatch(user_name) is not None
