"""Idempotency-Key: the caller of a repeated POST is admitted by the same checks as the first time; only then comes the stored answer.

The tests cover every POST route, also those that are added later.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any
from uuid import UUID, uuid4

import httpx
import psycopg
from starlette.routing import Route

from api.app import _fastapi, make_app
from delivery.consumers import Allowed
from ledger.bindings import sealed
from ledger.tokens import find
from operations import clients, consumers, directories, idempotency, replays, tokens
from operations.caller import Caller
from operations.clients import Keys
from operations.consumers import Webhooks
from operations.idempotency import Answer, key_of
from operations.permissions import TABLE, open_to_strangers
from operations.replays import Wanted
from runtime.bootstrap import machine
from tests.postgres.ledgers import opened

LOOPBACK = Webhooks(Allowed.read("127.0.0.0/8"), 1.0)
BEFORE = b"what was answered before"
WITHOUT_FIELDS = {"consumers.pause", "consumers.resume", "consumers.ping", "replays.pause", "replays.resume", "replays.cancel"}
BODIES: dict[str, Any] = {
    "tokens.issue": {"role": "auditor", "name": "n", "directories": ["own"]}, "consumers.acknowledge": {"through": "c_"},
    "consumers.seek": {"to": "now", "reason": "r"}, "consumers.rotate_secret": {}, "consumers.close_fork": {"reason": "r"}, "tokens.rotate": {},
    "clients.create": {"directory": "own", "name": "n"}, "clients.rotate": {},
    "replays.create": {"consumer": "hook", "from": "beginning", "reason": "r"}, "directories.create": {"slug": "new"},
    "directories.close": {"reason": "r", "confirm": "own"}, "schemas.register": {"schema": {}},
    "profiles.try": {"profile": "okta", "directory": "own", "requests": [{"method": "POST", "path": "/Users", "body": {}}]},
    "profiles.validate": {"profile": {}}, "holds.place": {"subject": {"type": "User", "id": str(UUID(int=0))}, "matter": "m"},
    "erasures.create": {"subject": {"type": "User", "id": str(UUID(int=0))}, "reason": "r"},
}  # fmt: skip
REFUSED = {"all": 403, "within": 403, "directory": 403, "consumer": 404, "replay": 404, "token": 404, "client": 404}


@dataclass(frozen=True)
class OneOfEverything:
    """An application in this process, an admin's token, and one thing of each kind in the directory `own`."""

    services: Any
    http: httpx.AsyncClient
    token: str
    number: UUID
    posts: list[tuple[str, str]]  # operation and path

    async def ask(self, operation: str, path: str, key: str) -> httpx.Response:
        headers = {"Authorization": f"Bearer {self.token}", "Idempotency-Key": key, "Content-Type": "application/json"}
        return await self.http.post(path, content=body_of(operation), headers=headers)

    async def keep(self, operation: str, path: str) -> str:
        """Store an answer to a request as if it had been carried out; returns the key."""
        async with self.services.ledger.connection() as conn:
            row = await find(conn, self.number)
        assert row is not None
        caller, text = Caller(tokens.token_of(row), uuid4()), uuid4().hex
        key = key_of(caller, text, b"POST", path.encode(), b"", body_of(operation))
        assert await idempotency.begin(self.services.ledger, caller, key) is None
        await idempotency.finish(self.services.ledger, caller, key, Answer(200, "text/plain", BEFORE))
        return text

    async def change(self, superuser_url: str, **columns: Any) -> None:
        """Change the rights of the caller's token, as a later release that narrows tokens might do: the same id, another seal."""
        async with self.services.ledger.connection() as conn:
            row = await find(conn, self.number)
        assert row is not None
        row = sealed(self.services.ledger.kek, replace(row, **columns))
        with psycopg.connect(superuser_url, autocommit=True) as conn:
            conn.execute("alter table ledger.tokens disable trigger user")  # because the trigger refuses exactly this change
            conn.execute(
                "update ledger.tokens set role = %s, directories = %s, seal = %s where id = %s",
                (row.role, list(row.directories), row.seal, self.number),
            )


def body_of(operation: str) -> bytes:
    return json.dumps(BODIES.get(operation, {} if operation in WITHOUT_FIELDS else {"reason": "a test"})).encode()


@asynccontextmanager
async def world(url: str) -> AsyncIterator[OneOfEverything]:
    async with opened(url, webhooks=LOOPBACK) as ledger:
        services = ledger.services
        transport = httpx.ASGITransport(make_app(services))
        async with httpx.AsyncClient(transport=transport, base_url="http://ledger.test") as http:
            yield await filled(services, http)


async def filled(services: Any, http: httpx.AsyncClient) -> OneOfEverything:
    ledger = services.ledger
    for slug in ("own", "other"):
        await directories.create(ledger, machine(), slug, "generic@1")
    changes: Any = {"directories": ("own",), "mode": "webhook", "url": "http://127.0.0.1:9/hook"}
    await consumers.put(ledger, machine(), "hook", changes, "now", LOOPBACK.allowed)
    wanted = Wanted("again", "beginning", None, None, None, None, 1, "include", "a test")
    _, run = await replays.create(ledger, machine(), "hook", wanted, dry_run=False)
    assert run is not None
    mine = await tokens.issue(ledger, machine(), "admin", "caller", ("*",), None, days=1)
    aim = await tokens.issue(ledger, machine(), "auditor", "aim", ("own",), None, days=1)
    client = await clients.create(ledger, machine(), "own", "idp", "secret", Keys(), LOOPBACK.allowed)
    named = {
        "client_id": client.shown["id"],
        "name": "hook",
        "directory": "own",
        "replay_id": str(run.id),
        "token_id": aim.shown["id"],
        "event_id": "evt_own_1_00000000",
    }
    posts = [
        (route.name, route.path.format(**named))
        for route in _fastapi(services).router.routes
        if isinstance(route, Route) and "POST" in (route.methods or ()) and not open_to_strangers(route.name)
    ]
    return OneOfEverything(services, http, mine.text, UUID(mine.shown["id"]), posts)


def run(url: str, check: Callable[[OneOfEverything], Awaitable[None]]) -> None:
    async def all_of_it() -> None:
        async with world(url) as made:
            await check(made)

    asyncio.run(all_of_it())


def expected(lost: str, operation: str) -> int:
    """The expected status of a request whose caller has lost a right meanwhile."""
    reach = TABLE[operation].reach
    if lost == "role":
        return 403
    return 200 if lost == "nothing" or reach == "-" else REFUSED[reach]


async def differences(made: OneOfEverything, keys: dict[tuple[str, str], str], lost: str) -> list[str]:
    found: list[str] = []
    for (operation, path), key in keys.items():
        answer, status = await made.ask(operation, path, key), expected(lost, operation)
        told = answer.content == BEFORE and answer.headers.get("idempotent-replayed") == "true"
        if answer.status_code != status or told != (status == 200):
            found.append(f"{operation} {path} without {lost}: {answer.status_code}, not {status}: {answer.text}")
    return found


def test_every_post_admits_the_caller_before_it_gives_the_stored_answer(app_url: str, superuser_url: str) -> None:
    async def check(made: OneOfEverything) -> None:
        keys = {post: await made.keep(*post) for post in made.posts}
        assert len(keys) > 20
        found = await differences(made, keys, "nothing")
        await made.change(superuser_url, directories=("other",))
        found += await differences(made, keys, "directories")
        await made.change(superuser_url, role="scim", directories=("own",))
        found += await differences(made, keys, "role")
        assert not found, "\n".join(found)

    run(app_url, check)


def test_when_a_consumer_grows_beyond_the_caller_its_stored_answers_are_refused_too(app_url: str) -> None:
    """All by ordinary acts: an operator of one directory created the webhook, and an admin adds another directory to it."""

    async def check(made: OneOfEverything) -> None:
        ledger = made.services.ledger
        operator = await tokens.issue(ledger, machine(), "operator", "of own", ("own",), None, days=1)
        theirs = replace(made, token=operator.text, number=UUID(operator.shown["id"]))
        key, post = uuid4().hex, ("consumers.rotate_secret", "/v1/consumers/hook/rotate-secret")
        first, again = await theirs.ask(*post, key), await theirs.ask(*post, key)
        assert first.json()["secret"].startswith("whsec_")
        assert again.json() == first.json()
        await consumers.put(ledger, machine(), "hook", {"directories": ("own", "other")}, None, LOOPBACK.allowed)
        late = await theirs.ask(*post, key)
        assert (late.status_code, late.json()["code"]) == (404, "not_found")
        assert "whsec_" not in late.text

    run(app_url, check)
