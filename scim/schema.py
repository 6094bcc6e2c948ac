"""Attribute tables of the resource types, read once from the schema documents in scim/schemas (RFC 7643 §4, §7, §8.7)."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import orjson

# The documents are those of the library scim2-models; a test compares them. Its import would be a third of a service's start.
SCHEMA_FOLDER: Final = Path(__file__).with_name("schemas")


@dataclass(frozen=True, slots=True, eq=False)
class Attribute:
    """The characteristics of one attribute (RFC 7643 §2.2 and §7); type "any" is an attribute without a schema."""

    name: str
    type: str
    multi_valued: bool = False
    required: bool = False
    case_exact: bool = False
    mutability: str = "readWrite"
    returned: str = "default"
    uniqueness: str = "none"
    sub_attributes: Mapping[str, "Attribute"] = field(default_factory=lambda: MappingProxyType({}))
    canonical_values: tuple[str, ...] = ()
    reference_types: tuple[str, ...] = ()
    description: str = ""
    only_canonical: bool = False  # no other value than the canonical ones is accepted
    is_text: bool = field(
        init=False
    )  # a single string that clients write and read: any text that is not empty is stored as it is

    def __post_init__(self) -> None:
        plain = self.type == "string" and not self.multi_valued and self.mutability not in {"readOnly", "writeOnly"}
        object.__setattr__(self, "is_text", plain and self.returned != "never" and not self.only_canonical)


@dataclass(frozen=True, slots=True, eq=False)
class Extension:
    """A schema extension (RFC 7643 §3.3): its URN and its attributes by casefolded name."""

    urn: str
    attributes: Mapping[str, Attribute]
    name: str = ""
    description: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class ResourceType:
    """A resource type (RFC 7643 §6); compared by identity, so it can key caches."""

    name: str
    endpoint: str
    schema: str
    attributes: Mapping[str, Attribute]
    extensions: Mapping[str, Extension]
    description: str = ""


def _by_name(attributes: list[Attribute]) -> Mapping[str, Attribute]:
    return MappingProxyType({attribute.name.casefold(): attribute for attribute in attributes})


def _attribute_of(document: Mapping[str, Any], prefix: str = "") -> Attribute:
    path = f"{prefix}{document['name']}"
    read = Attribute(
        name=document["name"],
        type=document["type"],
        multi_valued=document["multiValued"],
        required=document["required"],
        case_exact=document["caseExact"],
        mutability=document["mutability"],
        returned=document["returned"],
        uniqueness=document["uniqueness"],
        sub_attributes=_by_name([_attribute_of(sub, f"{path}.") for sub in document.get("subAttributes") or ()]),
        canonical_values=tuple(document.get("canonicalValues") or ()),
        reference_types=tuple(document.get("referenceTypes") or ()),
        description=" ".join(document.get("description", "").split()),
    )
    return replace(read, **_CORRECTIONS.get(path, {}))


# Where this service differs from these documents: display names and links of members are derived and not stored, neither part of
# a manager is required (RFC 7643 §8.7.1), the type of a user's group is computed, and ids are compared ignoring case (§8.7.1).
# `active` always has a value (true where a creation does not say it) and cannot be removed: discovery shows it as `required`.
_CORRECTIONS: Mapping[str, Mapping[str, Any]] = {
    "active": {"required": True},
    "manager.value": {"required": False},
    "manager.$ref": {"required": False},
    "members.value": {"case_exact": False},
    "members.display": {"mutability": "readOnly"},
    "members.$ref": {"mutability": "immutable"},
    "groups.value": {"case_exact": False},
    "groups.type": {"mutability": "readOnly"},
}

_META = Attribute(
    "meta",
    "complex",
    mutability="readOnly",
    sub_attributes=_by_name(
        [
            Attribute("resourceType", "string", case_exact=True, mutability="readOnly"),
            Attribute("created", "dateTime", mutability="readOnly"),
            Attribute("lastModified", "dateTime", mutability="readOnly"),
            Attribute("location", "reference", case_exact=True, mutability="readOnly", reference_types=("uri",)),
            Attribute("version", "string", case_exact=True, mutability="readOnly"),
        ]
    ),
)
COMMON = (
    Attribute("schemas", "reference", multi_valued=True, required=True, returned="always", reference_types=("uri",)),
    Attribute("id", "string", case_exact=True, mutability="readOnly", returned="always", uniqueness="server"),
    Attribute("externalId", "string", case_exact=True),
    _META,
)


def _schema_document_of(name: str) -> Mapping[str, Any]:
    return orjson.loads((SCHEMA_FOLDER / f"{name}.json").read_bytes())


def _resource_type_of(name: str, endpoint: str, description: str) -> ResourceType:
    document = _schema_document_of(name)
    own = [_attribute_of(attribute) for attribute in document["attributes"]]
    return ResourceType(name, endpoint, document["id"], _by_name([*COMMON, *own]), MappingProxyType({}), description)


def _extension_of(name: str, description: str) -> Extension:
    document = _schema_document_of(name)
    return Extension(document["id"], _by_name([_attribute_of(a) for a in document["attributes"]]), name, description)


# The namespaces of SCIM's own schemas and messages, those of its drafts included (RFC 7643 §10, draft-scim-core-schema-01 §9).
_OF_SCIM = ("urn:ietf:params:scim:schemas:core:", "urn:ietf:params:scim:api:", "urn:scim:schemas:core:", "urn:scim:api:")


def is_scim_urn(name: str) -> bool:
    """Whether a name begins with a namespace of SCIM itself, in which no extension of an operator or IdP can be."""
    return name.casefold().startswith(_OF_SCIM)


def with_extension(rt: ResourceType, extension: Extension) -> ResourceType:
    """The resource type with this extension, which replaces an older one of the same URN; `rt` itself is unchanged."""
    return replace(rt, extensions=MappingProxyType({**rt.extensions, extension.urn.casefold(): extension}))


ENTERPRISE = _extension_of("EnterpriseUser", "Enterprise User")
USER = with_extension(_resource_type_of("User", "/Users", "User Account"), ENTERPRISE)
GROUP = _resource_type_of("Group", "/Groups", "Group")
RESOURCE_TYPES: Mapping[str, ResourceType] = MappingProxyType({"Users": USER, "Groups": GROUP})
