"""What the command line prints: a table for people, JSON for programs, one sentence for what went wrong."""

import sys
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, NoReturn

import orjson
from rich.console import Console
from rich.table import Table

WIDTH = 200  # of a table that goes to a file or a pipe


def say(as_json: bool, document: Any, text: str) -> None:
    """The document where JSON is asked for, else the text."""
    print(orjson.dumps(document, default=str).decode() if as_json else text)


def print_rows(as_json: bool, rows: Sequence[Mapping[str, Any]]) -> None:
    """Rows as a table with the names of the first as its head, or as JSON."""
    if as_json:
        print(orjson.dumps(rows, default=str).decode())
        return
    table = Table(*(rows[0] if rows else ["nothing"]), box=None)
    for row in rows:
        table.add_row(*(_cell(value) for value in row.values()))
    Console(width=None if sys.stdout.isatty() else WIDTH).print(table)


def _cell(value: object) -> str:
    if isinstance(value, datetime):
        return value.strftime("%Y-%m-%d %H:%M")
    if isinstance(value, list):
        return " ".join(map(str, value))  # pyright: ignore[reportUnknownArgumentType]
    return "" if value is None else str(value)


def fail(text: str, code: int) -> NoReturn:
    """Say why on standard error, and end with an exit code."""
    print(text, file=sys.stderr)
    raise SystemExit(code)
