"""SCIM in the description of the interface (RFC 7644 §3 and §4), made of its routes and of the schemas of its resources (RFC 7643 §4)."""

from collections.abc import Iterable, Mapping
from typing import Any, Final

from api.scim.app import ROUTES, SCIM_PATH, SEARCHES
from scim.discovery import LIST_URN
from scim.errors import ERROR_URN
from scim.schema import GROUP, USER, Attribute, ResourceType

Document = dict[str, Any]
MEDIA: Final = "application/scim+json"
TAG: Final = "scim"
_MESSAGES: Final = "urn:ietf:params:scim:api:messages:2.0:"
_TEXT: Final[Document] = {"type": "string"}
_COUNT: Final[Document] = {"type": "integer", "minimum": 0}
_FREE: Final[Document] = {"type": "object"}
_TYPES: Final[dict[str, Document]] = {
    "boolean": {"type": "boolean"}, "integer": {"type": "integer"}, "decimal": {"type": "number"}, "complex": _FREE, "any": {},
    "dateTime": {"type": "string", "format": "date-time"},
}  # fmt: skip
_DONE: Final = {"GET": "get", "POST": "create", "PUT": "replace", "PATCH": "patch", "DELETE": "delete"}
_SENTENCES: Final = {
    "list_users": "List users, with a filter if wanted (RFC 7644 §3.4.2).", "create_user": "Create a user (RFC 7644 §3.3).",
    "get_user": "Read one user (RFC 7644 §3.4.1).", "replace_user": "Replace a user (RFC 7644 §3.5.1).",
    "patch_user": "Change some attributes of a user (RFC 7644 §3.5.2).", "delete_user": "Delete a user, which ends all of its access (RFC 7644 §3.6).",
    "search_users": "Search users with a request body (RFC 7644 §3.4.3).", "list_groups": "List groups, with a filter if wanted (RFC 7644 §3.4.2).",
    "create_group": "Create a group, with members if wanted (RFC 7644 §3.3).", "get_group": "Read one group with its members (RFC 7644 §3.4.1).",
    "replace_group": "Replace a group and all of its members (RFC 7644 §3.5.1).", "patch_group": "Change a group, or add and remove members (RFC 7644 §3.5.2).",
    "delete_group": "Delete a group, which ends its memberships (RFC 7644 §3.6).", "search_groups": "Search groups with a request body (RFC 7644 §3.4.3).",
    "list_all": "List users and groups together (RFC 7644 §3.4.2.1).", "search_all": "Search users and groups together (RFC 7644 §3.4.3).",
    "bulk": "Many operations in one request, one after the other (RFC 7644 §3.7).",
    "get_service_provider_config": "What this server offers (RFC 7643 §5).", "list_resource_types": "The resource types (RFC 7643 §6).",
    "get_resource_type": "One resource type (RFC 7643 §6).", "list_schemas": "The schemas of this directory (RFC 7643 §7).",
    "get_schema": "One schema (RFC 7643 §7).",
}  # fmt: skip
_CONFIG: Final = "urn:ietf:params:scim:schemas:core:2.0:ServiceProviderConfig"
_CURSOR: Final = "AaZH8sKbkfDnAGQABmF62B3NAAGX8sRdHnw6m0Q_DipsHVg"
_QUERY: Final = {
    "filter": (_TEXT, "A filter (RFC 7644 §3.4.2.2).", 'userName eq "ada@example.com"'), "startIndex": ({"type": "integer"}, "The first of the page, from 1.", 1),
    "count": ({"type": "integer"}, "The most that the page has.", 100), "cursor": (_TEXT, "Pages by cursor (RFC 9865): empty for the first, then `nextCursor`.", _CURSOR),
    "sortBy": (_TEXT, "The attribute that the list is sorted by.", "userName"),
    "sortOrder": ({"type": "string", "enum": ["ascending", "descending"]}, "The order of `sortBy`.", "ascending"),
}  # fmt: skip
_SHOWN: Final = {
    "attributes": (_TEXT, "Only these attributes, separated by commas (RFC 7644 §3.9).", "userName,active"),
    "excludedAttributes": (_TEXT, "All attributes but these, separated by commas (RFC 7644 §3.9).", "groups"),
}  # fmt: skip


def paths() -> dict[str, Document]:
    """The path items of SCIM. /Me is left out, which no directory offers."""
    found: dict[str, Document] = {}
    for (first, segments), methods in ROUTES.items():
        if first != "Me":
            path = SCIM_PATH + ("" if segments == 0 else f"/{first}") + ("/{id}" if segments == 2 else "")
            found[path] = {method.lower(): _operation(method, first, segments) for method in methods}
    for first in SEARCHES:
        found[f"{SCIM_PATH}/{first}/.search"] = {"post": _operation("POST", f"{first}/.search", 2)}
    return found


def components() -> dict[str, Document]:
    """The schemas that these refer to."""
    resources = {f"Scim{kind.name}Resource": _resource(kind) for kind in (USER, GROUP)}
    any_resource = {"anyOf": [_ref(name) for name in resources]}
    return {
        **resources,
        "ScimList": _message(LIST_URN, "A page of a list.", ["totalResults"], {
            "totalResults": _COUNT, "startIndex": _COUNT, "itemsPerPage": _COUNT, "nextCursor": _TEXT, "Resources": {"type": "array", "items": any_resource},
        }),
        "ScimPatch": _message(f"{_MESSAGES}PatchOp", "Changes, made one after the other, all or none.", ["Operations"], {
            "Operations": _array(_object(["op"], {"op": {"type": "string", "enum": ["add", "remove", "replace"]}, "path": _TEXT, "value": {}})),
        }),
        "ScimSearch": _message(f"{_MESSAGES}SearchRequest", "What a list asks for, in a body.", [], {
            **{name: schema for name, (schema, _, _) in _QUERY.items()}, **dict.fromkeys(_SHOWN, _array(_TEXT)),
        }),
        "ScimBulk": _message(f"{_MESSAGES}BulkRequest", "Operations, made one after the other, each on its own.", ["Operations"], {
            "failOnErrors": _COUNT, "Operations": _array(_object(["method", "path"], {"method": _TEXT, "path": _TEXT, "bulkId": _TEXT, "version": _TEXT, "data": _FREE})),
        }),
        "ScimBulkResults": _message(f"{_MESSAGES}BulkResponse", "The result of each operation.", ["Operations"], {
            "Operations": _array(_object(["status"], {"method": _TEXT, "status": _TEXT, "location": _TEXT, "bulkId": _TEXT, "version": _TEXT, "response": _FREE})),
        }),
        "ScimError": _message(ERROR_URN, "An error (RFC 7644 §3.12). `detail` says what was wrong and what to do.", ["status", "detail"], {
            "status": _TEXT, "scimType": _TEXT, "detail": _TEXT,
        }),
        "ScimDocument": _object(["schemas"], {"schemas": _array(_TEXT) | {"examples": [[_CONFIG]]}, "id": _TEXT, "meta": _FREE}) | {"description": "A document about the server."},
    }  # fmt: skip


def _operation(method: str, first: str, segments: int) -> Document:
    name = _name(method, first, segments)
    operation: Document = {
        "operationId": f"scim_{name}", "tags": [TAG], "summary": _SENTENCES[name], "description": "For SCIM tokens of the directory.",
        "security": [{"bearer": []}, {"oauth2": ["scim"]}], "parameters": list(_parameters(method, name, segments)), "responses": _answers(method, name),
    }  # fmt: skip
    body = _body(method, name)
    if body is not None:
        operation["requestBody"] = {"required": True, "content": {MEDIA: {"schema": _ref(body)}}}
    return operation


def _name(method: str, first: str, segments: int) -> str:
    """The name of an operation: what is done, to what."""
    what = first.partition("/")[0]
    if first.endswith(".search"):
        return f"search_{what.lower() if what != first else 'all'}"
    match what, segments:
        case (("" | "Bulk"), _):
            return "bulk" if what else "list_all"
        case (("Users" | "Groups"), 1) if method == "GET":
            return f"list_{what.lower()}"
        case (("Users" | "Groups"), _):
            return f"{_DONE[method]}_{what.lower().removesuffix('s')}"
        case "ServiceProviderConfig", _:
            return "get_service_provider_config"
        case _, 1:
            return {"ResourceTypes": "list_resource_types", "Schemas": "list_schemas"}[what]
        case _:
            return {"ResourceTypes": "get_resource_type", "Schemas": "get_schema"}[what]


def _parameters(method: str, name: str, segments: int) -> Iterable[Document]:
    yield {
        "name": "directory",
        "in": "path",
        "required": True,
        "schema": _TEXT,
        "description": "The slug of the directory.",
        "example": "acme",
    }
    if segments == 2 and not name.startswith("search"):
        schema = _TEXT if name.startswith("get_r") or name == "get_schema" else {"type": "string", "format": "uuid"}
        yield {"name": "id", "in": "path", "required": True, "schema": schema, "description": "Its id."}
    lists = name in {"list_users", "list_groups", "list_all"}
    shows = name.endswith(("_user", "_group")) and method != "DELETE"
    for parameter, (schema, sentence, example) in ((_QUERY if lists else {}) | (_SHOWN if lists or shows else {})).items():
        yield {"name": parameter, "in": "query", "required": False, "schema": schema, "description": sentence, "example": example}
    if name in {"get_user", "get_group"}:
        sentence = "The version that the client has (RFC 7644 §3.14): 304 if it is the current one."
        yield {
            "name": "If-None-Match",
            "in": "header",
            "required": False,
            "schema": _TEXT,
            "description": sentence,
            "example": 'W/"1"',
        }
    if segments == 2 and method in {"PUT", "PATCH", "DELETE"}:
        yield {
            "name": "If-Match", "in": "header", "required": False, "schema": _TEXT, "description": "The version that the change is for (RFC 7644 §3.14).",
        }  # fmt: skip


def _body(method: str, name: str) -> str | None:
    if name.startswith("search"):
        return "ScimSearch"
    if name == "bulk":
        return "ScimBulk"
    if method == "PATCH":
        return "ScimPatch"
    return f"Scim{name.partition('_')[2].capitalize()}Resource" if method in {"POST", "PUT"} else None


def _answers(method: str, name: str) -> Document:
    if method == "DELETE":
        found: Document = {"204": {"description": "No Content"}}
    else:
        found = {"201" if name.startswith("create") else "200": _answer("OK", _answered(name))}
        if name in {"get_user", "get_group"}:
            found["304"] = {"description": "Not Modified"}
        if name == "patch_group":
            found["204"] = {"description": "No Content, unless `attributes` or `excludedAttributes` ask for the group"}
    return found | {errors: _answer("An error (RFC 7644 §3.12).", "ScimError") for errors in ("4XX", "5XX")}


def _answered(name: str) -> str:
    if name in {"list_users", "list_groups", "list_all"} or name.startswith("search"):
        return "ScimList"
    if name == "bulk":
        return "ScimBulkResults"
    kind = name.partition("_")[2]
    return f"Scim{kind.capitalize()}Resource" if kind in {"user", "group"} else "ScimDocument"


def _answer(sentence: str, name: str) -> Document:
    return {"description": sentence, "content": {MEDIA: {"schema": _ref(name)}}}


def _resource(kind: ResourceType) -> Document:
    properties = {attribute.name: _attribute(attribute) for attribute in kind.attributes.values()}
    extensions = {extension.urn: _complex(extension.attributes) for extension in kind.extensions.values()}
    named = [
        attribute.name for attribute in kind.attributes.values() if attribute.required and attribute.mutability != "readOnly"
    ]
    properties["schemas"]["examples"] = [[kind.schema]]
    return _object(["schemas", *(name for name in named if name != "schemas")], properties | extensions) | {
        "description": f"A {kind.name.lower()} (RFC 7643 §4). A directory may have further extensions."
    }


def _attribute(attribute: Attribute) -> Document:
    one = _complex(attribute.sub_attributes) if attribute.sub_attributes else dict(_TYPES.get(attribute.type, _TEXT))
    found = _array(one) if attribute.multi_valued else one
    if attribute.description:
        found["description"] = attribute.description
    return found | {"readOnly": {"readOnly": True}, "writeOnly": {"writeOnly": True}}.get(attribute.mutability, {})


def _complex(attributes: Mapping[str, Attribute]) -> Document:
    return _object([], {attribute.name: _attribute(attribute) for attribute in attributes.values()})


def _message(urn: str, sentence: str, required: list[str], properties: Mapping[str, Document]) -> Document:
    schemas = {"type": "array", "items": _TEXT, "examples": [[urn]]}
    return _object(["schemas", *required], {"schemas": schemas, **properties}) | {"description": sentence}


def _object(required: list[str], properties: Mapping[str, Document]) -> Document:
    return {"type": "object", "properties": dict(properties)} | ({"required": required} if required else {})


def _array(items: Document) -> Document:
    return {"type": "array", "items": items}


def _ref(name: str) -> Document:
    return {"$ref": f"#/components/schemas/{name}"}
