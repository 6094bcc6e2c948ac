"""`scim-ledger directory rate-limit …`: how many SCIM requests a directory may send."""

from typing import Annotated, Any

import typer

from runtime.cli.client import ask
from runtime.cli.completing import DirectorySlug
from runtime.cli.nouns import new_group
from runtime.cli.printing import AsJson, print_rows, say

app = new_group("How many SCIM requests a directory may send; above it they are answered 429 with Retry-After.")


@app.command()
def show(directory: DirectorySlug, *, as_json: AsJson = False) -> None:
    """Show the limit of a directory, and who set it.

    Example: scim-ledger directory rate-limit show acme
    """
    _print_limit(as_json, ask("directory rate-limit show", directory=directory))


@app.command("set")
def set_command(
    directory: DirectorySlug,
    per_second: Annotated[int, typer.Argument(min=25, help="Requests a second.")],
    *,
    burst: Annotated[
        int | None, typer.Option(min=25, help="Requests at once after a pause; ten seconds' worth if left out.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Set the limit of a directory.

    Example: scim-ledger directory rate-limit set acme 100 --burst 1000
    """
    body = {"per_second": per_second, "burst": 10 * per_second if burst is None else burst}
    _print_limit(as_json, ask("directory rate-limit set", body=body, directory=directory))


@app.command()
def reset(directory: DirectorySlug, *, as_json: AsJson = False) -> None:
    """Leave the limit to the directory's profile again.

    Example: scim-ledger directory rate-limit reset acme
    """
    _print_limit(as_json, ask("directory rate-limit reset", directory=directory))


def _print_limit(as_json: bool, document: dict[str, Any]) -> None:
    if as_json:
        say(True, document, "")
    else:
        print_rows([document])
