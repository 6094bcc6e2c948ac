"""`scim-ledger directory schema …`: extension schemas of a directory."""

from pathlib import Path
from typing import Annotated

import typer

from runtime.cli.client import ask
from runtime.cli.completing import DirectorySlug
from runtime.cli.files import json_file
from runtime.cli.nouns import new_group
from runtime.cli.printing import AsJson, Key, say

app = new_group("Extension schemas of a directory.")


@app.command("add")
def add_command(
    directory: DirectorySlug,
    file: Annotated[Path, typer.Argument(help="A Schema document (RFC 7643 §7) in JSON.")],
    *,
    resource_type: Annotated[str, typer.Option(help="What it extends: User or Group.")] = "User",
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Register an extension schema. It cannot be removed, because stored data refers to it.

    Example: scim-ledger directory schema add acme badge.json
    """
    document = json_file(file)
    found = ask("directory schema add", body={"resource_type": resource_type, "schema": document}, key=key, directory=directory)
    say(as_json, found["data"], f"Directory {directory} knows {document['id']}.")


@app.command("list")
def list_command(directory: DirectorySlug, *, as_json: AsJson = False) -> None:
    """List the extension schemas that were registered for a directory.

    Example: scim-ledger directory schema list acme
    """
    found = ask("directory schema list", directory=directory)
    text = "\n".join(f"{row['resource_type']:6} {row['schema']['id']}" for row in found["data"]) or "No schema is registered."
    say(as_json, found, text)
