"""`scim-ledger client …`."""

import json
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from runtime.cli.client import ask, service
from runtime.cli.completing import directory_slugs
from runtime.cli.confirming import Yes, confirm
from runtime.cli.files import json_file
from runtime.cli.nouns import new_group
from runtime.cli.printing import AsJson, Key, print_list, print_record, say

app = new_group("OAuth 2.0 clients of IdPs.")
ClientId = Annotated[str, typer.Argument(help="Its id, as `client list` shows it.")]
CLIENT_COLUMNS: Final = ("id", "client_id", "directory", "name", "auth", "state", "created_at", "last_used_at", "revoked_at")


@app.command()
def create(
    directory: Annotated[str, typer.Argument(autocompletion=directory_slugs, help="The directory that it writes to.")],
    *,
    name: Annotated[str, typer.Option(help="What it is for.")] = "oauth",
    jwks: Annotated[
        Path | None, typer.Option(help="A file with its public keys, a JWK Set; it signs instead of sending a secret.")
    ] = None,
    jwks_uri: Annotated[
        str | None, typer.Option(help="The URL of its public keys; it signs instead of sending a secret.")
    ] = None,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Make an OAuth 2.0 client. Its secret is shown once and cannot be read again.

    Example: scim-ledger client create acme --name okta
    """
    signs = jwks is not None or jwks_uri is not None
    body: dict[str, Any] = {
        "directory": directory, "name": name, "auth": "jwt" if signs else "secret", "jwks": None if jwks is None else json_file(jwks),
        "jwks_uri": jwks_uri,
    }  # fmt: skip
    found = ask("client create", body=body, key=key)
    say(as_json, found, _entered(found))


def _entered(found: dict[str, Any]) -> str:
    """What the IdP's admin enters."""
    names = ("client_id", "client_secret", "token_endpoint", "issuer")
    return "\n".join(f"{name:<15} {found[name]}" for name in names if name in found)


@app.command("list")
def list_command(
    *,
    directory: Annotated[str | None, typer.Option(autocompletion=directory_slugs, help="Only those of this directory.")] = None,
    as_json: AsJson = False,
) -> None:
    """List clients with their dates; secrets are not stored.

    Example: scim-ledger client list --directory acme
    """
    with service() as found:
        print_list(as_json, found.listed("client list", query={"directory": directory}), CLIENT_COLUMNS)


@app.command()
def show(client: ClientId, *, as_json: AsJson = False) -> None:
    """Show a client: its directory, its keys, its dates, its last use.

    Example: scim-ledger client show 3f0e9c52-8d1b-4a77-9b60-2f1c5a7e4d10
    """
    found = ask("client show", client=client)
    if as_json:
        say(True, found, "")
    else:
        print_record(found | ({"jwks": json.dumps(found["jwks"])} if "jwks" in found else {}))


@app.command("rotate")
def renew_secret(
    client: ClientId,
    *,
    overlap: Annotated[int, typer.Option(min=0, help="Seconds during which both secrets work.")] = 86_400,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Give a client a new secret, shown once. The old one works until the overlap ends.

    Example: scim-ledger client rotate 3f0e9c52-8d1b-4a77-9b60-2f1c5a7e4d10
    """
    found = ask("client rotate", body={"overlap_seconds": overlap}, key=key, client=client)
    say(as_json, found, _entered(found))


@app.command("revoke")
def revoke_client(
    client: ClientId,
    *,
    reason: Annotated[str | None, typer.Option(help="Why; it is put on record.")] = None,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Revoke a client: it is refused from the next request on. So are its access tokens.

    Example: scim-ledger client revoke 3f0e9c52-8d1b-4a77-9b60-2f1c5a7e4d10
    """
    with service() as asked:
        if not yes:
            known = asked.ask("client show", client=client)
            confirm(False, f"This revokes client {known['client_id']} ({known['directory']}, {known['name']}) for ever.")
        asked.ask("client revoke", body={"reason": reason}, client=client)
    say(as_json, {"revoked": client}, f"Revoked {client}.")
