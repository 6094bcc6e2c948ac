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
    "duration_ms",
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
    """List requests, newest first. Those with a mistake in the URL or the token have it as their path.

    Example: scim-ledger requests list --directory acme --refused
    """
    query: dict[str, Any] = {"directory": directory, "status": status, "refused": True if refused else None}
    with service() as found:
        listed = found.listed("requests list", limit=limit, query=query)
    print_list(as_json, listed if as_json else {"data": [_shown(row) for row in listed["data"]]}, REQUEST_COLUMNS)


def _shown(row: dict[str, Any]) -> dict[str, Any]:
    """A request for people. What was refused for its URL or its token has no path in the journal."""
    took = f"{row['duration_us'] / 1000:.1f}"
    if "mistake" not in row:
        return {**row, "duration_ms": took}
    return {**row, "method": "", "path": f"mistake: {row['mistake'].replace('_', ' ')}"}
