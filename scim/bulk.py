"""Bulk requests (RFC 7644 §3.7): reading them, and the order in which each reference by bulkId finds its resource."""

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from heapq import heapify, heappop, heappush
from typing import Any
from urllib.parse import unquote

import orjson

from scim.errors import InvalidSyntax, InvalidValue, NotFound, PayloadTooLarge, ScimError
from scim.leniency import Leniency
from scim.respelling import endpoint_in
from scim.schema import GROUP
from scim.strictness import Strictness, is_other_spelling_of_id

BULK_URN = "urn:ietf:params:scim:api:messages:2.0:BulkRequest"
RESPONSE_URN = "urn:ietf:params:scim:api:messages:2.0:BulkResponse"
BULK_OPERATIONS_MAX = 1_000
# Limits of what an answer repeats of an operation, so that the answer is no larger than the request.
BULK_ID_CHARACTERS_MAX = 256
METHOD_CHARACTERS_MAX = 16
RESOURCE_CHARACTERS_MAX = 300  # an id of this service has 36; `bulkId:` with a bulkId has more
METHODS = ("POST", "PUT", "PATCH", "DELETE")
_PATH = re.compile(r"/(Users|Groups)(?:/([^/]+))?/?", re.IGNORECASE)
# A reference `bulkId:…` is a whole value, the last part of a link, or a quoted value in a filter; anywhere else it is text.
_REFERENCE = re.compile(
    r"""^bulkId:(?P<whole>.+)$|(?<=/)bulkId:(?P<link>[^/"]+)(?=$|")|(?<=")bulkId:(?P<quoted>[^"]+)(?=")""", re.DOTALL
)
# The attributes whose values are ids (RFC 7643 §4.2, §4.3), as a key or as the last name of a path.
_HOLDS_IDS = re.compile(r"(?:^|[:.])(?:members|manager)(?:$|[.\[])", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class BulkOperation:
    """One operation of a bulk request. `needs` are the bulkIds that it refers to: their resources must exist before it.

    `fault` is the error of an operation that cannot be read; the other operations are carried out.
    """

    index: int
    method: str
    segment: str  # Users or Groups
    resource: str | None
    bulk_id: str | None
    version: str | None
    data: Any
    needs: frozenset[str] = field(default=frozenset())
    size: int = 0  # bytes of `data` as JSON
    fault: ScimError | None = None


@dataclass(frozen=True, slots=True)
class BulkRequest:
    """A bulk request. After `fail_on_errors` errors the remaining operations are not carried out; None for no such limit."""

    operations: tuple[BulkOperation, ...]
    fail_on_errors: int | None


def read_bulk(document: dict[str, Any], leniency: Leniency) -> BulkRequest:
    """Read a BulkRequest message.

    Raises InvalidSyntax for a message that is no bulk request, PayloadTooLarge for more than BULK_OPERATIONS_MAX operations. An operation
    that is wrong fails alone.
    """
    message = {key.casefold(): value for key, value in document.items()}
    listed = message.get("schemas")
    if not isinstance(listed, list) or BULK_URN.casefold() not in {str(urn).casefold() for urn in listed}:
        raise InvalidSyntax(f"schemas must list {BULK_URN}.")
    operations = message.get("operations")
    if not isinstance(operations, list) or not operations:
        raise InvalidSyntax("Operations must be a list with at least one operation.")
    if len(operations) > BULK_OPERATIONS_MAX:
        raise PayloadTooLarge(f"At most {BULK_OPERATIONS_MAX} operations fit in one bulk request. Send several.")
    fail = message.get("failonerrors")
    if fail is not None and (isinstance(fail, bool) or not isinstance(fail, int) or fail < 1):
        raise InvalidSyntax("failOnErrors must be a whole number of at least 1.")
    read = tuple(_read_operation(item, index, leniency) for index, item in enumerate(operations))
    ids = [operation.bulk_id for operation in read if operation.bulk_id is not None and operation.method == "POST"]
    if len(set(ids)) != len(ids):
        raise InvalidSyntax("Each bulkId must belong to one POST only.")
    return BulkRequest(read, fail)


def _read_operation(item: Any, index: int, leniency: Leniency) -> BulkOperation:
    where = f"Operations[{index}]"
    if not isinstance(item, dict):
        return BulkOperation(index, "", "", None, None, None, None, fault=InvalidSyntax(f"{where} must be an object."))
    given = {str(key).casefold(): value for key, value in item.items()}  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
    try:
        return _parsed(given, index, where, leniency)
    except ScimError as fault:
        bulk_id, method = given.get("bulkid"), given.get("method")
        named = bulk_id if isinstance(bulk_id, str) and 0 < len(bulk_id) <= BULK_ID_CHARACTERS_MAX else None
        shown = method if isinstance(method, str) and len(method) <= METHOD_CHARACTERS_MAX else ""
        return BulkOperation(index, shown, "", None, named, None, None, fault=fault)


def _parsed(given: dict[str, Any], index: int, where: str, leniency: Leniency) -> BulkOperation:
    method = given.get("method")
    if not isinstance(method, str) or method.upper() not in METHODS:
        raise InvalidSyntax(f"{where}.method must be POST, PUT, PATCH or DELETE.")
    method, (segment, resource) = method.upper(), _read_path(given.get("path"), where, leniency)
    if (resource is None) is not (method == "POST"):
        raise InvalidSyntax(f"{where}.path: POST names a collection, the other methods a resource in it.")
    bulk_id, version = _optional_text(given, "bulkId", where), _optional_text(given, "version", where)
    if bulk_id and len(bulk_id) > BULK_ID_CHARACTERS_MAX:
        raise InvalidValue(f"{where}.bulkId has more than {BULK_ID_CHARACTERS_MAX} characters. Send a shorter one.")
    if method == "POST" and not bulk_id:
        raise InvalidSyntax(f"{where}.bulkId is required for POST (RFC 7644 §3.7).")
    data = given.get("data")
    needs = frozenset((*_references(resource), *_references(data)))
    if method == "POST":
        needs -= {bulk_id}  # a resource that refers to itself need not wait for itself
    return BulkOperation(index, method, segment, resource, bulk_id or None, version, data, needs, len(orjson.dumps(data)))


def _read_path(path: Any, where: str, leniency: Leniency) -> tuple[str, str | None]:
    if not isinstance(path, str):
        raise InvalidSyntax(
            f"{where}.path is missing: send /Users or /Groups, with the id of a resource unless the method is POST."
        )
    match = _PATH.fullmatch(path)
    segment = match and endpoint_in(match[1], leniency)
    if match is None or segment is None:
        raise NotFound(f"{where}.path must be /Users or /Groups, with the id of a resource unless the method is POST.")
    resource = match[2] and unquote(match[2])
    foreign = resource and is_other_spelling_of_id(resource) and leniency.demands(Strictness.EXACT_IDS)
    if foreign or (resource and len(resource) > RESOURCE_CHARACTERS_MAX):
        raise NotFound(f"{where}.path names no resource of this directory.")
    return segment, resource


def _optional_text(given: dict[str, Any], name: str, where: str) -> str | None:
    value = given.get(name.casefold())
    if value is not None and not isinstance(value, str):
        raise InvalidSyntax(f"{where}.{name} must be text.")
    return value


def _references(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield from (_bulk_id(found) for found in _REFERENCE.finditer(value))
    elif isinstance(value, dict):
        for item in value.values():  # pyright: ignore[reportUnknownVariableType]
            yield from _references(item)
    elif isinstance(value, list):
        for item in value:  # pyright: ignore[reportUnknownVariableType]
            yield from _references(item)


def resolve(value: Any, ids: Mapping[str, str | None], *, refers: bool = False) -> Any:
    """A value of an operation with the id in place of each reference `bulkId:…`. `ids` has None for a creation that failed.

    Raises InvalidValue for a reference to a creation that failed, and for one that no operation has, where the value is an id (`refers`)
    or that of an attribute that holds ids. In any other attribute `bulkId:…` with an unknown bulkId is text.
    """
    if isinstance(value, str):
        return _REFERENCE.sub(lambda found: _id_for(found, ids, refers=refers), value) if "bulkId:" in value else value
    if isinstance(value, dict):
        held: dict[str, Any] = value
        of_patch = _HOLDS_IDS.search(_path_in(held)) is not None
        return {
            key: resolve(item, ids, refers=refers or of_patch or _HOLDS_IDS.search(key) is not None) for key, item in held.items()
        }
    if isinstance(value, list):
        return [resolve(item, ids, refers=refers) for item in value]  # pyright: ignore[reportUnknownVariableType]
    return value


def _path_in(held: Mapping[str, Any]) -> str:
    """The `path` of an object that is an operation of a PATCH; "" where it has none."""
    path = next((item for key, item in held.items() if key.casefold() == "path"), None)
    return path if isinstance(path, str) else ""


def _bulk_id(found: re.Match[str]) -> str:
    return found[found.lastgroup or 0]


def _id_for(found: re.Match[str], ids: Mapping[str, str | None], *, refers: bool) -> str:
    bulk_id = _bulk_id(found)
    if bulk_id not in ids and not refers:
        return found[0]
    known = ids.get(bulk_id)
    if known is None:
        raise not_created()
    return known


def not_created() -> InvalidValue:
    """The error of an operation that refers to a resource that was not created."""
    return InvalidValue("The operation refers to a bulkId that no operation of this request has, or whose creation failed.")


def rounds(operations: Sequence[BulkOperation]) -> Iterator[tuple[BulkOperation, ...]]:
    """The operations in the order in which they are carried out, those that refer to each other in a circle together.

    That is the order of the request, but an operation that refers to a resource comes after its creation. A circle comes where the last
    of its operations stands, and operations that refer to one of its resources come after the circle.
    """
    made_by = {o.bulk_id: o.index for o in operations if o.method == "POST" and o.fault is None and o.bulk_id is not None}
    needs = {o.index: [made_by[need] for need in o.needs if need in made_by] for o in operations}
    circle_of = _circle_of_each(needs)
    together: dict[int, list[int]] = {}
    for index in needs:
        together.setdefault(circle_of[index], []).append(index)
    unmet = {
        circle: {circle_of[need] for index in indexes for need in needs[index]} - {circle} for circle, indexes in together.items()
    }
    waiting = _reversed(unmet)
    ready = [(together[circle][-1], circle) for circle, wanted in unmet.items() if not wanted]
    heapify(ready)
    while ready:
        _, done = heappop(ready)
        yield tuple(operations[index] for index in together[done])
        for circle in waiting[done]:
            unmet[circle].discard(done)
            if not unmet[circle]:
                heappush(ready, (together[circle][-1], circle))


def _circle_of_each(needs: Mapping[int, Collection[int]]) -> dict[int, int]:
    """For each operation the one that stands for its circle. Operations are in one circle if each needs the other (Kosaraju's algorithm)."""
    needed_by = _reversed(needs)
    circle_of: dict[int, int] = {}
    for first in reversed(list(_after_their_needs(needs))):
        reached = [first]
        while reached:
            index = reached.pop()
            if index not in circle_of:
                circle_of[index] = first
                reached += needed_by[index]
    return circle_of


def _reversed(graph: Mapping[int, Collection[int]]) -> dict[int, list[int]]:
    found: dict[int, list[int]] = {index: [] for index in graph}
    for index, others in graph.items():
        for other in others:
            found[other].append(index)
    return found


def _after_their_needs(needs: Mapping[int, Collection[int]]) -> Iterator[int]:
    """Each operation once, after those that it needs, unless they need it too. Without recursion: a chain may have 1 000 operations."""
    seen: set[int] = set()
    for start in needs:
        trail = [(start, iter(needs[start]))] if start not in seen else []
        seen.add(start)
        while trail:
            index, rest = trail[-1]
            step = next((need for need in rest if need not in seen), None)
            if step is None:
                trail.pop()
                yield index
            else:
                seen.add(step)
                trail.append((step, iter(needs[step])))


def without_members(data: Any, bulk_ids: frozenset[str]) -> tuple[Any, frozenset[str]]:
    """The data of a group without the members that are references to these bulkIds, and the bulkIds that were left out."""
    if not isinstance(data, dict) or not bulk_ids:
        return data, frozenset()
    held: dict[str, Any] = data
    left_out: set[str] = set()
    kept: dict[str, Any] = {}
    for key, value in held.items():
        kept[key] = value
        if key.casefold() == GROUP.schema.casefold():  # its attributes under the URN of their schema
            kept[key], under = without_members(value, bulk_ids)
            left_out |= under
        elif key.casefold() == "members":
            members: list[Any] = value if isinstance(value, list) else [] if value is None else [value]
            named = [(member, bulk_ids.intersection(_references(member))) for member in members]
            kept[key] = [member for member, to_come in named if not to_come]
            left_out.update(*(to_come for _, to_come in named))
    return kept, frozenset(left_out)
