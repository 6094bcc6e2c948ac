"""Sentences of the service in the words of the command line: commands instead of routes, options instead of fields. Pure."""

import re
from collections.abc import Collection
from typing import Final

from runtime.cli.verbs import PART_OF_ANOTHER, VERBS

_ROUTE: Final = re.compile(r"\b(GET|POST|PUT|DELETE) ((?:/v1|…)/[\w{}/…-]*[\w}])")
_PLACE: Final = re.compile(r"\{\w+\}|…")
_FIELD: Final = re.compile(r"`(\w+)`")
_SPELT: Final = {
    'set `superseded` to "include"': "add `--include-superseded`"
}  # where the option has another form than the field


def in_commands(text: str, options: Collection[str]) -> str:
    """The sentence for somebody at the command line. `options`: those that were typed, such as `--directory`.

    The service speaks of "GET /v1/tokens" and of the field `directories`; who typed a command needs its name, and that of its option.
    """

    def command(route: re.Match[str]) -> str:
        found = _verb(route[1], route[2])
        return f"`scim-ledger {found}`" if found else route[0]

    def option(field: re.Match[str]) -> str:
        return f"`{next((name for name in _as_options(field[1]) if name in options), field[1])}`"

    for field, spelt in _SPELT.items():
        text = text.replace(field, spelt)
    return _FIELD.sub(option, _ROUTE.sub(command, text))


def _verb(method: str, path: str) -> str | None:
    """The command that asks a route. The path may begin with an ellipsis: then its end decides."""
    asked = _PLACE.sub("*", path)
    for verb, route in VERBS.items():
        template = _PLACE.sub("*", route.template)
        if method == route.method and (template == asked or (asked[0] == "*" and template.endswith(asked[1:]))):
            return PART_OF_ANOTHER.get(verb, verb)
    return None


def _as_options(field: str) -> tuple[str, ...]:
    """The options that a field can have: its name, or for a list the name of one item."""
    name = field.replace("_", "-")
    single = f"{name[:-3]}y" if name.endswith("ies") else name.removesuffix("s")
    return f"--{name}", f"--{single}"
