"""The same act is requested twice at the same moment: it is carried out once, and both callers get a true answer."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest

from api.app import make_app
from database.locks import DIRECTORY
from delivery import forks
from tests.postgres.ledgers import opened
from tests.postgres.test_state_conflicts import HOOK, PULL, REASON, SCHEMA
from tests.postgres.test_tokens_http import Edge, run

ACTS: list[tuple[str, str, Any, str]] = [
    ("DELETE", "/v1/tokens/{token}", REASON, "token.revoked"),
    ("POST", "/v1/tokens/{token}/rotate", {}, "token.rotated"),
    ("POST", "/v1/directories/other/pause", REASON, "directory.paused"),
    ("POST", "/v1/directories/other/close", {**REASON, "confirm": "other"}, "directory.closed"),
    ("POST", "/v1/consumers/pushed/pause", None, "consumer.paused"),
    ("POST", "/v1/consumers/halted/resume", None, "consumer.resumed"),
    ("DELETE", "/v1/consumers/pulls", None, "consumer.deleted"),
    ("PUT", "/v1/consumers/new", PULL, "consumer.created"),
    ("PUT", "/v1/consumers/pulls", {**PULL, "types": ["user.*"]}, "consumer.updated"),
    ("POST", "/v1/replays/{run}/pause", None, "replay.paused"),
    ("POST", "/v1/replays/{run}/cancel", None, "replay.cancelled"),
    ("POST", "/v1/replays/{resting}/resume", None, "replay.resumed"),
    ("PUT", "/v1/directories/acme/profile", {"profile": "okta"}, "directory.profile_changed"),
    ("POST", "/v1/directories", {"slug": "third"}, "directory.created"),
    ("POST", "/v1/directories/acme/schemas", {"schema": SCHEMA}, "directory.schema_registered"),
]


async def _prepared(edge: Edge) -> dict[str, str]:
    async def done(method: str, path: str, body: Any = None) -> dict[str, Any]:
        answer = await edge.ask(method, path, body)
        assert answer.status_code < 300, (path, answer.text)
        return answer.json() if answer.content else {}

    await done("PUT", "/v1/consumers/pulls", PULL)
    for name in ("pushed", "halted"):
        await done("PUT", f"/v1/consumers/{name}", HOOK)
    replay = {"from": "beginning", "reason": "r", "consumer": "pushed"}
    ids = {"token": (await edge.issue(role="auditor"))["id"], "run": (await done("POST", "/v1/replays", replay))["id"]}
    ids["resting"] = (await done("POST", "/v1/replays", {**replay, "consumer": "halted"}))["id"]
    await done("POST", f"/v1/replays/{ids['resting']}/pause")
    await done("POST", "/v1/consumers/halted/pause")
    return ids


@pytest.mark.parametrize(("method", "path", "body", "topic"), ACTS, ids=[f"{act[0]} {act[1]}" for act in ACTS])
def test_an_act_that_is_requested_twice_at_once_is_carried_out_once(
    app_url: str, method: str, path: str, body: Any, topic: str
) -> None:
    async def check(edge: Edge) -> None:
        ids = await _prepared(edge)
        before = await _count(edge, topic)
        answers = await asyncio.gather(*(edge.ask(method, path.format(**ids), body) for _ in range(4)))
        statuses = sorted(answer.status_code for answer in answers)
        assert statuses[0] < 300, [answer.text for answer in answers]
        assert set(statuses) <= {200, 201, 204, 404, 409}, [answer.text for answer in answers]
        assert await _count(edge, topic) == before + 1, statuses

    run(app_url, check)


async def _count(edge: Edge, topic: str) -> int:
    pages = [
        (await edge.ask("GET", "/v1/events", limit="1000", types=topic, **where)).json()
        for where in ({"directory": "_system"}, {})
    ]
    assert not any(page["has_more"] for page in pages)
    return len({event["id"] for page in pages for event in page["data"]})


@asynccontextmanager
async def _beside(edge: Edge, url: str) -> AsyncIterator[Edge]:
    """A second service on the same database."""
    async with opened(url, kek=edge.ledger.kek) as ledger:
        app = httpx.ASGITransport(make_app(ledger.services))
        async with httpx.AsyncClient(transport=app, base_url="http://ledger.test") as http:
            other = Edge(http, ledger.services)
            other.admin = edge.admin
            yield other


CONTRARY: list[tuple[tuple[str, str, Any], tuple[str, str, Any], dict[str, str]]] = [
    (
        ("POST", "/v1/directories/other/close", {**REASON, "confirm": "other"}),
        ("POST", "/v1/directories/other/pause", REASON),
        {"close": "directory.closed", "pause": "directory.paused"},
    ),
    (
        ("DELETE", "/v1/consumers/pushed", None),
        ("POST", "/v1/replays", {"from": "beginning", "reason": "r", "consumer": "pushed"}),
        {"pushed": "consumer.deleted", "replays": "replay.started"},
    ),
    (
        ("POST", "/v1/consumers/pulls/pause", None),
        ("POST", "/v1/consumers/pulls/seek", {"to": "beginning", **REASON}),
        {"pause": "consumer.paused", "seek": "consumer.sought"},
    ),
    (
        ("DELETE", "/v1/tokens/{token}", REASON),
        ("POST", "/v1/tokens/{token}/rotate", {}),
        {"{token}": "token.revoked", "rotate": "token.rotated"},
    ),
    (
        ("POST", "/v1/replays/{run}/cancel", None),
        ("POST", "/v1/replays/{run}/pause", None),
        {"cancel": "replay.cancelled", "pause": "replay.paused"},
    ),
    (
        ("DELETE", "/v1/consumers/pulls", None),
        ("POST", "/v1/consumers/pulls/seek", {"to": "beginning", **REASON}),
        {"pulls": "consumer.deleted", "seek": "consumer.sought"},
    ),
]


@pytest.mark.parametrize("sides", [(0, 1), (1, 0), (0, 0)])
@pytest.mark.parametrize(("one", "other", "topics"), CONTRARY, ids=[f"{a[1]} and {b[1]}" for a, b, _ in CONTRARY])
def test_contradicting_acts_are_carried_out_one_after_the_other(
    app_url: str, one: Any, other: Any, topics: dict[str, str], sides: tuple[int, int]
) -> None:
    """Every act that was answered with success has an event, and after an event that ends a thing no act on it follows."""

    async def check(edge: Edge) -> None:
        ids = await _prepared(edge)
        async with _beside(edge, app_url) as beside:
            services = (edge, beside)
            acts = [(method, path.format(**ids), body) for method, path, body in (one, other)]
            before = await _topics(edge)
            answers = await asyncio.gather(*(services[side].ask(*act) for side, act in zip(sides, acts, strict=True)))
        statuses = [answer.status_code for answer in answers]
        assert set(statuses) <= {200, 201, 202, 204, 404, 409}, [answer.text for answer in answers]
        told = [topic for status, topic in zip(statuses, topics.values(), strict=True) if status < 300]
        went = [topic for topic in (await _topics(edge))[len(before) :] if topic in topics.values()]
        assert sorted(went) == sorted(told), (statuses, went)
        ends = next(iter(topics.values()))
        assert ends == "consumer.paused" or went[-1] == ends, "no act follows the event that ended it"

    run(app_url, check)


async def _topics(edge: Edge) -> list[str]:
    """The types of all events in the order of the log, except those of `_system`, which come last."""
    pages = [(await edge.ask("GET", "/v1/events", limit="1000", **where)).json() for where in ({}, {"directory": "_system"})]
    events = {event["id"]: event for page in pages for event in page["data"]}
    return [event["type"] for event in sorted(events.values(), key=lambda event: event["position"])]


def test_a_fork_that_is_closed_twice_at_once_is_closed_once(app_url: str) -> None:
    async def check(edge: Edge) -> None:
        await _prepared(edge)
        async with edge.ledger.connection() as conn:
            await conn.execute(
                forks.SQL["add_fork"], ((await _number(conn, "pulls")), 1, "{}", ["evt_acme_9_00000000"], 1, 0, None)
            )
        path = "/v1/consumers/pulls/forked/close"
        async with _beside(edge, app_url) as beside:
            answers = await asyncio.gather(*(side.ask("POST", path, REASON) for side in (edge, beside, edge, beside)))
        assert sorted(answer.status_code for answer in answers) == [200, 409, 409, 409], [answer.text for answer in answers]
        assert await _count(edge, "consumer.fork_closed") == 1

    run(app_url, check)


async def _number(conn: Any, name: str) -> int:
    row = await (await conn.execute("select id from consumers where name = $1", (name,))).fetchone()
    return row[0]


def test_a_run_without_events_begins_and_ends_in_one_commit(app_url: str) -> None:
    """Between two commits a delivery process would end the run, and the request would be decided again, with another run."""

    async def check(edge: Edge) -> None:
        await edge.ask("PUT", "/v1/consumers/pushed", HOOK)
        asked = {"from": "beginning", "types": ["group.deleted"], "reason": "r", "consumer": "pushed"}
        made = (await edge.ask("POST", "/v1/replays", asked)).json()
        assert (made["status"], made["total"]) == ("finished", 0)
        page = (await edge.ask("GET", "/v1/events", types="replay.*", directory="_system")).json()
        assert [event["type"] for event in page["data"]] == ["replay.started", "replay.finished"]
        assert len({event["commit"]["first_seq"] for event in page["data"]}) == 1

    run(app_url, check)


def test_a_pause_that_waits_behind_a_closing_is_answered_directory_closed(app_url: str) -> None:
    """Both were decided while the directory was active, and both services wait for the lock of its log."""

    async def check(edge: Edge) -> None:
        async with _beside(edge, app_url) as beside, edge.ledger.connection() as conn:
            directory = await edge.ledger.directories.by_slug(conn, "other")
            assert directory is not None
            async with conn.transaction():
                await conn.execute(f"select pg_advisory_xact_lock({DIRECTORY.number}, $1)", (directory.id,))
                closing = asyncio.create_task(edge.ask("POST", "/v1/directories/other/close", {**REASON, "confirm": "other"}))
                await _waiting(conn, directory.id, 1)
                pausing = asyncio.create_task(beside.ask("POST", "/v1/directories/other/pause", REASON))
                await _waiting(conn, directory.id, 2)
            answers = await asyncio.gather(closing, pausing)
        assert [answer.status_code for answer in answers] == [200, 409], [answer.text for answer in answers]
        assert answers[1].json()["code"] == "directory_closed"
        assert await _count(edge, "directory.paused") == 0

    run(app_url, check)


async def _waiting(conn: Any, directory: int, count: int) -> None:
    """Wait until this number of sessions wait for the lock of a directory's log."""
    asked = f"select count(*) from pg_locks where locktype = 'advisory' and classid = {DIRECTORY.number} and objid = $1 and not granted"
    while (await (await conn.execute(asked, (directory,))).fetchone())[0] < count:
        pass
