"""`scim-ledger audit …`: who had access, as of a time or a place in the log."""

import re
from collections.abc import Iterator
from typing import Annotated, Any, Final

import typer

from runtime.cli.client import ask, service
from runtime.cli.completing import DirectorySlug
from runtime.cli.nouns import new_group
from runtime.cli.printing import AsJson, as_text, print_record, print_rows

app = new_group("Who had access, as of a time (2026-10-01T00:00:00Z) or a place in the log (seq:N, seq:head).")
_SNAKE: Final = re.compile(r"([A-Z])")
AsOf = Annotated[str, typer.Option("--as-of", help="An instant with offset, seq:N or seq:head.")]


@app.command()
def members(
    directory: DirectorySlug, group: str, *, as_of: AsOf = "seq:head", nested: bool = False, as_json: AsJson = False
) -> None:
    """List the members of a group.

    Example: scim-ledger audit members acme 3f0e9c52-8d1b-4a77-9b60-2f1c5a7e4d10
    """
    with service() as found:
        query = {"as_of": as_of, "nested": nested}
        _show_pages(found.pages("audit members", query=query, directory=directory, group=group), as_json)


@app.command()
def access(
    directory: DirectorySlug, user: str, *, as_of: AsOf = "seq:head", nested: bool = True, as_json: AsJson = False
) -> None:
    """List the groups that a user could reach, with every path.

    Example: scim-ledger audit access acme 3f0e9c52-8d1b-4a77-9b60-2f1c5a7e4d10
    """
    with service() as found:
        query = {"as_of": as_of, "nested": nested}
        _show_pages(found.pages("audit access", query=query, directory=directory, user=user), as_json)


@app.command()
def population(
    directory: DirectorySlug,
    *,
    as_of: AsOf = "seq:head",
    kind: Annotated[str, typer.Option("--type", help="User or Group.")] = "User",
    as_json: AsJson = False,
) -> None:
    """List all users and groups that existed.

    Example: scim-ledger audit population acme --as-of 2026-10-01T00:00:00Z
    """
    with service() as found:
        _show_pages(found.pages("audit population", query={"as_of": as_of, "type": kind}, directory=directory), as_json)


@app.command()
def user(directory: DirectorySlug, user: str, *, as_of: AsOf = "seq:head", as_json: AsJson = False) -> None:
    """Show the past state of a user.

    Example: scim-ledger audit user acme 3f0e9c52-8d1b-4a77-9b60-2f1c5a7e4d10
    """
    _show(ask("audit user", query={"as_of": as_of}, directory=directory, user=user), as_json)


@app.command()
def diff(
    directory: DirectorySlug,
    *,
    first: Annotated[str, typer.Option("--from")],
    to: str = "seq:head",
    group: str | None = None,
    user: str | None = None,
    as_json: AsJson = False,
) -> None:
    """List the differences between two points.

    Example: scim-ledger audit diff acme --from seq:97 --to seq:head
    """
    _show(ask("audit diff", query={"from": first, "to": to, "group": group, "user": user}, directory=directory), as_json)


def _show(answer: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print(as_text(answer))
        return
    data = answer["data"]
    if isinstance(data, list):
        rows: list[dict[str, Any]] = data
        print(f"{_heading(answer)}: {len(rows)} row(s)")
        if rows:
            print_rows(rows)
    else:
        print(_heading(answer))
        print_record(data)


def _show_pages(pages: Iterator[dict[str, Any]], as_json: bool) -> None:
    if as_json:
        _stream(pages)
        return
    for number, page in enumerate(pages):
        if number == 0:
            print(_heading(page))
        if page["data"]:
            print_rows(page["data"], _columns(page["data"]))


def _columns(rows: list[dict[str, Any]]) -> list[str]:
    """Each field once: a row has its names in both spellings, because earlier releases had only that of SCIM."""
    names = dict.fromkeys(name for row in rows for name in row)
    return [name for name in names if name.islower() or _SNAKE.sub(r"_\1", name).lower() not in names]


def _heading(answer: dict[str, Any]) -> str:
    point = answer["as_of"]
    return f"as of seq {point['seq']}, {point['time']}" + (" (the clock was frozen)" if "clock" in point else "")


def _stream(pages: Iterator[dict[str, Any]]) -> None:
    """Print one JSON list of any number of rows, with the memory of one page."""
    for number, page in enumerate(pages):
        rows = as_text(page["data"])[1:-1]
        if number == 0:
            print(f'{{"as_of":{as_text(page["as_of"])},"object":"list","data":[', end="")
        print(f",{rows}" if number and rows else rows, end="")
    print('],"list_metadata":{"after":null},"has_more":false}')
