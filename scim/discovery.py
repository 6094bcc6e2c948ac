"""What a client reads to learn about the server (RFC 7644 §4, RFC 7643 §5–§8) and the frame of lists."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from scim.schema import GROUP, USER, Attribute, ResourceType

_CORE = "urn:ietf:params:scim:schemas:core:2.0:"


@dataclass(frozen=True, slots=True)
class OAuthTold:
    """Where clients get access tokens (RFC 6749) and read about it (RFC 8414); `primary`: rather than by a token of an operator."""

    token_endpoint: str
    metadata: str
    primary: bool


LIST_URN = "urn:ietf:params:scim:api:messages:2.0:ListResponse"


def service_provider_config(
    base_url: str,
    *,
    bulk_supported: bool = False,
    bulk_operations_max: int = 0,
    bulk_payload_bytes_max: int = 0,
    sort_supported: bool = False,
    results_max: int = 200,
    oauth: OAuthTold | None = None,
    interoperable: bool = False,
) -> dict[str, Any]:
    """The ServiceProviderConfig document of RFC 7643 §5, with `pagination` of RFC 9865 §4; cursors do not expire.

    `interoperable` adds the attribute by which a server says that it conforms to the SCIM interoperability profile.
    """
    return {
        "schemas": [f"{_CORE}ServiceProviderConfig"],
        "patch": {"supported": True},
        "bulk": {
            "supported": bulk_supported,
            "maxOperations": bulk_operations_max,
            "maxPayloadSize": bulk_payload_bytes_max,
        },
        "filter": {"supported": True, "maxResults": results_max},
        "pagination": {
            "cursor": True,
            "index": True,
            "defaultPaginationMethod": "index",
            "defaultPageSize": results_max,
            "maxPageSize": results_max,
        },
        "changePassword": {"supported": False},
        "sort": {"supported": sort_supported},
        "etag": {"supported": True},
        "authenticationSchemes": _authentication_schemes(oauth),
        **({"interopProfileConformant": True} if interoperable else {}),
        "meta": {"resourceType": "ServiceProviderConfig", "location": f"{base_url}/ServiceProviderConfig"},
    }


def _authentication_schemes(oauth: OAuthTold | None) -> list[dict[str, Any]]:
    bearer = {
        "type": "oauthbearertoken",
        "name": "Bearer token",
        "description": "A token of this directory in the Authorization header.",
        "specUri": "https://www.rfc-editor.org/rfc/rfc6750",
        "primary": oauth is None or not oauth.primary,
    }
    if oauth is None:
        return [bearer]
    of_clients = {
        "type": "oauth2",
        "name": "OAuth 2.0 client credentials",
        "description": f"An access token of {oauth.token_endpoint}; a client signs a JWT (private_key_jwt) or has a secret. Metadata: {oauth.metadata}",
        "specUri": "https://www.rfc-editor.org/rfc/rfc6749",
        "documentationUri": oauth.metadata,
        "primary": oauth.primary,
    }
    return [of_clients, bearer] if oauth.primary else [bearer, of_clients]


def resource_types(base_url: str, types: Iterable[ResourceType] = (USER, GROUP)) -> list[dict[str, Any]]:
    """The ResourceType documents of RFC 7643 §6."""
    return [_resource_type_document(base_url, rt) for rt in types]


def _resource_type_document(base_url: str, rt: ResourceType) -> dict[str, Any]:
    document: dict[str, Any] = {
        "schemas": [f"{_CORE}ResourceType"],
        "id": rt.name,
        "name": rt.name,
        "description": rt.description,
        "endpoint": rt.endpoint,
        "schema": rt.schema,
        "meta": {"resourceType": "ResourceType", "location": f"{base_url}/ResourceTypes/{rt.name}"},
    }
    if rt.extensions:
        document["schemaExtensions"] = [{"schema": e.urn, "required": False} for e in rt.extensions.values()]
    return document


def schemas(base_url: str, types: Iterable[ResourceType] = (USER, GROUP)) -> list[dict[str, Any]]:
    """The Schema documents of RFC 7643 §7: each resource type, then each extension once."""
    listed = list(types)
    extensions = {extension.urn: extension for rt in listed for extension in rt.extensions.values()}
    return [
        *(_schema_document(base_url, rt.schema, rt.name, rt.description, _own_attributes(rt)) for rt in listed),
        *(_schema_document(base_url, e.urn, e.name, e.description, e.attributes.values()) for e in extensions.values()),
    ]


def _own_attributes(rt: ResourceType) -> Iterable[Attribute]:
    """Common attributes (RFC 7643 §3.1) belong to no schema document."""
    return (a for a in rt.attributes.values() if a.name not in ("schemas", "id", "externalId", "meta"))


def _schema_document(base_url: str, urn: str, name: str, description: str, attributes: Iterable[Attribute]) -> dict[str, Any]:
    return {
        "schemas": [f"{_CORE}Schema"],
        "id": urn,
        "name": name,
        "description": description,
        "attributes": [_attribute_document(attribute) for attribute in attributes],
        "meta": {"resourceType": "Schema", "location": f"{base_url}/Schemas/{urn}"},
    }


def _attribute_document(attribute: Attribute) -> dict[str, Any]:
    document: dict[str, Any] = {
        "name": attribute.name,
        "type": attribute.type,
        "multiValued": attribute.multi_valued,
        "description": attribute.description or attribute.name,
        "required": attribute.required,
        "caseExact": attribute.case_exact,
        "mutability": attribute.mutability,
        "returned": attribute.returned,
        "uniqueness": attribute.uniqueness,
    }
    if attribute.canonical_values:
        document["canonicalValues"] = list(attribute.canonical_values)
    if attribute.reference_types:
        document["referenceTypes"] = list(attribute.reference_types)
    if attribute.sub_attributes:
        document["subAttributes"] = [_attribute_document(sub) for sub in attribute.sub_attributes.values()]
    return document


def list_frame(shown: int, total: int, start_index: int | None, next_cursor: str | None = None) -> dict[str, Any]:
    """The ListResponse of RFC 7644 §3.4.2 for a page of `shown` resources, without them; one by cursor (RFC 9865 §2) has no index."""
    return {
        "schemas": [LIST_URN],
        "totalResults": total,
        **({} if start_index is None else {"startIndex": start_index}),
        "itemsPerPage": shown,
        **({} if next_cursor is None else {"nextCursor": next_cursor}),
    }


def list_response(
    resources: list[dict[str, Any]], total: int, start_index: int | None, next_cursor: str | None = None
) -> dict[str, Any]:
    """The ListResponse with the resources of one page."""
    return {**list_frame(len(resources), total, start_index, next_cursor), "Resources": resources}
