"""`scim-ledger consumer …` and `scim-ledger parked …`: who reads, how far, what is stuck, and what an operator does about it."""

from pathlib import Path
from typing import Annotated, Any

import orjson
import typer

from api import consumers
from api.consumers import ConsumerBody, SeekBody
from api.services import Services
from database.connections import Connection
from delivery import consumers as acts
from delivery.progress import BLOCKED, PARKED, RETRYING
from runtime.acts import ask, caller
from runtime.printing import print_rows, say

app = typer.Typer(no_args_is_help=True, help="Named readers of the feed.")
parked = typer.Typer(no_args_is_help=True, help="Deliveries that were set aside in sight.")
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]
Reason = Annotated[str, typer.Option(help="Why; it is put on record.")]
EXIT_FINDING = 1
PRIVATE = 0o600
LISTED = ("name", "mode", "state", "acked_position", "head_position", "lag_events", "lag_seconds", "blocked", "parked")
STUCK = ("event_id", "type", "state", "attempts", "last_error", "since", "next_attempt_at", "reason")
NOT_YET = {"under_way", "retrying", "waiting"}  # what goes on by itself


@app.command()
def create(
    name: str,
    *,
    directory: Annotated[list[str] | None, typer.Option(help="What it reads; may be given again. Default: all.")] = None,
    types: Annotated[str, typer.Option(help="Comma-separated event types, such as user.*,group.created.")] = "*",
    start: Annotated[str, typer.Option(help="beginning, now, seq:N, an instant, an event id.")] = "beginning",
    url: Annotated[str | None, typer.Option(help="Push to this URL. Without it the consumer pulls.")] = None,
    ordering: Annotated[str, typer.Option(help="subject or directory.")] = "subject",
    batch_max: Annotated[int, typer.Option(min=1, max=100, help="Events in one request.")] = 1,
    secret_file: Annotated[
        Path | None, typer.Option(help="Write the signing secret here (mode 0600) instead of showing it.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Make a consumer, or give an existing one another definition. A webhook's secret is shown once."""
    body = ConsumerBody(
        directories=directory or ["*"], types=types.split(","), start=start, mode="webhook" if url else "pull", ordering=ordering,
        batch_max=batch_max, url=url,
    )  # fmt: skip

    async def act(services: Services, _: Connection) -> dict[str, Any]:
        return orjson.loads((await consumers.put(services, caller(), name, body)).body)

    made = ask(act)
    if secret_file is not None and "secret" in made:
        secret_file.touch(mode=PRIVATE, exist_ok=False)
        secret_file.write_text(made.pop("secret") + "\n", encoding="ascii")
    text = f"Consumer {name}: {made['mode']}, {made['state']}, at position {made['acked_position']} of {made['head_position']}."
    shown = f"\nIts signing secret, shown once: {made['secret']}" if "secret" in made else ""
    say(as_json, made, text + "".join(f"\n{line}" for line in made.get("warnings", ())) + shown)


@app.command("list")
def list_command(*, as_json: AsJson = False) -> None:
    """List the consumers with their lag."""

    async def asked(services: Services, conn: Connection) -> list[dict[str, Any]]:
        return [await consumers.status(services, conn, found) for found in await acts.consumers(conn)]

    rows = ask(asked)
    print_rows(as_json, rows if as_json else [{name: row[name] for name in LISTED} for row in rows])


@app.command()
def show(name: str, *, as_json: AsJson = False) -> None:
    """Show a consumer: its definition, its lag, what it is stuck on."""

    async def asked(services: Services, conn: Connection) -> dict[str, Any]:
        return await consumers.status(services, conn, await consumers.consumer(conn, name))

    found = ask(asked)
    if as_json:
        say(True, found, "")
        return
    print_rows(False, [{"field": key, "value": value} for key, value in found.items() if key != "retry_schedule"])


@app.command()
def audit(
    name: str,
    *,
    first: Annotated[str | None, typer.Option("--from", help="An instant, seq:N or a position.")] = None,
    to: Annotated[str | None, typer.Option("--to", help="Likewise.")] = None,
    as_json: AsJson = False,
) -> None:
    """Recompute from the log what a consumer acknowledged, and print the holes. Exit 1 where there are some."""

    async def asked(services: Services, conn: Connection) -> dict[str, Any]:
        return await consumers.audited(services, conn, await consumers.consumer(conn, name), first, to)

    found = ask(asked)
    if as_json:
        say(True, found, "")
    else:
        print(
            f"{name} acknowledged {found['acknowledged']} of {found['expected']} events up to position {found['through_position']}; "
            f"{found['to_come']} are still to come."
        )
        for line in found["broken"]:
            print(f"! {line}")
        if found["holes"]:
            print_rows(False, found["holes"])
    if found["broken"] or any(hole["why"] not in NOT_YET for hole in found["holes"]):
        raise SystemExit(EXIT_FINDING)


@app.command()
def ping(name: str, *, as_json: AsJson = False) -> None:
    """Send a signed test message and say what the receiver answered. Exit 1 where it did not accept it."""

    async def asked(services: Services, conn: Connection) -> dict[str, Any]:
        return await consumers.ping(services, await consumers.consumer(conn, name))

    found = ask(asked)
    what = f"answered {found['status']}" if found["status"] else f"did not answer: {found['error']}"
    say(as_json, found, f"{name} {what} after {found['seconds']} s." + (f"\n{found['answer']}" if found["answer"] else ""))
    if not found["ok"]:
        raise SystemExit(EXIT_FINDING)


@app.command()
def pause(name: str, *, as_json: AsJson = False) -> None:
    """Deliver nothing until resumed; nothing is lost meanwhile."""
    _move(name, "paused", as_json)


@app.command()
def resume(name: str, *, as_json: AsJson = False) -> None:
    """Go on where it was; also after a receiver answered 410."""
    _move(name, "active", as_json)


def _move(name: str, state: str, as_json: bool) -> None:
    async def act(services: Services, conn: Connection) -> dict[str, Any]:
        await consumers.move(services, conn, caller(), name, state)
        return await consumers.status(services, conn, await consumers.consumer(conn, name))

    found = ask(act)
    say(as_json, found, f"{name} is {found['state']}, {found['lag_events']} events behind.")


@app.command()
def seek(
    name: str,
    to: Annotated[str, typer.Argument(help="beginning, now, seq:N, an instant, an event id, a position.")],
    *,
    reason: Reason,
    dry_run: Annotated[bool, typer.Option(help="Only say what it would mean.")] = False,
    as_json: AsJson = False,
) -> None:
    """Move a consumer back (events come again) or forward (they are passed over, and the audit shows it)."""

    async def act(services: Services, conn: Connection) -> dict[str, Any]:
        body = SeekBody(to=to, reason=reason, dry_run=dry_run)
        return await consumers.seek(services, conn, caller(), await consumers.consumer(conn, name), body)

    found = ask(act)
    again, past = found.get("delivered_again"), found.get("passed_over")
    what = f"{again} events are delivered again" if again is not None else f"{past} events are passed over"
    say(as_json, found, f"{'Would move' if dry_run else 'Moved'} {name} to position {found['to_position']}: {what}.")


@app.command()
def ack(name: str, through: Annotated[str, typer.Argument(help="A cursor or an event id.")], *, as_json: AsJson = False) -> None:
    """Acknowledge for a consumer that pulls, up to a cursor or an event."""

    async def act(services: Services, conn: Connection) -> dict[str, Any]:
        return await consumers.acked(services, conn, await consumers.consumer(conn, name), through)

    found = ask(act)
    say(as_json, found, f"{name} is at position {found['acked_position']}{'' if found['changed'] else ', as before'}.")


@app.command()
def delete(name: str, *, as_json: AsJson = False) -> None:
    """End a consumer. What it acknowledged stays on record; its name becomes free."""

    async def act(services: Services, conn: Connection) -> None:
        await consumers.remove(services, conn, caller(), name)

    ask(act)
    say(as_json, {"deleted": name}, f"Deleted {name}.")


@app.command("rotate-secret")
def rotate_secret(
    name: str,
    *,
    overlap: Annotated[int, typer.Option(min=0, help="Seconds during which both secrets sign.")] = 86_400,
    as_json: AsJson = False,
) -> None:
    """Give a webhook another signing secret, shown once."""

    async def act(services: Services, conn: Connection) -> dict[str, Any]:
        return await consumers.rotate(services, conn, caller(), name, overlap)

    found = ask(act)
    say(as_json, found, f"The new secret, shown once: {found['secret']}\nThe old one signs too for {overlap} s.")


@app.command()
def blocked(name: str, *, limit: Annotated[int, typer.Option(min=1, max=1_000)] = 100, as_json: AsJson = False) -> None:
    """List the deliveries that failed, blocked ones and those that are tried again."""
    _list(name, (BLOCKED, RETRYING), limit, as_json)


@app.command()
def retry(name: str, event_id: str, *, reason: Reason, as_json: AsJson = False) -> None:
    """Try a failed delivery again now."""
    _operate(name, event_id, "retry", reason, (BLOCKED, RETRYING), as_json)


@app.command()
def park(name: str, event_id: str, *, reason: Reason, as_json: AsJson = False) -> None:
    """Set a failed delivery aside in sight, so that it holds up nothing."""
    _operate(name, event_id, "park", reason, (BLOCKED, RETRYING), as_json)


@app.command()
def skip(name: str, event_id: str, *, reason: Reason, as_json: AsJson = False) -> None:
    """Never deliver it. The reason stays on record, and the audit shows the hole."""
    _operate(name, event_id, "skip", reason, (BLOCKED, RETRYING), as_json)


@parked.command("list")
def parked_list(name: str, *, limit: Annotated[int, typer.Option(min=1, max=1_000)] = 100, as_json: AsJson = False) -> None:
    """List what was parked."""
    _list(name, (PARKED,), limit, as_json)


@parked.command("retry")
def parked_retry(name: str, event_id: str, *, reason: Reason, as_json: AsJson = False) -> None:
    """Bring a parked delivery back, before newer ones of its subject that have not left yet."""
    _operate(name, event_id, "retry", reason, (PARKED,), as_json)


@parked.command("skip")
def parked_skip(name: str, event_id: str, *, reason: Reason, as_json: AsJson = False) -> None:
    """Never deliver it. The reason stays on record."""
    _operate(name, event_id, "skip", reason, (PARKED,), as_json)


def _list(name: str, states: tuple[int, ...], limit: int, as_json: bool) -> None:
    async def asked(services: Services, conn: Connection) -> list[dict[str, Any]]:
        found = await consumers.consumer(conn, name)
        return (await consumers.listed(services, conn, found, states, 0, limit))["data"]

    rows = ask(asked)
    print_rows(as_json, rows if as_json else [{key: row[key] for key in STUCK} for row in rows])


def _operate(name: str, event_id: str, verb: str, reason: str, states: tuple[int, ...], as_json: bool) -> None:
    async def act(services: Services, conn: Connection) -> dict[str, Any]:
        return await consumers.operate(services, conn, caller(), name, event_id, verb, reason, states)

    say(as_json, ask(act), f"{event_id}: {verb}, on record.")
