"""Bulk requests (RFC 7644 §3.7): reading them, and the order that lets references by bulkId come true. Pure."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from scim.errors import InvalidSyntax, InvalidValue, NotFound, PayloadTooLarge, ScimError

BULK_URN = "urn:ietf:params:scim:api:messages:2.0:BulkRequest"
RESPONSE_URN = "urn:ietf:params:scim:api:messages:2.0:BulkResponse"
OPERATIONS_MAX = 1_000
METHODS = ("POST", "PUT", "PATCH", "DELETE")
_PATH = re.compile(r"/(Users|Groups)(?:/([^/]+))?/?")
# A reference is a whole value, the last part of a link, or stands in the quotes of a filter; anything else is just text.
_REFERENCE = re.compile(r"""(?:^|(?<=[/"]))bulkId:([^"\]]+)""")


@dataclass(frozen=True, slots=True)
class BulkOperation:
    """One operation as sent. `needs` are the bulkIds whose resources must exist before it can succeed.

    `fault` says why it cannot be carried out at all.
    """

    index: int
    method: str
    segment: str  # Users or Groups
    resource: str | None
    bulk_id: str | None
    version: str | None
    data: Any
    needs: frozenset[str] = field(default=frozenset())
    fault: ScimError | None = None


@dataclass(frozen=True, slots=True)
class BulkRequest:
    """A bulk request: its operations, and after how many errors the rest is left undone (None: never)."""

    operations: tuple[BulkOperation, ...]
    fail_on_errors: int | None


def read_bulk(document: dict[str, Any]) -> BulkRequest:
    """Read a BulkRequest message.

    Raises InvalidSyntax for what is no bulk request, PayloadTooLarge for more than OPERATIONS_MAX operations. What is wrong with
    a single operation fails it alone.
    """
    message = {key.casefold(): value for key, value in document.items()}
    listed = message.get("schemas")
    if not isinstance(listed, list) or BULK_URN.casefold() not in {str(urn).casefold() for urn in listed}:
        raise InvalidSyntax(f"schemas must list {BULK_URN}.")
    operations = message.get("operations")
    if not isinstance(operations, list) or not operations:
        raise InvalidSyntax("Operations must be a list with at least one operation.")
    if len(operations) > OPERATIONS_MAX:
        raise PayloadTooLarge(f"At most {OPERATIONS_MAX} operations fit in one bulk request. Send several.")
    fail = message.get("failonerrors")
    if fail is not None and (isinstance(fail, bool) or not isinstance(fail, int) or fail < 1):
        raise InvalidSyntax("failOnErrors must be a whole number from 1.")
    read = tuple(_read(item, index) for index, item in enumerate(operations))
    ids = [operation.bulk_id for operation in read if operation.bulk_id is not None]
    if len(set(ids)) != len(ids):
        raise InvalidSyntax("Each bulkId must be used by one operation only.")
    return BulkRequest(read, fail)


def _read(item: Any, index: int) -> BulkOperation:
    where = f"Operations[{index}]"
    if not isinstance(item, dict):
        raise InvalidSyntax(f"{where} must be an object.")
    given = {str(key).casefold(): value for key, value in item.items()}  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
    try:
        return _understood(given, index, where)
    except ScimError as fault:
        bulk_id, method = given.get("bulkid"), given.get("method")
        named = bulk_id if isinstance(bulk_id, str) and bulk_id else None
        return BulkOperation(index, method if isinstance(method, str) else "", "", None, named, None, None, fault=fault)


def _understood(given: dict[str, Any], index: int, where: str) -> BulkOperation:
    method = given.get("method")
    if not isinstance(method, str) or method.upper() not in METHODS:
        raise InvalidSyntax(f"{where}.method must be POST, PUT, PATCH or DELETE.")
    method, (segment, resource) = method.upper(), _target(given.get("path"), where)
    if (resource is None) is not (method == "POST"):
        raise InvalidSyntax(f"{where}.path: POST names a collection, the other methods a resource in it.")
    bulk_id, version = _optional_text(given, "bulkId", where), _optional_text(given, "version", where)
    if method == "POST" and not bulk_id:
        raise InvalidSyntax(f"{where}.bulkId is required for POST (RFC 7644 §3.7).")
    data = given.get("data")
    needs = frozenset(_references(resource)) | (frozenset(_references(data)) if segment == "Groups" else frozenset[str]())
    return BulkOperation(index, method, segment, resource, bulk_id or None, version, data, needs - {bulk_id})


def _target(path: Any, where: str) -> tuple[str, str | None]:
    if not isinstance(path, str):
        raise InvalidSyntax(
            f"{where}.path is missing: send /Users or /Groups, with the id of a resource unless the method is POST."
        )
    match = _PATH.fullmatch(path)
    if match is None:
        raise NotFound(f"{where}.path must be /Users or /Groups, with the id of a resource unless the method is POST.")
    return match[1], match[2]


def _optional_text(given: dict[str, Any], name: str, where: str) -> str | None:
    value = given.get(name.casefold())
    if value is not None and not isinstance(value, str):
        raise InvalidSyntax(f"{where}.{name} must be text.")
    return value


def _references(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield from _REFERENCE.findall(value)
    elif isinstance(value, dict):
        for item in value.values():  # pyright: ignore[reportUnknownVariableType]
            yield from _references(item)
    elif isinstance(value, list):
        for item in value:  # pyright: ignore[reportUnknownVariableType]
            yield from _references(item)


def resolve(value: Any, ids: dict[str, str]) -> Any:
    """Put ids in the place of `bulkId:…`. Raises InvalidValue for a bulkId that no operation has, or one that failed."""
    if isinstance(value, str):
        return _REFERENCE.sub(lambda found: _id_of(found[1], ids), value) if "bulkId:" in value else value
    if isinstance(value, dict):
        return {key: resolve(item, ids) for key, item in value.items()}  # pyright: ignore[reportUnknownVariableType]
    if isinstance(value, list):
        return [resolve(item, ids) for item in value]  # pyright: ignore[reportUnknownVariableType]
    return value


def _id_of(bulk_id: str, ids: dict[str, str]) -> str:
    found = ids.get(bulk_id)
    if found is None:
        raise InvalidValue("The operation refers to a bulkId that no operation of this request has, or whose creation failed.")
    return found


def next_operation(waiting: Sequence[BulkOperation], open_ids: set[str]) -> tuple[BulkOperation, frozenset[str]]:
    """The operation to carry out next, and the bulkIds it needs that do not exist yet.

    In the order given, but one that refers to a resource still to be created waits for it. Where all wait for each other
    (a circle), the first creation goes ahead without those references; they are added once the others exist.
    """
    for operation in waiting:
        if not operation.needs & open_ids:
            return operation, frozenset()
    first = next((operation for operation in waiting if operation.method == "POST"), waiting[0])
    return first, first.needs & open_ids


def without_members(data: Any, bulk_ids: frozenset[str]) -> Any:
    """A group's data without the members that do not exist yet."""
    if not isinstance(data, dict):
        return data
    refused = {f"bulkId:{bulk_id}" for bulk_id in bulk_ids}

    def kept(member: Any) -> bool:
        return not (isinstance(member, dict) and member.get("value") in refused)  # pyright: ignore[reportUnknownMemberType]

    return {
        key: [member for member in value if kept(member)] if key.casefold() == "members" and isinstance(value, list) else value  # pyright: ignore[reportUnknownVariableType, reportUnknownMemberType]
        for key, value in data.items()  # pyright: ignore[reportUnknownVariableType]
    }
