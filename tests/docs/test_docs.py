"""The documentation is compared with the code: everything that exists is described, and everything that is described exists."""

import ast
import json
import re
from collections.abc import Iterator
from datetime import datetime
from functools import cache
from pathlib import Path
from uuid import UUID

import pytest

import ledger.events
from api import problems
from api.metrics import NAMED, REGISTRY
from api.scim.app import ROUTES as SCIM_ROUTES
from delivery.backoff import SCHEDULE_S
from ledger.events import BY_TOPIC, EVENT_TYPES
from ledger.rendering import Event, render
from ledger.tokens import ROLES
from operations.permissions import TABLE
from runtime import protocol
from runtime.cli import app
from runtime.settings import Settings
from tests.docs import deadlines, error_codes, locks
from tests.docs.permissions import generated, table
from tests.served import served
from tests.test_tidy import CODE, where
from tests.unit.cli.walk import walked

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\[[^\]\n]*\]\(([^)\s]+)\)")
INLINE = re.compile(r"`((?:scim-ledger|make) (?!…)[^`\n]+)`")


@cache
def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def commands() -> Iterator[tuple[str, ...]]:
    """Every command of the command line, as its words."""
    yield from (words for words, command in walked(app) if not command.hidden)


@cache
def routes() -> list[str]:
    """The paths of /v1 and the probes, as the application serves them."""
    return sorted({route.path for route in served()} - {"/openapi.json"})


def problem_codes() -> set[str]:
    """Every error code that the sources raise as an argument beside the message, and the codes of the protocol class and of plain
    statuses.
    """
    folders = ("api", "operations", "delivery", "ledger")
    found = {code for folder in folders for path in (ROOT / folder).rglob("*.py") for code in raised_codes(path)}
    said = {value.code for value in vars(protocol).values() if isinstance(value, protocol.Refusal)}
    return found | said | set(problems._CODES.values())


RAISING = {"ProblemError", "ConflictError", "ForbiddenError", "InvalidError", "NotFoundError", "StateError"}


def raised_codes(path: Path) -> Iterator[str]:
    """The codes of the errors that a source file makes; a code that is composed at run time stands for each state of a token."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in RAISING:
            code = node.args[1] if len(node.args) > 1 else None
            if isinstance(code, ast.Constant):
                yield str(code.value)
            elif isinstance(code, ast.JoinedStr):
                assert ast.unparse(code) == "f'token_{state}'", ast.unparse(code)
                yield from ("token_expired", "token_revoked")


@pytest.mark.parametrize("name", list(Settings.model_fields))
def test_each_setting_is_described(name: str) -> None:
    assert f"| `LEDGER_{name.upper()}` |" in read("docs/operations.md")


@pytest.mark.parametrize("words", list(commands()), ids=" ".join)
def test_each_command_is_described(words: tuple[str, ...]) -> None:
    assert f"`scim-ledger {' '.join(words)}" in read("docs/operations.md")


@pytest.mark.parametrize("role", ROLES)
def test_each_role_is_described(role: str) -> None:
    assert f"| `{role}` |" in read("docs/operations.md")
    assert f"`{role}`" in read("docs/permissions.md").partition("**Roles.**")[2].partition("**Reach.**")[0]


def test_the_command_line_names_each_role() -> None:
    """The command line is a client and cannot import the list, so its help repeats it."""
    (issue,) = (command for words, command in walked(app) if words == ("token", "issue"))
    (role,) = (parameter for parameter in issue.params if parameter.name == "role")
    assert role.help == f"One of {', '.join(ROLES)}."  # pyright: ignore[reportAttributeAccessIssue]


def test_the_described_attempts_are_those_of_the_default_schedule() -> None:
    """Each delay has a number and a unit: `after 5 s, 30 s, 2 min … 1 h, then hourly to 72 h`."""
    said = re.search(r"\*\*Attempts\*\*: at once, after (.*?), then hourly to (\d+) h", read("docs/consumers.md"))
    assert said is not None
    seconds = {"s": 1, "min": 60, "h": 3_600}
    delays = [int(number) * seconds[unit] for number, unit in (delay.split() for delay in said[1].split(", "))]
    assert SCHEDULE_S[: len(delays) + 1] == (0, *delays)
    assert set(SCHEDULE_S[len(delays) + 1 :]) == {3_600}
    assert round(sum(SCHEDULE_S) / 3_600) == int(said[2])


@pytest.mark.parametrize("topic", [kind.topic for kind in EVENT_TYPES])
def test_each_event_type_is_described(topic: str) -> None:
    assert f"`{topic}`" in read("docs/events.md")


def test_each_event_type_in_use_has_an_example_of_its_own() -> None:
    page = read("docs/events.md")
    reserved = set(re.findall(r"`([a-z_.]+)`", page.partition("### Types that are fixed but not written yet")[2]))
    examples = {
        title: json.loads(block)
        for title, block in re.findall(r"^### `([a-z_.]+)`\n.*?```json\n(.*?)```", page, re.MULTILINE | re.DOTALL)
    }
    assert {title: example["type"] for title, example in examples.items()} == {title: title for title in examples}
    assert set(examples) == {kind.topic for kind in EVENT_TYPES} - reserved
    code = "".join(
        path.read_text(encoding="utf-8")
        for path in CODE
        if path.name in {"decide.py", "extension_schemas.py", "profiles.py", "lifecycle.py", "directories.py", "tokens.py"}
        or (path.parent.name == "delivery" and path.name != "lanes.py")  # it only names events that other modules write
    )
    names = {kind.topic: name for name, kind in vars(ledger.events).items() if kind in EVENT_TYPES}
    assert [topic for topic in reserved if names[topic] in code] == [], "these are written: give an example of each"


def test_the_examples_are_rendered_as_the_feed_renders_them() -> None:
    """An example that is out of date misleads more than no example."""
    for block in re.findall(r"```json\n(.*?)```", read("docs/events.md"), re.DOTALL):
        shown = json.loads(block)
        data, member = shown["data"], shown["data"].get("member")
        leaf = {
            "seq": shown["seq"], "tx": shown["commit"]["first_seq"], "txn": shown["commit"]["size"], "type": shown["type"],
            "rv": shown["rv"], "at": micros(shown["time"]), "cause": shown["cause"], "actor": shown["actor"],
            "req": shown["request_id"], "prof": shown["profile"], "ot": shown["subject"]["type"], "obj": shown["subject"]["id"],
            "dir": "", **({"mem": member["id"], "mt": member["type"], "eff": data["effective"]} if member else {}),
        }  # fmt: skip
        mark = bytes.fromhex(shown["id"].rpartition("_")[2])
        event = Event(
            shown["position"], 1, shown["seq"], BY_TOPIC[shown["type"]].number, UUID(leaf["obj"]), UUID(member["id"]) if member else None,
            leaf["at"], leaf["tx"], 0, mark, shown["directory"],
        )  # fmt: skip
        event.head, event.data = render(event, json.dumps(leaf).encode(), json.dumps(data).encode())
        assert json.loads(event.json) == shown


def micros(time: str) -> int:
    moment = datetime.fromisoformat(time)
    return int(moment.timestamp()) * 1_000_000 + moment.microsecond


def test_the_table_of_routes_is_current() -> None:
    text = read("docs/permissions.md")
    assert generated(text) == text, "run `make docs`"
    assert len(table().splitlines()) > len(TABLE)


def test_the_table_of_deadlines_is_current() -> None:
    text = read("docs/operations.md")
    assert deadlines.generated(text) == text, "run `make docs`"


def test_the_table_of_error_codes_is_current() -> None:
    text = read("docs/events.md")
    assert error_codes.generated(text) == text, "run `make docs`"


def test_the_table_of_advisory_locks_is_current() -> None:
    text = read("docs/architecture.md")
    assert locks.generated(text) == text, "run `make docs`"


@pytest.mark.parametrize(
    "path",
    [path for path in routes() if path.startswith("/v1/events") or path.endswith(("/snapshot", "/audit", "z", "/metrics"))],
)
def test_each_route_that_programs_read_is_described(path: str) -> None:
    """Routes that people use through the command line are in the table of routes; routes that programs read need a description."""
    pages = ("docs/operations.md", "docs/events.md", "docs/consumers.md")
    assert any(re.search(rf"GET {re.escape(path)}[`?]", page) for page in map(read, pages))


@pytest.mark.parametrize("segment", sorted({name for name, _ in SCIM_ROUTES}))
def test_each_scim_endpoint_is_described(segment: str) -> None:
    assert f"`/{segment}" in read("docs/scim.md")


def test_features_that_the_scim_page_calls_missing_are_missing() -> None:
    """The page must neither promise too much nor, once something was built, too little."""
    missing = read("docs/scim.md").partition("## What is not there yet")[2].partition("\n## ")[0]
    segments = {name for name, _ in SCIM_ROUTES}
    edge = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "api" / "scim").glob("*.py"))
    assert ("Bulk" in missing) is ("Bulk" not in segments)
    assert ("/.search" in missing) is (".search" not in segments)
    assert ("sortBy" in missing) is ("sortBy" not in edge)
    assert ("RFC 9865" in missing) is ("nextCursor" not in (ROOT / "scim" / "discovery.py").read_text(encoding="utf-8"))


def test_each_problem_code_is_described() -> None:
    described = set(re.findall(r"^\| \d{3} \| `(\w+)` \|", read("docs/events.md"), re.MULTILINE))
    assert problem_codes() - described == set()


def test_each_metric_is_described() -> None:
    text = read("docs/operations.md")
    families = [family for family in [*REGISTRY.collect(), *NAMED.collect()] if not family.name.startswith("process_")]
    for family in families:  # the others are those of every process that Prometheus watches
        name = f"{family.name}_total" if family.type == "counter" else family.name
        assert f"| `{name}` |" in text


def test_the_tree_in_the_architecture_lists_every_module() -> None:
    tree = read("docs/architecture.md").partition("```\nruntime/\n")[2].partition("```")[0]
    package, named = "runtime", set[str]()
    for line in tree.splitlines():
        if not line.startswith(" "):
            package = line.rstrip("/")
        else:
            named.add(f"{package}/{line.split()[0]}")
    assert named == {where(path) for path in CODE if path.name != "__init__.py"}


def test_the_files_that_the_architecture_names_exist() -> None:
    """Folders too: whoever wants to change something is sent to a place that exists."""
    named = re.findall(r"`([a-z_]+/[\w/.@-]*)`", read("docs/architecture.md"))
    assert [path for path in named if not (ROOT / path).exists()] == []
    assert len(named) > 50


def anchors(page: Path) -> set[str]:
    """The anchors of the headings of a page, as code hosting sites make them."""
    text = BLOCK.sub("", page.read_text(encoding="utf-8"))
    titles = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=where)
def test_links_lead_somewhere(page: Path) -> None:
    for link in LINK.findall(BLOCK.sub("", page.read_text(encoding="utf-8"))):
        if "://" in link:
            continue
        target, _, anchor = link.partition("#")
        path = (page.parent / target).resolve() if target else page
        assert path.exists(), link
        assert not anchor or anchor in anchors(path), link


def mentioned(page: Path) -> list[str]:
    """Commands in the text, and the lines of sh blocks that begin with one of our commands."""
    text = page.read_text(encoding="utf-8")
    lines = [line.strip() for kind, block in BLOCK.findall(text) if kind in {"", "sh"} for line in block.splitlines()]
    return [*INLINE.findall(BLOCK.sub("", text)), *(line for line in lines if line.startswith(("scim-ledger ", "make ")))]


@pytest.mark.parametrize("page", PAGES, ids=where)
def test_every_named_command_exists(page: Path) -> None:
    known = {words for words, _ in walked(app)}
    # `scim-ledger replay …` names a group of commands
    groups = {words[:size] for words in known for size in range(1, len(words))}
    targets = set(re.findall(r"^([a-z]+):.*##", read("Makefile"), re.MULTILINE))
    for command in mentioned(page):
        words = command.split()
        if words[0] == "make":
            assert words[1] in targets, command
        else:
            named = tuple(word for word in words[1:4] if re.fullmatch(r"[a-z-]+", word) and not word.startswith("-"))
            assert named in groups or any(named[:size] in known for size in (1, 2, 3)), command


@pytest.mark.parametrize("page", [page for page in PAGES if "scim-ledger token" in page.read_text(encoding="utf-8")], ids=str)
def test_no_command_is_shown_with_a_secret_in_it(page: Path) -> None:
    """A shell keeps its history, and every process of a machine sees the arguments: tokens are named by their id."""
    named = re.findall(r"scim-ledger token (?:show|rotate|revoke) ([^\s`]+)", page.read_text(encoding="utf-8"))
    assert {*named} <= {"ID", '"$id"'}
    assert not re.search(r"scim-ledger [^`\n]*\b(TOKEN|SECRET|sl_[a-z]+_\w+)\b", page.read_text(encoding="utf-8"))


def test_decisions_are_numbered_and_say_why() -> None:
    records = sorted((ROOT / "docs" / "decisions").glob("[0-9]*.md"))
    index = read("docs/decisions/README.md")
    assert re.findall(r"^\| \[(\d+)\]\((.*?)\) \|", index, re.MULTILINE) == [
        (str(int(path.name[:4])), path.name) for path in records
    ]
    numbers = [int(path.name[:4]) for path in records]
    assert numbers == sorted(set(numbers)), "each once: numbers are given out before the records are written"
    for path in records:
        text = path.read_text(encoding="utf-8")
        for part in ("**Context.**", "**Decision.**", "**Consequences.**"):
            assert part in text, path.name


def test_commands_routes_and_codes_are_found_at_all() -> None:
    """If a walk found nothing, every test above would pass."""
    assert ("token", "issue") in set(commands())
    assert len(set(commands())) > 10
    assert "/v1/events" in routes()
    assert "cursor_forked" in problem_codes()
