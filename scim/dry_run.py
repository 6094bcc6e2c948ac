"""Trying a profile: what a recorded request would store under it, with nothing stored."""

from collections.abc import Mapping
from typing import Any, Final, TypeAlias

from scim.apply import apply_patch
from scim.errors import InvalidSyntax, NotFound, ScimError
from scim.extension import check_immutable
from scim.filters import matches
from scim.leniency import Leniency, Tolerance
from scim.member_operations import EdgeOperation, no_such_member
from scim.normalise import check_user_name, normalise
from scim.patch import Patch, read_patch
from scim.profile import Profile, is_test_object, mapped_user
from scim.remedies import fix_of
from scim.respelling import endpoint
from scim.schema import RESOURCE_TYPES, USER, ResourceType

Types: TypeAlias = Mapping[str, ResourceType]
Members: TypeAlias = dict[str, dict[str, str]]  # by casefolded id
_WRITES: Final = frozenset({"POST", "PUT", "PATCH", "DELETE"})


def try_request(profile: Profile, request: Mapping[str, Any], types: Types = RESOURCE_TYPES) -> dict[str, Any]:
    """What `{"method", "path", "body"}` would store: a document or operations, the mapped user, the tolerances it relies on.

    `types` are those of a directory, by endpoint, where it has extension schemas of its own. A PATCH is applied to `before`, the
    resource so far, where the request has one, and a PUT keeps from it what it does not replace. What would be refused has an
    `error`, and the `fix` for whoever runs the IdP.
    """
    method = str(request.get("method") or request.get("do") or "").upper()
    path = str(request.get("path") or "")
    tried: dict[str, Any] = {"profile": profile.text, "method": method, "path": path}
    leniency = Leniency(profile.tolerances)
    try:
        tried |= _stored(profile, method, path, request, leniency, types)
    except ScimError as refused:
        tried |= {"error": refused.document(), "fix": fix_of(refused.status, refused.scim_type, refused.detail)}
    tried["tolerances"] = sorted(leniency.used)
    return tried


def _stored(
    profile: Profile, method: str, path: str, request: Mapping[str, Any], leniency: Leniency, types: Types
) -> dict[str, Any]:
    segments = path.partition("?")[0].rstrip("/").split("/")
    if method not in _WRITES or (method == "POST" and segments[-1] == ".search"):
        return {"stores": "nothing: this request only reads"}
    if segments[-1] == "Bulk":
        return {"stores": "what its operations store: try them one by one, each as a request of its own"}
    kind = _kind(segments, types, leniency)
    if method == "DELETE":
        return {"stores": "the end of the resource and of its memberships"}
    body: Any = request.get("body")
    if not isinstance(body, dict):
        raise InvalidSyntax("The request has no body that is an object.")
    before: Any = request.get("before")
    if method == "PATCH":
        return _patched(profile, kind, body, before, segments[-1], leniency)
    document = normalise(kind, body, leniency)
    if method == "PUT":
        return _replaced(profile, kind, document, before)
    return {"document": document} | _as_user(profile, kind, {"active": True, **document})


def _kind(segments: list[str], types: Types, leniency: Leniency) -> ResourceType:
    for segment in segments:
        meant = endpoint(segment, leniency)
        if meant is not None:
            return types[meant]
    raise NotFound("There is no such endpoint: the path names neither /Users nor /Groups.")


def _patched(
    profile: Profile, kind: ResourceType, body: dict[str, Any], before: Any, own: str, leniency: Leniency
) -> dict[str, Any]:
    patch = read_patch(kind, body, leniency)
    found: dict[str, Any] = {"operations": _operations(patch), "members": _edges(patch)}
    found = {name: value for name, value in found.items() if value}
    if not isinstance(before, dict):
        return found
    document = _after(kind, patch, _so_far(profile, kind, before), own, leniency)
    return found | {"document": document} | _as_user(profile, kind, {"active": True, **document}, before)


def _after(kind: ResourceType, patch: Patch, before: dict[str, Any], own: str, leniency: Leniency) -> dict[str, Any]:
    # IdPs repeat the id of the resource in a PATCH: it is that of the path where `before` does not show it.
    document = apply_patch(kind, {"id": own, **before}, patch, leniency)
    if "id" not in before:
        del document["id"]
    return _with_members(document, patch.edges) if patch.edges else document


def _replaced(profile: Profile, kind: ResourceType, document: dict[str, Any], before: Any) -> dict[str, Any]:
    """A PUT that says nothing of `active` keeps it: without `before` nobody knows, and the mapped user does not say."""
    if isinstance(before, dict):
        held = _so_far(profile, kind, before)
        check_immutable(kind, held, document)
        if kind.name == USER.name:
            document.setdefault("active", held.get("active", True))
    return {"document": document} | _as_user(profile, kind, document, before)


def _so_far(profile: Profile, kind: ResourceType, before: dict[str, Any]) -> dict[str, Any]:
    # It is what is stored, not what the IdP sends: without `schemas` it says nothing of the IdP.
    document = normalise(kind, before, Leniency(profile.tolerances | {Tolerance.MISSING_SCHEMAS}))
    return document | {"id": before["id"]} if "id" in before else document


def _with_members(document: dict[str, Any], edges: tuple[EdgeOperation, ...]) -> dict[str, Any]:
    """The document with the members that the edges leave. Ids are UUIDs, so their case says nothing. Raises NoTarget."""
    members = {member["value"].casefold(): member for member in document.pop("members", ())}
    for edge in edges:
        members = _folded(members, edge)
    return document | {"members": list(members.values())} if members else document


def _folded(members: Members, edge: EdgeOperation) -> Members:
    named = {member.casefold(): {"value": member} | ({"type": kind} if kind else {}) for member, kind in edge.members}
    match edge.kind:
        case "add":
            return members | {key: member for key, member in named.items() if key not in members}
        case "clear":
            return {}
        case "require":
            if members.keys().isdisjoint(named):
                raise no_such_member()
            return members
        case _:
            return {key: member for key, member in members.items() if key not in named and not _selected(edge, member)}


def _selected(edge: EdgeOperation, member: Mapping[str, str]) -> bool:
    return edge.filter is not None and matches(edge.filter, member)


def _operations(patch: Patch) -> list[dict[str, Any]]:
    return [{"op": o.op, "path": o.path.text, "value": o.value} for o in patch.operations]


def _edges(patch: Patch) -> list[dict[str, Any]]:
    return [{"op": edge.kind, "ids": [member for member, _ in edge.members]} for edge in patch.edges]


def _as_user(profile: Profile, kind: ResourceType, document: dict[str, Any], before: Any = None) -> dict[str, Any]:
    if kind.name != USER.name:
        return {}
    check_user_name(document, before if isinstance(before, dict) else None)
    found: dict[str, Any] = {"user": mapped_user(profile, document)}
    if is_test_object(profile, document["userName"]):
        found["test_object"] = True
    return found
