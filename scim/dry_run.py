"""A dry run: what a recorded request would store under a profile. Nothing is stored."""

from collections.abc import Mapping
from typing import Any, Final, Required, TypeAlias, TypedDict

from scim.apply import apply_patch
from scim.errors import InvalidSyntax, NotFound, ScimError
from scim.extension import check_immutable
from scim.filters import matches
from scim.leniency import Leniency, Tolerance
from scim.member_operations import MemberOperation, no_such_member
from scim.normalise import check_user_name, normalise
from scim.patch import Patch, read_patch
from scim.profile import Profile, is_test_object, mapped_user
from scim.remedies import fix_of
from scim.respelling import endpoint_in
from scim.schema import RESOURCE_TYPES, USER, ResourceType
from scim.strictness import strict_type


class TriedOperation(TypedDict):
    op: str
    path: str
    value: Any


class TriedMembers(TypedDict):
    op: str
    ids: list[str]


class Stored(TypedDict, total=False):
    """What a request would store: in words where it is no resource, a document, or the operations of a PATCH whose resource is not known."""

    stores: str
    document: dict[str, Any]
    operations: list[TriedOperation]
    members: list[TriedMembers]
    user: dict[str, Any]
    test_object: bool
    error: dict[str, Any]
    fix: str | None


class Trial(Stored):
    """What a recorded request would store under a profile. One that would be refused has an `error`, and a `fix` for whoever runs the IdP."""

    profile: Required[str]
    method: Required[str]
    path: Required[str]
    tolerances: Required[list[str]]


Types: TypeAlias = Mapping[str, ResourceType]
Members: TypeAlias = dict[str, dict[str, str]]  # by casefolded id
_WRITES: Final = frozenset({"POST", "PUT", "PATCH", "DELETE"})


def dry_run(profile: Profile, request: Mapping[str, Any], types: Types = RESOURCE_TYPES) -> Trial:
    """What `{"method", "path", "body"}` would store: a document or operations, the mapped user, the tolerances it relies on.

    `types` are the resource types of a directory by endpoint, where it has extension schemas of its own. `before` in the request is the
    resource so far: a PATCH is applied to it, and a PUT keeps from it what it does not replace. A request that would be refused has an
    `error`, and a `fix` for whoever runs the IdP.
    """
    method = str(request.get("method") or request.get("do") or "").upper()
    path = str(request.get("path") or "")
    leniency = Leniency(profile.tolerances, profile.strictness)
    types = {endpoint: strict_type(kind, profile.strictness) for endpoint, kind in types.items()}
    try:
        stored = _stored_by(profile, method, path, request, leniency, types)
    except ScimError as refused:
        stored: Stored = {"error": refused.document(), "fix": fix_of(refused.status, refused.scim_type, refused.detail)}
    return {"profile": profile.text, "method": method, "path": path, **stored, "tolerances": sorted(leniency.used)}


def _stored_by(profile: Profile, method: str, path: str, request: Mapping[str, Any], leniency: Leniency, types: Types) -> Stored:
    segments = path.partition("?")[0].rstrip("/").split("/")
    if method not in _WRITES or (method == "POST" and segments[-1] == ".search"):
        return {"stores": "nothing: this request only reads"}
    if segments[-1] == "Bulk":
        return {"stores": "what its operations store: try them one by one, each as a request of its own"}
    kind = _resource_type_in(segments, types, leniency)
    if method == "DELETE":
        return {"stores": "the end of the resource and of its memberships"}
    body: Any = request.get("body")
    if not isinstance(body, dict):
        raise InvalidSyntax("The request has no body that is an object.")
    before: Any = request.get("before")
    if method == "PATCH":
        return _stored_by_patch(profile, kind, body, before, segments[-1], leniency)
    document = normalise(kind, body, leniency)
    if method == "PUT":
        return _stored_by_put(profile, kind, document, before)
    return {"document": document, **_as_user(profile, kind, {"active": True, **document})}


def _resource_type_in(segments: list[str], types: Types, leniency: Leniency) -> ResourceType:
    for segment in segments:
        endpoint = endpoint_in(segment, leniency)
        if endpoint is not None:
            return types[endpoint]
    raise NotFound("There is no such endpoint: the path names neither /Users nor /Groups.")


def _stored_by_patch(
    profile: Profile, kind: ResourceType, body: dict[str, Any], before: Any, own_id: str, leniency: Leniency
) -> Stored:
    patch = read_patch(kind, body, leniency)
    found: Stored = {}
    if patch.operations:
        found["operations"] = _shown_operations(patch)
    if patch.member_operations:
        found["members"] = _shown_member_operations(patch)
    if not isinstance(before, dict):
        return found
    document = _patched(kind, patch, _as_stored(profile, kind, before), own_id, leniency)
    return {**found, "document": document, **_as_user(profile, kind, {"active": True, **document}, before)}


def _patched(kind: ResourceType, patch: Patch, before: dict[str, Any], own_id: str, leniency: Leniency) -> dict[str, Any]:
    # IdPs repeat the id of the resource in a PATCH: where `before` does not have it, it is the one in the path of the request.
    document = apply_patch(kind, {"id": own_id, **before}, patch, leniency)
    if "id" not in before:
        del document["id"]
    return _with_members(document, patch.member_operations) if patch.member_operations else document


def _stored_by_put(profile: Profile, kind: ResourceType, document: dict[str, Any], before: Any) -> Stored:
    """A PUT without `active` keeps the stored one. Without `before` that is not known, and the mapped user has no `active`."""
    if isinstance(before, dict):
        stored = _as_stored(profile, kind, before)
        check_immutable(kind, stored, document)
        if kind.name == USER.name:
            document.setdefault("active", stored.get("active", True))
    return {"document": document, **_as_user(profile, kind, document, before)}


def _as_stored(profile: Profile, kind: ResourceType, before: dict[str, Any]) -> dict[str, Any]:
    # `before` is what the ledger holds, not what the IdP sends: that it has no `schemas` says nothing of the IdP, and is forgiven.
    document = normalise(kind, before, Leniency(profile.tolerances | {Tolerance.MISSING_SCHEMAS}))
    return document | {"id": before["id"]} if "id" in before else document


def _with_members(document: dict[str, Any], operations: tuple[MemberOperation, ...]) -> dict[str, Any]:
    """The document with the members after the operations. Ids are UUIDs, compared ignoring case. Raises NoTarget."""
    members = {member["value"].casefold(): member for member in document.pop("members", ())}
    for operation in operations:
        members = _members_after(members, operation)
    return document | {"members": list(members.values())} if members else document


def _members_after(members: Members, operation: MemberOperation) -> Members:
    named = {member.casefold(): {"value": member} | ({"type": kind} if kind else {}) for member, kind in operation.members}
    match operation.kind:
        case "add":
            return members | {key: member for key, member in named.items() if key not in members}
        case "clear":
            return {}
        case "require":
            if members.keys().isdisjoint(named):
                raise no_such_member()
            return members
        case _:
            return {key: member for key, member in members.items() if key not in named and not _selects(operation, member)}


def _selects(operation: MemberOperation, member: Mapping[str, str]) -> bool:
    return operation.filter is not None and matches(operation.filter, member)


def _shown_operations(patch: Patch) -> list[TriedOperation]:
    return [{"op": o.op, "path": o.path.text, "value": o.value} for o in patch.operations]


def _shown_member_operations(patch: Patch) -> list[TriedMembers]:
    return [{"op": o.kind, "ids": [member for member, _ in o.members]} for o in patch.member_operations]


def _as_user(profile: Profile, kind: ResourceType, document: dict[str, Any], before: Any = None) -> Stored:
    if kind.name != USER.name:
        return {}
    check_user_name(document, before if isinstance(before, dict) else None)
    found: Stored = {"user": mapped_user(profile, document)}
    if is_test_object(profile, document["userName"]):
        found["test_object"] = True
    return found
