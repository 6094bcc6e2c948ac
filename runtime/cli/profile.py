"""`scim-ledger directory profile …`: list, show, check and try profiles, and set that of a directory."""

import json
import tomllib
from pathlib import Path
from typing import Annotated, Any

import typer

from runtime.cli.client import ask, service
from runtime.cli.completing import DirectorySlug
from runtime.cli.files import json_file, read_file
from runtime.cli.nouns import new_group
from runtime.cli.printing import AsJson, Key, plain, print_list, say
from runtime.exits import FINDING, REFUSED, USAGE, CommandError

app = new_group("Profiles: how kinds of IdP write SCIM.")


@app.command("list")
def list_command(*, as_json: AsJson = False) -> None:
    """List all profiles.

    Example: scim-ledger directory profile list
    """
    found = ask("directory profile list")
    print_list(as_json, found, ("profile", "title"))


@app.command()
def show(
    name: Annotated[str, typer.Argument(help="A directory, or a profile such as okta or okta@1.")], *, as_json: AsJson = False
) -> None:
    """Show a profile, or that of a directory.

    Example: scim-ledger directory profile show okta
    """
    with service() as found:
        try:
            shown = found.ask("directory profile show", profile=name)
        except CommandError as unknown:
            if unknown.code != REFUSED:
                raise
            try:
                shown = found.ask("directory profile of", directory=name)
            except CommandError:
                raise unknown from None  # its text names the existing profiles
    say(as_json, {"profile": shown["profile"], **shown["document"]}, _described(shown["profile"], shown["document"]))


@app.command("set")
def set_command(
    directory: DirectorySlug,
    profile: Annotated[
        str, typer.Argument(help="A profile, or a file with one of your own: it is stored and cannot be changed.")
    ],
    *,
    as_json: AsJson = False,
) -> None:
    """Set the profile of a directory, from the next request on. Stored resources do not change.

    Example: scim-ledger directory profile set acme entra
    """
    text = ask("directory profile set", body={"profile": _profile(profile)}, directory=directory)["profile"]
    say(as_json, {"directory": directory, "profile": text}, f"Directory {directory} has the profile {text}.")


@app.command()
def validate(
    file: Annotated[Path, typer.Argument(help="A profile in TOML, or in JSON where its name ends so.")],
    *,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Check a profile file and name every wrong place.

    Example: scim-ledger directory profile validate ours.toml
    """
    found = ask("directory profile validate", body={"profile": _document(file)}, key=key)
    text = f"{file} is a profile: {found['profile']}." if found["valid"] else "\n".join(found["errors"])
    say(as_json, found, text)
    if not found["valid"]:
        raise SystemExit(FINDING)


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
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Print what a profile would make of a recorded request. Exit code 1 if it would be refused.

    Example: scim-ledger directory profile try okta request.json
    """
    recorded = json_file(file)
    if not isinstance(recorded, dict):
        raise CommandError(f'{file} must hold an object: {{"method", "path", "body"}}, or a dialogue with "steps".', USAGE)
    steps: list[dict[str, Any]] = recorded.get("steps", [recorded])  # pyright: ignore[reportUnknownMemberType]
    body = {"profile": _profile(profile), "requests": steps, "directory": directory}
    tried = ask("directory profile try", body=body, key=key)["data"]
    shown = tried if "steps" in recorded else tried[0]
    say(as_json, shown, json.dumps(shown, indent=2, ensure_ascii=False))
    if any("error" in one for one in tried):
        raise SystemExit(FINDING)


def _profile(text: str) -> Any:
    """A name, or the document of a file."""
    return _document(Path(text)) if Path(text).suffix in {".toml", ".json"} else text


def _document(path: Path) -> Any:
    if path.suffix == ".json":
        return json_file(path)
    try:
        return tomllib.loads(read_file(path).decode())
    except ValueError as wrong:
        raise CommandError(f"{path} is not TOML: {wrong}", USAGE) from wrong


def _described(name: str, document: dict[str, Any]) -> str:
    lines = [f"{name}: {document['title']}", "", "forgives:"]
    lines += [f"  {tolerance}" for tolerance in document["tolerances"]]
    lines += [f"a group member that is no id of ours: {document['unknown_member']}", "", "a leaver:"]
    lines += [f"  {text}" for text in document["deactivation"]["leaver"]]
    lines += [f"  DELETE: {document['deactivation']['delete']}", "", "the mapped user:"]
    user = document["user"]
    lines += [
        f"  {name:16} {', '.join(paths)}" for name, paths in user.items() if isinstance(paths, list) and name != "extensions"
    ]
    lines += [f"  custom.{name:9} {', '.join(paths)}" for name, paths in user.get("custom", {}).items()]
    return plain("\n".join(lines))
