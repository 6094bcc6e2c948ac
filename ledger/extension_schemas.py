"""Extension schemas of a directory, and the act of registering one (RFC 7643 §7)."""

import json
from typing import Any, TypedDict

from database.queries import load_queries
from ledger.commands import RecordFacts
from ledger.directories import WAKE, Directory
from ledger.events import DIRECTORY, DIRECTORY_SCHEMA_REGISTERED, OPERATOR, Body, Draft
from ledger.lifecycle import check_open
from ledger.refused import RefusedError, StateError
from scim.errors import ScimError
from scim.extension import TYPES_BY_NAME, read_extension
from scim.strictness import check_extension

SQL = load_queries(__file__)


class RegisteredSchema(TypedDict):
    """An extension schema of a directory: a Schema document (RFC 7643 §7), and the type of the resources that it extends."""

    resource_type: str
    schema: dict[str, Any]


def registered(directory: Directory) -> list[RegisteredSchema]:
    """The extension schemas of a directory, in the order they were registered."""
    return [{"resource_type": name, "schema": document} for name, document in json.loads(directory.schemas)]


def schema_facts(directory: Directory, resource_type: str, document: dict[str, Any]) -> RecordFacts | None:
    """The act that registers an extension schema; None if the same schema is registered already.

    Raises RefusedError if the document is no valid schema, or one that the directory's profile does not take, StateError if its id is taken or the directory is closed.
    """
    if resource_type not in TYPES_BY_NAME:
        raise RefusedError(f"The resource type is one of {', '.join(TYPES_BY_NAME)}.")
    try:
        extension = read_extension(document)
        check_extension(extension, directory.profile.strictness)
    except ScimError as wrong:
        raise RefusedError(wrong.detail) from wrong
    for known in registered(directory):
        if known == {"resource_type": resource_type, "schema": document}:
            return None
        if known["schema"]["id"].casefold() == extension.urn.casefold():
            why = "There is a schema with this id already, and data may refer to it. Register another one under a new id."
            raise StateError(why, "name_taken")
    check_open(directory)
    change = {"path": "schemas", "to": extension.urn}
    about = {"id": str(directory.uuid), "slug": directory.slug, "schema": extension.urn, "resource_type": resource_type}
    body = Body(about, [change], directory.slug)
    draft = Draft(DIRECTORY_SCHEMA_REGISTERED, directory.uuid, DIRECTORY, cause=OPERATOR, body=body)
    insert = (SQL["insert_schema"], (directory.id, resource_type, extension.urn.casefold(), json.dumps(document)))
    return RecordFacts((draft,), (insert, WAKE))
