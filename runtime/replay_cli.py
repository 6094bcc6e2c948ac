"""`scim-ledger replay rebuild|verify`."""

import asyncio
import sys
from typing import Annotated, Any

import orjson
import typer

from api import replays
from api.services import Services
from database.connections import Connection, connect
from ledger.directories import Directories, Directory
from ledger.sealing import Kek
from replay.fold import UnreadableEventError
from replay.rebuild import RebuildRefusedError, Result, rebuild
from replay.side import TABLES, heads, owner_pair
from replay.verify import Finding, verify_log, verify_read_models, verify_tokens
from runtime.acts import ask, caller
from runtime.bootstrap import Urls
from runtime.printing import print_rows, say
from runtime.progress import progress_bar
from runtime.serve import main_settings, running_urls
from runtime.wiring import read_kek

app = typer.Typer(no_args_is_help=True, help="Rebuild or check the read models; send deliveries again.")
EXIT_FINDING, EXIT_USAGE = 1, 2


@app.command("rebuild")
def rebuild_command(
    *,
    only: Annotated[str, typer.Option(help=f"Comma-separated: {', '.join(TABLES)}. Default: all.")] = "",
    as_json: Annotated[bool, typer.Option("--json")] = False,
) -> None:
    """Rebuild the read models beside the live ones and swap them in. Interrupt it at will: the next run goes on."""
    wanted = tuple(name.strip() for name in only.split(",") if name.strip()) or TABLES
    unknown = set(wanted) - set(TABLES)
    if unknown:
        print(f"There is no read model {', '.join(sorted(unknown))}. Choose from {', '.join(TABLES)}.", file=sys.stderr)
        raise SystemExit(EXIT_USAGE)
    settings = main_settings()
    with running_urls(settings) as urls:
        kek = asyncio.run(read_kek(urls.serve, settings.kek_path))
        try:
            result = asyncio.run(_rebuild(urls, kek, wanted))
        except (RebuildRefusedError, UnreadableEventError) as refused:
            print(refused, file=sys.stderr)
            raise SystemExit(EXIT_USAGE) from refused
        except KeyboardInterrupt:
            print("Interrupted. Run the same command again: it goes on where it was.", file=sys.stderr)
            raise SystemExit(130) from None
    if as_json:
        report = {
            "events": result.events,
            "resumed_at": result.resumed_at,
            "drifted": list(result.drifted),
            "locked_ms": result.locked_ms,
        }
        print(orjson.dumps(report).decode())
        return
    print(f"Rebuilt {', '.join(wanted)} from {result.events} events; directories were locked for {result.locked_ms} ms.")
    if result.drifted:
        print(f"The live {', '.join(result.drifted)} differed from the log and were replaced.")


async def _rebuild(urls: Urls, kek: Kek, only: tuple[str, ...]) -> Result:
    directories = await all_directories(urls, kek)
    async with owner_pair(urls.migrate) as (conn, reader):
        with progress_bar("rebuilding") as progress:
            return await rebuild(conn, reader, kek, directories, progress, only=only)


@app.command("verify")
def verify_command(*, as_json: Annotated[bool, typer.Option("--json")] = False) -> None:
    """Recompute the log's hashes and columns, the tokens' seals and the read models; change nothing. Exit 1 names what differs."""
    settings = main_settings()
    with running_urls(settings) as urls:
        kek = asyncio.run(read_kek(urls.serve, settings.kek_path))
        findings, total = asyncio.run(_verify(urls, kek))
    if as_json:
        print(orjson.dumps({"events": total, "findings": [{"place": f.place, "problem": f.problem} for f in findings]}).decode())
    elif not findings:
        print(f"Verified {total} events and the read models that follow from them: no difference.")
    else:
        for finding in findings:
            print(f"{finding.place}: {finding.problem}")
        print("`scim-ledger replay rebuild` repairs read models. A difference in the log or a token means somebody changed it.")
    if findings:
        raise SystemExit(EXIT_FINDING)


async def _verify(urls: Urls, kek: Kek) -> tuple[list[Finding], int]:
    directories = await all_directories(urls, kek)
    async with owner_pair(urls.migrate) as (conn, reader):
        total = sum((await heads(conn)).values())
        with progress_bar("checking the log") as progress:
            findings = await verify_log(conn, directories, progress, total)
        findings += await verify_tokens(conn, kek, directories)
        if findings:
            return findings, total  # read models recomputed from a changed log would only repeat the news
        with progress_bar("checking the read models") as progress:
            findings += await verify_read_models(conn, reader, kek, directories, progress)
        return findings, total


async def all_directories(urls: Urls, kek: Kek) -> list[Directory]:
    """Every directory of the ledger, `_system` included."""
    conn = await connect(urls.serve)
    try:
        return await Directories(kek).all(conn)
    finally:
        await conn.close()


# -- replay of deliveries -----------------------------------------------------

Reason = Annotated[str, typer.Option(help="Why; it is put on record.")]
From = Annotated[str, typer.Option("--from", help="The first: a position, seq:N, an instant such as 2026-11-24T09:10:00Z.")]
To = Annotated[str | None, typer.Option("--to", help="The last, or the instant before which to stop. Default: now.")]
Types = Annotated[str, typer.Option(help="Comma-separated event types. Default: all that the consumer reads.")]
Subjects = Annotated[list[str] | None, typer.Option("--subject", help="Id of a user or group; may be given again.")]
Slugs = Annotated[list[str] | None, typer.Option("--directory", help="May be given again.")]
Superseded = Annotated[bool, typer.Option("--include-superseded", help="Also grants that a later event took back.")]
Rate = Annotated[int | None, typer.Option("--rate", min=1, help="Deliveries a second at most.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]
WATCH_S = 0.5


@app.command("plan")
def plan_command(
    consumer: str,
    *,
    first: From,
    to: To = None,
    types: Types = "",
    subject: Subjects = None,
    directory: Slugs = None,
    include_superseded: Superseded = False,
    rate: Rate = None,
    as_json: AsJson = False,
) -> None:
    """Say what a replay of deliveries would send, without sending it."""
    body = _body(consumer, first, to, types, subject, directory, include_superseded, rate, "plan", "plan", dry_run=True)
    found = ask(lambda services, conn: replays.start(services, conn, caller(), body))
    say(as_json, found, _planned(found))


@app.command("run")
def run_command(
    consumer: str,
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
    as_json: AsJson = False,
) -> None:
    """Send deliveries again, beside live traffic and never interleaved with it per subject."""
    body = _body(consumer, first, to, types, subject, directory, include_superseded, rate, name, reason, dry_run=False)
    found = ask(lambda services, conn: replays.start(services, conn, caller(), body))
    if not as_json:
        print(_planned(found))
    if wait:
        found = _followed(str(found["id"]))
    say(as_json, found, f"Run {found['id']}: {found['status']}, {found['done']} of {found['total']}.")


@app.command("status")
def status_command(
    replay: Annotated[str | None, typer.Argument(help="Id of a run; without it, all.")] = None,
    *,
    consumer: Annotated[str | None, typer.Option(help="Only the runs of this one.")] = None,
    as_json: AsJson = False,
) -> None:
    """Show how far runs are."""

    async def asked(services: Services, conn: Connection) -> list[dict[str, Any]]:
        if replay is not None:
            return [replays.shown_run(await replays.found(conn, replay), services.clock())]
        return await replays.listed(conn, consumer, replays.RUNS_SHOWN_MAX, services.clock())

    rows = ask(asked)
    shown = ("id", "name", "consumer", "status", "done", "total", "eta_seconds", "reason")
    print_rows(as_json, rows if as_json else [{key: row[key] for key in shown} for row in rows])


@app.command("pause")
def pause_command(replay: str, *, as_json: AsJson = False) -> None:
    """Pause a run."""
    _moved(replay, "pause", as_json)


@app.command("resume")
def resume_command(replay: str, *, as_json: AsJson = False) -> None:
    """Let a paused run go on where it was."""
    _moved(replay, "resume", as_json)


@app.command("cancel")
def cancel_command(replay: str, *, as_json: AsJson = False) -> None:
    """End a run; what it has not sent again stays as it was."""
    _moved(replay, "cancel", as_json)


def _moved(replay: str, verb: str, as_json: bool) -> None:
    found = ask(lambda services, conn: replays.move(services, conn, caller(), replay, verb))
    say(as_json, found, f"Run {replay}: {found['status']}, {found['done']} of {found['total']}.")


def _body(
    consumer: str, first: str, to: str | None, types: str, subjects: list[str] | None, directories: list[str] | None,
    include: bool, rate: int | None, name: str, reason: str, *, dry_run: bool,
) -> replays.ReplayBody:  # fmt: skip
    return replays.ReplayBody(
        name=name, consumer=consumer, start=first, to=to, types=types.split(",") if types else None, subjects=subjects,
        directories=directories, rate_per_second=rate, superseded="include" if include else "skip", reason=reason, dry_run=dry_run,
    )  # fmt: skip


def _planned(found: dict[str, Any]) -> str:
    place = found["resolved_range"]
    times = f", {place['from_time']} to {place['to_time']}" if place["from_time"] else ""
    lines = [
        f"{found['count']} events for {found['consumer']}, positions {place['from_position']} to {place['to_position']}{times}.",
        f"{found['already_acked']} of them were acknowledged before; about {found['estimated_seconds']} s.",
    ]
    if found["superseded"]:
        lines.append(f"{found['superseded']} grants are left out because a later event took them back.")
    return "\n".join(lines)


def _followed(replay: str) -> dict[str, Any]:
    """Follow a run until it has ended, with a progress bar."""

    async def follow(services: Services, conn: Connection) -> dict[str, Any]:
        with progress_bar("replaying") as progress:
            while True:
                run = await replays.found(conn, replay)
                progress(run.done, run.total)
                if run.state != "running":
                    return replays.shown_run(run, services.clock())
                await asyncio.sleep(WATCH_S)

    return ask(follow)
