"""`scim-ledger requests …`: the journal of SCIM requests, refused ones included."""

from typing import Annotated, Any, Final

import typer

from runtime.cli.client import service
from runtime.cli.nouns import new_group
from runtime.cli.printing import AsJson, print_rows

app = new_group("The journal of SCIM requests.")
REQUESTS_PAGE: Final = 1_000
REQUEST_COLUMNS: Final = (
    "time",
    "directory",
    "method",
    "path",
    "filter",
    "status",
    "scim_type",
    "detail",
    "fix",
    "duration_us",
    "request_id",
)


@app.command("list")
def list_command(
    *,
    directory: Annotated[str | None, typer.Option(help="Only of this one.")] = None,
    status: Annotated[int | None, typer.Option(min=100, max=599, help="Only with this status.")] = None,
    refused: Annotated[bool, typer.Option("--refused", help="Only those that were refused.")] = False,
    limit: Annotated[int, typer.Option(min=1, help="At most so many.")] = 100,
    as_json: AsJson = False,
) -> None:
    """List requests, newest first.

    Example: scim-ledger requests list --directory acme --refused
    """
    query: dict[str, Any] = {"directory": directory, "status": status, "refused": True if refused else None}
    rows: list[dict[str, Any]] = []
    after: int | None = None
    with service() as found:
        while len(rows) < limit:
            page = found.ask("requests list", query={**query, "after": after, "limit": min(limit - len(rows), REQUESTS_PAGE)})
            rows += page["data"]
            after = page["list_metadata"]["after"]
            if after is None:
                break
    print_rows(as_json, rows, REQUEST_COLUMNS)
