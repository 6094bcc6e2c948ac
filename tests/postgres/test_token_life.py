"""The life of a token over HTTP and in the database: where it is used, warnings before it expires, the report, a careful end."""

import asyncio
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from typing import Any
from uuid import UUID

import orjson
import psycopg
import pytest

from ledger.token_use import Use, last_uses, note_uses
from operations.tokens import warn_of_expiry
from runtime import wiring
from tests.postgres.test_tokens_http import Edge, run


@contextmanager
def by_hand(superuser_url: str) -> Generator[psycopg.Connection[Any]]:
    """The table of tokens without its triggers, so that a test can make tokens old."""
    with psycopg.connect(superuser_url) as conn:
        conn.execute("alter table ledger.tokens disable trigger only_less")
        yield conn
        conn.execute("alter table ledger.tokens enable always trigger only_less")


def age(superuser_url: str, token: str, sets: str) -> None:
    with by_hand(superuser_url) as conn:
        conn.execute(f"update ledger.tokens set {sets} where id = %s".encode(), (token,))


async def events(edge: Edge, topic: str) -> list[dict[str, Any]]:
    answer = await edge.ask("GET", "/v1/events", directory="_system", types=topic, limit="1000")
    return [event["data"]["object"] for event in answer.json()["data"]]


def test_a_token_shows_where_it_was_used_last(app_url: str, superuser_url: str) -> None:
    async def check(edge: Edge) -> None:
        made = await edge.issue(role="auditor")
        assert made["last_used_from"] is None
        await edge.ask("GET", "/v1/audit/acme/population", token=made["token"], as_of="seq:head")
        await wiring._touch_used(edge.services)  # pyright: ignore[reportPrivateUsage]
        shown = (await edge.ask("GET", f"/v1/tokens/{made['id']}")).json()
        assert shown["last_used_from"] == {"route": "GET /v1/audit/{directory}/population", "network": "127.0.0.0/24"}
        assert shown["last_used_at"] is not None
        listed = (await edge.ask("GET", "/v1/tokens", role="auditor")).json()["data"]
        assert shown in listed

    run(app_url, check)
    with psycopg.connect(superuser_url) as conn:
        places = [row[0] for row in conn.execute("select last_used_place from ledger.tokens where last_used_place is not null")]
    assert places
    assert not any(b"audit" in place or b"127.0.0" in place for place in places), "sealed"


def test_the_newest_use_is_kept_and_a_place_moved_to_another_row_is_not_shown(app_url: str) -> None:
    async def check(edge: Edge) -> None:
        one, two = UUID(edge.id), UUID((await edge.issue(role="auditor"))["id"])
        kek, random = edge.ledger.kek, edge.ledger.entropy
        async with edge.ledger.connection() as conn:
            await note_uses(conn, kek, {one: Use("GET /a", "10.1.2.3")}, random)
            await note_uses(conn, kek, {one: Use("GET /b", "10.9.9.3")}, random)
            newest = {one: {"route": "GET /b", "network": "10.9.9.0/24"}}
            assert await last_uses(conn, kek, [one, two]) == newest
            await conn.execute("update tokens set last_used_place = (select last_used_place from tokens where id = $1)", (one,))
            assert await last_uses(conn, kek, [one, two]) == newest

    run(app_url, check)


WARNED: Sequence[tuple[str, int]] = (("29 days", 30), ("6 days", 7), ("20 hours", 1))


def test_a_token_that_expires_soon_is_an_event_at_30_7_and_1_days_once(app_url: str, superuser_url: str) -> None:
    async def check(edge: Edge) -> None:
        made = await edge.issue(role="auditor", name="quarterly audit")
        for left, days in WARNED:
            # Its seal covers the expiry, so the token itself no longer works: only the warning is looked at here.
            age(
                superuser_url,
                made["id"],
                f"expires_at = clock_timestamp() + interval '{left}', created_at = now() - interval '1 year'",
            )
            counts = [await warn_of_expiry(edge.ledger), *await asyncio.gather(*[warn_of_expiry(edge.ledger) for _ in range(3)])]
            assert counts == [1, 0, 0, 0]
            told = await events(edge, "token.expiring")
            assert [(one["id"], one["name"], one["days"]) for one in told][-1] == (made["id"], "quarterly audit", days)
        assert len(told) == len(WARNED)

    run(app_url, check)


def test_two_processes_that_warn_at_once_make_one_event(app_url: str, superuser_url: str) -> None:
    async def check(edge: Edge) -> None:
        made = await edge.issue(role="auditor")
        age(
            superuser_url,
            made["id"],
            "expires_at = clock_timestamp() + interval '6 days', created_at = now() - interval '1 year'",
        )
        assert sum(await asyncio.gather(*[warn_of_expiry(edge.ledger) for _ in range(4)])) == 1
        assert len(await events(edge, "token.expiring")) == 1

    run(app_url, check)


def test_a_rotated_or_revoked_token_is_not_warned_of(app_url: str, superuser_url: str) -> None:
    async def check(edge: Edge) -> None:
        rotated, revoked = await edge.issue(role="auditor"), await edge.issue(role="auditor")
        await edge.ask("POST", f"/v1/tokens/{rotated['id']}/rotate", {"overlap_seconds": 86_400})
        await edge.ask("DELETE", f"/v1/tokens/{revoked['id']}")
        assert await warn_of_expiry(edge.ledger) == 0

    run(app_url, check)


def test_the_report_lists_planted_faults_as_json_and_csv_and_nothing_else(app_url: str, superuser_url: str) -> None:
    async def check(edge: Edge) -> None:
        clean = (await edge.ask("GET", "/v1/tokens/report")).json()
        known = {(one["finding"], one["subject"]["id"]) for one in clean["data"]}
        old = await edge.issue(role="auditor", name="=cmd|' /C calc'!A0")
        age(superuser_url, old["id"], "created_at = now() - interval '200 days', last_used_at = now() - interval '100 days'")
        soon = await edge.issue(role="consumer", directories=["acme"], expires_in_days=5)
        wide = await edge.issue(role="consumer")
        report = (await edge.ask("GET", "/v1/tokens/report")).json()
        found = {(one["finding"], one["subject"]["id"]) for one in report["data"]} - known
        assert found == {("not_rotated", old["id"]), ("unused", old["id"]), ("expires_soon", soon["id"]), ("wide", wide["id"])}
        assert report["data"][0]["severity"] == "high"
        assert sum(report["counts"].values()) == len(report["data"])

        headers = {"Authorization": f"Bearer {edge.admin}", "Accept": "text/csv"}
        answer = await edge.http.get("/v1/tokens/report", headers=headers)
        assert answer.headers["content-type"] == "text/csv; charset=utf-8"
        lines = answer.text.splitlines()
        assert lines[0] == "finding,severity,kind,id,name,since,fix"
        assert len(lines) == len(report["data"]) + 1
        assert not any(cell.startswith("=") for line in lines for cell in line.split(",")), "a spreadsheet would run it"
        both = await edge.http.get("/v1/tokens/report", headers={**headers, "Accept": "application/json, text/csv"})
        assert orjson.loads(both.content)["counts"] == report["counts"]

    run(app_url, check)


def test_a_narrowed_admin_sees_only_its_own_in_the_report(app_url: str, superuser_url: str) -> None:
    async def check(edge: Edge) -> None:
        narrow = await edge.issue(role="admin", directories=["other"])
        await edge.issue(role="scim", directories=["acme"], expires_in_days=5)
        mine = await edge.issue(role="scim", directories=["other"], expires_in_days=5)
        report = (await edge.ask("GET", "/v1/tokens/report", token=narrow["token"])).json()
        assert [one["subject"]["id"] for one in report["data"]] == [mine["id"]]

    run(app_url, check)


@pytest.mark.parametrize(("ago", "status"), [("10 seconds", 409), ("10 minutes", 204)])
def test_a_token_is_not_ended_while_somebody_uses_it(app_url: str, superuser_url: str, ago: str, status: int) -> None:
    async def check(edge: Edge) -> None:
        made = await edge.issue(role="auditor")
        age(
            superuser_url,
            made["id"],
            f"created_at = now() - interval '1 day', last_used_at = clock_timestamp() - interval '{ago}'",
        )
        answer = await edge.ask("DELETE", f"/v1/tokens/{made['id']}", {"reason": "rotated", "unused_for_seconds": 300})
        assert answer.status_code == status, answer.text
        if status == 409:
            assert answer.json()["code"] == "token_in_use"
            assert await events(edge, "token.revoked") == []

    run(app_url, check)


def test_a_token_that_is_younger_than_the_time_of_a_careful_end_proves_nothing(app_url: str) -> None:
    async def check(edge: Edge) -> None:
        made = await edge.issue(role="auditor")
        answer = await edge.ask("DELETE", f"/v1/tokens/{made['id']}", {"unused_for_seconds": 300})
        assert (answer.status_code, answer.json()["code"]) == (409, "token_in_use")

    run(app_url, check)


def test_the_time_of_a_careful_end_is_longer_than_what_a_process_keeps_to_itself(app_url: str) -> None:
    async def check(edge: Edge) -> None:
        answer = await edge.ask("DELETE", f"/v1/tokens/{edge.id}", {"unused_for_seconds": 60})
        assert answer.status_code == 400
        assert "is not a number from 300" in answer.json()["detail"]

    run(app_url, check)


@pytest.mark.parametrize("route", ["/v1/audit/acme/population", "/v1/tokens", "/v1/events"])
def test_a_token_that_is_sent_after_its_end_is_found_on_whatever_route(app_url: str, superuser_url: str, route: str) -> None:
    async def check(edge: Edge) -> None:
        ended, quiet, living = [await edge.issue(role="auditor") for _ in range(3)]
        for made in (ended, quiet):
            await edge.ask("DELETE", f"/v1/tokens/{made['id']}")
        for token in (ended["token"], living["token"] + "0", "sl_auditor_" + "0" * 32 + "_" + "0" * 64):
            assert (await edge.ask("GET", route, token=token)).status_code == 401
        await wiring._touch_used(edge.services)  # pyright: ignore[reportPrivateUsage]
        found = (await edge.ask("GET", "/v1/tokens/report")).json()["data"]
        in_use = [one["subject"]["id"] for one in found if one["finding"] == "expired_in_use"]
        assert in_use == [ended["id"]]

    run(app_url, check)
