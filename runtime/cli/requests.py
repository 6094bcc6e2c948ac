"""`scim-ledger requests …`: the journal of SCIM requests, refused ones included."""

from typing import Annotated, Any, Final

import typer

from runtime.cli.client import service
from runtime.cli.completing import directory_slugs
from runtime.cli.nouns import new_group
from runtime.cli.printing import AsJson, print_list

app = new_group("The journal of SCIM requests.")
REQUEST_COLUMNS: Final = (
    "time",
    "directory",
    "method",
    "path",
    "filter",
    "status",
    "count",
    "scim_type",
    "detail",
    "fix",
    "duration_us",
    "request_id",
)


@app.command("list")
def list_command(
    *,
    directory: Annotated[str | None, typer.Option(autocompletion=directory_slugs, help="Only of this one.")] = None,
    status: Annotated[int | None, typer.Option(min=100, max=599, help="Only with this status.")] = None,
    refused: Annotated[bool, typer.Option("--refused", help="Only those that were refused.")] = False,
    limit: Annotated[int, typer.Option(min=1, help="At most so many.")] = 100,
    as_json: AsJson = False,
) -> None:
    """List requests, newest first.

    Example: scim-ledger requests list --directory acme --refused
    """
    query: dict[str, Any] = {"directory": directory, "status": status, "refused": True if refused else None}
    with service() as found:
        print_list(as_json, found.listed("requests list", limit=limit, query=query), REQUEST_COLUMNS)
