"""Idempotency-Key: a repeated POST gets the stored answer and is never carried out again (docs/operations.md, "Idempotency-Key")."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any, LiteralString

import httpx
import psycopg
import pytest

from api.app import make_app
from database.deadlines import Deadline
from database.locks import DIRECTORY, LEDGER
from operations import idempotency, tokens
from operations.idempotency import Answer, key_of
from operations.refusals import ConflictError
from runtime.bootstrap import machine
from tests.postgres.ledgers import opened

BODY = {"role": "auditor", "name": "for March"}


class Admin:
    """A client with an admin's token, of an application in this process."""

    def __init__(self, http: httpx.AsyncClient, services: Any) -> None:
        self.http, self.services = http, services

    async def issue(self, key: str | None, body: Any = None, **headers: str) -> httpx.Response:
        sent = {"Idempotency-Key": key} if key is not None else {}
        return await self.http.post("/v1/tokens", json=BODY if body is None else body, headers={**sent, **headers})

    async def count(self) -> int:
        return len((await self.http.get("/v1/tokens", params={"role": "auditor"})).json()["data"])


@asynccontextmanager
async def admin(url: str) -> AsyncIterator[Admin]:
    async with opened(url) as ledger:
        services = ledger.services
        made = await tokens.issue(services.ledger, machine(), "admin", "test", ("*",), None, days=1)
        headers = {"Authorization": f"Bearer {made.text}"}
        transport = httpx.ASGITransport(make_app(services))
        async with httpx.AsyncClient(transport=transport, base_url="http://ledger.test", headers=headers) as http:
            yield Admin(http, services)


def run(url: str, check: Callable[[Admin], Awaitable[None]]) -> None:
    async def all_of_it() -> None:
        async with admin(url) as made:
            await check(made)

    asyncio.run(all_of_it())


def test_the_same_request_again_gets_the_same_answer_and_changes_nothing(app_url: str, superuser_url: str) -> None:
    async def check(admin: Admin) -> None:
        first, again = await admin.issue("key-1"), await admin.issue("key-1")
        assert (first.status_code, again.status_code) == (201, 201)
        assert again.json() == first.json(), "the secret too: whoever lost the answer has no other way to it"
        assert again.headers["idempotent-replayed"] == "true"
        assert "idempotent-replayed" not in first.headers
        assert await admin.count() == 1
        assert (await admin.issue("key-2")).json()["id"] != first.json()["id"]
        assert (await admin.issue(None)).json()["id"] != (await admin.issue(None)).json()["id"]
        with psycopg.connect(superuser_url) as conn:
            kept = b"".join(bytes(row[0]) for row in conn.execute("select answer from ledger.idempotent_requests"))
        assert first.json()["token"].encode() not in kept

    run(app_url, check)


def test_a_key_belongs_to_one_request_of_one_token(app_url: str) -> None:
    async def check(admin: Admin) -> None:
        assert (await admin.issue("key")).status_code == 201
        other = await admin.issue("key", {**BODY, "name": "for April"})
        assert (other.status_code, other.json()["code"]) == (409, "idempotency_key_reused")
        made = await tokens.issue(admin.services.ledger, machine(), "admin", "another", ("*",), None, days=1)
        theirs = await admin.issue("key", Authorization=f"Bearer {made.text}")
        assert theirs.status_code == 201
        assert "idempotent-replayed" not in theirs.headers
        for wrong in ("", "x" * 256):
            assert (await admin.issue(wrong)).json()["code"] == "invalid_idempotency_key"

    run(app_url, check)


def test_a_refused_request_may_be_repeated_under_the_same_key(app_url: str) -> None:
    async def check(admin: Admin) -> None:
        assert (await admin.issue("key", {"role": "king", "name": "n"})).status_code == 400
        assert (await admin.issue("key", {"role": "king", "name": "n"})).status_code == 400
        assert await admin.count() == 0

    run(app_url, check)


def test_many_requests_with_one_key_at_once_are_carried_out_once(app_url: str) -> None:
    async def check(admin: Admin) -> None:
        answers = await asyncio.gather(*(admin.issue("key") for _ in range(20)))
        assert {answer.status_code for answer in answers} <= {201, 409}
        assert {answer.json()["code"] for answer in answers if answer.status_code == 409} <= {"idempotency_in_progress"}
        assert len({answer.json()["id"] for answer in answers if answer.status_code == 201}) == 1
        assert await admin.count() == 1

    run(app_url, check)


@pytest.mark.parametrize("committed", [True, False])
def test_the_key_of_a_process_that_died_tells_whether_its_request_was_carried_out(
    app_url: str, superuser_url: str, committed: bool
) -> None:
    """If the act was committed, a request with the key never does it again; if nothing was committed, the next request does it."""

    async def check(admin: Admin) -> None:
        ledger, dead = admin.services.ledger, machine()
        key = key_of(dead, "key", b"POST")
        assert await idempotency.begin(ledger, dead, key) is None
        if committed:
            await tokens.issue(ledger, dead, "auditor", "n", ("*",), None, days=1)
        with pytest.raises(ConflictError, match="still running"):
            await idempotency.begin(ledger, machine(), key)
        with psycopg.connect(superuser_url, autocommit=True) as conn:
            conn.execute("update ledger.idempotent_requests set begun_at = begun_at - interval '1 hour'")
        heir = machine()
        if committed:
            with pytest.raises(ConflictError, match="was carried out"):
                await idempotency.begin(ledger, heir, key)
            return
        assert await idempotency.begin(ledger, heir, key) is None
        await idempotency.finish(ledger, dead, key, Answer(201, "text/plain", b"of the dead"))
        await idempotency.finish(ledger, heir, key, Answer(201, "text/plain", b"of the heir"))
        found = await idempotency.begin(ledger, machine(), key)
        assert found is not None
        assert found.body == b"of the heir"

    run(app_url, check)


@pytest.mark.parametrize(
    "lock", [f"{DIRECTORY.number}, (select id from ledger.directories where slug = '_system')", f"{LEDGER.number}, 0"]
)
def test_a_lost_write_that_still_runs_keeps_its_key(
    app_url: str, superuser_url: str, monkeypatch: pytest.MonkeyPatch, lock: LiteralString
) -> None:
    """This holds also before the write has the lock of the ledger: earlier, the request that took over the key did the act a
    second time.
    """
    monkeypatch.setattr(idempotency, "LOCK", Deadline(0.1, "a lock", "409"))

    async def check(admin: Admin) -> None:
        ledger, lost = admin.services.ledger, machine()
        key = key_of(lost, "key", b"POST")
        assert await idempotency.begin(ledger, lost, key) is None
        await idempotency.finish(ledger, lost, key, Answer(503, "text/plain", b""))
        with psycopg.connect(superuser_url) as conn:
            conn.execute(f"select pg_advisory_xact_lock({lock})")
            with pytest.raises(ConflictError, match="still running"):
                await idempotency.begin(ledger, machine(), key)
        assert await idempotency.begin(ledger, machine(), key) is None

    run(app_url, check)


def test_a_key_that_was_taken_before_the_clock_was_set_back_is_released_no_later(app_url: str, superuser_url: str) -> None:
    """The first request that asks for the key starts the time after which the other process must have ended, so it is not a day
    late.
    """

    async def check(admin: Admin) -> None:
        ledger, dead = admin.services.ledger, machine()
        key = key_of(dead, "key", b"POST")
        assert await idempotency.begin(ledger, dead, key) is None
        with psycopg.connect(superuser_url, autocommit=True) as conn:
            conn.execute("update ledger.idempotent_requests set begun_at = begun_at + interval '1 day'")
            with pytest.raises(ConflictError, match="still running"):
                await idempotency.begin(ledger, machine(), key)
            later = timedelta(seconds=idempotency.UNDER_WAY_S_MAX + 1)
            conn.execute("update ledger.idempotent_requests set begun_at = begun_at - %s", (later,))
        assert await idempotency.begin(ledger, machine(), key) is None

    run(app_url, check)


def test_answers_are_kept_for_a_day(app_url: str, superuser_url: str) -> None:
    async def check(admin: Admin) -> None:
        await admin.issue("old")
        with psycopg.connect(superuser_url, autocommit=True) as conn:
            conn.execute("update ledger.idempotent_requests set begun_at = begun_at - interval '25 hours'")
        await admin.issue("new")
        async with admin.services.ledger.connection() as conn:
            await idempotency.prune(conn)
            row = await (await conn.execute("select count(*) from idempotent_requests")).fetchone()
        assert row == (1,)
        assert json.loads((await admin.issue("new")).content)["name"] == BODY["name"]

    run(app_url, check)
