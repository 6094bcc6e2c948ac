"""`scim-ledger directory …`: IdP connections."""

from typing import Annotated, Any, Final

import typer

from runtime.cli.client import ask, service
from runtime.cli.completing import DirectorySlug
from runtime.cli.confirming import confirm_name
from runtime.cli.health import print_health
from runtime.cli.nouns import DIRECTORY_NOUNS, new_group
from runtime.cli.printing import AlwaysJson, AsJson, Key, Reason, print_list, print_record, say
from runtime.exits import FINDING

app = new_group("IdP connections.", DIRECTORY_NOUNS)
DIRECTORY_COLUMNS: Final = ("directory", "id", "profile", "state")


@app.command()
def create(
    slug: str,
    *,
    profile: Annotated[str, typer.Option(help="The profile of its IdP: see `scim-ledger directory profile list`.")] = "generic",
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Create a directory: one IdP connection.

    Example: scim-ledger directory create acme --profile okta
    """
    found = _named(ask("directory create", body={"slug": slug, "profile": profile}, key=key))
    made = f"Made directory {slug}. Enter in its IdP the URL {found['scim_base_url']}\nand a token: scim-ledger token issue scim --directory {slug}"
    say(as_json, found, made)


@app.command("list")
def list_command(*, as_json: AsJson = False) -> None:
    """List the directories.

    Example: scim-ledger directory list
    """
    with service() as found:
        listed = found.listed("directory list")
    print_list(as_json, {**listed, "data": list(map(_named, listed["data"]))}, DIRECTORY_COLUMNS)


@app.command()
def show(directory: DirectorySlug, *, as_json: AsJson = False) -> None:
    """Show a directory.

    Example: scim-ledger directory show acme
    """
    found = _named(ask("directory show", directory=directory))
    if as_json:
        say(True, found, "")
    else:
        print_record(found)


@app.command()
def pause(directory: DirectorySlug, *, reason: Reason, key: Key = None, as_json: AsJson = False) -> None:
    """Refuse SCIM writes until resumed; reads go on.

    Example: scim-ledger directory pause acme --reason 'moving to a new IdP'
    """
    found = ask("directory pause", body={"reason": reason}, key=key, directory=directory)
    say(as_json, found, f"Directory {directory} is paused: its IdP is told to try again later.")


@app.command()
def resume(directory: DirectorySlug, *, reason: Reason, key: Key = None, as_json: AsJson = False) -> None:
    """Accept SCIM writes again.

    Example: scim-ledger directory resume acme --reason 'the move is done'
    """
    found = ask("directory resume", body={"reason": reason}, key=key, directory=directory)
    say(as_json, found, f"Directory {directory} accepts writes again.")


@app.command()
def close(
    directory: DirectorySlug,
    *,
    reason: Reason,
    confirm: Annotated[
        str | None,
        typer.Option(help="The directory's name once more, because closing cannot be undone. A terminal is asked for it."),
    ] = None,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Close a directory for ever. All access ends at once, its tokens are revoked, then it is cleaned up.

    Example: scim-ledger directory close acme --reason 'contract ended'
    """
    if confirm is None:
        ask("directory show", directory=directory)  # nobody confirms what does not exist
    name = confirm_name(confirm, directory, f"This closes directory {directory} for ever and ends all access through it.")
    found = ask("directory close", body={"reason": reason, "confirm": name}, key=key, directory=directory)
    say(as_json, found, f"Directory {directory} is closed: all access through it has ended.")


@app.command("accept-clock")
def accept_clock(directory: DirectorySlug, *, reason: Reason, key: Key = None, as_json: AsJson = False) -> None:
    """Accept writes although the clock is behind the last event. They get its time until the clock has passed it.

    Example: scim-ledger directory accept-clock acme --reason 'clock repaired'
    """
    found = ask("directory accept-clock", body={"reason": reason}, key=key, directory=directory)
    say(
        as_json,
        found,
        f"Directory {directory} accepts writes. Until the clock has passed it, they all get the time of its last event.",
    )


@app.command()
def snapshot(directory: DirectorySlug, *, as_json: AlwaysJson = True) -> None:
    """Print all users, groups and memberships as of now. Each is a line of JSON.

    Example: scim-ledger directory snapshot acme > acme.ndjson
    """
    with service() as found:
        for line in found.lines("directory snapshot", directory=directory):
            print(line)


@app.command()
def doctor(
    directory: DirectorySlug,
    *,
    hours: Annotated[int, typer.Option(min=1, max=720, help="How far to look back.")] = 24,
    as_json: AsJson = False,
) -> None:
    """Show the health of a directory's IdP, and what to do. Exit 1 if there is anything.

    It shows mistakes in URLs and tokens, silence, refusals with reasons, retry storms, tolerances, tokens.

    Example: scim-ledger directory doctor acme --hours 72
    """
    report = ask("directory doctor", query={"hours": hours}, directory=directory)
    if as_json:
        say(True, report, "")
    else:
        print_health(report)
    if report["advice"]:
        raise SystemExit(FINDING)


def _named(row: dict[str, Any]) -> dict[str, Any]:
    """A directory with its name as `directory`, as all other answers call it."""
    return {"directory": row.get("slug"), **row}
