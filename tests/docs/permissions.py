"""Writes the table of docs/permissions.md: every route with its operation, its verb and the roles that may use it; `make docs`."""

from pathlib import Path

from operations.permissions import ROLES, TABLE
from runtime.cli.verbs import PART_OF_ANOTHER, VERBS
from tests.docs.generated import with_table
from tests.served import served

PAGE = Path(__file__).parents[2] / "docs" / "permissions.md"
ADDRESSES = {
    "scim.read": "GET and POST …/.search below /scim/{directory}/v2",
    "scim.write": "every write below /scim/{directory}/v2",
}


def table() -> str:
    """Route, operation, verb, roles, reach; in the order of the permission table."""
    lines = ["| route | operation | verb of the command line | who | must reach |", "|---|---|---|---|---|"]
    for operation, rule in TABLE.items():
        for method, path in _addresses(operation):
            who = "anybody" if "stranger" in rule.roles else ", ".join(role for role in ROLES if role in rule.roles)
            verb = ", ".join(
                f"`{PART_OF_ANOTHER.get(words, words)}`"
                for words, route in VERBS.items()
                if (route.method, _plain(route.template)) == (method, _plain(path))
            )
            lines.append(f"| {_shown(method, path)} | {operation} | {verb or '–'} | {who} | {rule.reach} |")
    return "\n".join(lines) + "\n"


def _addresses(operation: str) -> list[tuple[str, str]]:
    if operation in ADDRESSES:
        return [("", ADDRESSES[operation])]
    return [
        (method, route.path)
        for route in served()
        if route.name == operation
        for method in sorted((route.methods or set()) - {"HEAD"})
    ]


def _shown(method: str, path: str) -> str:
    return f"`{method} {path}`" if method else path


def _plain(template: str) -> str:
    return "/".join("{}" if part.startswith("{") else part for part in template.split("/"))


def generated(text: str) -> str:
    """The page with its current table."""
    return with_table(text, "routes", table())


if __name__ == "__main__":
    PAGE.write_text(generated(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
