"""`scim-ledger consumer …`: consumers, their progress, and acts of operators."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from runtime.cli import deliveries
from runtime.cli.client import ask, service
from runtime.cli.completing import ConsumerName, directory_slugs
from runtime.cli.confirming import Yes, confirm
from runtime.cli.files import reserve_private
from runtime.cli.nouns import new_group
from runtime.cli.printing import AsJson, Key, Reason, cell, print_list, print_record, print_rows, say
from runtime.cli.wording import in_commands
from runtime.exits import FINDING, USAGE, CommandError

app = new_group("Named readers of the feed.")
CONSUMER_COLUMNS: Final = (
    "name",
    "mode",
    "state",
    "position",
    "lag_events",
    "lag_seconds",
    "blocked",
    "parked",
)
NOT_YET: Final = {"under_way", "retrying", "waiting"}  # reasons that end by themselves
# Older names, from before the noun `blocked`; they still work.
for _name, _command in (
    ("blocked", deliveries.list_blocked), ("retry", deliveries.retry_blocked), ("park", deliveries.park_blocked),
    ("skip", deliveries.skip_blocked),
):  # fmt: skip
    app.command(_name, hidden=True)(_command)


@app.command()
def create(
    name: str,
    *,
    directory: Annotated[
        list[str] | None,
        typer.Option(autocompletion=directory_slugs, help="A directory that it reads; may be given again. Default: all."),
    ] = None,
    types: Annotated[str, typer.Option(help="Comma-separated event types, such as user.*,group.created.")] = "*",
    start: Annotated[str, typer.Option(help="beginning, now, seq:N, an instant, an event id.")] = "beginning",
    url: Annotated[str | None, typer.Option(help="Push to this URL. Without it the consumer pulls.")] = None,
    ordering: Annotated[str, typer.Option(help="subject or directory.")] = "subject",
    batch_max: Annotated[int, typer.Option(min=1, max=100, help="Events in one request.")] = 1,
    retry_schedule: Annotated[
        str | None, typer.Option(help="Comma-separated seconds before each attempt of a webhook, such as 0,5,30.")
    ] = None,
    secret_file: Annotated[
        Path | None, typer.Option(help="Write the signing secret here (mode 0600) instead of showing it.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Create a consumer. A webhook's secret is shown once. Exit 4 if there is one of that name: `update` changes it.

    Example: scim-ledger consumer create door --directory acme --types 'user.*'
    """
    body = {
        "directories": directory or ["*"], "types": types.split(","), "start": start, "mode": "webhook" if url else "pull",
        "ordering": ordering, "batch_max": batch_max, "url": url, "retry_schedule": _schedule(retry_schedule),
    }  # fmt: skip
    made = _kept(secret_file, lambda: ask("consumer create", body=body, condition="If-None-Match", name=name))
    shown = f"\nIts signing secret, shown once: {made['secret']}" if "secret" in made else ""
    say(as_json, made, _standing(made) + shown)


@app.command()
def update(
    name: ConsumerName,
    *,
    directory: Annotated[
        list[str] | None, typer.Option(autocompletion=directory_slugs, help="A directory that it reads; may be given again.")
    ] = None,
    types: Annotated[str | None, typer.Option(help="Comma-separated event types, such as user.*,group.created.")] = None,
    url: Annotated[str | None, typer.Option(help="Push to this URL from now on.")] = None,
    ordering: Annotated[str | None, typer.Option(help="subject or directory.")] = None,
    batch_max: Annotated[int | None, typer.Option(min=1, max=100, help="Events in one request.")] = None,
    retry_schedule: Annotated[
        str | None, typer.Option(help="Comma-separated seconds before each attempt of a webhook, such as 0,5,30.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Change the named fields of a consumer. The others stay as they are. Exit 4 if there is none of that name.

    Example: scim-ledger consumer update door --url https://door.example.com/hooks
    """
    body = {
        "directories": directory or None, "types": types.split(",") if types is not None else None, "ordering": ordering,
        "batch_max": batch_max, "url": url, "retry_schedule": _schedule(retry_schedule),
    }  # fmt: skip
    if all(value is None for value in body.values()):
        raise CommandError(
            "Name what is to change: --directory, --types, --url, --ordering, --batch-max or --retry-schedule.", USAGE
        )
    made = ask("consumer update", body=body, condition="If-Match", name=name)
    changed = [f"\n{field}: {cell(made[field])}" for field, value in body.items() if value is not None]
    say(as_json, made, _standing(made) + "".join(changed))


def _schedule(text: str | None) -> list[int] | None:
    """The seconds of a retry schedule. Raises CommandError."""
    if text is None:
        return None
    try:
        return [int(word) for word in text.split(",")]
    except ValueError:
        raise CommandError("--retry-schedule takes seconds with commas between them, such as 0,5,30.", USAGE) from None


def _standing(made: Mapping[str, Any]) -> str:
    text = f"Consumer {made['name']}: {made['mode']}, {made['state']}, at position {made['position']} of {made['head_position']}."
    return text + "".join(f"\n{in_commands(line, ())}" for line in made.get("warnings", ()))


@app.command("list")
def list_command(*, as_json: AsJson = False) -> None:
    """List the consumers with their lag.

    Example: scim-ledger consumer list
    """
    with service() as found:
        print_list(as_json, found.listed("consumer list"), CONSUMER_COLUMNS)


@app.command()
def show(name: ConsumerName, *, as_json: AsJson = False) -> None:
    """Show a consumer: its definition, its lag, what blocks it.

    Example: scim-ledger consumer show door
    """
    found = ask("consumer show", name=name)
    if as_json:
        say(True, found, "")
        return
    if limit := found["limited_by"]:
        limit["advice"] = in_commands(limit["advice"], ())
    print_record({field: value for field, value in found.items() if field != "retry_schedule"})


@app.command()
def audit(
    name: ConsumerName,
    *,
    first: Annotated[str | None, typer.Option("--from", help="An instant, seq:N or a position.")] = None,
    to: Annotated[str | None, typer.Option("--to", help="Likewise.")] = None,
    as_json: AsJson = False,
) -> None:
    """Print the holes in what a consumer acknowledged. They are recomputed from the log. Exit 1 if there are any.

    Example: scim-ledger consumer audit door --from 2026-11-01T00:00:00Z
    """
    found = ask("consumer audit", query={"from": first, "to": to}, name=name)
    if as_json:
        say(True, found, "")
    else:
        print(
            f"{name} acknowledged {found['acknowledged']} of {found['expected']} events up to position {found['to_position']}; "
            f"{found['to_come']} are still to come."
        )
        for line in found["broken"]:
            print(f"! {line}")
        if found["gone_count"]:
            print(
                f"! {found['gone_count']} events that it was sent are no longer in the log, which was restored: --json names them"
            )
        if found["holes"]:
            print_rows(found["holes"], ("why", "from_position", "to_position", "count", "reason"))
    forked = any(known["closed_at"] is None for known in found["gone"])
    if found["broken"] or forked or any(hole["why"] not in NOT_YET for hole in found["holes"]):
        raise SystemExit(FINDING)


@app.command()
def ping(name: ConsumerName, *, key: Key = None, as_json: AsJson = False) -> None:
    """Send a signed test message and print the receiver's answer. Exit 1 if it was not accepted.

    Example: scim-ledger consumer ping door
    """
    found = ask("consumer ping", key=key, name=name)
    what = f"answered {found['status']}" if found["status"] else f"did not answer: {found['error']}"
    say(as_json, found, f"{name} {what} after {found['seconds']} s." + (f"\n{found['answer']}" if found["answer"] else ""))
    if not found["ok"]:
        raise SystemExit(FINDING)


@app.command()
def pause(name: ConsumerName, *, key: Key = None, as_json: AsJson = False) -> None:
    """Deliver nothing until resumed; nothing is lost meanwhile.

    Example: scim-ledger consumer pause door
    """
    _say_state(name, ask("consumer pause", key=key, name=name), as_json)


@app.command()
def resume(name: ConsumerName, *, key: Key = None, as_json: AsJson = False) -> None:
    """Continue where it stopped, also after an answer 410.

    Example: scim-ledger consumer resume door
    """
    _say_state(name, ask("consumer resume", key=key, name=name), as_json)


def _say_state(name: str, found: dict[str, Any], as_json: bool) -> None:
    say(as_json, found, f"{name} is {found['state']}, {found['lag_events']} events behind.")


@app.command()
def seek(
    name: ConsumerName,
    to: Annotated[str, typer.Argument(help="beginning, now, seq:N, an instant, an event id, a position.")],
    *,
    reason: Annotated[str | None, typer.Option(help="Why; it is put on record. Needed but with --dry-run.")] = None,
    dry_run: Annotated[bool, typer.Option(help="Only say what it would mean.")] = False,
    yes: Yes = False,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Move a consumer back or forward. Back, events come again; forward, they are skipped, and the audit shows it.

    Example: scim-ledger consumer seek door seq:97 --reason outage
    """
    if reason is None and not dry_run:
        raise CommandError("Say why with --reason: it is put on record. Or see first what it would mean, with --dry-run.", USAGE)
    body = {"to": to, "reason": reason or "dry run"}
    with service() as asked:
        if not (dry_run or yes):
            _confirm_seek(name, asked.ask("consumer seek", body={**body, "dry_run": True}, name=name))
        found = asked.ask("consumer seek", body={**body, "dry_run": dry_run}, key=key, name=name)
    again, past = found.get("delivered_again"), found.get("passed_over")
    what = f"{again} events are delivered again" if again is not None else f"{past} events are passed over"
    say(as_json, found, f"{'Would move' if dry_run else 'Moved'} {name} to position {found['to_position']}: {what}.")


def _confirm_seek(name: str, plan: Mapping[str, Any]) -> None:
    """Ask before a seek forward only: a seek back takes nothing away."""
    passed = plan.get("passed_over")
    if passed:
        confirm(False, f"This moves consumer {name} forward past {passed} events that it has not acknowledged.")


@app.command()
def pull(
    name: ConsumerName,
    *,
    limit: Annotated[int, typer.Option(min=1, max=1_000, help="At most so many.")] = 100,
    wait: Annotated[int, typer.Option(min=0, max=30, help="Seconds to wait for the first.")] = 0,
    expand: Annotated[str | None, typer.Option(help="Names in membership events: member, group, or member,group.")] = None,
    as_json: AsJson = False,
) -> None:
    """Print the next events of a pull consumer, and their cursor. Its place stays until `ack` has the cursor.

    Example: scim-ledger consumer pull door --limit 10 --wait 20
    """
    found = ask("consumer pull", query={"limit": limit, "wait": wait, "expand": expand}, name=name)
    if as_json:
        say(True, found, "")
        return
    print_rows([{"event": e["id"], "time": e["time"], "type": e["type"]} for e in found["data"]])
    print(f"scim-ledger consumer ack {name} {found['list_metadata']['after']}")


@app.command()
def ack(
    name: ConsumerName,
    through: Annotated[str, typer.Argument(help="A cursor or an event id.")],
    *,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Acknowledge the events up to a cursor or an event.

    Example: scim-ledger consumer ack door evt_acme_97_5f0c9a1e
    """
    found = ask("consumer ack", body={"through": through}, key=key, name=name)
    say(as_json, found, f"{name} is at position {found['position']}{'' if found['changed'] else ', as before'}.")


@app.command()
def delete(name: ConsumerName, *, yes: Yes = False, as_json: AsJson = False) -> None:
    """Delete a consumer. Its acknowledgements stay on record; its name becomes free.

    Example: scim-ledger consumer delete door
    """
    with service() as asked:
        if not yes:
            asked.ask("consumer show", name=name)  # nobody confirms what does not exist
            confirm(False, f"This deletes consumer {name} with its place in the feed.")
        asked.ask("consumer delete", name=name)
    say(as_json, {"deleted": name}, f"Deleted {name}.")


@app.command("close-fork")
def close_fork(name: ConsumerName, *, reason: Reason, key: Key = None, as_json: AsJson = False) -> None:
    """Close a fork after the receiver was repaired. `consumer audit` goes on listing the lost events.

    Example: scim-ledger consumer close-fork door --reason 'door is repaired'
    """
    found = ask("consumer close-fork", body={"reason": reason}, key=key, name=name)
    say(as_json, found, f"Closed. {name} is at position {found['position']}.")


@app.command("rotate-secret")
def rotate_secret(
    name: ConsumerName,
    *,
    overlap: Annotated[int, typer.Option(min=0, help="Seconds during which both secrets sign.")] = 86_400,
    secret_file: Annotated[Path | None, typer.Option(help="Write it here (mode 0600) instead of showing it.")] = None,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Make a new signing secret for a webhook, shown once.

    Example: scim-ledger consumer rotate-secret door --secret-file new.txt
    """
    found = _kept(secret_file, lambda: ask("consumer rotate-secret", body={"overlap_seconds": overlap}, key=key, name=name))
    new = f"The new secret, shown once: {found['secret']}" if "secret" in found else f"The new secret is in {secret_file}."
    say(as_json, found, f"{new}\nThe old one signs too for {overlap} s.")


def _kept(path: Path | None, act: Any) -> dict[str, Any]:
    """The answer to an act; its secret is moved to a file if one is named."""
    if path is None:
        return act()
    with os.fdopen(reserve_private(path), "w", encoding="ascii") as file:
        try:
            found: dict[str, Any] = act()
            if "secret" in found:
                file.write(found.pop("secret") + "\n")
                return found
        except BaseException:
            path.unlink()
            raise
    path.unlink()
    return found
