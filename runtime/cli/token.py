"""`scim-ledger token …`."""

from typing import Annotated, Any, Final

import typer

from runtime.cli.client import ask, service
from runtime.cli.completing import consumer_names, directory_slugs
from runtime.cli.confirming import Yes, confirm
from runtime.cli.nouns import new_group
from runtime.cli.printing import AsJson, Key, cell, print_list, print_record, print_rows, say
from runtime.exits import FINDING

app = new_group("Bearer tokens.")
TokenId = Annotated[str, typer.Argument(help="Its id, as `token list` shows it.")]
TOKEN_COLUMNS: Final = (
    "id",
    "role",
    "name",
    "directories",
    "types",
    "consumers",
    "state",
    "expires_at",
    "last_used_at",
    "revoked_at",
)


@app.command()
def issue(
    role: Annotated[str, typer.Argument(help="One of scim, consumer, operator, auditor, admin.")],
    *,
    directory: Annotated[
        list[str] | None,
        typer.Option(
            autocompletion=directory_slugs,
            help="A directory that it reaches; may be given again. Default: all; a scim token needs exactly one.",
        ),
    ] = None,
    name: Annotated[str, typer.Option(help="What it is for.")] = "",
    types: Annotated[str, typer.Option(help="Comma-separated event types it reads, such as user.*; role consumer.")] = "",
    consumer: Annotated[
        list[str] | None,
        typer.Option(autocompletion=consumer_names, help="A named consumer it reads for; may be given again. Default: any."),
    ] = None,
    bodies: Annotated[bool, typer.Option(help="Whether it sees attributes; role consumer.")] = True,
    days: Annotated[int, typer.Option(min=1, max=3650, help="Days until it expires.")] = 365,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Issue a token. It is shown once and cannot be read again.

    Example: scim-ledger token issue scim --directory acme --name okta
    """
    body: dict[str, Any] = {
        "role": role, "name": name or role, "directories": directory, "types": types.split(",") if types else None,
        "consumers": consumer, "bodies": None if bodies else False, "expires_in_days": days,
    }  # fmt: skip
    found = ask("token issue", body=body, key=key)
    say(as_json, found, found["token"])


@app.command("list")
def list_command(
    *,
    role: Annotated[str | None, typer.Option(help="Only of this role.")] = None,
    directory: Annotated[
        str | None, typer.Option(autocompletion=directory_slugs, help="Only tokens that reach this directory.")
    ] = None,
    state: Annotated[str | None, typer.Option(help="Only active, overlapping, expired or revoked ones.")] = None,
    as_json: AsJson = False,
) -> None:
    """List tokens with their scopes and dates; secrets are not stored.

    Example: scim-ledger token list --state active
    """
    with service() as found:
        listed = found.listed("token list", query={"role": role, "directory": directory, "state": state})
        print_list(as_json, listed, TOKEN_COLUMNS)


@app.command()
def show(token: TokenId, *, as_json: AsJson = False) -> None:
    """Show a token: its scopes, its dates, its last use.

    Example: scim-ledger token show 3f0e9c52-8d1b-4a77-9b60-2f1c5a7e4d10
    """
    found = ask("token show", token=token)
    if as_json:
        say(True, found, "")
    else:
        print_record(found)


@app.command()
def rotate(
    token: TokenId,
    *,
    overlap: Annotated[int, typer.Option(min=0, help="Seconds during which both work.")] = 86_400,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Issue a successor of a token with the same scopes, shown once. The old one works until the overlap ends.

    Example: scim-ledger token rotate 3f0e9c52-8d1b-4a77-9b60-2f1c5a7e4d10
    """
    found = ask("token rotate", body={"overlap_seconds": overlap}, key=key, token=token)
    say(as_json, found, found["token"])


@app.command()
def report(*, as_json: AsJson = False) -> None:
    """List credentials to rotate, revoke or narrow. Exit 1 if there are any.

    Example: scim-ledger token report
    """
    found = ask("token report")
    if as_json:
        say(True, found, "")
    elif found["data"]:
        rows = [
            {**row, "subject": f"{row['subject']['kind']} {row['subject']['name']}", "id": row["subject"]["id"]}
            for row in found["data"]
        ]
        print_rows(rows, ("severity", "finding", "subject", "id", "since", "fix"))
    else:
        print("No credential needs attention.")
    if found["data"]:
        raise SystemExit(FINDING)


@app.command()
def revoke(
    token: TokenId,
    *,
    reason: Annotated[str | None, typer.Option(help="Why; it is put on record.")] = None,
    unused_for: Annotated[
        int | None, typer.Option(min=300, help="Seconds: refuse if it was used within that time, so that nobody is cut off.")
    ] = None,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Revoke a token: it is refused from the next request on.

    Example: scim-ledger token revoke 3f0e9c52-8d1b-4a77-9b60-2f1c5a7e4d10
    """
    with service() as asked:
        if not yes:
            known = asked.ask("token show", token=token)  # nobody confirms what does not exist
            confirm(False, f"This revokes token {known['id']} ({known['role']}, {known['name']}; {_last_use(known)}) for ever.")
        found = asked.ask("token revoke", body={"reason": reason, "unused_for_seconds": unused_for}, token=token) or {}
    say(as_json, {"revoked": found.get("id", token), **found}, f"Revoked {found.get('id', token)}.")


def _last_use(token: dict[str, Any]) -> str:
    """When and where a token was used last, for whoever is about to end it."""
    if token["last_used_at"] is None:
        return "never used"
    place = token["last_used_from"] or {}
    where = "".join(
        [f" at {place['route']}" if place.get("route") else "", f" from {place['network']}" if place.get("network") else ""]
    )
    return f"last used {cell(token['last_used_at'])} UTC{where}"
