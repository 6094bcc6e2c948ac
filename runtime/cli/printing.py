"""Output of the command line: columns for people, JSON for programs. Control characters in answers never reach a terminal."""

import json
import re
import shutil
import sys
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, Final, TypeAlias

import typer

AsJson: TypeAlias = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]
AlwaysJson: TypeAlias = Annotated[bool, typer.Option("--json", help="The output is always JSON.", show_default=False)]
Key: TypeAlias = Annotated[
    str | None,
    typer.Option("--idempotency-key", help="Send this key: the same command again within a day is answered, not done twice."),
]
Reason: TypeAlias = Annotated[str, typer.Option(help="Why; it is put on record.")]
Superseded: TypeAlias = Annotated[
    bool, typer.Option("--include-superseded", help="Send also grants that a later event took back.")
]
_CONTROL: Final = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]")
_INSTANT: Final = re.compile(r"\d{4}-\d{2}-\d{2}[T ]\d{2}:\d{2}:\d{2}(\.\d+)?(Z|[+-]\d{2}:\d{2})")
GAP: Final = "  "


def say(as_json: bool, document: Any, text: str) -> None:
    """Print the document with --json, else the text."""
    print(as_text(document) if as_json else plain(text))


def list_of(rows: Sequence[Any]) -> dict[str, Any]:
    """A whole list in the form that every list of the service has."""
    return {"object": "list", "data": rows, "list_metadata": {"after": None}, "has_more": False}


def print_list(as_json: bool, found: Mapping[str, Any], names: Sequence[str] | None = None) -> None:
    """Print a list in the form of the service with --json, else its rows as columns."""
    if as_json:
        print(as_text(found))
    else:
        print_rows(found["data"], names)


def print_rows(rows: Sequence[Mapping[str, Any]], names: Sequence[str] | None = None) -> None:
    """Print rows as columns (`names`, or all)."""
    shown = list(names or dict.fromkeys(name for row in rows for name in row))
    table = [shown, *([cell(row.get(name)) for name in shown] for row in rows)]
    if not rows:
        print("nothing")
        return
    widths = [max(len(line[place]) for line in table) for place in range(len(shown))]
    if sys.stdout.isatty() and sum(widths) + len(GAP) * (len(widths) - 1) > shutil.get_terminal_size().columns:
        _print_records(shown, table[1:])
        return
    for line in table:
        print(GAP.join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip())


def print_record(document: Mapping[str, Any]) -> None:
    """Print one document, a field a line; the fields of an object in it are named after it."""
    fields = dict(_flat("", document))
    _print_records(tuple(fields), [[cell(value) for value in fields.values()]])


def _flat(prefix: str, document: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, value in document.items():
        if isinstance(value, dict) and value:
            yield from _flat(f"{prefix}{name}.", value)  # pyright: ignore[reportUnknownArgumentType]
        else:
            yield prefix + name, value


def _print_records(names: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print one name and value a line, for rows that do not fit on the terminal: no value is ever cut."""
    width = max(map(len, names))
    print(
        "\n\n".join(
            "\n".join(f"{name:{width}}{GAP}{value}".rstrip() for name, value in zip(names, row, strict=True)) for row in rows
        )
    )


def as_text(document: Any) -> str:
    return json.dumps(document, ensure_ascii=False, separators=(",", ":"))


def cell(value: object) -> str:
    """A value on one line; instants in UTC to the second, in the form that options such as --as-of take."""
    if isinstance(value, str):
        return _instant(value) if _INSTANT.fullmatch(value) else plain(value).replace("\n", " ")
    if isinstance(value, list):
        return " ".join(cell(one) for one in value)  # pyright: ignore[reportUnknownVariableType]
    if isinstance(value, dict):
        return " ".join(f"{name}={cell(one)}" for name, one in value.items())  # pyright: ignore[reportUnknownVariableType]
    return {None: "", True: "yes", False: "no"}.get(value, str(value)) if value is None or isinstance(value, bool) else str(value)


def _instant(text: str) -> str:
    try:
        return f"{datetime.fromisoformat(text).astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"
    except (ValueError, OverflowError):  # digits that are no time
        return text


def print_text(text: str, first: str = "", rest: str = "") -> None:
    """Print a text, on a terminal wrapped at its width; `first` and `rest` stand before its first and further lines."""
    line = first + plain(text)
    if sys.stdout.isatty():
        width = shutil.get_terminal_size().columns
        line = textwrap.fill(line, width, subsequent_indent=rest, break_long_words=False, break_on_hyphens=False)
    print(line)


def plain(text: str) -> str:
    """The text without control characters, because answers quote receivers and IdPs."""
    return _CONTROL.sub("\N{REPLACEMENT CHARACTER}", text)
