"""Writes the types of events for clients, from the published schemas: TypeScript and Python; `make docs`."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from api.event_schemas import definitions, name_of
from ledger.events import EVENT_TYPES

CLIENTS = Path(__file__).parents[2] / "clients"
TYPESCRIPT = CLIENTS / "typescript" / "events.d.ts"
PYTHON = CLIENTS / "python" / "scim_ledger_client" / "events.py"
ENVELOPE = "Envelope"
OPEN = {"ScimUser", "ScimGroup"}  # with attributes of extensions, and others that an IdP sent
_SAID = "The events of the provisioning ledger, made from its JSON Schemas by `make docs`. Ignore types and fields that you do not know."
_TS = {"string": "string", "integer": "number", "boolean": "boolean", "null": "null", "object": "Record<string, unknown>"}
_PY = {"string": "str", "integer": "int", "boolean": "bool", "null": "None", "object": "dict[str, Any]"}


def typescript() -> str:
    """The union of all events, and the interfaces that it is made of."""
    parts = [f"/** {_SAID} */\n"]
    parts += [_interface(name, schema) for name, schema in _forms().items()]
    union = "\n  | ".join(name_of(kind) for kind in EVENT_TYPES)
    parts.append(f"/** Any event; `type` tells which. */\nexport type LedgerEvent =\n  | {union};\n")
    parts.append('/** The name of an event type. */\nexport type EventType = LedgerEvent["type"];\n')
    return "\n".join(parts)


def _forms() -> dict[str, dict[str, Any]]:
    """The definitions, with what all events have in a form of its own, from which each event type is derived."""
    events = {name_of(kind): definitions()[name_of(kind)] for kind in EVENT_TYPES}
    first = events[name_of(EVENT_TYPES[0])]
    shared = {
        name: form
        for name, form in first["properties"].items()
        if all(event["properties"][name] == form for event in events.values())
    }
    envelope = {**first, "description": "What all events have.", "properties": shared}
    derived = {
        name: {
            **event,
            "extends": ENVELOPE,
            "properties": {field: form for field, form in event["properties"].items() if field not in shared},
        }
        for name, event in events.items()
    }
    return {ENVELOPE: envelope, **definitions(), **derived}


def _interface(name: str, schema: dict[str, Any]) -> str:
    said = f"/** {schema['description']} */\n" if "description" in schema else ""
    if "properties" not in schema:
        return f"{said}export type {name} = {_ts(schema)};\n"
    lines = []
    for field, form in schema["properties"].items():
        if "description" in form:
            lines.append(f"  /** {form['description']} */")
        lines.append(f"  {field}{'' if field in schema['required'] else '?'}: {_ts(form)};")
    lines += ["  [attribute: string]: unknown;"] if name in OPEN else []
    extends = f" extends {schema['extends']}" if "extends" in schema else ""
    return f"{said}export interface {name}{extends} {{\n" + "\n".join(lines) + "\n}\n"


def _ts(schema: dict[str, Any]) -> str:
    if schema.get("maxProperties") == 0:
        return "Record<string, never>"
    if "additionalProperties" in schema:
        return f"Record<string, {_ts(schema['additionalProperties'])}>"
    if schema.get("type") == "array":
        return f"Array<{_ts(schema['items'])}>"
    literals, several = _literals(schema), schema.get("oneOf") or schema.get("anyOf")
    if literals:
        return " | ".join(map(json.dumps, literals))
    if several:
        return " | ".join(map(_ts, several))
    return schema["$ref"].removeprefix("#/$defs/") if "$ref" in schema else _TS.get(schema.get("type", ""), "unknown")


def _literals(schema: dict[str, Any]) -> list[Any]:
    return schema["enum"] if "enum" in schema else [schema["const"]] if "const" in schema else []


def python() -> str:
    """The same as TypedDicts."""
    parts = [
        f'"""{_SAID}"""\n',
        "from __future__ import annotations\n\nfrom typing import Any, Literal, NotRequired, TypeAlias, TypedDict\n",
    ]
    parts += [_typed_dict(name, schema) for name, schema in _forms().items()]
    union = " | ".join(name_of(kind) for kind in EVENT_TYPES)
    parts.append(f"# Any event; `type` tells which.\nEvent: TypeAlias = ({union})\n")
    source = "\n\n".join(parts)
    return subprocess.run(
        [sys.executable, "-m", "ruff", "format", "--stdin-filename", str(PYTHON), "-"],
        input=source,
        check=True,
        capture_output=True,
        text=True,
    ).stdout


def _typed_dict(name: str, schema: dict[str, Any]) -> str:
    said = schema.get("description", "")
    if "properties" not in schema and schema.get("maxProperties") != 0:
        return (f"# {said}\n" if said else "") + f"{name}: TypeAlias = {_py(schema)}"
    fields = {
        field: _py_field(form, needed=field in schema.get("required", [])) for field, form in schema.get("properties", {}).items()
    }
    if "from" in fields:  # a keyword of Python cannot be declared in a class
        members = ", ".join(f'"{field}": {form}' for field, form in fields.items())
        return f'# {said}\n{name} = TypedDict("{name}", {{{members}}})'
    end = "\n    " if "\n" in said else ""
    lines = [f'    """{said}{end}"""\n'] if said else []
    lines += [f"    {field}: {form}" for field, form in fields.items()]
    return f"class {name}({schema.get('extends', 'TypedDict')}):\n" + "\n".join(lines)


def _py_field(schema: dict[str, Any], *, needed: bool) -> str:
    form = _py(schema)
    return form if needed else f"NotRequired[{form}]"


def _py(schema: dict[str, Any]) -> str:
    if "additionalProperties" in schema:
        return f"dict[str, {_py(schema['additionalProperties'])}]"
    if schema.get("type") == "array":
        return f"list[{_py(schema['items'])}]"
    literals, several = _literals(schema), schema.get("oneOf") or schema.get("anyOf")
    if literals:
        return f"Literal[{', '.join(json.dumps(value) if isinstance(value, str) else repr(value) for value in literals)}]"
    if several:
        return " | ".join(map(_py, several))
    return schema["$ref"].removeprefix("#/$defs/") if "$ref" in schema else _PY.get(schema.get("type", ""), "Any")


WRITTEN = {TYPESCRIPT: typescript, PYTHON: python}

if __name__ == "__main__":
    for path, text in WRITTEN.items():
        path.write_text(text(), encoding="utf-8")
