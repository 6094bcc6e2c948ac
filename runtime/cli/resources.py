"""`scim-ledger user …` and `scim-ledger group …`: what the ids in events stand for."""

from typing import Annotated, Any, Final

import typer

from runtime.cli.client import ask, service
from runtime.cli.completing import DirectorySlug
from runtime.cli.nouns import new_group
from runtime.cli.printing import AsJson, print_list, print_record, say

users = new_group("The current users of a directory.")
groups = new_group("The current groups of a directory.")
ExternalId = Annotated[str | None, typer.Option(help="Only those that the IdP knows by this id.")]
AtMost = Annotated[int, typer.Option(min=1, help="At most so many.")]
USER_COLUMNS: Final = ("id", "active", "user_name", "display_name", "external_id", "created_at")
GROUP_COLUMNS: Final = ("id", "display_name", "external_id", "created_at")


@users.command("list")
def list_users(
    directory: DirectorySlug,
    *,
    external_id: ExternalId = None,
    user_name: Annotated[str | None, typer.Option(help="Only the one with this name.")] = None,
    limit: AtMost = 100,
    as_json: AsJson = False,
) -> None:
    """List the current users of a directory, by id.

    Example: scim-ledger user list acme --user-name ada@example.com
    """
    query = {"external_id": external_id, "user_name": user_name}
    _list_resources("user list", directory, query, limit, as_json, USER_COLUMNS)


@users.command("show")
def show_user(directory: DirectorySlug, user: str, *, as_json: AsJson = False) -> None:
    """Show a user.

    Example: scim-ledger user show acme 3f0e9c52-8d1b-4a77-9b60-2f1c5a7e4d10
    """
    _print_resource(ask("user show", directory=directory, user=user), as_json)


@groups.command("list")
def list_groups(
    directory: DirectorySlug,
    *,
    external_id: ExternalId = None,
    display_name: Annotated[str | None, typer.Option(help="Only those of this name.")] = None,
    limit: AtMost = 100,
    as_json: AsJson = False,
) -> None:
    """List the current groups of a directory, by id.

    Example: scim-ledger group list acme --display-name admins
    """
    query = {"external_id": external_id, "display_name": display_name}
    _list_resources("group list", directory, query, limit, as_json, GROUP_COLUMNS)


@groups.command("show")
def show_group(directory: DirectorySlug, group: str, *, as_json: AsJson = False) -> None:
    """Show a group. `audit members` lists its members.

    Example: scim-ledger group show acme 3f0e9c52-8d1b-4a77-9b60-2f1c5a7e4d10
    """
    _print_resource(ask("group show", directory=directory, group=group), as_json)


def _list_resources(
    verb: str, directory: str, query: dict[str, Any], limit: int, as_json: bool, columns: tuple[str, ...]
) -> None:
    with service() as asked:
        found = asked.listed(verb, limit=limit, query=query, directory=directory)
    print_list(as_json, found if as_json else {"data": [_with_names(row) for row in found["data"]]}, columns)


def _with_names(row: dict[str, Any]) -> dict[str, Any]:
    """The row with the names in its data."""
    document = row["data"].get("object", {})
    names = {"user_name": "userName", "display_name": "displayName", "external_id": "externalId"}
    return row | {column: document.get(attribute) for column, attribute in names.items()}


def _print_resource(found: dict[str, Any], as_json: bool) -> None:
    if as_json:
        say(True, found, "")
        return
    flat = {field: value for field, value in found.items() if field not in {"object", "data"}}
    print_record(flat | found["data"].get("object", found["data"]))
