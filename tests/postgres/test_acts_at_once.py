"""The same act asked for twice at once: it happens once, and both callers are told something true."""

import asyncio
from typing import Any

import pytest

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
def test_an_act_that_is_asked_for_twice_at_once_happens_once(app_url: str, method: str, path: str, body: Any, topic: str) -> None:
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
