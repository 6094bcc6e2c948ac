"""Trying a profile: what a recorded request would store under it, with nothing stored."""

from collections.abc import Mapping
from typing import Any, TypeAlias

from scim.advice import fix_of
from scim.errors import InvalidSyntax, NotFound, ScimError
from scim.normalise import normalise
from scim.patch import Patch, apply_patch, read_patch
from scim.profile import Profile, is_test_object, mapped_user
from scim.schema import RESOURCE_TYPES, USER, ResourceType

Types: TypeAlias = Mapping[str, ResourceType]


def try_request(profile: Profile, request: Mapping[str, Any], types: Types = RESOURCE_TYPES) -> dict[str, Any]:
    """What `{"method", "path", "body"}` would store: a document or operations, the mapped user, the tolerances it relies on.

    `types` are those of a directory, by endpoint, where it has extension schemas of its own. A PATCH is applied to `before`, the
    resource so far, where the request has one. What would be refused has an `error`, and the `fix` for whoever runs the IdP.
    """
    method = str(request.get("method") or request.get("do") or "").upper()
    path = str(request.get("path") or "")
    tried: dict[str, Any] = {"profile": profile.text, "method": method, "path": path}
    used: set[str] = set()
    try:
        tried |= _stored(profile, method, path, request, used, types)
    except ScimError as refused:
        tried |= {"error": refused.document(), "fix": fix_of(refused.status, refused.scim_type, refused.detail)}
    tried["tolerances"] = sorted(used)
    return tried


def _stored(profile: Profile, method: str, path: str, request: Mapping[str, Any], used: set[str], types: Types) -> dict[str, Any]:
    kind = _kind(path, types)
    body: Any = request.get("body")
    if method == "DELETE":
        return {"stores": "the end of the resource and of its memberships"}
    if method not in {"POST", "PUT", "PATCH"}:
        return {"stores": "nothing: this request only reads"}
    if not isinstance(body, dict):
        raise InvalidSyntax("The request has no body that is an object.")
    if method == "PATCH":
        return _patched(profile, kind, body, request.get("before"), used)
    document = normalise(kind, body, profile.tolerances, used)
    return {"document": document} | _as_user(profile, kind, document)


def _kind(path: str, types: Types) -> ResourceType:
    for segment in path.partition("?")[0].split("/"):
        if segment in types:
            return types[segment]
    raise NotFound("The path names neither /Users nor /Groups.")


def _patched(profile: Profile, kind: ResourceType, body: dict[str, Any], before: Any, used: set[str]) -> dict[str, Any]:
    patch = read_patch(kind, body, profile.tolerances, used)
    found: dict[str, Any] = {"operations": _operations(patch), "members": _edges(patch)}
    if not isinstance(before, dict):
        return {name: value for name, value in found.items() if value}
    document = apply_patch(kind, normalise(kind, before, profile.tolerances, set()), patch, profile.tolerances, used)
    return {name: value for name, value in found.items() if value} | {"document": document} | _as_user(profile, kind, document)


def _operations(patch: Patch) -> list[dict[str, Any]]:
    return [{"op": o.op, "path": o.path.text, "value": o.value} for o in patch.operations]


def _edges(patch: Patch) -> list[dict[str, Any]]:
    return [{"op": edge.kind, "ids": [member for member, _ in edge.members]} for edge in patch.edges]


def _as_user(profile: Profile, kind: ResourceType, document: dict[str, Any]) -> dict[str, Any]:
    if kind.name != USER.name:
        return {}
    found: dict[str, Any] = {"user": mapped_user(profile, {"active": True, **document})}
    if is_test_object(profile, document["userName"]):
        found["test_object"] = True
    return found
