"""What parameters mean, and an example of each value: the description shows them. An example of a document is made of its schema."""

import json
from collections.abc import Mapping
from typing import Any, Final

from ledger.events import USER_CREATED
from operations.readiness import DATABASE_SILENT
from scim.leniency import Tolerance

_UUID: Final = "0197f2c4-5d1e-7c3a-9b44-3f0e2a6c1d58"
_INSTANT: Final = "2026-11-30T09:15:00.000000Z"
_FORMATS: Final = {
    "date-time": _INSTANT,
    "uuid": _UUID,
}
_WORDS: Final[dict[str, Any]] = {
    "actor": "sys", "advice": "No request has arrived yet: check the URL and the token in the IdP.", "after": "c_AQAAAAAAAAAAKg",
    "answer": "ok", "broken": "positions 41 to 42 are missing in the log", "client_id": "cli_0197f2c45d1e7c3a9b443f0e2a6c1d58", "clock": "exact",
    "confirm": "acme", "consumer": "hr-sync", "consumers": "*", "created_by": "sys", "detail": "There is no such thing here.",
    "directories": "acme", "directory": "acme", "display": "Engineering", "displayName": "Engineering", "display_name": "Ada Lovelace",
    "error": "timeout", "errors": "`title` is missing", "event_id": "evt_acme_42_1f2e3d4c",
    "expand": "member,group", "event_type": USER_CREATED.topic, "external_id": "00u1ada", "failure": "superseded",
    "filter": "userName eq ?", "fix": "Map the attribute to one value.", "from": "seq:1", "group": _UUID,
    "last_answer": "Bad Gateway", "leaf_hash": "9f2c1e", "matter": "case 12", "placed_by": "tok_0197f2c45d1e7c3a9b443f0e2a6c1d58", "says": "The rows are deleted.", "last_error": "http_502", "meaning": "`active` may be sent as text", "method": "POST",
    "name": "hr-sync", "part": "database", "path": "/Users", "profile": "okta@1", "reason": "planned work",
    "replay_id": _UUID, "requested": "seq:42", "resource_type": "User",
    "schemas": "urn:ietf:params:scim:schemas:core:2.0:User",
    "scim_base_url": "https://ledger.example.com/scim/acme/v2", "scim_type": "invalidValue", "secret": "whsec_C2FVsBQIhrscChlQIMV",
    "slug": "acme", "state": "active", "subject": _UUID,
    "through": "evt_acme_42_1f2e3d4c", "title": "Okta", "to": "seq:42", "token": "tok_0197f2c45d1e7c3a9b443f0e2a6c1d58", "token_id": "tok_0197f2c45d1e7c3a9b443f0e2a6c1d58",
    "tolerance": "boolean_as_text", "tolerances": "boolean_as_text", "type": USER_CREATED.topic, "types": "user.*", "url": "https://hr.example.com/hooks/ledger",
    "user": _UUID, "userName": "ada@example.com", "user_name": "ada@example.com",
    "why": "parked", "hours": 24, "status": 200, "seq": 42, "position": 42,
}  # fmt: skip
# Documents whose schema does not say enough: all fields of theirs may be left out, or any object is allowed. By the title of the schema.
_DOCUMENTS: Final[dict[str, Any]] = {
    "ConsumerBody": {"mode": "webhook", "url": "https://hr.example.com/hooks/ledger", "directories": ["acme"], "types": ["user.*"]},
    "NotReady": {"status": "not_ready", **DATABASE_SILENT._asdict()},
    "ProfileDocument": {"profile": {
        "name": "ours", "version": 1, "title": "Our directory", "tolerances": [str(Tolerance.STRING_BOOLEANS)], "user": {"email": ["emails.value"]},
    }},
    "SubjectBody": {"type": "User", "id": _UUID},
    "RevokeBody": {"reason": "planned work"}, "EndClientBody": {"reason": "planned work"},
    "RotateSecretBody": {"overlap_seconds": 3_600},
    "RotateTokenBody": {"overlap_seconds": 86_400},
    "SchemaBody": {"resource_type": "User", "schema": {
        "id": "urn:example:app:2.0:User", "name": "App", "attributes": [{"name": "badge", "type": "string", "multiValued": False}],
    }},
}  # fmt: skip
_SEEN: Final = "c_AQAAAAAAAAAAKg"
_GROUP: Final = "0197f2c4-6a00-7d10-8c21-1b2a3c4d5e6f"
_LINES: Final = "".join(json.dumps(line) + "\n" for line in (
    {"object": "snapshot", "directory": "acme", "seq": 42, "time": _INSTANT, "after": _SEEN},
    {"object": "user", "id": _UUID, "active": True, "data": {
        "object": {"userName": "ada@example.com", "active": True}, "user": {"user_name": "ada@example.com", "active": True},
    }},
    {"object": "group", "id": _GROUP, "data": {"object": {"displayName": "Engineering"}}},
    {"object": "membership", "group": {"id": _GROUP}, "member": {"type": "User", "id": _UUID}, "effective": True},
    {"object": "end", "seq": 42, "users": 1, "groups": 1, "memberships": 1},
))  # fmt: skip
MEDIA_EXAMPLES: Final[dict[str, Any]] = {
    "application/x-ndjson": _LINES,
    "application/schema+json": {
        "$schema": "https://json-schema.org/draft/2020-12/schema", "title": USER_CREATED.topic, "type": "object",
        "properties": {"type": {"const": USER_CREATED.topic}},
    },
}  # fmt: skip
_PARAMETERS: Final = {
    "after": "Where the page begins: the `list_metadata.after` of the page before.",
    "as_of": "The point in history: `seq:N`, `seq:head`, or an instant with an offset.",
    "client_id": "The id of an OAuth 2.0 client.",
    "consumer": "Only runs of this consumer.",
    "directory": "The slug of a directory.",
    "display_name": "Only groups of this name.",
    "effective": "Only members whose membership gives access, or only those whose does not.",
    "erasure": "The id of an erasure.",
    "event_id": "The id of an event.",
    "event_type": "An event type; /v1/schemas/events has them all.",
    "expand": "Names beside ids in the data of memberships: `member`, `group`, or both with a comma between them.",
    "external_id": "Only the one with this id of the IdP.",
    "from": "Where to begin: `beginning`, `now`, `seq:N` of one directory, an instant, a position or an event id.",
    "group": "The id of a group.",
    "hold": "The id of a legal hold.",
    "hours": "How many hours back the report looks.",
    "limit": "The most that a page has.",
    "name": "The name.",
    "nested": "Whether groups within groups count.",
    "range_end": "Only events before this instant.",
    "range_start": "Only events from this instant on.",
    "refused": "Only refused requests, or only the others.",
    "replay_id": "The id of a replay.",
    "role": "Only tokens of this role.",
    "state": "Only those in this state.",
    "status": "Only requests that were answered with this status.",
    "subject": "Only events about this user or group, by id.",
    "to": "Where to end, in the same words as `from`.",
    "token_id": "The id of a token.",
    "type": "`User` or `Group`.",
    "types": "Event types, separated by commas; `user.*` means all about users.",
    "user": "The id of a user.",
    "user_name": "Only the user of this userName.",
    "wait": "Seconds to wait for events if there are none yet.",
}


def explain(parameter: dict[str, Any]) -> None:
    """Give a parameter its sentence and an example."""
    name = parameter["name"]
    if "description" not in parameter:
        parameter["description"] = _PARAMETERS[name]
    parameter.setdefault("example", example_of(parameter["schema"], {}, name))


def example_of(schema: Mapping[str, Any], components: Mapping[str, Any], name: str = "") -> Any:
    """A document that a schema allows; of objects, the fields that are always there. `name`: the field that it is in."""
    if "$ref" in schema:
        return example_of(components[str(schema["$ref"]).rpartition("/")[2]], components, name)
    if schema.get("title") in _DOCUMENTS:
        return _DOCUMENTS[schema["title"]]
    for word in ("default", "const"):
        if schema.get(word) is not None:
            return schema[word]
    for words in ("examples", "enum"):
        if words in schema:
            return schema[words][0]
    for choice in ("oneOf", "anyOf"):
        if choice in schema:
            return example_of(schema[choice][0], components, name)
    return _of_type(schema, components, name)


def _of_type(schema: Mapping[str, Any], components: Mapping[str, Any], name: str) -> Any:
    kind = schema.get("type")
    match kind[0] if isinstance(kind, list) else kind:
        case "object":
            fields = {field: part for field, part in schema.get("properties", {}).items() if field in schema.get("required", ())}
            return {field: example_of(part, components, field) for field, part in fields.items()}
        case "array":
            return [example_of(schema.get("items", {}), components, name)]
        case "integer" | "number":
            return max(_WORDS[name] if isinstance(_WORDS.get(name), int) else 0, schema.get("minimum", 0))
        case "boolean":
            return True
        case "null":
            return None
        case _:
            return _text(schema, name)


def _text(schema: Mapping[str, Any], name: str) -> str:
    return str(_FORMATS.get(schema.get("format", "")) or _WORDS.get(name, "text"))
