"""Clocks that are set back, ahead and apart (docs/operations.md, "clock_behind_ledger").

The database's clock is changed through the only function that reads it, the service's is passed in.
"""

import asyncio
import json
import random
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from ledger.rendering import rfc3339
from runtime.wiring import now_us
from tests.postgres.ledgers import CORE_USER
from tests.postgres.settable_clock import SettableClock
from tests.postgres.test_tokens_http import Edge, edge

REASON = {"reason": "the time server was wrong"}


class Clocks:
    """The two clocks, each with an offset from real time."""

    def __init__(self, database: SettableClock) -> None:
        self._database, self._off_us = database, 0

    def service(self) -> int:
        return now_us() + self._off_us

    def both(self, **off: float) -> None:
        self.set(off, off)

    def set(self, database: dict[str, float], service: dict[str, float]) -> None:
        self._database.ahead(**database)
        self._off_us = round(timedelta(**service).total_seconds() * 1e6)


class ClockedService:
    """A service with two directories, and its clocks."""

    def __init__(self, edge: Edge, clocks: Clocks, tokens: dict[str, str]) -> None:
        self.edge, self.clocks, self._tokens, self._made = edge, clocks, tokens, 0

    async def create(self, slug: str = "acme") -> httpx.Response:
        self._made += 1
        body = {"schemas": [CORE_USER], "userName": f"u{self._made}"}
        return await self.edge.ask("POST", f"/scim/{slug}/v2/Users", body, self._tokens[slug])

    async def created(self, slug: str = "acme") -> int:
        """Create one more user; returns its seq."""
        answer = await self.create(slug)
        assert answer.status_code == 201, answer.text
        return int(answer.headers["Ledger-Seq"])

    async def refused(self, code: str, slug: str = "acme") -> None:
        answer = await self.create(slug)
        assert (answer.status_code, code in answer.json()["detail"]) == (503, True), answer.text
        assert int(answer.headers["Retry-After"]) > 0

    async def asked(self, method: str, path: str, body: Any = None, **params: str) -> Any:
        answer = await self.edge.ask(method, path, body, **params)
        assert answer.status_code < 300, (path, answer.text)
        return answer.json() if answer.content else None

    async def events(self, slug: str) -> list[dict[str, Any]]:
        page = await self.asked("GET", "/v1/events", limit="1000", **({} if slug == "*" else {"directory": slug}))
        return page["data"]

    async def as_of(self, point: str) -> dict[str, Any]:
        return (await self.asked("GET", "/v1/audit/acme/population", as_of=point))["as_of"]


Check = Callable[[ClockedService], Awaitable[None]]


async def _scene(app_url: str, clocks: Clocks, check: Check) -> None:
    async with edge(app_url, clocks.service) as made:
        tokens = {slug: (await made.issue(role="scim", directories=[slug]))["token"] for slug in ("acme", "other")}
        await check(ClockedService(made, clocks, tokens))


@pytest.fixture
def on_clocks(superuser_url: str, app_url: str) -> Callable[[Check], None]:
    def go(check: Check) -> None:
        assert SettableClock.put_aside(superuser_url)
        asyncio.run(_scene(app_url, Clocks(SettableClock(superuser_url)), check))

    return go


def _times(events: list[dict[str, Any]]) -> list[datetime]:
    return [datetime.fromisoformat(event["time"]) for event in events]


APART = [{"seconds": 62}, {"seconds": -62}, {"hours": 1}, {"hours": -1}, {"days": -400}]


@pytest.mark.parametrize("who", ["database", "service"])
@pytest.mark.long
def test_clocks_that_disagree_refuse_requests_of_idps_and_of_nobody_else(on_clocks: Callable[[Check], None], who: str) -> None:
    async def check(scene: ClockedService) -> None:
        for off in APART:
            spare = await scene.edge.issue(role="scim", directories=["acme"])
            await scene.created()
            scene.clocks.set(off if who == "database" else {}, off if who == "service" else {})
            await scene.refused("clocks_disagree")
            await _acts_go_on(scene, spare)
            scene.clocks.both()
            await scene.created()
            now = datetime.now(UTC)
            for slug in ("acme", "_system"):
                times = _times(await scene.events(slug))
                assert times == sorted(times)
                assert times[-1] <= now + timedelta(seconds=1), "an act must not bring a wrong time into the log"
        scene.clocks.set(off if who == "database" else {}, off if who == "service" else {})
        ready = await scene.edge.http.get("/readyz")
        assert (ready.status_code, ready.json()["part"]) == (503, "clock")
        assert "clocks_disagree" in ready.json()["reason"]

    on_clocks(check)


async def _acts_go_on(scene: ClockedService, token: dict[str, Any]) -> None:
    """Acts of operators while requests of IdPs are refused because of a clock; a revocation takes effect at once."""
    await scene.asked("DELETE", f"/v1/tokens/{token['id']}", REASON)
    assert (await scene.edge.ask("GET", "/scim/acme/v2/Users", token=token["token"])).status_code == 401
    await scene.asked("POST", "/v1/directories/acme/pause", REASON)
    await scene.asked("POST", "/v1/directories/acme/resume", REASON)
    await scene.asked("PUT", "/v1/consumers/app", {"directories": ["acme"], "start": "now"})
    await scene.asked("PUT", "/v1/directories/acme/profile", {"profile": "okta"})
    await scene.asked("POST", "/v1/tokens", {"role": "scim", "name": "n", "directories": ["acme"]})
    told = {event["type"] for slug in ("acme", "_system") for event in await scene.events(slug)}
    assert {"token.revoked", "directory.paused", "consumer.created", "directory.profile_changed"} <= told


def test_later_events_take_the_time_of_a_last_event_that_is_up_to_a_minute_ahead(on_clocks: Callable[[Check], None]) -> None:
    async def check(scene: ClockedService) -> None:
        scene.clocks.both(seconds=55)
        ahead = await scene.created()
        scene.clocks.both()
        for _ in range(3):
            last = await scene.created()
        times = _times(await scene.events("acme"))
        assert len(set(times[ahead - 1 : last])) == 1
        scene.clocks.both(seconds=56)
        await scene.created()
        assert _times(await scene.events("acme"))[-1] > times[-1], "the clock has caught up"
        assert "clock" not in await scene.as_of("seq:head")
        assert (await scene.edge.http.get("/readyz")).status_code == 200

    on_clocks(check)


def test_with_a_last_event_further_ahead_the_directory_waits_for_an_operator_and_others_do_not(
    on_clocks: Callable[[Check], None],
) -> None:
    async def check(scene: ClockedService) -> None:
        before = await scene.created()
        began = rfc3339(now_us())
        scene.clocks.both(hours=1)
        ahead = await scene.created()
        frozen = (await scene.events("acme"))[-1]["time"]
        scene.clocks.both()
        await scene.refused("clock_behind_ledger")
        await scene.created("other")
        assert (await scene.edge.http.get("/readyz")).status_code == 200
        await _acts_go_on(scene, await scene.edge.issue(role="scim", directories=["acme"]))
        await scene.refused("clock_behind_ledger")
        advice = (await scene.asked("GET", "/v1/directories/acme/health"))["advice"]
        assert "accept-clock acme" in advice[0]

        await scene.asked("POST", "/v1/directories/acme/accept-clock", REASON)
        await scene.asked("POST", "/v1/directories/acme/accept-clock", REASON)
        events = await scene.events("acme")
        assert [event["type"] for event in events].count("directory.clock_accepted") == 1
        told = next(event for event in events if event["type"] == "directory.clock_accepted")
        assert told["data"]["object"]["reason"] == REASON["reason"]
        assert told["data"]["object"]["frozen_at"] == told["time"] == frozen
        after = await scene.created()
        assert {event["time"] for event in (await scene.events("acme"))[ahead - 1 :]} == {frozen}
        for point in (f"seq:{after}", f"seq:{ahead}", "seq:head", rfc3339(now_us()), frozen):
            assert (await scene.as_of(point)).get("clock") == "frozen", point
        for point in (f"seq:{before}", began):
            assert "clock" not in await scene.as_of(point), point
        snapshot = await scene.edge.ask("GET", "/v1/directories/acme/snapshot")
        assert json.loads(snapshot.text.splitlines()[0])["clock"] == "frozen"
        diff = await scene.asked("GET", "/v1/audit/acme/diff", **{"from": f"seq:{before}"})
        assert ("clock" in diff["from"], diff["as_of"]["clock"]) == (False, "frozen")
        during = rfc3339(now_us())

        scene.clocks.both(hours=1, seconds=5)
        await scene.created()
        assert (await scene.events("acme"))[-1]["time"] > frozen
        assert "clock" not in await scene.as_of("seq:head")
        assert (await scene.as_of(during))["clock"] == "frozen", "answers still say which events have the frozen time"
        answer = await scene.edge.ask("POST", "/v1/directories/acme/accept-clock", REASON)
        assert (answer.status_code, answer.json()["code"]) == (409, "clock_not_behind")

        scene.clocks.both()
        await scene.refused("clock_behind_ledger")  # the accepted time was another one
        scene.clocks.both(hours=1, seconds=6)
        await scene.created()

    on_clocks(check)


def test_a_directory_whose_time_is_ahead_hides_no_events_of_others_from_requests_by_time(
    on_clocks: Callable[[Check], None],
) -> None:
    """An instant is resolved in the directories of the request, at both ends of a range, and a range never ends before it begins."""

    async def check(scene: ClockedService) -> None:
        await scene.created("other")
        await scene.asked("PUT", "/v1/consumers/app", {"directories": ["other"], "types": ["user.*"]})
        await scene.asked("PUT", "/v1/consumers/all", {"types": ["user.*"]})
        scene.clocks.both(days=1)
        await scene.created("acme")
        scene.clocks.both()
        begin = rfc3339(now_us())
        for _ in range(3):
            await scene.created("other")
        end = rfc3339(now_us())
        for name, count in (("app", 3), ("all", 4)):  # a range of the log has all events between its ends, whatever their times
            assert await _count(scene, name, begin, end) == count
            audit = await scene.asked("GET", f"/v1/consumers/{name}/audit", **{"from": begin, "to": end})
            assert audit["to_come"] == count
        assert await _count(scene, "app", end, end) == 0
        assert await _count(scene, "all", begin, end, directories=["other"]) == 3
        assert await _count(scene, "all", begin, end, directories=["acme"]) == 0
        sought = await scene.asked("POST", "/v1/consumers/app/seek", {"to": end, "reason": "r", "dry_run": True})
        assert sought["passed_over"] == 4
        made = await scene.asked("PUT", "/v1/consumers/late", {"directories": ["other"], "types": ["user.*"], "start": begin})
        assert len((await scene.asked("GET", f"/v1/consumers/{made['name']}/events"))["data"]) == 3
        assert len((await scene.asked("GET", "/v1/events", directory="other", **{"from": begin}))["data"]) == 3

    on_clocks(check)


async def _count(scene: ClockedService, consumer: str, begin: str, end: str, **more: Any) -> int:
    """The number of events that a replay of that time would send."""
    body = {"name": "x", "consumer": consumer, "from": begin, "to": end, "reason": "r", "dry_run": True}
    plan = await scene.asked("POST", "/v1/replays", body | more)
    return plan["count"]


@pytest.mark.parametrize("seed", range(3))
def test_time_never_decreases_whatever_the_clocks_do(on_clocks: Callable[[Check], None], seed: int) -> None:
    """Steps of both clocks, ahead and back, small and large: acknowledged writes are in order, and refused ones say why."""
    rng = random.Random(seed)

    async def check(scene: ClockedService) -> None:
        acknowledged = 0
        for _ in range(25):
            off = {"seconds": rng.choice([0, 0, 20, -20, 59, 90, -90, 3_600, -3_600])}
            scene.clocks.set(off, rng.choice([off, off, {}]))
            for slug in rng.sample(["acme", "acme", "other"], 2):
                answer = await scene.create(slug)
                acknowledged += answer.status_code == 201
                detail = "" if answer.status_code == 201 else answer.json()["detail"]
                assert answer.status_code == 201 or "clocks_disagree" in detail or "clock_behind_ledger" in detail, answer.text
                if "clock_behind_ledger" in detail:
                    await scene.edge.ask("POST", f"/v1/directories/{slug}/accept-clock", REASON)
        scene.clocks.both(hours=2)
        everything = await scene.events("*")
        assert [event["type"] for event in everything].count("user.created") == acknowledged > 10
        for slug in ("acme", "other", "_system"):
            times = _times([event for event in everything if event["directory"] == slug])
            assert times == sorted(times)

    on_clocks(check)
