"""`scim-ledger replay …`: rebuild and check the read models on this machine; send deliveries again."""

import sys
import time
from typing import Annotated, Any, Final

import typer

from runtime.cli.client import Service, ask, service
from runtime.cli.completing import ConsumerName, consumer_names, directory_slugs
from runtime.cli.nouns import new_group
from runtime.cli.printing import AsJson, Key, Reason, Superseded, plain, print_list, print_rows, say
from runtime.cli.progress import progress_bar
from runtime.cli.wording import in_commands
from runtime.exits import ERASED, FINDING, CommandError

app = new_group("Rebuild or check the read models; send deliveries again.")
INTERRUPTED: Final = 130
WATCH_S: Final = 0.5
RUNS_LISTED_MAX: Final = 1_000
RUN_COLUMNS: Final = ("id", "name", "consumer", "status", "done", "total", "eta_seconds", "created_at", "reason")
From = Annotated[str, typer.Option("--from", help="The first: a position, seq:N, an instant such as 2026-11-24T09:10:00Z.")]
To = Annotated[str | None, typer.Option("--to", help="The last, or the instant before which to stop. Default: now.")]
Types = Annotated[str, typer.Option(help="Comma-separated event types. Default: all that the consumer reads.")]
Subjects = Annotated[list[str] | None, typer.Option("--subject", help="Id of a user or group; may be given again.")]
Slugs = Annotated[list[str] | None, typer.Option("--directory", autocompletion=directory_slugs, help="May be given again.")]
Rate = Annotated[int | None, typer.Option("--rate", min=1, help="Deliveries a second at most.")]


@app.command()
def rebuild(
    *,
    only: Annotated[
        str, typer.Option(help="Comma-separated read models, such as users,groups; a wrong name lists them. Default: all.")
    ] = "",
    as_json: AsJson = False,
) -> None:
    """Rebuild the read models beside the live ones, then swap them. After an interruption the next run resumes.

    Example: scim-ledger replay rebuild --only users,groups
    """
    from runtime.upkeep import rebuild_here

    try:
        wanted, result = rebuild_here(tuple(name.strip() for name in only.split(",") if name.strip()), progress_bar)
    except KeyboardInterrupt:
        raise CommandError("Interrupted. Run the same command again: it resumes.", INTERRUPTED) from None
    report = {
        "events": result.events, "resumed_at": result.resumed_at, "drifted": list(result.drifted), "locked_ms": result.locked_ms,
    }  # fmt: skip
    text = f"Rebuilt {', '.join(wanted)} from {result.events} events; writes waited for {result.locked_ms} ms."
    if result.drifted:
        text += f"\nThe live {', '.join(result.drifted)} differed from the log and were replaced."
    say(as_json, report, text)


@app.command()
def verify(*, as_json: AsJson = False) -> None:
    """Check the log and the read models by recomputing them. Nothing is changed. Exit 1 and a list if anything differs.

    Example: scim-ledger replay verify
    """
    from runtime.upkeep import verify_here

    findings, total, erased = verify_here(progress_bar)
    lines = [f"{finding.place}: {finding.problem}" for finding in findings]
    lines.append(
        "`scim-ledger replay rebuild` repairs read models. A difference in the log or a token means somebody changed it."
        if findings
        else f"Verified {total} events and the read models that follow from them: no difference."
        + (f" The attributes of {erased} events were erased, as events say." if erased else "")
    )
    report = {"events": total, "erased_bodies": erased, "findings": [{"place": f.place, "problem": f.problem} for f in findings]}
    say(as_json, report, "\n".join(lines))
    if findings or erased:
        raise SystemExit(FINDING if findings else ERASED)


# -- replay of deliveries -----------------------------------------------------


@app.command()
def plan(
    consumer: ConsumerName,
    *,
    first: From,
    to: To = None,
    types: Types = "",
    subject: Subjects = None,
    directory: Slugs = None,
    include_superseded: Superseded = False,
    rate: Rate = None,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Show what a replay would send, without sending it.

    Example: scim-ledger replay plan door --from 2026-11-24T09:10:00Z
    """
    body = _body(consumer, first, to, types, subject, directory, include_superseded, rate)
    found = ask("replay plan", body={**body, "name": "plan", "reason": "plan", "dry_run": True}, key=key)
    say(as_json, found, _planned(found))


@app.command()
def run(
    consumer: ConsumerName,
    *,
    first: From,
    reason: Reason,
    to: To = None,
    types: Types = "",
    subject: Subjects = None,
    directory: Slugs = None,
    include_superseded: Superseded = False,
    rate: Rate = None,
    name: Annotated[str, typer.Option(help="What to call the run.")] = "replay",
    wait: Annotated[bool, typer.Option(help="Show progress until it has ended. Ctrl-C leaves it running.")] = False,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Send deliveries again beside live traffic. The events of one subject are never interleaved.

    Example: scim-ledger replay run door --from seq:97 --reason outage --wait
    """
    body = _body(consumer, first, to, types, subject, directory, include_superseded, rate)
    with service() as asked:
        found = asked.ask("replay run", body={**body, "name": name, "reason": reason}, key=key)
        if not as_json:
            print(plain(_planned(found)))
        if wait:
            found = _followed(asked, found)
    say(as_json, found, f"Run {found['id']}: {found['status']}, {found['done']} of {found['total']}.")


@app.command("list")
def list_command(
    *,
    consumer: Annotated[str | None, typer.Option(autocompletion=consumer_names, help="Only the runs of this one.")] = None,
    as_json: AsJson = False,
) -> None:
    """List runs, newest first.

    Example: scim-ledger replay list --consumer door
    """
    with service() as found:
        print_list(as_json, found.listed("replay list", limit=RUNS_LISTED_MAX, query={"consumer": consumer}), RUN_COLUMNS)


@app.command()
def status(
    replay: Annotated[str | None, typer.Argument(help="Id of a run; without it, all.")] = None,
    *,
    consumer: Annotated[str | None, typer.Option(autocompletion=consumer_names, help="Only the runs of this one.")] = None,
    as_json: AsJson = False,
) -> None:
    """Show the progress of a run, or of all runs.

    Example: scim-ledger replay status 3f0e9c52-8d1b-4a77-9b60-2f1c5a7e4d10
    """
    if replay is None:
        list_command(consumer=consumer, as_json=as_json)
        return
    found = ask("replay status", replay_id=replay)
    if as_json:
        say(True, found, "")
    else:
        print_rows([found], RUN_COLUMNS)


@app.command()
def pause(replay: str, *, key: Key = None, as_json: AsJson = False) -> None:
    """Pause a run.

    Example: scim-ledger replay pause 3f0e9c52-8d1b-4a77-9b60-2f1c5a7e4d10
    """
    _say_progress(replay, ask("replay pause", key=key, replay_id=replay), as_json)


@app.command()
def resume(replay: str, *, key: Key = None, as_json: AsJson = False) -> None:
    """Continue a paused run.

    Example: scim-ledger replay resume 3f0e9c52-8d1b-4a77-9b60-2f1c5a7e4d10
    """
    _say_progress(replay, ask("replay resume", key=key, replay_id=replay), as_json)


@app.command()
def cancel(replay: str, *, key: Key = None, as_json: AsJson = False) -> None:
    """End a run; what it has sent stays sent.

    Example: scim-ledger replay cancel 3f0e9c52-8d1b-4a77-9b60-2f1c5a7e4d10
    """
    _say_progress(replay, ask("replay cancel", key=key, replay_id=replay), as_json)


def _say_progress(replay: str, found: dict[str, Any], as_json: bool) -> None:
    say(as_json, found, f"Run {replay}: {found['status']}, {found['done']} of {found['total']}.")


def _body(
    consumer: str, first: str, to: str | None, types: str, subjects: list[str] | None, directories: list[str] | None,
    include: bool, rate: int | None,
) -> dict[str, Any]:  # fmt: skip
    return {
        "consumer": consumer, "from": first, "to": to, "types": types.split(",") if types else None, "subjects": subjects,
        "directories": directories, "rate_per_second": rate, "superseded": "include" if include else "skip",
    }  # fmt: skip


def _planned(found: dict[str, Any]) -> str:
    place = found["resolved_range"]
    times = f", {place['from_time']} to {place['to_time']}" if place["from_time"] else ""
    lines = [
        f"{found['count']} events for {found['consumer']}, positions {place['from_position']} to {place['to_position']}{times}.",
        f"{found['already_acked']} of them were acknowledged before; about {found['estimated_seconds']} s.",
    ]
    if found["not_acked"]:
        lines.append("The others were not: " + ", ".join(f"{n} {why}" for why, n in sorted(found["not_acked"].items())) + ".")
    if found["superseded"]:
        lines.append(f"{found['superseded']} grants are left out because a later event took them back.")
    return "\n".join([*lines, *(in_commands(warning, ()) for warning in found.get("warnings", ()))])


def _followed(asked: Service, run: dict[str, Any]) -> dict[str, Any]:
    """Follow a run until it has ended or Ctrl-C, with a progress bar."""
    with progress_bar("replaying") as progress:
        try:
            while run["status"] == "running":
                time.sleep(WATCH_S)
                run = asked.ask("replay status", replay_id=run["id"])
                progress(run["done"], run["total"])
        except KeyboardInterrupt:
            print("The run continues: scim-ledger replay status", run["id"], file=sys.stderr)
    return run
