"""`scim-ledger audit …`: the questions of the audit API from the command line, answered from the same functions."""

import sys
from collections.abc import Awaitable, Callable
from typing import Annotated, Any

import orjson
import typer
from rich.console import Console
from rich.table import Table

from api import audit
from api.problems import ProblemError
from api.services import Services
from database.connections import Connection
from ledger.directories import Directory
from ledger.feed import rfc3339
from projections.history import Point
from runtime.acts import ask

app = typer.Typer(
    no_args_is_help=True, help="Who had access, as of a time (2026-10-01T00:00:00Z) or a place in the log (seq:N, seq:head)."
)
AsOf = Annotated[str, typer.Option("--as-of", help="An instant with offset, seq:N or seq:head.")]
AsJson = Annotated[bool, typer.Option("--json")]
Rows = tuple[list[dict[str, Any]], Point]
Ask = Callable[[Services, Connection, Directory], Awaitable[Rows]]


@app.command()
def members(directory: str, group: str, *, as_of: AsOf = "seq:head", nested: bool = False, as_json: AsJson = False) -> None:
    """Who was in a group."""
    _answer(directory, lambda s, c, d: audit.member_rows(s, c, d, group, as_of, nested=nested, effective=None), as_json)


@app.command()
def access(directory: str, user: str, *, as_of: AsOf = "seq:head", nested: bool = True, as_json: AsJson = False) -> None:
    """What a user could reach, with every path."""
    _answer(directory, lambda s, c, d: audit.access_rows(s, c, d, user, as_of, nested=nested), as_json)


@app.command()
def population(directory: str, *, as_of: AsOf = "seq:head", as_json: AsJson = False) -> None:
    """Everyone who existed."""
    _answer(directory, lambda s, c, d: audit.population_rows(s, c, d, as_of), as_json)


@app.command()
def user(directory: str, user: str, *, as_of: AsOf = "seq:head", as_json: AsJson = False) -> None:
    """A user as it was."""
    _answer(directory, lambda s, c, d: audit.user_rows(s, c, d, user, as_of), as_json)


@app.command()
def diff(
    directory: str,
    *,
    first: Annotated[str, typer.Option("--from")],
    to: str = "seq:head",
    group: str | None = None,
    user: str | None = None,
    as_json: AsJson = False,
) -> None:
    """What changed between two points."""
    _answer(directory, lambda s, c, d: audit.diff_rows(s, c, d, first, to, group=group, user=user), as_json)


def _answer(slug: str, question: Ask, as_json: bool) -> None:
    async def asked(services: Services, conn: Connection) -> Rows:
        directory = await services.directories.by_slug(conn, slug)
        if directory is None:
            raise ProblemError(404, "not_found", f"There is no directory {slug}. `scim-ledger directory list` shows them.")
        return await question(services, conn, directory)

    rows, point = ask(asked)
    _show(rows, point, as_json)


def _show(rows: list[dict[str, Any]], point: Point, as_json: bool) -> None:
    if as_json:
        as_of = {"seq": point.seq, "time": rfc3339(point.at), "requested": point.requested}
        print(orjson.dumps({"as_of": as_of, "data": rows}).decode())
        return
    print(f"as of seq {point.seq}, {rfc3339(point.at)}: {len(rows)} row(s)")
    if rows:
        columns = list(dict.fromkeys(name for row in rows for name in row))
        table = Table(*columns, box=None)
        for row in rows:
            table.add_row(*(_cell(row.get(name)) for name in columns))
        Console(width=None if sys.stdout.isatty() else 240).print(table)


def _cell(value: object) -> str:
    if isinstance(value, list):
        return ", ".join(map(_cell, value))  # pyright: ignore[reportUnknownArgumentType]
    return "" if value is None else str(value)
