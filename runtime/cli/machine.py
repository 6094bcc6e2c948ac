"""The verbs that work on the machine itself: serve, migrate, settings, demo, completion. Their imports are made when they run."""

from enum import StrEnum
from typing import Annotated, Any

import typer

from runtime.cli.nouns import COMPLETE, PROGRAM, new_group
from runtime.cli.printing import AsJson, cell, list_of, print_list, say

app = new_group("What works on the machine itself.")


class Shell(StrEnum):
    """The shells that can complete commands."""

    BASH = "bash"
    ZSH = "zsh"
    FISH = "fish"


@app.command()
def serve() -> None:
    """Start the service (with the embedded PostgreSQL unless LEDGER_DATABASE_URL is set).

    Example: scim-ledger serve
    """
    from runtime.failures import explained
    from runtime.machine_database import main_settings
    from runtime.serve import serve as run

    settings = main_settings()
    with explained(settings):
        run(settings)


@app.command()
def migrate(*, as_json: AsJson = False) -> None:
    """Bring the database schema to this release.

    Example: scim-ledger migrate
    """
    from runtime.upkeep import migrate_here

    applied = migrate_here()
    say(as_json, {"applied": applied}, "\n".join(applied) or "The schema is current.")


@app.command()
def settings(*, as_json: AsJson = False) -> None:
    """Show every setting with its value, source and meaning; secrets are masked.

    Source `service`: the service was last started with it, whatever this shell has.

    Example: scim-ledger settings
    """
    from runtime.machine_database import main_settings
    from runtime.served_settings import all_as_served

    here = main_settings()
    found, served = all_as_served(here)
    rows: list[dict[str, Any]] = []
    for name, field in type(found).model_fields.items():
        source = "service" if name in served else "environment" if name in here.model_fields_set else "default"
        shown = cell(getattr(found, name))  # SecretStr prints as asterisks
        rows.append({"setting": f"LEDGER_{name.upper()}", "value": shown, "source": source, "meaning": field.description})
    print_list(as_json, list_of(rows))


@app.command()
def demo() -> None:
    """Run the demo against a service (LEDGER_URL), or against one that it starts itself.

    Example: scim-ledger demo
    """
    from runtime.demo import demo as tell

    tell()


@app.command()
def completion(shell: Annotated[Shell, typer.Argument(help="bash, zsh or fish.")]) -> None:
    """Print the script with which a shell completes commands and options.

    Example: scim-ledger completion bash > ~/.scim-ledger.bash
    """
    from typer.completion import get_completion_script  # pyright: ignore[reportPrivateImportUsage]

    print(get_completion_script(prog_name=PROGRAM, complete_var=COMPLETE, shell=shell.value))
