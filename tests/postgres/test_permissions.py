"""Every route × every role × {own, other, missing, `_system`} × narrowed tokens, compared with the permission table.

The expected answers are computed here from the rules in docs/permissions.md, not by the functions of the product.
"""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import count
from typing import Any
from urllib.parse import urlencode
from uuid import UUID, uuid4

import httpx
import psycopg
import pytest
import structlog
from starlette.routing import Route

from api.app import _fastapi, make_app
from api.scim.app import ROUTES, SEARCHES
from delivery.consumers import Allowed
from ledger.tokens import Scope
from operations import clients, consumers, directories, replays, tokens
from operations.clients import Keys
from operations.consumers import Webhooks
from operations.permissions import ROLES, TABLE
from operations.replays import Wanted
from runtime.bootstrap import machine
from tests.postgres.ledgers import opened

LOOPBACK = Webhooks(Allowed.read("127.0.0.0/8"), 1.0)
HOOK = "http://127.0.0.1:9/hook"  # no server listens there
USER = "urn:ietf:params:scim:schemas:core:2.0:User"
GROUP = "urn:ietf:params:scim:schemas:core:2.0:Group"
SEARCH = "urn:ietf:params:scim:api:messages:2.0:SearchRequest"
BULK = "urn:ietf:params:scim:api:messages:2.0:BulkRequest"
ALL = ("*",)
CONSUMERS = {  # name -> (directories, types)
    "in-own": (("own",), ALL), "users-of-own": (("own",), ("user.*",)), "in-other": (("other",), ALL),
    "in-both": (("own", "other"), ALL), "of-all": (ALL, ALL), "of-system": (("_system",), ALL), "nowhere": None,
}  # fmt: skip
DIRECTORIES = ("own", "other", "nowhere", "_system")
REASON = {"reason": "a test"}
APART = "within reach, and refused for another reason"


@dataclass(frozen=True)
class Who:
    """A caller: how its token is narrowed, and whether it is valid."""

    name: str
    role: str
    directories: tuple[str, ...] = ALL
    types: tuple[str, ...] = ALL
    consumers: tuple[str, ...] = ALL
    dead: bool = False
    text: str = field(default="", compare=False)

    def reaches(self, slug: str) -> bool:
        if slug == "_system":
            return self.role in {"operator", "admin"} and self.directories == ALL
        return slug in {"own", "other"} and (self.directories == ALL or slug in self.directories)

    def owns(self, name: str) -> bool:
        definition = CONSUMERS.get(name)
        if definition is None or (self.consumers != ALL and name not in self.consumers):
            return False
        slugs, types = definition
        if self.types not in (ALL, types):
            return False
        return all(self.directories == ALL if slug == "*" else self.reaches(slug) for slug in slugs)

    def covers(self, other: "Who") -> bool:
        if self.directories != ALL and not set(other.directories) <= set(self.directories):
            return False
        return self.types == ALL and self.consumers == ALL


WHO = [
    *(Who(f"{role} of all", role) for role in ("consumer", "operator", "auditor", "admin")),
    *(Who(f"{role} of own", role, ("own",)) for role in ("scim", "consumer", "operator", "auditor", "admin")),
    Who("admin of both", "admin", ("own", "other")),
    Who("consumer of one consumer", "consumer", consumers=("in-own",)),
    Who("consumer of the feed alone", "consumer", consumers=()),
    Who("consumer of users", "consumer", ("own",), types=("user.*",)),
    *(Who(f"revoked {role}", role, ("own",) if role == "scim" else ALL, dead=True) for role in ("scim", "consumer", "operator", "auditor", "admin")),
    Who("expired scim", "scim", ("own",), dead=True),
    Who("a stranger", "stranger", dead=True),
    Who("a made-up token", "stranger", dead=True, text="sl_admin_00000000000000000000000000000000_00"),
]  # fmt: skip


class TwoDirectories:
    """An application in this process, with a thing of each kind in two directories."""

    def __init__(self, app: Any, services: Any) -> None:
        self.app, self.services = app, services
        self.addresses = count()  # each request has another address, because failed authentications are slowed by address
        self.routes = _fastapi(services).router.routes
        self.user = self.group = ""
        self.texts: dict[str, str] = {}
        self.token_ids: dict[str, str] = {}
        self.runs: dict[str, str] = {"nowhere": str(uuid4())}
        self.clients: dict[str, str] = {"nowhere": str(uuid4())}

    async def token(self, who: Who) -> tuple[str, str]:
        """A token of this kind; returns its text and its id."""
        scope = Scope(who.types, who.consumers) if (who.types, who.consumers) != (ALL, ALL) else None
        made = await tokens.issue(self.services.ledger, machine(), who.role, who.name, who.directories, scope, days=1)
        return made.text, made.shown["id"]

    async def client(self, slug: str) -> str:
        """An OAuth 2.0 client of a directory; returns its id."""
        made = await clients.create(self.services.ledger, machine(), slug, "idp", "secret", Keys(), LOOPBACK.allowed)
        return made.shown["id"]

    async def run(self, name: str) -> str:
        wanted = Wanted("again", "beginning", None, ("group.created",), None, None, 1, "include", "a test")
        _, run = await replays.create(self.services.ledger, machine(), name, wanted, dry_run=False)
        assert run is not None
        return str(run.id)

    async def consumer(self, name: str, like: str) -> None:
        slugs, types = CONSUMERS[like]  # pyright: ignore[reportGeneralTypeIssues]
        changes = {"directories": slugs, "types": types, "mode": "webhook", "url": HOOK}
        await consumers.put(self.services.ledger, machine(), name, changes, "now", LOOPBACK.allowed)


@asynccontextmanager
async def world(url: str) -> AsyncIterator[TwoDirectories]:
    async with opened(url, webhooks=LOOPBACK) as ledger:
        services = ledger.services
        made = TwoDirectories(make_app(services), services)
        await fill(made)
        with structlog.testing.capture_logs():
            yield made


async def fill(made: TwoDirectories) -> None:
    for slug in ("own", "other"):
        await directories.create(made.services.ledger, machine(), slug, "generic@1")
        made.clients[slug] = await made.client(slug)
    idp = Who("setup", "scim", ("own",))
    made.texts[idp.name], _ = await made.token(idp)
    user = Cell("scim.write", "POST", "/scim/own/v2/Users", "own", None, body=json.dumps({"schemas": [USER], "userName": "ada"}))
    made.user = (await ask(made, idp, user)).json()["id"]
    members = {"schemas": [GROUP], "displayName": "g", "members": [{"value": made.user}]}
    group = Cell("scim.write", "POST", "/scim/own/v2/Groups", "own", None, body=json.dumps(members))
    made.group = (await ask(made, idp, group)).json()["id"]
    for name, definition in CONSUMERS.items():
        if definition is not None:
            await made.consumer(name, name)
            made.runs[name] = await made.run(name)
    for who in WHO:
        if who.role != "stranger":
            made.texts[who.name], made.token_ids[who.name] = await made.token(who)
    for who in WHO:
        if who.dead and who.role != "stranger":
            await end(made, who)


async def end(made: TwoDirectories, who: Who) -> None:
    if who.name.startswith("expired"):
        await tokens.rotate(made.services.ledger, machine(), made.token_ids[who.name], 0)
    else:
        await tokens.revoke(made.services.ledger, machine(), made.token_ids[who.name], None)


@dataclass(frozen=True)
class Cell:
    """One request, its target, and the answer that the table requires."""

    operation: str
    method: str
    path: str
    target: str
    expected: int | None  # None: admitted
    params: tuple[tuple[str, str], ...] = ()
    body: str | None = None


NOBODY = {"type": "User", "id": str(UUID(int=0))}
BODIES: dict[str, Any] = {
    "erasures.create": {"subject": NOBODY, **REASON}, "holds.place": {"subject": NOBODY, "matter": "m"},
    "consumers.put": {"retry_schedule": [-1]}, "consumers.acknowledge": {"through": "c_"}, "consumers.seek": {"to": "now", "reason": "r", "dry_run": True},
    "consumers.rotate_secret": {}, "consumers.close_fork": REASON, "deliveries.act": REASON, "surges.set": {"per_hour": 5}, "rate_limits.set": {"per_second": 50, "burst": 500}, "surges.release": REASON,
    "schemas.register": {"schema": {}}, "profiles.set": {"profile": "nothing-of-that-name"}, "directories.create": {"slug": "Not a slug"},
    "directories.pause": REASON, "directories.resume": REASON, "directories.accept_clock": REASON, "directories.close": {"reason": "r", "confirm": "not its name"},
    "tokens.issue": {"role": "none", "name": "n"}, "tokens.rotate": {"overlap_seconds": -1}, "clients.rotate": {"overlap_seconds": -1},
}  # fmt: skip


def cells(made: TwoDirectories, who: Who) -> Iterator[Cell]:
    for route in made.routes:
        assert isinstance(route, Route)
        for method in sorted((route.methods or set()) - {"HEAD"}):
            yield from of_route(made, who, route.name, method, route.path)
    yield from of_scim(who)


def by_role(who: Who, operation: str) -> int | None:
    if operation == "metrics.show" and who.dead and who.name != "a stranger":
        return 401  # a scrape with a revoked token gets an error, instead of metrics without names
    if "stranger" in TABLE[operation].roles:
        return None
    if who.dead:
        return 401
    return None if who.role in TABLE[operation].roles else 403


def of_route(made: TwoDirectories, who: Who, operation: str, method: str, path: str) -> Iterator[Cell]:
    rule, role = TABLE[operation], by_role(who, operation)
    body = json.dumps(BODIES[operation]) if operation in BODIES else None
    path = path.replace("{event_id}", "evt_own_1_00000000").replace("{user}", made.user).replace("{group}", made.group)
    if operation.startswith(("clients.", "oauth.")):
        yield from of_clients(made, who, operation, method, path, role, body)
    elif "{directory}" in path:
        yield from of_directories(who, operation, method, path, role, body)
    elif operation == "consumers.put":
        yield from of_put(who, path, role, body)
    elif "{name}" in path and rule.reach == "consumer":
        for name in CONSUMERS:
            yield Cell(
                operation, method, path.replace("{name}", name), name, role or (None if who.owns(name) else 404), body=body
            )
    elif rule.reach == "replay":
        for name, run in made.runs.items():
            yield Cell(operation, method, path.replace("{replay_id}", run), name, role or (None if who.owns(name) else 404))
    elif rule.reach == "token":
        yield from of_tokens(made, who, operation, method, path, role, body)
    elif operation == "replays.create":
        yield from of_new_replays(who, path, role)
    elif operation == "events.show":
        yield from of_event_ids(made, who, path, role)
    elif operation == "events.stream":
        yield from of_stream(who, path, role)
    else:
        yield from of_lists(who, operation, method, path, role, body)


def of_directories(who: Who, operation: str, method: str, path: str, role: int | None, body: str | None) -> Iterator[Cell]:
    for slug in DIRECTORIES:
        hidden = not who.reaches(slug) or (slug == "_system" and TABLE[operation].reach != "log")
        params = (("from", "seq:1"),) if operation == "audit.diff" else ()
        # refused, but the caller may know that the directory exists
        partly = (operation == "snapshot.read" or operation.startswith("groups.")) and who.types != ALL and not hidden
        target = APART if partly else slug
        yield Cell(
            operation,
            method,
            path.replace("{directory}", slug),
            target,
            role or (403 if hidden or partly else None),
            params,
            body,
        )


def of_new_replays(who: Who, path: str, role: int | None) -> Iterator[Cell]:
    for name in CONSUMERS:
        asked = json.dumps({"consumer": name, "from": "beginning", "reason": "r", "dry_run": True})
        yield Cell("replays.create", "POST", path, name, role or (None if who.owns(name) else 404), body=asked)


def of_stream(who: Who, path: str, role: int | None) -> Iterator[Cell]:
    for slug in DIRECTORIES:  # an admitted stream never ends: other tests open streams
        if role or not who.reaches(slug):
            yield Cell("events.stream", "GET", path, slug, role or 403, (("directory", slug),))


def of_tokens(
    made: TwoDirectories, who: Who, operation: str, method: str, path: str, role: int | None, body: str | None
) -> Iterator[Cell]:
    for other in WHO:
        if other.role != "stranger":
            seen = None if who.covers(other) else 404
            yield Cell(
                operation, method, path.replace("{token_id}", made.token_ids[other.name]), other.name, role or seen, body=body
            )
    yield Cell(operation, method, path.replace("{token_id}", str(uuid4())), "nowhere", role or 404, body=body)


def of_clients(
    made: TwoDirectories, who: Who, operation: str, method: str, path: str, role: int | None, body: str | None
) -> Iterator[Cell]:
    if operation.startswith("oauth."):
        for slug in DIRECTORIES:  # open to anybody, and alike for all of them
            yield Cell(operation, method, path.replace("{directory}", slug), slug, role, body=body)
    elif operation == "clients.create":
        for slug in DIRECTORIES:
            hidden = not who.reaches(slug) or slug == "_system"
            asked = json.dumps({"directory": slug, "name": "n", "auth": "jwt"})  # without keys
            yield Cell(operation, method, path, slug, role or (403 if hidden else None), body=asked)
    elif operation == "clients.list":
        yield from of_lists(who, operation, method, path, role, body)
    else:
        for slug, number in made.clients.items():
            seen = None if who.reaches(slug) else 404
            yield Cell(operation, method, path.replace("{client_id}", number), slug, role or seen, body=body)


def of_put(who: Who, path: str, role: int | None, body: str | None) -> Iterator[Cell]:
    for name, definition in CONSUMERS.items():
        beyond = 403 if who.directories != ALL else None  # a new consumer would cover all directories
        mine = beyond if definition is None else None if who.owns(name) else 409
        yield Cell("consumers.put", "PUT", path.replace("{name}", name), name, role or mine, body=body)


def of_event_ids(made: TwoDirectories, who: Who, path: str, role: int | None) -> Iterator[Cell]:
    path = path.replace("evt_own_1_00000000", "{event_id}")
    for target, event in {
        "made up in own": "evt_own_1_00000000",
        "other": "evt_other_1_00000000",
        "nowhere": "evt_nowhere_1_00000000",
    }.items():
        yield Cell("events.show", "GET", path.replace("{event_id}", event), target, role or 404)


def of_lists(who: Who, operation: str, method: str, path: str, role: int | None, body: str | None) -> Iterator[Cell]:
    everywhere = None if TABLE[operation].reach != "all" or who.directories == ALL else 403
    if "{name}" in path:
        path = path.replace("{name}", "generic")
    yield Cell(operation, method, path, "-", role or everywhere, body=body)
    if operation in {"events.list", "requests.list", "tokens.list", "clients.list"}:
        for slug in DIRECTORIES:
            hidden = not who.reaches(slug) or (slug == "_system" and operation != "events.list")
            yield Cell(operation, method, path, slug, role or (403 if hidden else None), (("directory", slug),))
    if operation == "replays.list":
        for name in CONSUMERS:
            yield Cell(operation, method, path, name, role or (None if who.owns(name) else 404), (("consumer", name),))


SCIM_BODIES = {
    "POST": {}, "PUT": {}, "PATCH": {}, ".search": {"schemas": [SEARCH]}, "Bulk": {"schemas": [BULK], "Operations": []},
}  # fmt: skip


def of_scim(who: Who) -> Iterator[Cell]:
    paths = {
        ("/".join(filter(None, (first, *["id"] * (count - 1)))), method)
        for (first, count), methods in ROUTES.items()
        for method in methods
    }
    paths |= {(f"{first}/.search", "POST") for first in SEARCHES}
    for path, method in sorted(paths):
        operation = "scim.read" if method == "GET" or path.endswith(".search") else "scim.write"
        role = by_role(who, operation)
        body = SCIM_BODIES.get(path.rsplit("/", 1)[-1], SCIM_BODIES.get(method))
        for slug in DIRECTORIES:
            expected = role or (403 if not who.reaches(slug) or slug == "_system" else None)
            yield Cell(
                operation, method, f"/scim/{slug}/v2/{path}", slug, expected, body=None if body is None else json.dumps(body)
            )


HIDING = (
    "does not reach",
    "There is no consumer of that name",
    "There is no replay of that id",
    "There is no token of that id",
    "There is no OAuth 2.0 client of that id",
    "not a SCIM token",
)


def difference(cell: Cell, answer: httpx.Response) -> str | None:
    if cell.expected is not None:
        return None if answer.status_code == cell.expected else f"{answer.status_code}, not {cell.expected}"
    hidden = answer.status_code >= 400 and any(words in answer.text for words in HIDING)
    refused = hidden or answer.status_code in {401, 403, 405} or (answer.status_code >= 500 and answer.status_code != 501)  # /Me
    return f"{answer.status_code}, not let in: {answer.text[:200]}" if refused else None


def plain(answer: httpx.Response) -> tuple[Any, ...]:
    """The parts of an answer by which a caller could distinguish two answers."""
    document = answer.json() if answer.content else None
    if isinstance(document, dict):
        document.pop("request_id", None)
    headers = sorted((name, value) for name, value in answer.headers.items() if name != "x-request-id")
    return answer.status_code, json.dumps(document), headers


async def disposable(made: TwoDirectories, who: Who, cell: Cell) -> Cell:
    """The same cell with a target that may be deleted: an admitted request really acts."""
    if cell.operation == "consumers.delete":
        await made.consumer(name := f"gone-{uuid4().hex[:8]}", cell.target)
        return Cell(cell.operation, cell.method, f"/v1/consumers/{name}", cell.target, 404 if who.consumers != ALL else None)
    if cell.operation == "clients.revoke":
        return Cell(cell.operation, cell.method, f"/v1/clients/{await made.client(cell.target)}", cell.target, None)
    if cell.operation == "tokens.revoke":
        other = next(other for other in WHO if other.name == cell.target)
        _, number = await made.token(other)
        return Cell(cell.operation, cell.method, f"/v1/tokens/{number}", cell.target, None)
    return cell


async def ask(made: TwoDirectories, who: Who, cell: Cell) -> httpx.Response:
    """One request directly to the application: a client library would take most of the time of nine thousand requests."""
    headers = [(b"content-type", b"application/json"), (b"host", b"ledger.test")]
    text = who.text or made.texts.get(who.name)
    if text:
        headers.append((b"authorization", f"Bearer {text}".encode()))
    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": cell.method, "scheme": "http", "path": cell.path,
        "raw_path": cell.path.encode(), "query_string": urlencode(cell.params).encode(), "headers": headers,
        "client": (f"10.0.{next(made.addresses) // 250 % 250}.{next(made.addresses) % 250}", 1), "server": ("ledger.test", 80),
    }  # fmt: skip
    incoming = [{"type": "http.request", "body": (cell.body or "").encode(), "more_body": False}]
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return incoming.pop() if incoming else await asyncio.Future()

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    await made.app(scope, receive, send)
    body = b"".join(message.get("body", b"") for message in sent[1:])
    return httpx.Response(sent[0]["status"], headers=sent[0]["headers"], content=body)


@pytest.mark.long
def test_every_route_answers_every_caller_as_the_table_says(app_url: str) -> None:
    async def run() -> None:
        differences: list[str] = []
        asked_of = 0
        async with world(app_url) as made:
            for who in WHO:
                alike: dict[tuple[str, str], dict[str, tuple[Any, ...]]] = {}
                for cell in cells(made, who):
                    asked = await disposable(made, who, cell) if cell.expected is None else cell
                    answer = await ask(made, who, asked)
                    asked_of += 1
                    wrong = difference(asked, answer)
                    if wrong is not None:
                        differences.append(f"{who.name}: {cell.method} {cell.path} {dict(cell.params)} ({cell.target}): {wrong}")
                    if cell.expected in {403, 404} and cell.target != APART:
                        alike.setdefault((cell.operation, cell.method), {})[cell.target] = plain(answer)
                for (operation, method), answers in alike.items():
                    if len(set(map(repr, answers.values()))) > 1:
                        differences.append(f"{who.name}: {method} {operation} tells {sorted(answers)} apart: {answers}")
        assert not differences, f"{len(differences)} of {asked_of} cells differ:\n" + "\n".join(differences[:60])
        assert asked_of > 3_000

    asyncio.run(run())


def test_lists_have_only_what_the_caller_reaches(app_url: str) -> None:
    async def run() -> None:
        async with world(app_url) as made:
            for who in WHO:
                if who.dead:
                    continue
                await check_lists(made, who)

    asyncio.run(run())


async def check_lists(made: TwoDirectories, who: Who) -> None:
    async def listed(operation: str, path: str) -> list[Any] | None:
        if who.role not in TABLE[operation].roles:
            return None
        answer = await ask(made, who, Cell(operation, "GET", path, "-", None))
        assert answer.status_code == 200, (who.name, path, answer.text)
        return answer.json()["data"]

    names = await listed("consumers.list", "/v1/consumers")
    if names is not None:
        assert {row["name"] for row in names} == {name for name in CONSUMERS if who.owns(name)}, who.name
    runs = await listed("replays.list", "/v1/replays")
    if runs is not None:
        assert {row["consumer"] for row in runs} == {name for name in CONSUMERS if who.owns(name)}, who.name
    slugs = await listed("directories.list", "/v1/directories")
    if slugs is not None:
        assert {row["slug"] for row in slugs} - {"acme"} == {slug for slug in DIRECTORIES if who.reaches(slug)}, who.name
    found = await listed("tokens.list", "/v1/tokens")
    if found is not None:
        by_id = {number: name for name, number in made.token_ids.items()}
        mine = {other.name for other in WHO if other.role != "stranger" and who.covers(other)}
        assert {by_id[row["id"]] for row in found if row["id"] in by_id} == mine, who.name
    events = await listed("events.list", "/v1/events")
    if events is not None:
        assert {event["directory"] for event in events} - {"acme"} == {slug for slug in ("own", "other") if who.reaches(slug)}, (
            who.name
        )
        if who.types != ALL:
            assert {event["type"].split(".")[0] for event in events} == {"user"}


def test_a_route_or_an_operation_without_a_row_stops_the_start() -> None:
    import pytest
    from fastapi import FastAPI

    from api.gate import Gate
    from operations.admission import operation

    app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None)
    app.add_api_route("/v1/new", lambda: None)
    with pytest.raises(LookupError, match="/v1/new"):
        Gate(app, None)  # pyright: ignore[reportArgumentType]
    with pytest.raises(KeyError):
        operation("nobody.said")


def test_the_callers_of_this_test_have_every_role() -> None:
    """Whoever adds a role must add a caller here: without one its column of the table would not be tested."""
    assert {who.role for who in WHO} == set(ROLES)
    assert {who.role for who in WHO if who.dead and who.text == ""} == set(ROLES)


def test_the_database_accepts_exactly_the_roles_of_the_code(superuser_url: str) -> None:
    with psycopg.connect(superuser_url) as conn:
        text = conn.execute("select pg_get_constraintdef(oid) from pg_constraint where conname = 'tokens_role_check'").fetchone()
    assert text is not None
    assert set(re.findall(r"'(\w+)'", text[0])) == {*ROLES} - {"stranger"}
