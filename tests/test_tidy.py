"""House rules that no linter checks."""

import ast
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache
from pathlib import Path

import pytest

from ledger.events import BY_TOPIC
from runtime.cli.nouns import DIRECTORY_NOUNS, NOUNS

PROJECT = Path(__file__).parents[1]
PACKAGES = ("runtime", "api", "operations", "replay", "projections", "delivery", "ledger", "scim", "proofs", "database")
CODE = sorted(path for package in PACKAGES for path in (PROJECT / package).rglob("*.py"))
TESTS = sorted((PROJECT / "tests").rglob("*.py"))
OTHERS = sorted(path for folder in ("bench", "clients", "examples") for path in (PROJECT / folder).rglob("*.py"))
TEXTS = [*CODE, *TESTS, *OTHERS, *(path for package in PACKAGES for path in (PROJECT / package).rglob("*.sql"))]
PAGES = sorted([*PROJECT.glob("*.md"), *(PROJECT / "docs").rglob("*.md")])
FUNCTION_LINES_MAX = 60  # one screen
BANNED_NAMES = {"utils", "util", "common", "helpers", "helper", "base", "manager", "misc"}
MARKERS = re.compile("|".join(rf"\b{one}{two}\b" for one, two in (("TO", "DO"), ("FIX", "ME"), ("XX", "X"))))
_ELSEWHERE = (
    ("CONT", "RACT"),
    ("DES", "IGN"),
    ("WRITE", "PATH"),
    ("PRO", "DUCT"),
    ("STAND", "ARDS"),
    ("SC", r"IM\.md"),
    ("AUD", r"IT\.md"),
)
NOT_HERE = re.compile("|".join(rf"\b{one}{two}\b" for one, two in _ELSEWHERE))
CITED = re.compile(r'\b(docs/[\w/-]+\.md)((?:, "[^"]+")*)')
# Names that several modules of a package may define, besides a module's logger and its SQL statements.
IN_EACH_MODULE = {
    "api": {"routes"},  # the routes of each part, gathered by api/app.py
    "bench": {"app", "main"},  # scripts that run as processes of their own
    "operations": set("create list_all pause read resume show".split()),  # called with their module: `tokens.show`
    "runtime/cli": set("app create doctor list_command pause resume set_command show".split()),  # commands, called only by Typer
}
ENTRY_POINTS = {
    "runtime.cli",  # named in pyproject.toml
    "ledger.eventsourcing_recorder",  # for other people's event-sourcing code
    "proofs.tree",  # for auditors, usable alone
    *(f"runtime.cli.{noun.module}" for noun in (*NOUNS.values(), *DIRECTORY_NOUNS.values())),  # imported when they are named
}


def where(path: Path) -> str:
    return str(path.relative_to(PROJECT))


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(PROJECT).with_suffix("").parts).removesuffix(".__init__")


@pytest.fixture(scope="module", autouse=True)
def _forget() -> Iterator[None]:
    """The two million cached nodes would make every later garbage collection of the test process slower."""
    yield
    for kept in (text_of, module_tree, nodes_of):
        kept.cache_clear()


@cache
def text_of(path: Path) -> str:
    return path.read_text(encoding="utf-8")


@cache
def module_tree(path: Path) -> ast.Module:
    """A file is parsed once for all rules."""
    return ast.parse(text_of(path))


@cache
def nodes_of(path: Path) -> Sequence[ast.AST]:
    return tuple(ast.walk(module_tree(path)))


def of_each(paths: Iterable[Path]) -> Callable[[Callable[[Path], None]], Callable[[], None]]:
    """Make one test from a rule about a file or a folder: the rule is applied to each, and the test names all that break it.

    One test for each file and rule would be a quarter of all tests, and each takes longer to start than to run.
    """

    def of_rule(rule: Callable[[Path], None]) -> Callable[[], None]:
        def test() -> None:
            broken: list[str] = []
            for path in paths:
                try:
                    rule(path)
                except AssertionError as found:
                    broken.append(f"{where(path)}: {found}")
            assert not broken, "\n".join(broken)

        test.__doc__ = rule.__doc__
        return test

    return of_rule


def imported_by(path: Path) -> set[str]:
    """Every module that a file imports, and every name that a `from package import module` may mean."""
    found: set[str] = set()
    for node in nodes_of(path):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


@of_each(CODE)
def test_functions_fit_on_a_screen(path: Path) -> None:
    """A reader should see a whole function at once."""
    for node in nodes_of(path):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = (node.end_lineno or 0) - node.lineno + 1
            assert lines <= FUNCTION_LINES_MAX, f"{where(path)}:{node.lineno} {node.name} has {lines} lines"


@of_each([path for path in CODE if module_of(path) != "ledger.events"])
def test_facts_about_events_are_asked_of_the_event_type(path: Path) -> None:
    """A topic that is written elsewhere is a fact about events, and whoever adds an event type would not find it."""
    spelt = [node.value for node in nodes_of(path) if isinstance(node, ast.Constant) and node.value in BY_TOPIC]
    asked = [node for node in nodes_of(path) if isinstance(node, ast.Attribute) and node.attr == "startswith"]
    assert spelt == []
    assert [node.lineno for node in asked if isinstance(node.value, ast.Attribute) and node.value.attr == "topic"] == []


SEARCHES = {
    "find", "rfind", "index", "rindex", "partition", "rpartition", "split", "rsplit", "startswith", "endswith", "removeprefix", "removesuffix",
}  # fmt: skip


@of_each(CODE)
def test_no_json_of_ours_is_searched_or_cut(path: Path) -> None:
    """An event knows its id, its parts and its size; a byte offset would be wrong once the JSON is written in another way."""

    def rendered(node: ast.expr) -> bool:
        made = isinstance(node, ast.Call) and ast.unparse(node.func) == "orjson.dumps"
        named = node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""
        return made or named in {"json", "structure", "head", "payload"}

    def quoted(node: ast.expr) -> bool:
        return isinstance(node, ast.Constant) and isinstance(node.value, bytes) and b'"' in node.value

    for node in nodes_of(path):
        cut = isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Slice) and rendered(node.value)
        searched = isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in SEARCHES and (
            rendered(node.func.value) or any(map(quoted, node.args))
        )  # fmt: skip
        assert (cut, searched) == (False, False), f"{where(path)}:{node.lineno}"


@of_each(CODE)
def test_no_column_of_a_row_is_read_by_number(path: Path) -> None:
    """`row[5]` depends on the order of columns in the statement: a row is unpacked into names beside its statement."""
    for node in nodes_of(path):
        if isinstance(node, ast.Subscript) and isinstance(node.value, ast.Name) and node.value.id in {"row", "r"}:
            number = node.slice.value if isinstance(node.slice, ast.Constant) else None
            assert not isinstance(number, int) or number == 0, f"{where(path)}:{node.lineno}"


def test_modules_are_named_after_their_subject() -> None:
    """Code that two packages need has a subject and is named after it; a module without a subject would collect anything."""
    assert [where(path) for path in [*CODE, *TESTS] if set(path.relative_to(PROJECT).with_suffix("").parts) & BANNED_NAMES] == []


def top_level_names(path: Path) -> set[str]:
    """The names that a module defines, without imported ones."""
    body = module_tree(path).body
    made = {node.name for node in body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)}
    targets = [target for node in body if isinstance(node, ast.Assign) for target in node.targets]
    targets += [node.target for node in body if isinstance(node, ast.AnnAssign)]
    return made | {target.id for target in targets if isinstance(target, ast.Name)}


@of_each(sorted({path.parent for path in CODE} | {PROJECT / "bench"}))
def test_no_two_modules_of_a_package_define_one_name(folder: Path) -> None:
    """Whoever searches for a name must find one thing; two things of one name are confused."""
    seen = Counter(name for path in folder.glob("*.py") for name in top_level_names(path))
    assert {name for name, count in seen.items() if count > 1} <= IN_EACH_MODULE.get(where(folder), set()) | {"_log", "SQL"}


@of_each(TESTS)
def test_no_test_sleeps(path: Path) -> None:
    """A sleep is a guess: too short on a busy machine, too long on every other. Wait for a signal."""
    for node in nodes_of(path):
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            if called == "asyncio.sleep" and ast.unparse(node.args[0]) == "0":
                continue  # lets other tasks run, and guesses no time
            assert called not in {"time.sleep", "asyncio.sleep", "anyio.sleep", "sleep"}, f"{where(path)}:{node.lineno}"


@of_each([*TEXTS, *PAGES])
def test_only_documents_of_the_repository_are_cited(path: Path) -> None:
    """A reader cannot look up a document that is not in the repository: cite a page of docs/ and its section."""
    text = text_of(path)
    assert NOT_HERE.findall(text) == []
    for page, sections in CITED.findall(text):
        assert (PROJECT / page).exists(), page
        titles = re.findall(r"^#+ (.+)$", text_of(PROJECT / page), re.MULTILINE)
        assert [title for title in re.findall(r'"([^"]+)"', sections) if title not in titles] == [], page


@of_each(TEXTS)
def test_no_leftover_markers(path: Path) -> None:
    """Unfinished work is an issue, where others can see it."""
    assert MARKERS.findall(text_of(path)) == []


def test_the_library_gets_no_functions_in_our_database() -> None:
    """With these functions the library's readers follow the log in another order than that of commits, and lose events."""
    elsewhere = [path for path in TEXTS if path != Path(__file__)]
    assert [where(path) for path in elsewhere if "POSTGRES_ENABLE_DB_FUNCTIONS" in text_of(path)] == []


def test_every_module_is_imported_or_an_entry_point() -> None:
    """Unused modules mislead readers; an import by a test, or by the module itself, does not count."""
    used = ENTRY_POINTS.union(*({name for name in imported_by(path) if name != module_of(path)} for path in [*CODE, *OTHERS]))
    assert [module_of(path) for path in CODE if path.name != "__init__.py" and module_of(path) not in used] == []
