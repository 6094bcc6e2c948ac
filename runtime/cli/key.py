"""`scim-ledger key …`: the epochs of the keys with which everything is sealed (docs/operations.md, "The keys, and backups")."""

from typing import Annotated

import typer

from runtime.cli.client import ask
from runtime.cli.confirming import Yes, confirm
from runtime.cli.nouns import new_group
from runtime.cli.printing import AsJson, print_list, say
from runtime.cli.progress import progress_bar

app = new_group("Key epochs: the keys with which everything is sealed.")
_COLUMNS = ("epoch", "state", "provider", "root_key", "active_at", "rewrapped_at", "destroyed_at")


@app.command("list")
def list_command(*, as_json: AsJson = False) -> None:
    """Show all key epochs, and which root key opens each.

    Example: scim-ledger key list
    """
    print_list(as_json, ask("key list"), _COLUMNS)


@app.command("rotate")
def rotate_epoch(*, as_json: AsJson = False) -> None:
    """Make a new key epoch, with a root key of its own.

    It seals once every process of the service has it.

    Example: scim-ledger key rotate
    """
    from runtime.key_rotation import rotate_here

    made = rotate_here(progress_bar)
    text = (
        f"Key epoch {made.number} seals from now on; root key {made.root} ({made.provider}) opens it: back that up.\n"
        "What is there is still sealed in earlier epochs. Move it with `scim-ledger key rewrap`."
    )
    say(as_json, {"epoch": made.number, "provider": made.provider, "root_key": made.root, "key_id": made.key_id.hex()}, text)


@app.command()
def rewrap(*, as_json: AsJson = False) -> None:
    """Move everything that is sealed into the current epoch.

    The service goes on meanwhile. It can be interrupted and run again.

    Example: scim-ledger key rewrap
    """
    from runtime.key_rotation import rewrap_here

    epoch, moved = rewrap_here(progress_bar)
    text = f"Moved {moved.keys} keys and {moved.notes} sealed texts into key epoch {epoch.number}. Earlier epochs are not needed any more."
    if moved.unreadable:
        text += f"\n{moved.unreadable} values did not open before either: see `scim-ledger replay verify`."
    say(as_json, {"epoch": epoch.number, **moved._asdict()}, text)


@app.command()
def destroy(
    epoch: Annotated[int, typer.Argument(min=1, help="The number of an epoch that nothing needs any more.")],
    *,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Destroy a key epoch and its root key, for ever.

    Backups from before `key rewrap` cannot be opened any more.

    Example: scim-ledger key destroy 1
    """
    from runtime.key_rotation import destroy_here

    confirm(
        yes,
        f"Everything that is sealed in key epoch {epoch} becomes unreadable for ever, in every backup from before its `key rewrap` too.",
    )
    gone, said = destroy_here(progress_bar, epoch)
    text = f"Key epoch {gone.number} is destroyed." + (f"\n{said}" if said else "")
    say(as_json, {"epoch": gone.number, "root_key": gone.root, "provider": gone.provider, "note": said}, text)
