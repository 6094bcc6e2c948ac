"""`scim-ledger erase …`: erase users and groups for ever, receipts, and looking for what is left."""

from pathlib import Path
from typing import Annotated, Any, Final

import typer

from runtime.cli.client import ask, service
from runtime.cli.completing import DirectorySlug
from runtime.cli.confirming import Yes, confirm
from runtime.cli.nouns import new_group
from runtime.cli.printing import AsJson, Key, print_list, say
from runtime.cli.progress import progress_bar
from runtime.exits import FINDING

app = new_group("Erase users and groups for ever, with a receipt.")
Subject = Annotated[str, typer.Argument(help="The id of the user or group.")]
IsGroup = Annotated[bool, typer.Option("--group", help="The id is that of a group.")]
ErasureId = Annotated[str, typer.Argument(help="Its id, as `erase list` shows it.")]
ERASURE_COLUMNS: Final = ("id", "subject", "state", "erased_at", "seq", "actor", "completed_at")


def _erasure_body(subject: str, group: bool, reason: str, *, dry_run: bool) -> dict[str, Any]:
    return {"subject": {"type": "Group" if group else "User", "id": subject}, "reason": reason, "dry_run": dry_run}


@app.command("plan")
def plan_erasure(
    directory: DirectorySlug, subject: Subject, *, group: IsGroup = False, key: Key = None, as_json: AsJson = False
) -> None:
    """Show what an erasure would do. Who was sent the subject, and who names it.

    Example: scim-ledger erase plan acme 0197f2c4-5d1e-7c3a-9b44-3f0e2a6c1d58
    """
    found = ask("erase plan", body=_erasure_body(subject, group, "plan", dry_run=True), key=key, directory=directory)
    say(as_json, found, _erasure_plan(found) if found["object"] == "erasure_plan" else _receipt(found))


@app.command("run")
def run_erasure(
    directory: DirectorySlug,
    subject: Subject,
    *,
    reason: Annotated[str, typer.Option(help="Why; it is kept sealed with the receipt. Leave names out of it.")],
    group: IsGroup = False,
    yes: Yes = False,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Erase a user or group for ever. One that lives is deleted in the same commit. Again gives the same receipt.

    Example: scim-ledger erase run acme $USER_ID --reason 'request 4711'
    """
    with service() as asked:
        if not yes:
            planned = asked.ask("erase plan", body=_erasure_body(subject, group, reason, dry_run=True), directory=directory)
            if planned["object"] == "erasure_plan":
                confirm(False, f"{_erasure_plan(planned)}\nThis cannot be undone.")
        found = asked.ask("erase run", body=_erasure_body(subject, group, reason, dry_run=False), key=key, directory=directory)
    say(as_json, found, _receipt(found))


@app.command("list")
def list_command(directory: DirectorySlug, *, as_json: AsJson = False) -> None:
    """List the erasures of a directory.

    Example: scim-ledger erase list acme
    """
    with service() as found:
        print_list(as_json, found.listed("erase list", directory=directory), ERASURE_COLUMNS)


@app.command()
def receipt(directory: DirectorySlug, erasure: ErasureId, *, as_json: AsJson = False) -> None:
    """Show a receipt. What is gone, how far that reaches, who was sent it, who names it.

    Example: scim-ledger erase receipt acme 3f0e9c52-8d1b-4a77-9b60-2f1c5a7e4d10
    """
    found = ask("erase receipt", directory=directory, erasure=erasure)
    say(as_json, found, _receipt(found))


@app.command()
def scan(
    *,
    needles: Annotated[Path, typer.Option(help="A file with the words to look for, one a line.")],
    as_json: AsJson = False,
) -> None:
    """Look for words in all files and tables. In several encodings.

    Example: scim-ledger erase scan --needles words.txt
    """
    from runtime.upkeep import scan_here

    found = scan_here(needles, progress_bar)
    lines = [f"{one.place}, offset {one.offset}: the word of line {one.needle} as {one.form}" for one in found]
    say(as_json, {"found": [one._asdict() for one in found]}, "\n".join(lines or ["Nothing found."]))
    if found:
        raise SystemExit(FINDING)


def _erasure_plan(found: dict[str, Any]) -> str:
    goes, stays = found["goes"], found["stays"]
    lines = [
        f"{found['subject']['type']} {found['subject']['id']} of {found['directory']}"
        + (" exists, and would be deleted and erased." if found["living"] else " was deleted, and would be erased."),
        f"goes    {goes['bodies']} bodies, {goes['keys']} keys, {goes['journal_lines']} lines of the journal",
        f"stays   {stays['leaves']} leaves, which have ids and no attributes",
        *(f"held    by the legal hold {hold}" for hold in found["holds"]),
    ]
    return "\n".join([*lines, *_others(found), f"backups {found['horizon']['backups']['says']}"])


def _receipt(found: dict[str, Any]) -> str:
    gone, horizon = found["gone"], found["horizon"]
    lines = [
        f"{found['subject']['type']} {found['subject']['id']} of {found['directory']} was erased at {found['erased_at']} (seq {found['seq']}).",
        f"receipt {found['id']}, {found['state']}",
        f"gone    {gone['bodies']} bodies, {gone['keys']} keys, {gone['journal_lines']} lines of the journal",
        f"stays   {found['stays']['leaves']} leaves, which have ids and no attributes",
    ]
    return "\n".join([*lines, *_others(found), *(f"{name:<8}{horizon[name]['says']}" for name in ("database", "wal", "backups"))])


def _others(found: dict[str, Any]) -> list[str]:
    recipients, mentions = found["recipients"], found["remaining_mentions"]
    if recipients is None or mentions is None:
        return ["others  not looked up yet: ask for the receipt again in a moment"]
    lines = [f"sent to {one['kind']} {one['name']} ({one['certainty']})" for one in recipients]
    lines += [
        f"named   in {one['type']} {one['id']}, {one['path']}{'' if one['current'] else ' (in the past)'}"
        for one in mentions["data"][:SHOWN_MAX]
    ]
    if mentions["count"] > SHOWN_MAX:
        lines.append(f"        and in {mentions['count'] - SHOWN_MAX} more places: --json lists them")
    if not mentions["complete"]:
        lines.append("        and perhaps elsewhere: not everything was looked through")
    return lines


SHOWN_MAX: Final = 20
