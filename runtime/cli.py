"""`scim-ledger`: every operator's verb. Exit codes: 0 ok, 1 a finding, 2 usage, 3 cannot reach the database."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any
from uuid import UUID

import orjson
import psycopg
import typer
from pydantic import ValidationError

from api.requests import advice, directory_health
from database.connections import connect
from ledger.administration import Administration, RefusedError
from ledger.commands import parse_id
from ledger.directories import PROFILE, Directories
from ledger.tokens import LIFE_DAYS, ROLES, Scope
from proofs.body import BodyError
from proofs.keys import WrapError
from runtime import audit_cli, consumer_cli, events_cli, profile_cli, replay_cli, schema_cli, surge_cli
from runtime.acts import administer
from runtime.bootstrap import StartError
from runtime.printing import fail, print_rows, say
from runtime.serve import main_settings, running_urls, serve
from runtime.wiring import read_kek
from scim.profile import ProfileError, UnknownProfileError

EXIT_FINDING, EXIT_USAGE, EXIT_UNREACHABLE = 1, 2, 3

app = typer.Typer(no_args_is_help=True, add_completion=False, help="The provisioning ledger.", pretty_exceptions_enable=False)
directories = typer.Typer(no_args_is_help=True, help="IdP connections.")
tokens = typer.Typer(no_args_is_help=True, help="Bearer tokens.")
app.add_typer(directories, name="directory")
directories.add_typer(profile_cli.app, name="profile")
directories.add_typer(schema_cli.app, name="schema")
app.add_typer(tokens, name="token")
app.add_typer(replay_cli.app, name="replay")
app.add_typer(audit_cli.app, name="audit")
app.add_typer(events_cli.app, name="events")
app.add_typer(consumer_cli.app, name="consumer")
app.add_typer(consumer_cli.parked, name="parked")
directories.add_typer(surge_cli.app, name="surge")

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]


@app.command("serve")
def serve_command() -> None:
    """Start the service (with the embedded PostgreSQL unless LEDGER_DATABASE_URL is set)."""
    serve(main_settings())


@app.command("migrate")
def migrate_command(*, as_json: AsJson = False) -> None:
    """Bring the database schema to this release."""
    from database.migrate import migrate

    with running_urls(main_settings()) as urls:
        applied = migrate(urls.migrate)
    say(as_json, {"applied": applied}, "\n".join(applied) or "The schema is current.")


@app.command("settings")
def settings_command(*, as_json: AsJson = False) -> None:
    """Show every setting with its value, source and meaning; secrets are masked."""
    settings = main_settings()
    rows: list[dict[str, Any]] = []
    for name, field in type(settings).model_fields.items():
        value = getattr(settings, name)
        source = "environment" if name in settings.model_fields_set else "default"
        shown = "" if value is None else str(value)  # SecretStr prints as asterisks
        rows.append({"setting": f"LEDGER_{name.upper()}", "value": shown, "source": source, "meaning": field.description})
    print_rows(as_json, rows)


@app.command("demo")
def demo_command() -> None:
    """Tell the whole story against a running service (LEDGER_URL) or one it starts itself."""
    from runtime.demo import demo

    demo()


@directories.command("create")
def directory_create(
    slug: str,
    *,
    profile: Annotated[str, typer.Option(help="How its IdP speaks: `scim-ledger directory profile list`.")] = PROFILE,
    as_json: AsJson = False,
) -> None:
    """Make a directory: one IdP connection."""

    async def act(acts: Administration) -> dict[str, Any]:
        made = await acts.create_directory(slug, profile=profile)
        return {"directory": made.slug, "id": str(made.uuid), "profile": made.profile}

    found = administer(act)
    say(as_json, found, f"Made directory {slug}. Issue a token for its IdP: scim-ledger token issue scim --directory {slug}")


@directories.command("list")
def directory_list(*, as_json: AsJson = False) -> None:
    """List the directories."""

    async def act(acts: Administration) -> list[dict[str, Any]]:
        return [{"directory": d.slug, "id": str(d.uuid), "profile": d.profile} for d in await acts.directories()]

    print_rows(as_json, administer(act))


@directories.command("doctor")
def directory_doctor(
    slug: str,
    *,
    hours: Annotated[int, typer.Option(min=1, max=720, help="How far to look back.")] = 24,
    as_json: AsJson = False,
) -> None:
    """Say how a directory's IdP is doing: silence, refusals and their reasons, retry storms, tolerances, token ages."""
    now = datetime.now(UTC)
    report = asyncio.run(_examined(slug, hours))
    problems = advice(report, now)
    if as_json:
        print(orjson.dumps({**report, "advice": problems}, default=str).decode())
    else:
        _print_health(report, problems)
    if problems:
        raise SystemExit(EXIT_FINDING)


async def _examined(slug: str, hours: int) -> dict[str, Any]:
    settings = main_settings()
    with running_urls(settings) as urls:
        kek = await read_kek(urls.serve, settings.kek_path)
        conn = await connect(urls.serve)
        try:
            found = await Directories(kek).by_slug(conn, slug)
            if found is None:
                raise RefusedError(f"There is no directory {slug}. `scim-ledger directory list` shows them.")
            return await directory_health(conn, found, hours)
        finally:
            await conn.close()


def _print_health(report: dict[str, Any], problems: list[str]) -> None:
    last = report["last_request"]
    print(
        f"{report['directory']} ({report['profile']}): last request {last:%Y-%m-%d %H:%M:%S} UTC"
        if last
        else f"{report['directory']}: no request yet"
    )
    for line in problems:
        print(f"! {line}")
    for title in ("operations", "refusals", "tolerances"):
        if report[title]:
            print(f"\n{title} of the last {report['hours']} hours")
            print_rows(False, report[title])


@tokens.command("issue")
def token_issue(
    role: Annotated[str, typer.Argument(help=f"One of {', '.join(ROLES)}.")],
    *,
    directory: Annotated[
        list[str] | None, typer.Option(help="What it reaches; may be given again. Default: all, but one for scim.")
    ] = None,
    name: Annotated[str, typer.Option(help="What it is for.")] = "",
    types: Annotated[str, typer.Option(help="Comma-separated event types it reads, such as user.*; role consumer.")] = "",
    consumer: Annotated[
        list[str] | None, typer.Option(help="A named consumer it reads for; may be given again. Default: any.")
    ] = None,
    bodies: Annotated[bool, typer.Option(help="Whether it sees attributes; role consumer.")] = True,
    days: Annotated[int, typer.Option(min=1, max=3650, help="Days until it expires.")] = LIFE_DAYS,
    as_json: AsJson = False,
) -> None:
    """Issue a token. It is shown once and cannot be read again."""
    expires = datetime.now(UTC) + timedelta(days=days)

    async def act(acts: Administration) -> dict[str, Any]:
        narrowed = Scope(tuple(types.split(",")) if types else ("*",), tuple(consumer or ("*",)), bodies)
        scope = narrowed if narrowed != Scope() else None
        text = await acts.issue_token(role, name or role, tuple(directory or ("*",)), expires, scope=scope)
        return {"token": text, "role": role, "expires_at": expires.isoformat()}

    found = administer(act)
    say(as_json, found, str(found["token"]))


@tokens.command("list")
def token_list(*, as_json: AsJson = False) -> None:
    """List tokens with their scopes and dates; secrets are not stored."""

    async def act(acts: Administration) -> list[dict[str, Any]]:
        return await acts.tokens()

    print_rows(as_json, administer(act))


@tokens.command("revoke")
def token_revoke(
    token: Annotated[str, typer.Argument(help="Its id, as `token list` shows it.")], *, as_json: AsJson = False
) -> None:
    """Revoke a token: refused from the next request on."""
    number = parse_id(token) or _hex_id(token.removeprefix("tok_"))
    if number is None:
        fail("That is not a token id. `scim-ledger token list` shows them.", EXIT_USAGE)

    async def act(acts: Administration) -> None:
        await acts.revoke_token(number)

    administer(act)
    say(as_json, {"revoked": str(number)}, f"Revoked {number}.")


def _hex_id(text: str) -> UUID | None:
    return UUID(text) if len(text) == 32 and all(c in "0123456789abcdef" for c in text) else None


def main() -> None:
    """Entry point: errors become one sentence and an exit code."""
    try:
        app()
    except (StartError, RefusedError, ProfileError, UnknownProfileError) as refused:
        fail(str(refused), EXIT_USAGE)
    except ValidationError as wrong:
        fail("; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in wrong.errors()), EXIT_USAGE)
    except (psycopg.OperationalError, ConnectionError):
        fail(
            "The database cannot be reached. Is the service running (make run), and is LEDGER_DATABASE_URL right?",
            EXIT_UNREACHABLE,
        )
    except (WrapError, BodyError):
        fail("A stored key or body does not open with this key-encryption key. Run `scim-ledger replay verify`.", EXIT_FINDING)
