"""The verbs that work on the machine itself: serve, migrate, settings, demo, completion. Their imports are made when they run."""

from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from runtime.cli.nouns import COMPLETE, PROGRAM, new_group
from runtime.cli.printing import AsJson, cell, list_of, print_list, say
from runtime.cli.progress import progress_bar

if TYPE_CHECKING:
    from runtime.backup import EpochOf

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
def backup(
    target: Annotated[Path, typer.Argument(help="A directory that does not exist yet, best on another disk.")],
    *,
    trial: Annotated[bool, typer.Option(help="Start a copy of it too; that needs its size twice.")] = True,
    as_json: AsJson = False,
) -> None:
    """Back up the embedded PostgreSQL while it runs, and check the backup. Exit 1 if it is damaged.

    Example: scim-ledger backup /mnt/backups/ledger-2026-11-30
    """
    from runtime.backup import backup_here

    made, size = backup_here(target, progress_bar, trial=trial)
    text = (
        f"Backed up {target}: {size / 2**20:.0f} MiB, all events up to position {made.position}; checked{', and started once' if trial else ''}.\n"
        f"It opens only with {_roots(made.epochs)}: keep a copy of what holds them, apart from the backup."
    )
    say(as_json, {"backup": str(target), "bytes": size, **asdict(made)}, text)


def _roots(epochs: "list[EpochOf]") -> str:
    return " and ".join(f"root key {one['root']} ({one['provider']})" for one in epochs)


@app.command()
def restore(
    source: Annotated[Path, typer.Argument(help="A directory that `scim-ledger backup` made.")], *, as_json: AsJson = False
) -> None:
    """Restore a backup into an empty data directory, and check it by starting it. Exit 1 if it is damaged.

    Example: scim-ledger restore /mnt/backups/ledger-2026-11-30
    """
    from runtime.backup import restore_here

    known, head = restore_here(source, progress_bar)
    text = (
        f"Restored {source} of {cell(known.made_at)}: the log ends at position {head}. Start the service.\n"
        "Readers that were further get 409 cursor_ahead or cursor_forked, and say what they have to undo."
    )
    say(as_json, {"restored": str(source), "head_position": head, **asdict(known)}, text)


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
