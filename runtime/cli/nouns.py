"""Groups of commands whose modules are imported on use, because `--help` needs only a name and a line for each."""

import importlib
from collections.abc import Mapping
from typing import Any, Final, NamedTuple, TypeAlias

import typer
from typer.core import TyperGroup

PROGRAM: Final = "scim-ledger"
COMPLETE: Final = "_SCIM_LEDGER_COMPLETE"  # the variable by which a shell asks for completions


class Noun(NamedTuple):
    """The module with a noun's commands. `help`: its line in the list of nouns."""

    module: str
    help: str
    attribute: str = "app"
    verb: bool = False  # a single command of that module instead of all of them


Nouns: TypeAlias = Mapping[str, Noun]

NOUNS: Final[Nouns] = {
    "serve": Noun("machine", "Start the service.", verb=True),
    "migrate": Noun("machine", "Bring the database schema to this release.", verb=True),
    "backup": Noun("machine", "Back up the embedded PostgreSQL while it runs.", verb=True),
    "restore": Noun("machine", "Restore a backup into an empty data directory.", verb=True),
    "settings": Noun("machine", "Show every setting with its value, source and meaning.", verb=True),
    "doctor": Noun("doctor", "Show what needs attention.", verb=True),
    "demo": Noun("machine", "Run the demo, from the first push to a replay.", verb=True),
    "completion": Noun("machine", "Print the script for completion in a shell.", verb=True),
    "directory": Noun("directory", "IdP connections."),
    "user": Noun("resources", "The current users of a directory.", "users"),
    "group": Noun("resources", "The current groups of a directory.", "groups"),
    "token": Noun("token", "Bearer tokens."),
    "client": Noun("oauth_client", "OAuth 2.0 clients of IdPs."),
    "key": Noun("key", "Key epochs: the keys with which everything is sealed."),
    "events": Noun("events", "The feed."),
    "consumer": Noun("consumer", "Named readers of the feed."),
    "blocked": Noun("deliveries", "Deliveries that failed.", "blocked"),
    "parked": Noun("deliveries", "Parked deliveries.", "parked"),
    "replay": Noun("replay", "Rebuild or check the read models; send deliveries again."),
    "audit": Noun("audit", "Who had access, as of a time or a place in the log."),
    "erase": Noun("erase", "Erase users and groups, with a receipt; look for what is left."),
    "hold": Noun("hold", "Legal holds, which keep users and groups from being erased."),
    "requests": Noun("requests", "The journal of SCIM requests."),
}
DIRECTORY_NOUNS: Final[Nouns] = {
    "profile": Noun("profile", "Profiles: how kinds of IdP write SCIM."),
    "schema": Noun("schema", "Extension schemas of a directory."),
    "surge": Noun("surge", "The brake on too many revocations in an hour."),
    "rate-limit": Noun("rate_limit", "How many SCIM requests a directory may send."),
}


def group_of(nouns: Nouns) -> type[TyperGroup]:
    """A group that has these nouns besides its own commands."""

    class Group(TyperGroup):
        def list_commands(self, ctx: Any) -> list[str]:
            return [*self.commands, *nouns]

        def get_command(self, ctx: Any, cmd_name: str) -> Any:
            noun = nouns.get(cmd_name)
            return self.commands.get(cmd_name) if noun is None else _loaded(cmd_name, noun)

        def format_commands(self, ctx: Any, formatter: Any) -> None:
            own = [(name, command.get_short_help_str(limit=100)) for name, command in self.commands.items() if not command.hidden]
            with formatter.section("Commands"):
                formatter.write_dl([*own, *((name, noun.help) for name, noun in nouns.items())])

    return Group


def new_group(text: str, nouns: Nouns | None = None) -> typer.Typer:
    """An empty group of commands. Its help is plain: importing rich for a framed one would take longer than most commands."""
    return typer.Typer(
        cls=group_of(nouns) if nouns else None, no_args_is_help=True, add_completion=False, rich_markup_mode=None,
        pretty_exceptions_enable=False, help=text,
    )  # fmt: skip


def _loaded(word: str, noun: Noun) -> Any:
    """Import the module of a noun and build its commands."""
    module = importlib.import_module(f"runtime.cli.{noun.module}")
    made: Any = typer.main.get_group(getattr(module, noun.attribute))
    made = made.commands[word] if noun.verb else made
    made.name = word
    return made
