"""`scim-ledger events …`: the feed as a table, or one line of JSON for each event."""

import contextlib
import sys
from collections.abc import Iterator
from typing import Annotated, Any, Final

import typer

from runtime.cli.client import Service, ask, service
from runtime.cli.nouns import new_group
from runtime.cli.printing import GAP, AsJson, as_text, cell, print_record, print_rows

app = new_group("The feed.")
Slug = Annotated[str | None, typer.Option("--directory", help="Only this one. Default: all but _system.")]
EventTypes = Annotated[str | None, typer.Option(help="Comma-separated event types, such as user.*.")]
Start = Annotated[str, typer.Option("--from", help="beginning, now, seq:N, an instant, a position, an event id.")]
EVENTS_PAGE: Final = 1_000
WAIT_S: Final = 20  # seconds of one long poll; shorter than the idle timeout of proxies


@app.command("list")
def list_command(
    *,
    directory: Slug = None,
    types: EventTypes = None,
    first: Start = "beginning",
    limit: Annotated[int, typer.Option(min=1)] = 100,
    as_json: AsJson = False,
) -> None:
    """Print events, starting from a place.

    Example: scim-ledger events list --directory acme --types 'user.*'
    """
    left = limit
    with service() as found:
        for page in _pages(found, "events list", {"directory": directory, "types": types, "from": first}, limit):
            _print(page["data"][:left], as_json)
            left -= len(page["data"])
            if left <= 0 or not page["has_more"]:
                return


@app.command()
def tail(*, directory: Slug = None, types: EventTypes = None, first: Start = "now", as_json: AsJson = False) -> None:
    """Print events as they come, until Ctrl-C.

    Example: scim-ledger events tail --types user.deactivated,user.deleted
    """
    with contextlib.suppress(KeyboardInterrupt), service() as found:
        for page in _pages(
            found, "events tail", {"directory": directory, "types": types, "from": first, "wait": WAIT_S}, EVENTS_PAGE
        ):
            _print(page["data"], as_json, headed=False)


@app.command()
def get(event_id: str, *, as_json: AsJson = False) -> None:
    """Print one event. It is not found after a restore that lost it.

    Example: scim-ledger events get evt_acme_97_5f0c9a1e
    """
    event = ask("events get", event_id=event_id)
    if as_json:
        print(as_text(event))
    else:
        print_record(event)


def _pages(found: Service, verb: str, query: dict[str, Any], limit: int) -> Iterator[dict[str, Any]]:
    """Page after page, for ever; the caller stops when it has enough."""
    asked = {**query, "limit": min(limit, EVENTS_PAGE)}
    while True:
        page = found.ask(verb, query=asked)
        yield page
        asked = {**asked, "after": page["list_metadata"]["after"], "from": None}


def _line(event: dict[str, Any]) -> dict[str, Any]:
    return {name: event[name] for name in ("time", "type", "id")} | {"subject": list(event["subject"].values())}


def _print(events: list[dict[str, Any]], as_json: bool, *, headed: bool = True) -> None:
    """Print a page. `headed`: as a table; else a line for each event, because more will follow."""
    if as_json:
        for event in events:
            print(as_text(event))
    elif headed:
        print_rows(False, [_line(event) for event in events])
    else:
        for event in events:
            print(GAP.join(map(cell, _line(event).values())))
    sys.stdout.flush()
