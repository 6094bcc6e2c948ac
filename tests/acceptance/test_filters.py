"""Every filter over HTTP selects what a naive evaluator selects from the whole list; pages and sort orders agree as well."""

import json
import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.acceptance.conftest import Service

USER = "urn:ietf:params:scim:schemas:core:2.0:User"
GROUP = "urn:ietf:params:scim:schemas:core:2.0:Group"
SEARCH = "urn:ietf:params:scim:api:messages:2.0:SearchRequest"
PATCH = "urn:ietf:params:scim:api:messages:2.0:PatchOp"
ENTERPRISE = "urn:ietf:params:scim:schemas:extension:enterprise:2.0:User"
BADGE = "urn:example:params:scim:schemas:1.0:Badge"  # an extension without a registered schema
NAMES = [
    "Ada",
    "ada.l",
    "ÄDA",
    "Straße",
    "STRASSE",
    "İrem",
    "ὈΔΥΣΣΕΎΣ",
    "e\u0301ric",
    "Éric",
    'O\'Neil "x"',
    "a\\b",
    "_",
    "日本",
    "zoë",
]
ENDPOINTS = {"/Users": (USER,), "/Groups": (GROUP,), "": (USER, GROUP)}

# ---- a directory with resources of all kinds -----------------------------------------------------------------------------------


def _user(n: int) -> dict[str, Any]:
    """The n-th user; its attributes depend only on n."""
    name = NAMES[n % len(NAMES)]
    kinds = ("work", "Home", "other")
    emails: list[dict[str, Any]] = [
        {"value": f"{name[0]}{n}@{h}.example", "type": kinds[(n + i) % 3]} for i, h in enumerate(("a", "B", "ü")[: n % 4])
    ]
    for email in emails[n % 2 : n % 2 + 1]:
        email["primary"] = n % 5 != 0
    some: dict[str, Any] = {
        "externalId": f"Ext-{n % 7}" if n % 14 < 7 else f"ext-{n % 7}",
        "displayName": name,
        "title": ("Boss", "boss", "Clerk")[n % 3],
        "name": {"familyName": name, "givenName": NAMES[(n * 5) % len(NAMES)]},
        "emails": emails,
        "phoneNumbers": [{"value": f"+49 30 {n}", "type": "work"}, {"value": f"+49 30 {n % 3}"}][: n % 3],
        "roles": [{"value": "Admin", "primary": True}, {"value": f"r{n % 4}", "display": name}][n % 2 :],
        "addresses": [{"locality": name, "country": "DE", "type": "work"}, {"locality": "Paris", "primary": n % 2 == 0}],
        "x509Certificates": [{"value": "AQID" if n % 2 else "aqid"}],
        "profileUrl": f"https://Example.com/{name[0]}",
        ENTERPRISE: {"department": ("Sales", "sales", "R&D")[n % 3], "employeeNumber": str(n), "manager": {"value": f"m{n % 3}"}},
        BADGE: {"level": (n % 4) / 2, "colour": ("Red", "red", "blue")[n % 3], "lost": n % 2 == 0, "doors": ["a", "B", n % 3]},
    }
    kept = {key: value for i, (key, value) in enumerate(some.items()) if (n * 7 + i * 3) % 5}
    return {"schemas": [USER], "userName": f"{name}{n}", "active": n % 4 != 1, **kept}


def _group(n: int, users: list[str], groups: list[str]) -> dict[str, Any]:
    members = [{"value": user} for user in users[n :: n + 2]] + [{"value": group} for group in groups[-1:] if n % 3 == 0]
    some: dict[str, Any] = {"externalId": f"Ext-{n % 4}", "members": members, BADGE: {"colour": "RED", "level": n}}
    kept = {key: value for i, (key, value) in enumerate(some.items()) if (n + i) % 4}
    return {"schemas": [GROUP], "displayName": NAMES[n % len(NAMES)], **kept}


@dataclass(frozen=True)
class Kind:
    """How an attribute is compared, as /Schemas describes it (RFC 7643 §7)."""

    type: str
    exact: bool = False
    subs: dict[str, "Kind"] = field(default_factory=dict)


# RFC 7643 §3.1 describes these only in words; /Schemas does not list them.
_META = {"resourceType": Kind("string", True), "location": Kind("reference", True), "version": Kind("string", True)}
COMMON = {
    "schemas": Kind("reference"),
    "id": Kind("string", True),
    "externalId": Kind("string", True),
    "meta": Kind("complex", False, {**_META, "created": Kind("dateTime"), "lastModified": Kind("dateTime")}),
}
NUMBERED = {"level": Kind("any"), "colour": Kind("any"), "lost": Kind("any"), "doors": Kind("any"), "none": Kind("any")}


@dataclass(frozen=True, eq=False, repr=False)
class StoredResources:
    """All resources, read once without a filter, and the attributes that /Schemas lists."""

    client: httpx.Client
    base: str
    documents: dict[str, list[dict[str, Any]]]  # by endpoint, in order of creation
    kinds: dict[str, dict[str | None, dict[str, Kind]]]  # by core schema, then by extension (None: the core)

    def ask(self, endpoint: str, **params: str) -> dict[str, Any]:
        answer = self.client.get(self.base + endpoint, params=params)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def search(self, endpoint: str, **message: str) -> dict[str, Any]:
        answer = self.client.post(f"{self.base}{endpoint}/.search", json={"schemas": [SEARCH], **message})
        assert answer.status_code == 200, answer.text
        return answer.json()


@pytest.fixture(scope="session")  # not "module": a process may run tests of another file in between
def world(service: Service) -> Iterator[StoredResources]:
    """A directory for these tests, which nothing changes once it is filled."""
    assert service.cli("directory", "create", "filters").returncode == 0
    token = json.loads(service.cli("token", "issue", "scim", "--directory", "filters", "--json").stdout)["token"]
    base = f"{service.base}/scim/filters/v2"
    with httpx.Client(headers={"Authorization": f"Bearer {token}"}, timeout=60, trust_env=False) as client:

        def create(endpoint: str, body: dict[str, Any]) -> str:
            answer = client.post(base + endpoint, json=body)
            assert answer.status_code == 201, answer.text
            return answer.json()["id"]

        users = [create("/Users", _user(n)) for n in range(60)]
        groups: list[str] = []
        for n in range(15):
            groups.append(create("/Groups", _group(n, users, groups)))
        later = {"schemas": [PATCH], "Operations": [{"op": "add", "path": "title", "value": "changed later"}]}
        for user in users[::9]:
            assert client.patch(f"{base}/Users/{user}", json=later).status_code == 200
        documents = {endpoint: client.get(base + endpoint).json()["Resources"] for endpoint in ENDPOINTS}
        assert [len(found) for found in documents.values()] == [60, 15, 75]
        yield StoredResources(client, base, documents, _kinds(client.get(f"{base}/Schemas").json()["Resources"]))


def _kinds(schemas: list[dict[str, Any]]) -> dict[str, dict[str | None, dict[str, Kind]]]:
    def read(attributes: list[dict[str, Any]]) -> dict[str, Kind]:
        return {
            a["name"]: Kind(a["type"], a.get("caseExact", False), read(a.get("subAttributes", [])))
            for a in attributes
            if a["returned"] != "never"
        }

    tables = {schema["id"]: read(schema["attributes"]) for schema in schemas}
    return {
        USER: {None: {**COMMON, **tables[USER]}, ENTERPRISE: tables[ENTERPRISE], BADGE: NUMBERED},
        GROUP: {None: {**COMMON, **tables[GROUP]}, BADGE: NUMBERED},
    }


# ---- the naive evaluator: RFC 7644 §3.4.2.2, word by word ----------------------------------------------------------------------


@dataclass(frozen=True)
class Path:
    """An attribute in a filter. `text` is how it is written, in any letter case."""

    urn: str | None
    name: str
    sub: str | None
    kind: Kind
    text: str

    def values(self, document: dict[str, Any]) -> list[Any]:
        holder = document if self.urn is None else document.get(self.urn, {})
        found = _listed(holder.get(self.name))
        return found if self.sub is None else [v for one in found for v in _listed(one.get(self.sub))]


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [] if value is None else [value]


Node = tuple[Any, ...]  # ("cmp", Path, operator, value) ("pr", Path) ("not", Node) ("and" | "or", Node, Node) ("[]", Path, Node)


def holds(node: Node, document: dict[str, Any]) -> bool:
    match node:
        case ("and", left, right):
            return holds(left, document) and holds(right, document)
        case ("or", left, right):
            return holds(left, document) or holds(right, document)
        case ("not", inner):
            return not holds(inner, document)
        case ("[]", path, inner):
            return any(holds(inner, value) for value in path.values(document))
        case ("pr", path):
            return any(value not in (None, "", {}, []) for value in path.values(document))
        case _:
            _, path, operator, asked = node
            return compares(path, operator, asked, path.values(document))


def compares(path: Path, operator: str, asked: Any, held: list[Any]) -> bool:
    """Whether one of the stored values compares; a complex value is compared by its `value`."""
    kind = path.kind
    if kind.type == "complex":
        kind, held = kind.subs["value"], [one["value"] for one in held if "value" in one]
    if asked is None:
        return bool(held) == (operator == "ne")
    if not held:
        return operator == "ne"
    return any(one_compares(kind, operator, asked, one) for one in held)


def one_compares(kind: Kind, operator: str, asked: Any, held: Any) -> bool:
    left, right = comparable(kind, operator, held), comparable(kind, operator, asked)
    if type(left) is not type(right):
        return operator == "ne"
    outcomes: dict[str, Callable[[], bool]] = {
        "eq": lambda: left == right,
        "ne": lambda: left != right,
        "co": lambda: right in left,
        "sw": lambda: left[: len(right)] == right,
        "ew": lambda: right == left[len(left) - len(right) :] if len(right) <= len(left) else False,
        "gt": lambda: left > right,
        "ge": lambda: not left < right,
        "lt": lambda: left < right,
        "le": lambda: not left > right,
    }
    return outcomes[operator]()


def comparable(kind: Kind, operator: str, value: Any) -> Any:
    if isinstance(value, bool):
        return value
    if isinstance(value, int | float):
        return float(value)
    if kind.type == "boolean":
        return value.lower() == "true"
    if kind.type == "dateTime" and operator not in ("co", "sw", "ew"):
        return datetime.fromisoformat(value)
    return value if kind.exact else unicodedata.normalize("NFC", value).casefold()


def selected(node: Node, documents: list[dict[str, Any]]) -> list[str]:
    return [document["id"] for document in documents if holds(node, document)]


# ---- generating filters --------------------------------------------------------------------------------------------------------

ANY_CASE = st.sampled_from([str, str, str, str.lower, str.upper, str.swapcase, str.title])
TEXTUAL, ORDERING = ["co", "sw", "ew"], ["gt", "ge", "lt", "le"]


def _written(node: Node, draw: st.DrawFn) -> str:
    """The filter as text: with all necessary parentheses and sometimes others, keywords in any letter case."""

    def word(text: str) -> str:
        return draw(ANY_CASE)(text)

    def grouped(inner: Node, *binding_less: str) -> str:
        text = _written(inner, draw)
        return f"({text})" if inner[0] in binding_less or draw(st.integers(0, 5)) == 0 else text

    match node:
        case ("and", left, right):
            return f"{grouped(left, 'or')} {word('and')} {grouped(right, 'or')}"
        case ("or", left, right):
            return f"{grouped(left)} {word('or')} {grouped(right)}"
        case ("not", inner):
            return f"{word('not')} ({_written(inner, draw)})"
        case ("[]", path, inner):
            return f"{path.text}[{_written(inner, draw)}]"
        case ("pr", path):
            return f"{path.text} {word('pr')}"
        case _:
            _, path, operator, asked = node
            literal = json.dumps(asked, ensure_ascii=draw(st.booleans()))
            return f"{path.text} {word(operator)} {literal}"


def _paths(world: StoredResources, schemas: tuple[str, ...]) -> list[Path]:
    """All attributes and sub-attributes of the resource types."""
    found: dict[str, Path] = {}
    for schema in schemas:
        for urn, table in world.kinds[schema].items():
            for name, kind in table.items():
                prefix = f"{urn}:" if urn else ""
                for sub, sub_kind in [(None, kind), *kind.subs.items()]:
                    text = f"{prefix}{name}" if sub is None else f"{prefix}{name}.{sub}"
                    found.setdefault(text, Path(urn, name, sub, sub_kind, text))
    return list(found.values())


# Attributes that an index answers, that SQL narrows, or that come from memberships: half of the generated filters use them.
SPECIAL = (
    "id", "userName", "externalId", "displayName", "emails", "emails.value", "members", "members.value", "active", "active", "meta.created",
    "meta.created", "meta.lastModified", "meta.lastModified", "groups", "groups.value", "groups.display",
)  # fmt: skip


def _literal(draw: st.DrawFn, kind: Kind, operator: str, held: list[Any]) -> Any:
    """A value to compare with: often a stored one, or a part of one, in this or another letter case."""
    if kind.type == "boolean":
        return draw(st.sampled_from([True, False, "True", "false"]))
    if kind.type == "dateTime":
        moment = datetime.fromisoformat(draw(st.sampled_from(held))) + timedelta(
            microseconds=draw(st.sampled_from([0, 0, -1, 1]))
        )
        zone = draw(st.sampled_from([UTC, timezone(timedelta(hours=5, minutes=30)), timezone(timedelta(hours=-8))]))
        text = moment.astimezone(zone).isoformat()
        return text[: draw(st.integers(1, len(text)))] if operator in TEXTUAL else text
    if kind.type == "any" and operator not in TEXTUAL and draw(st.booleans()):
        numbers = st.sampled_from([0, 1, 0.5, 1.5, 2, -1, 1e3])
        return draw(numbers if operator in ORDERING else st.one_of(numbers, st.booleans()))
    texts = sorted({value for value in held if isinstance(value, str)})
    text = draw(st.one_of(*[st.sampled_from(texts)] * bool(texts), st.sampled_from(NAMES), st.text(max_size=3)))
    if operator in TEXTUAL:
        begin = draw(st.integers(0, len(text))) if operator != "sw" else 0
        text = text[begin:] if operator == "ew" else text[begin : begin + draw(st.integers(0, 6))]
    return draw(ANY_CASE)(text)


Values = Callable[[Path], list[Any]]  # all values that a directory has at a path


def _held_in(documents: list[dict[str, Any]]) -> Values:
    return lambda path: [value for document in documents for value in path.values(document)]


@st.composite
def _comparisons(draw: st.DrawFn, paths: list[Path], values: Values) -> Node:
    special = [path for text in SPECIAL for path in paths if path.text == text]
    path = draw(st.sampled_from(special if special and draw(st.booleans()) else paths))
    written = path.text if path.urn == BADGE else draw(ANY_CASE)(path.text)
    path = Path(path.urn, path.name, path.sub, path.kind, written)
    kind = path.kind.subs.get("value", path.kind) if path.kind.type == "complex" else path.kind
    if kind.type == "complex" or draw(st.integers(0, 9)) == 0:
        return ("pr", path)
    few = kind.type in ("boolean", "binary")
    operator = draw(st.sampled_from(["eq", "ne"] if few else ["eq", "eq", "eq", "ne", *TEXTUAL, *ORDERING]))
    if operator in ("eq", "ne") and draw(st.integers(0, 9)) == 0:
        return ("cmp", path, operator, None)
    held = [v.get("value") for v in values(path)] if path.kind.type == "complex" else values(path)
    return ("cmp", path, operator, _literal(draw, kind, operator, held))


@st.composite
def _value_paths(draw: st.DrawFn, paths: list[Path], values: Values) -> Node:
    path = draw(st.sampled_from([path for path in paths if path.kind.type == "complex"]))
    inner = [Path(None, name, None, kind, name) for name, kind in path.kind.subs.items()]
    return ("[]", path, draw(_nodes(_comparisons(inner, _held_in(values(path))), 3)))


def _nodes(leaves: st.SearchStrategy[Node], leaves_max: int) -> st.SearchStrategy[Node]:
    return st.recursive(
        leaves,
        lambda inner: st.one_of(st.tuples(st.sampled_from(["and", "or"]), inner, inner), st.tuples(st.just("not"), inner)),
        max_leaves=leaves_max,
    )


@st.composite
def _filters(draw: st.DrawFn, world: StoredResources, endpoint: str) -> tuple[Node, str]:
    paths, values = _paths(world, ENDPOINTS[endpoint]), _held_in(world.documents[endpoint])
    comparisons = _comparisons(paths, values)
    node = draw(_nodes(st.one_of(comparisons, comparisons, _value_paths(paths, values)), 6))
    return node, _written(node, draw)


# ---- the tests -------------------------------------------------------------------------------------------------------------------


@given(st.data(), st.sampled_from(list(ENDPOINTS)), st.booleans())
@settings(max_examples=2 * settings().max_examples)
def test_a_filter_selects_what_a_naive_evaluator_selects_from_the_whole_list(
    world: StoredResources, data: st.DataObject, endpoint: str, posted: bool
) -> None:
    node, text = data.draw(_filters(world, endpoint))
    found = world.search(endpoint, filter=text) if posted else world.ask(endpoint, filter=text)
    expected = selected(node, world.documents[endpoint])
    assert [resource["id"] for resource in found["Resources"]] == expected
    assert found["totalResults"] == len(expected)


@given(st.data(), st.sampled_from(list(ENDPOINTS)))
def test_pages_by_index_and_by_cursor_equal_the_naively_sorted_list(
    world: StoredResources, data: st.DataObject, endpoint: str
) -> None:
    documents, asked = world.documents[endpoint], {"count": str(data.draw(st.integers(5, 40)))}
    if data.draw(st.booleans()):
        node, asked["filter"] = data.draw(_filters(world, endpoint))
        documents = [document for document in documents if holds(node, document)]
    if data.draw(st.booleans()):
        path = data.draw(st.sampled_from([path for path in _paths(world, ENDPOINTS[endpoint]) if _sortable(path.kind)]))
        asked |= {"sortBy": path.text, "sortOrder": data.draw(st.sampled_from(["ascending", "Descending"]))}
        documents = naively_sorted(path, documents, descending=asked["sortOrder"] == "Descending")
    expected = [document["id"] for document in documents]
    assert list(_by_index(world, endpoint, asked)) == expected
    assert list(_by_cursor(world, endpoint, asked)) == expected


@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_every_attribute_sorts_the_list_as_the_naive_sort_does(world: StoredResources, endpoint: str) -> None:
    for path in filter(lambda path: _sortable(path.kind), _paths(world, ENDPOINTS[endpoint])):
        for order in ("ascending", "descending"):
            found = world.ask(endpoint, sortBy=path.text, sortOrder=order)
            expected = naively_sorted(path, world.documents[endpoint], descending=order == "descending")
            assert [r["id"] for r in found["Resources"]] == [d["id"] for d in expected], (path.text, order)


def _sortable(kind: Kind) -> bool:
    return kind.type != "complex" or "value" in kind.subs


def naively_sorted(path: Path, documents: list[dict[str, Any]], *, descending: bool) -> list[dict[str, Any]]:
    """RFC 7644 §3.4.2.3: by the primary value or otherwise the first one; resources without a value last (first if descending);
    equal ones by creation.
    """
    kind = path.kind.subs["value"] if path.kind.type == "complex" else path.kind
    valued = [
        (comparable(kind, "gt", value), document)
        for document in documents
        if (value := sorting_value(path, document)) is not None
    ]
    without = [document for document in documents if sorting_value(path, document) is None]
    ordered = [document for _, document in sorted(valued, key=lambda pair: pair[0], reverse=descending)]
    return without + ordered if descending else ordered + without


def sorting_value(path: Path, document: dict[str, Any]) -> Any:
    several = Path(path.urn, path.name, None, path.kind, "").values(document)
    primary = [one for one in several if isinstance(one, dict) and one.get("primary") is True]
    chosen = next(iter(primary + several), None)
    return chosen.get(path.sub or "value") if isinstance(chosen, dict) else chosen


def _by_index(world: StoredResources, endpoint: str, asked: dict[str, str]) -> Iterator[str]:
    start, total = 1, 1
    while start <= total:
        page = world.ask(endpoint, startIndex=str(start), **asked)
        assert page["startIndex"] == start
        yield from (resource["id"] for resource in page["Resources"])
        start, total = start + int(asked["count"]), page["totalResults"]


def _by_cursor(world: StoredResources, endpoint: str, asked: dict[str, str]) -> Iterator[str]:
    cursor: str | None = ""
    while cursor is not None:
        page = world.ask(endpoint, cursor=cursor, **asked)
        yield from (resource["id"] for resource in page["Resources"])
        cursor = page.get("nextCursor")
