"""`scim-ledger directory surge …`: the limit of revocations an hour, and releasing held deliveries."""

from typing import Annotated, Any

import typer

from runtime.cli.client import ask
from runtime.cli.completing import DirectorySlug
from runtime.cli.nouns import new_group
from runtime.cli.printing import AsJson, Key, print_rows, say

app = new_group("The surge brake: an alarm, or a hold, for too many revocations in an hour.")


@app.command()
def show(directory: DirectorySlug, *, as_json: AsJson = False) -> None:
    """Show the limit of a directory and its revocations in the last hour.

    Example: scim-ledger directory surge show acme
    """
    _one(as_json, ask("directory surge show", directory=directory))


@app.command("set")
def set_command(
    directory: DirectorySlug,
    per_hour: Annotated[int, typer.Argument(min=0, help="The limit of revocations in an hour.")],
    *,
    hold: Annotated[bool, typer.Option(help="Hold pushes above the limit until they are released.")] = False,
    as_json: AsJson = False,
) -> None:
    """Set the limit of revocations an hour. Above it there is an alarm, and with --hold pushes wait.

    Example: scim-ledger directory surge set acme 50 --hold
    """
    body = {"per_hour": per_hour, "action": "hold" if hold else "alarm"}
    _one(as_json, ask("directory surge set", body=body, directory=directory))


@app.command()
def release(
    directory: DirectorySlug,
    *,
    reason: Annotated[str, typer.Option(help="Why it is right.")],
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Release everything that is held now.

    Example: scim-ledger directory surge release acme --reason 'a team left'
    """
    _one(as_json, ask("directory surge release", body={"reason": reason}, key=key, directory=directory))


def _one(as_json: bool, document: dict[str, Any]) -> None:
    if as_json:
        say(True, document, "")
    else:
        print_rows([document])
