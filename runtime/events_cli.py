"""`scim-ledger events …`: the feed on a terminal, one line of JSON for each event."""

import asyncio
import contextlib
import sys
from typing import Annotated

import typer

from api.services import Services
from database.connections import Connection
from delivery import starts
from ledger.administration import RefusedError
from ledger.cursor import BEGINNING, Cursor, parse_event_id
from ledger.feed import PAGE_MAX, Selection, reached, type_mask
from runtime.acts import ask

app = typer.Typer(no_args_is_help=True, help="The feed.")
Slug = Annotated[str | None, typer.Option("--directory", help="Only this one. Default: all but _system.")]
Types = Annotated[str, typer.Option(help="Comma-separated event types, such as user.*.")]
Start = Annotated[str, typer.Option("--from", help="beginning, now, seq:N, an instant, a position, an event id.")]


@app.command("list")
def list_command(
    *, directory: Slug = None, types: Types = "*", first: Start = "beginning", limit: Annotated[int, typer.Option(min=1)] = 100
) -> None:
    """Print events from a place on."""
    ask(lambda services, conn: _print_from(services, conn, directory, types, first, limit))


@app.command()
def tail(*, directory: Slug = None, types: Types = "*", first: Start = "now") -> None:
    """Print events as they come, until Ctrl-C."""
    with contextlib.suppress(KeyboardInterrupt):
        ask(lambda services, conn: _print_from(services, conn, directory, types, first, None))


@app.command()
def get(event_id: str) -> None:
    """Print one event. It is found only where exactly this event stands: not after a restore that lost it."""

    async def asked(services: Services, conn: Connection) -> bytes:
        parsed = parse_event_id(event_id)
        found = await services.feed.event(conn, parsed, bodies=True) if parsed is not None else None
        if found is None:
            raise RefusedError("There is no event of this id.")
        return found

    print(ask(asked).decode())


async def _print_from(
    services: Services, conn: Connection, directory: str | None, types: str, first: str, limit: int | None
) -> None:
    mask = type_mask(types.split(","))
    if mask is None:
        raise RefusedError("--types names an event type that does not exist. See docs/events.md for the list.")
    every = await services.directories.all(conn)
    if directory is not None and directory not in [d.slug for d in every]:
        raise RefusedError(f"There is no directory {directory}. `scim-ledger directory list` shows them.")
    some, without = reached((directory or "*",), every)
    selection = Selection(directories=some, without=without, mask=mask)
    named = [d for d in every if d.slug == directory]
    cursor, left = Cursor(await starts.before(conn, services.feed, first, named), BEGINNING), limit
    while left is None or left > 0:
        arrival = services.arrivals.next()
        page = await services.feed.page(conn, selection, cursor, min(left or PAGE_MAX, PAGE_MAX))
        for event in page.events:
            print(event.json.decode())
        sys.stdout.flush()
        cursor, left = page.after, None if left is None else left - len(page.events)
        if not page.has_more:
            if limit is not None:
                return
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(arrival.wait(), 1.0)
