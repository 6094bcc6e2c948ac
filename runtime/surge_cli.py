"""`scim-ledger directory surge …`: how many revocations in an hour are ordinary, and letting go what the brake holds."""

from typing import Annotated, Any

import typer

from api import surges
from api.acts import record
from api.problems import ProblemError
from api.services import Services
from database.connections import Connection
from delivery.brake import Action
from delivery.surges import limited
from ledger.directories import SYSTEM, Directory
from runtime.acts import ask, caller
from runtime.printing import print_rows, say

app = typer.Typer(no_args_is_help=True, help="The surge brake: more revocations in an hour than are ordinary.")
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]


@app.command()
def show(directory: str, *, as_json: AsJson = False) -> None:
    """Show the limit of a directory and what the last hour brought."""

    async def asked(services: Services, conn: Connection) -> dict[str, Any]:
        return await surges.surge_of(conn, await _directory(services, conn, directory))

    _one(as_json, ask(asked))


@app.command("set")
def set_command(
    directory: str,
    per_hour: Annotated[int, typer.Argument(min=0, help="Revocations in an hour that are ordinary.")],
    *,
    hold: Annotated[bool, typer.Option(help="Hold back the pushes beyond it until they are released.")] = False,
    as_json: AsJson = False,
) -> None:
    """Say what is ordinary in a directory. Beyond it there is an alarm, and with --hold the pushes wait."""
    action: Action = "hold" if hold else "alarm"

    async def act(services: Services, conn: Connection) -> dict[str, Any]:
        found = await _directory(services, conn, directory)
        await record(services, conn, caller(), limited(services.new_id(), found, per_hour, action))
        return await surges.surge_of(conn, found)

    _one(as_json, ask(act))


@app.command()
def release(directory: str, *, reason: Annotated[str, typer.Option(help="Why it is right.")], as_json: AsJson = False) -> None:
    """Let go everything that is held now."""

    async def act(services: Services, conn: Connection) -> dict[str, Any]:
        found = await _directory(services, conn, directory)
        return await surges.release(services, conn, caller(), found, reason)

    _one(as_json, ask(act))


async def _directory(services: Services, conn: Connection, slug: str) -> Directory:
    found = await services.directories.by_slug(conn, slug)
    if found is None or slug == SYSTEM:
        raise ProblemError(404, "not_found", f"There is no directory {slug}. `scim-ledger directory list` shows them.")
    return found


def _one(as_json: bool, document: dict[str, Any]) -> None:
    if as_json:
        say(True, document, "")
    else:
        print_rows(False, [document])
