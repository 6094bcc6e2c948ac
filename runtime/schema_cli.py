"""`scim-ledger directory schema …`: extension schemas of a directory."""

from pathlib import Path
from typing import Annotated, Any

import orjson
import typer

from ledger.administration import Administration, RefusedError
from runtime.acts import administer
from scim.body import read_json
from scim.errors import ScimError

app = typer.Typer(no_args_is_help=True, help="Extension schemas of a directory.")
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]


@app.command("add")
def add_command(
    directory: str,
    file: Annotated[Path, typer.Argument(help="A Schema document (RFC 7643 §7) in JSON.")],
    *,
    resource_type: Annotated[str, typer.Option(help="What it extends: User or Group.")] = "User",
    as_json: AsJson = False,
) -> None:
    """Register an extension schema. It cannot be taken back: stored data refers to it."""
    try:
        document = read_json(file.read_bytes())
    except OSError as unreadable:
        raise RefusedError(f"{file} cannot be read: {unreadable.strerror}.") from unreadable
    except ScimError as wrong:
        raise RefusedError(f"{file}: {wrong.detail}") from wrong

    async def act(acts: Administration) -> list[dict[str, Any]]:
        return await acts.add_schema(directory, resource_type, document)

    rows = administer(act)
    print(orjson.dumps(rows).decode() if as_json else f"Directory {directory} knows {document['id']}.")


@app.command("list")
def list_command(directory: str, *, as_json: AsJson = False) -> None:
    """List the extension schemas that were registered for a directory."""

    async def act(acts: Administration) -> list[dict[str, Any]]:
        return await acts.schemas(directory)

    rows = administer(act)
    text = "\n".join(f"{row['resource_type']:6} {row['schema']['id']}" for row in rows) or "None is registered."
    print(orjson.dumps(rows).decode() if as_json else text)
