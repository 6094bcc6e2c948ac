"""`scim-ledger events …`: the feed as a table, or one line of JSON for each event."""

import contextlib
import sys
from collections.abc import Iterable, Iterator
from typing import Annotated, Any, Final

import typer

from runtime.cli.client import ROWS_PAGE, Service, ask, service
from runtime.cli.completing import directory_slugs
from runtime.cli.nouns import new_group
from runtime.cli.printing import GAP, AsJson, as_text, cell, print_list, print_record

app = new_group("The feed.")
Slug = Annotated[
    str | None, typer.Option("--directory", autocompletion=directory_slugs, help="Only this one. Default: all but _system.")
]
EventTypes = Annotated[str | None, typer.Option(help="Comma-separated event types, such as user.*.")]
Expand = Annotated[str | None, typer.Option(help="Names in membership events: member, group, or member,group.")]
Start = Annotated[str, typer.Option("--from", help="beginning, now, seq:N, an instant, a position, an event id.")]
EVENT_COLUMNS: Final = ("time", "type", "id", "subject", "who")
WAIT_S: Final = 20  # seconds of one long poll; shorter than the idle timeout of proxies


@app.command("list")
def list_command(
    *,
    directory: Slug = None,
    types: EventTypes = None,
    first: Start = "beginning",
    limit: Annotated[int, typer.Option(min=1)] = 100,
    expand: Expand = None,
    as_json: AsJson = False,
) -> None:
    """Print events, starting from a place.

    Example: scim-ledger events list --directory acme --types 'user.*'
    """
    with service() as asked:
        found = asked.listed(
            "events list", limit=limit, query={"directory": directory, "types": types, "from": first, "expand": expand}
        )
    print_list(as_json, found if as_json else {"data": list(map(_line, found["data"]))}, EVENT_COLUMNS)


@app.command()
def tail(
    *, directory: Slug = None, types: EventTypes = None, first: Start = "now", expand: Expand = None, as_json: AsJson = False
) -> None:
    """Print events as they come, until Ctrl-C.

    Example: scim-ledger events tail --types user.deactivated,user.deleted
    """
    with contextlib.suppress(KeyboardInterrupt), service() as found:
        for page in _pages(found, {"directory": directory, "types": types, "from": first, "wait": WAIT_S, "expand": expand}):
            _print(page["data"], as_json)


@app.command()
def get(event_id: str, *, expand: Expand = None, as_json: AsJson = False) -> None:
    """Print one event. It is not found after a restore that lost it.

    Example: scim-ledger events get evt_acme_97_5f0c9a1e
    """
    event = ask("events get", query={"expand": expand}, event_id=event_id)
    if as_json:
        print(as_text(event))
    else:
        print_record(event)


def _pages(found: Service, query: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Page after page, for ever."""
    asked = {**query, "limit": ROWS_PAGE}
    while True:
        page = found.ask("events tail", query=asked)
        yield page
        asked = {**asked, "after": page["list_metadata"]["after"], "from": None}


def _line(event: dict[str, Any]) -> dict[str, Any]:
    shown = {"time": event["time"], "type": event["type"], "id": event["id"], "subject": list(event["subject"].values())}
    return shown | {"who": _who(event["data"])}


def _who(data: dict[str, Any]) -> str:
    """The name in an event: of its user or group, or of the member and the group of a membership (with `expand`; else the member's id)."""
    if "member" in data:
        return " in ".join(filter(None, (_name(data["member"]) or data["member"]["id"], _name(data["group"]))))
    shown = data.get("object")
    return _name(shown) if isinstance(shown, dict) else ""  # pyright: ignore[reportUnknownArgumentType]


def _name(thing: dict[str, Any]) -> str:
    return next((thing[key] for key in ("user_name", "display_name", "userName", "displayName") if thing.get(key)), "")


def _print(events: Iterable[dict[str, Any]], as_json: bool) -> None:
    """Print a line for each event, at once, because more may follow."""
    for event in events:
        print(as_text(event) if as_json else GAP.join(map(cell, _line(event).values())))
    sys.stdout.flush()
