"""`scim-ledger hold …`: legal holds."""

from typing import Annotated, Final

import typer

from runtime.cli.client import ask, service
from runtime.cli.completing import DirectorySlug
from runtime.cli.nouns import new_group
from runtime.cli.printing import AsJson, Key, print_list, print_record, say

app = new_group("Legal holds, which keep users and groups from being erased.")
HoldId = Annotated[str, typer.Argument(help="Its id, as `hold list` shows it.")]
HOLD_COLUMNS: Final = ("id", "subject", "state", "matter", "until", "placed_at", "placed_by")


@app.command()
def place(
    directory: DirectorySlug,
    subject: Annotated[str, typer.Argument(help="The id of the user or group.")],
    *,
    matter: Annotated[str, typer.Option(help="What it is for; kept sealed.")],
    group: Annotated[bool, typer.Option("--group", help="The id is that of a group.")] = False,
    until: Annotated[str | None, typer.Option(help="When it ends by itself: an instant with an offset.")] = None,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Place a legal hold. Until it is released, the user or group is not erased.

    Example: scim-ledger hold place acme $USER_ID --matter 'case 12'
    """
    body = {"subject": {"type": "Group" if group else "User", "id": subject}, "matter": matter, "until": until}
    found = ask("hold place", body=body, key=key, directory=directory)
    say(as_json, found, f"Placed hold {found['id']}.")


@app.command("list")
def list_command(
    directory: DirectorySlug,
    *,
    subject: Annotated[str | None, typer.Option(help="Only those of this user or group.")] = None,
    state: Annotated[str | None, typer.Option(help="open, released or ended.")] = None,
    as_json: AsJson = False,
) -> None:
    """List legal holds.

    Example: scim-ledger hold list acme --state open
    """
    with service() as found:
        rows = found.listed("hold list", query={"subject": subject, "state": state}, directory=directory)
        print_list(as_json, rows, HOLD_COLUMNS)


@app.command()
def show(directory: DirectorySlug, hold: HoldId, *, as_json: AsJson = False) -> None:
    """Show a legal hold.

    Example: scim-ledger hold show acme 3f0e9c52-8d1b-4a77-9b60-2f1c5a7e4d10
    """
    found = ask("hold show", directory=directory, hold=hold)
    if as_json:
        say(True, found, "")
    else:
        print_record(found)


@app.command("release")
def release_hold(directory: DirectorySlug, hold: HoldId, *, as_json: AsJson = False) -> None:
    """Release a legal hold.

    Example: scim-ledger hold release acme 3f0e9c52-8d1b-4a77-9b60-2f1c5a7e4d10
    """
    ask("hold release", directory=directory, hold=hold)
    say(as_json, {"released": hold}, f"Released {hold}.")
