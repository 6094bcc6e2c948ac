"""Extension schemas of a directory: list them, register one."""

from typing import Any

from ledger.directories import Directory
from ledger.extension_schemas import RegisteredSchema, registered, schema_facts
from operations.admin_commands import record_in
from operations.admission import on_directory, reached_directory
from operations.caller import Caller
from operations.open_ledger import OpenLedger


@on_directory("schemas.list")
async def list_all(_ledger: OpenLedger, _caller: Caller, directory: Directory) -> list[RegisteredSchema]:
    """The extension schemas of a directory, in the order they were registered."""
    return registered(directory)


@on_directory("schemas.register")
async def register(
    ledger: OpenLedger, caller: Caller, directory: Directory, resource_type: str, schema: dict[str, Any], *, weight: int
) -> tuple[list[RegisteredSchema], bool]:
    """Register a Schema document for a resource type. Returns all schemas of the directory, and whether this one is new.

    `weight`: bytes of the request. Raises RefusedError and StateError.
    """
    facts = await ledger.turns.read(weight, lambda: schema_facts(directory, resource_type, schema))
    if facts is None:
        return registered(directory), False
    await record_in(ledger, caller, directory, facts, weight=weight)
    return registered(await reached_directory(ledger, caller, directory.slug)), True
