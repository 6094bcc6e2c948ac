"""`scim-ledger directory profile …`: how a kind of IdP speaks, and which directory speaks how."""

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any

import orjson
import typer

from ledger.administration import Administration, RefusedError
from ledger.directories import Directory
from runtime.acts import administer
from scim.profile import Profile, ProfileError, UnknownProfileError, profile_of, read_profile, shipped
from scim.schema import RESOURCE_TYPES, ResourceType
from scim.trial import try_request

app = typer.Typer(no_args_is_help=True, help="How a directory's IdP is understood.")
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]
EXIT_FINDING = 1


@app.command("list")
def list_command(*, as_json: AsJson = False) -> None:
    """List the profiles there are."""
    found = administer(lambda acts: acts.profiles())
    rows = [{"profile": text, "title": profile.file.title} for text, profile in found.items()]
    _show(as_json, rows, "\n".join(f"{row['profile']:14} {row['title']}" for row in rows))


@app.command()
def show(
    name: Annotated[str, typer.Argument(help="A directory, or a profile such as okta or okta@1.")], *, as_json: AsJson = False
) -> None:
    """Show a profile, or that of a directory."""
    try:
        profile = profile_of(name)
    except UnknownProfileError:
        profile = administer(lambda acts: _found(acts, name))
    document = {"profile": profile.text, **profile.file.model_dump()}
    _show(as_json, document, _described(profile))


@app.command("set")
def set_command(
    directory: str,
    profile: Annotated[
        str, typer.Argument(help="A profile, or a file with one of your own: it is stored and cannot be changed.")
    ],
    *,
    as_json: AsJson = False,
) -> None:
    """Change how a directory's IdP is understood, from the next request on. Nothing stored changes."""
    asked = _of_file(Path(profile)) if _is_file(profile) else profile

    async def act(acts: Administration) -> str:
        return (await acts.set_profile(directory, asked)).profile

    text = administer(act)
    _show(as_json, {"directory": directory, "profile": text}, f"Directory {directory} has the profile {text}.")


@app.command()
def validate(
    file: Annotated[Path, typer.Argument(help="A profile in TOML, or in JSON where its name ends so.")],
    *,
    as_json: AsJson = False,
) -> None:
    """Check a profile file; every wrong place is named."""
    try:
        profile = _of_file(file)
    except ProfileError as wrong:
        _show(as_json, {"valid": False, "errors": str(wrong).splitlines()}, str(wrong))
        raise SystemExit(EXIT_FINDING) from wrong
    _show(as_json, {"valid": True, "profile": profile.text}, f"{file} is a profile: {profile.text}.")


@app.command("try")
def try_command(
    profile: Annotated[str, typer.Argument(help="A profile, or a file with one.")],
    file: Annotated[
        Path, typer.Argument(help='A recorded request: {"method", "path", "body"}, or a dialogue with steps of them.')
    ],
    *,
    directory: Annotated[
        str | None, typer.Option(help="Check against the extension schemas of this directory; its own profiles are known too.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Run a recorded request through a profile and print what would be stored. Exit code 1 where it would be refused."""
    spoken, types = _tried_with(profile, directory)
    try:
        recorded: Any = orjson.loads(_read(file))
    except orjson.JSONDecodeError as wrong:
        raise RefusedError(f"{file} is not JSON: {wrong}") from wrong
    if not isinstance(recorded, dict):
        raise RefusedError(f'{file} must hold an object: {{"method", "path", "body"}}, or a dialogue with "steps".')
    steps: list[dict[str, Any]] = recorded.get("steps", [recorded])
    tried = [try_request(spoken, step, types) for step in steps]
    shown = tried if "steps" in recorded else tried[0]
    _show(as_json, shown, orjson.dumps(shown, option=orjson.OPT_INDENT_2).decode())
    if any("error" in one for one in tried):
        raise SystemExit(EXIT_FINDING)


def _tried_with(profile: str, slug: str | None) -> tuple[Profile, Mapping[str, ResourceType]]:
    spoken = _of_file(Path(profile)) if _is_file(profile) else None
    if slug is None:
        return spoken or profile_of(profile), RESOURCE_TYPES

    async def act(acts: Administration) -> tuple[Profile, Directory]:
        found = await acts.directory(slug)
        if found is None:
            raise RefusedError(f"There is no directory {slug}. `scim-ledger directory list` shows them.")
        return spoken or await _found(acts, profile), found

    chosen, found = administer(act)
    return chosen, {kind: found.typed(RESOURCE_TYPES[kind]) for kind in RESOURCE_TYPES}


async def _found(acts: Administration, name: str) -> Profile:
    directory = await acts.directory(name)
    if directory is not None:
        return directory.speaks
    found = [profile for text, profile in (await acts.profiles()).items() if name in {text, profile.file.name}]
    if not found:
        raise RefusedError(f"There is no directory and no profile {name}. The profiles are {', '.join(shipped())}.")
    return max(found, key=lambda profile: profile.file.version)


def _is_file(text: str) -> bool:
    return Path(text).suffix in {".toml", ".json"}


def _of_file(path: Path) -> Profile:
    return read_profile(_read(path), json=path.suffix == ".json")


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as wrong:
        raise RefusedError(f"{path} cannot be read: {wrong.strerror}.") from wrong


def _described(profile: Profile) -> str:
    file = profile.file
    lines = [f"{profile.text}: {file.title}", "", "forgives:"]
    lines += [f"  {field.name}" for field in fields(profile.tolerances) if getattr(profile.tolerances, field.name)]
    lines += [f"a group member that is no id of ours: {file.unknown_member}", "", "a leaver:"]
    lines += [f"  {text}" for text in file.deactivation.leaver]
    lines += [f"  DELETE: {file.deactivation.delete}", "", "the mapped user:"]
    for name, paths in file.user:
        if isinstance(paths, tuple):
            lines.append(f"  {name:16} {', '.join(paths)}")  # pyright: ignore[reportUnknownArgumentType]
    lines += [f"  custom.{name:9} {', '.join(paths)}" for name, paths in file.user.custom.items()]
    return "\n".join(lines)


def _show(as_json: bool, document: Any, text: str) -> None:
    print(orjson.dumps(document).decode() if as_json else text)
