"""What strict profiles refuse, or do otherwise, where the RFCs leave a choice: each a named strictness.

The source is the SCIM interoperability profile (draft-zollner-scim-interop-profile), which the IPSIE profile of account lifecycles requires.

To add one: an entry of Strictness, the code of its rule, which asks `leniency.demands(Strictness.NAME)` or stands in `strict_type`, and
the profiles that switch it on.
"""

import re
from collections.abc import Mapping
from dataclasses import replace
from enum import StrEnum
from functools import lru_cache
from types import MappingProxyType
from typing import Final, Self

from scim.errors import InvalidFilter, InvalidSyntax, InvalidValue
from scim.filters import UNKNOWN_TYPE, And, Filter, Not, Or, ValuePath
from scim.schema import Attribute, Extension, ResourceType


class Strictness(StrEnum):
    """One strictness. `demands` is what docs/idp says of it."""

    demands: str

    def __new__(cls, name: str, demands: str) -> Self:
        member = str.__new__(cls, name)
        member._value_ = name
        member.demands = demands
        return member

    KNOWN_ATTRIBUTES = (
        "known_attributes",
        "An attribute, sub-attribute or schema URI that /Schemas does not have is refused, 400 `invalidSyntax`; in a filter, 400 `invalidFilter`.",
    )
    PATH_REQUIRED = ("path_required", "A PATCH operation without a `path` is refused, 400 `invalidSyntax`.")
    NO_CREDENTIALS = (
        "no_credentials",
        "There is no `password`, neither in /Schemas nor in a request; an extension schema with credentials is not registered.",
    )
    CANONICAL_TYPES = (
        "canonical_types",
        "The `type` of a value is one of the `canonicalValues` that /Schemas lists, otherwise 400 `invalidValue`.",
    )
    REPLACE_WHOLE = (
        "replace_whole",
        "`replace` of a complex attribute replaces it whole: sub-attributes that the value does not have are removed. `add` merges.",
    )
    EXACT_IDS = ("exact_ids", "The ids of resources and of members are compared in their exact letter case.")
    SUB_ATTRIBUTE_TARGETS = (
        "sub_attribute_targets",
        'A value filter in a path ends in a sub-attribute, otherwise 400 `invalidPath`; but `members[value eq "…"]` selects the member.',
    )
    ONE_MATCH = ("one_match", "A value filter in a path that selects several values is refused, 400 `invalidFilter`.")
    OAUTH_FIRST = ("oauth_first", "/ServiceProviderConfig names OAuth 2.0 client credentials as the first way to authenticate.")


# A profile with all of these and no tolerance tells `interopProfileConformant`.
INTEROPERABLE: Final = frozenset(Strictness) - {Strictness.NO_CREDENTIALS, Strictness.OAUTH_FIRST}

# The `type` of attributes for which RFC 7643 has no canonical values: the same as for e-mail addresses.
_OTHER_TYPES: Final = ("work", "home", "other")
_CREDENTIAL: Final = re.compile(
    r"pass(word|wd|code|phrase)|secret(?!ar)|private_?key|token|totp|otp_?seed|recovery_?code|credential|\bpin\b", re.IGNORECASE
)


@lru_cache(maxsize=1024)
def strict_type(rt: ResourceType, strictness: frozenset[Strictness]) -> ResourceType:
    """The resource type as a profile shows and reads it. Equal arguments give the same object, because caches are keyed by it."""
    if not strictness & _OF_TYPES:
        return rt
    attributes = {name: _strict(attribute, strictness) for name, attribute in rt.attributes.items()}
    if Strictness.NO_CREDENTIALS in strictness:
        attributes.pop("password", None)
    extensions = {urn: _strict_extension(extension, strictness) for urn, extension in rt.extensions.items()}
    return replace(rt, attributes=MappingProxyType(attributes), extensions=MappingProxyType(extensions))


_OF_TYPES: Final = frozenset({Strictness.NO_CREDENTIALS, Strictness.CANONICAL_TYPES, Strictness.EXACT_IDS})
_WITH_IDS: Final = frozenset({"members", "groups"})


def _strict_extension(extension: Extension, strictness: frozenset[Strictness]) -> Extension:
    attributes = {name: _strict(attribute, strictness) for name, attribute in extension.attributes.items()}
    return replace(extension, attributes=MappingProxyType(attributes))


def _strict(attribute: Attribute, strictness: frozenset[Strictness]) -> Attribute:
    subs = dict(attribute.sub_attributes)
    if Strictness.CANONICAL_TYPES in strictness and attribute.multi_valued and "type" in subs:
        kinds = subs["type"].canonical_values or _OTHER_TYPES
        subs["type"] = replace(subs["type"], canonical_values=kinds, only_canonical=True)
    if Strictness.EXACT_IDS in strictness and attribute.name in _WITH_IDS and "value" in subs:
        subs["value"] = replace(subs["value"], case_exact=True)
    return replace(attribute, sub_attributes=MappingProxyType(subs)) if subs else attribute


def refuse_undefined(selection: Filter) -> None:
    """Raises InvalidFilter where a filter refers to an attribute that no schema defines."""
    if isinstance(selection, And | Or):
        for term in selection.terms:
            refuse_undefined(term)
    elif isinstance(selection, Not):
        refuse_undefined(selection.term)
    elif selection.reference.attribute.type == UNKNOWN_TYPE:
        raise InvalidFilter("The filter names an attribute under a URN that is no schema here: see /Schemas.")
    elif isinstance(selection, ValuePath):
        refuse_undefined(selection.inner)


def undefined(what: str) -> InvalidSyntax:
    """The error for an attribute or schema URI that no schema defines."""
    return InvalidSyntax(f"{what} is not defined here: see /Schemas, and leave it out.")


def is_other_spelling_of_id(value: str) -> bool:
    """Whether a text is an id as no resource has it: ids are UUIDs in lower case, and in upper case the text is another id."""
    return _ID.fullmatch(value) is not None and value != value.lower()


_ID: Final = re.compile(r"[0-9A-Fa-f-]{36}")


def check_extension(extension: Extension, strictness: frozenset[Strictness]) -> None:
    """Raises InvalidValue for an extension schema that a directory with a strict profile cannot have: one with credentials."""
    if Strictness.NO_CREDENTIALS in strictness:
        _refuse_credentials(extension.attributes)


def _refuse_credentials(attributes: Mapping[str, Attribute]) -> None:
    for attribute in attributes.values():
        if attribute.returned == "never" or _CREDENTIAL.search(attribute.name):
            raise InvalidValue(
                f"{attribute.name} is for credentials, by its name or because it is never returned: the profile of this directory takes none."
            )
        _refuse_credentials(attribute.sub_attributes)
