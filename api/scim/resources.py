"""From a resource and its edges to the SCIM JSON that a client reads."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from ledger.feed import rfc3339
from projections.reads import Resource


def etag(etag_rv: int) -> str:
    """The weak entity tag of a representation version (RFC 7644 §3.14)."""
    return f'W/"{etag_rv}"'


def with_meta(resource: Resource, base: str) -> dict[str, Any]:
    """Add `meta` to a stored document."""
    segment = "Users" if resource.type == "User" else "Groups"
    meta = {
        "resourceType": resource.type, "created": rfc3339(resource.created_at), "lastModified": rfc3339(resource.updated_at),
        "location": f"{base}/{segment}/{resource.id}", "version": etag(resource.etag_rv),
    }  # fmt: skip
    return {**resource.document, "meta": meta}


def shown_members(members: Sequence[tuple[UUID, str]], base: str) -> list[dict[str, Any]]:
    """`members` of a group: value, type and $ref; names are not stored with an edge."""
    return [{"value": str(member), "type": kind, "$ref": f"{base}/{kind}s/{member}"} for member, kind in members]


def shown_groups(groups: Sequence[tuple[UUID, str]], base: str) -> list[dict[str, Any]]:
    """`groups` of a user (RFC 7643 §4.1.2): the direct ones."""
    return [{"value": str(group), "display": name, "type": "direct", "$ref": f"{base}/Groups/{group}"} for group, name in groups]
