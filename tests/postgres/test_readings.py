"""A page of a consumer belongs to a reading: pages from before a seek or a change of the filter acknowledge nothing afterwards."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest

from api.app import make_app
from delivery.consumers import Allowed
from operations import tokens
from operations.consumers import Webhooks
from runtime.bootstrap import machine
from tests.postgres.ledgers import Ledger, id_of, opened

LOOPBACK = Webhooks(Allowed.read("127.0.0.0/8"), 3.0)
Check = Callable[["App"], Awaitable[None]]


class App:
    """An application that pulls as `app`, its operator, and an IdP."""

    def __init__(self, http: httpx.AsyncClient, ledger: Ledger) -> None:
        self.http, self.ledger = http, ledger

    async def put(self, **body: Any) -> dict[str, Any]:
        answer = await self.http.put("/v1/consumers/app", json={"directories": ["acme"], **body})
        assert answer.status_code in {200, 201}, answer.text
        return answer.json()

    async def pull(self, **params: Any) -> dict[str, Any]:
        answer = await self.http.get("/v1/consumers/app/events", params=params)
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def ack(self, through: str) -> httpx.Response:
        return await self.http.post("/v1/consumers/app/ack", json={"through": through})

    async def acked(self, page: dict[str, Any]) -> dict[str, Any]:
        answer = await self.ack(page["list_metadata"]["after"])
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def post(self, path: str, **body: Any) -> dict[str, Any]:
        answer = await self.http.post(f"/v1/{path}", json={"reason": "a test", **body})
        assert answer.status_code < 300, answer.text
        return answer.json()

    async def seek(self, to: str) -> dict[str, Any]:
        return await self.post("consumers/app/seek", to=to)

    async def audit(self) -> dict[str, Any]:
        return (await self.http.get("/v1/consumers/app/audit")).json()

    async def plan(self, name: str = "app") -> dict[str, Any]:
        return await self.post("replays", **{"name": "again", "consumer": name, "from": "beginning", "dry_run": True})

    async def place(self) -> int:
        return (await self.http.get("/v1/consumers/app")).json()["acked_position"]


@asynccontextmanager
async def application(url: str) -> AsyncIterator[App]:
    async with opened(url, webhooks=LOOPBACK) as ledger:
        made = await tokens.issue(ledger.services.ledger, machine(), "admin", "test", ("*",), None, days=1)
        headers = {"Authorization": f"Bearer {made.text}"}
        transport = httpx.ASGITransport(make_app(ledger.services))
        async with httpx.AsyncClient(transport=transport, base_url="http://ledger.test", headers=headers) as http:
            yield App(http, ledger)


def run(url: str, check: Check) -> None:
    async def whole() -> None:
        async with application(url) as app:
            await check(app)

    asyncio.run(whole())


async def sought(app: App) -> None:
    await app.seek("beginning")


async def widened(app: App) -> None:
    await app.put(types=["user.*", "group.*"])


async def narrowed(app: App) -> None:
    await app.put(types=["user.created"])


async def made_again(app: App) -> None:
    assert (await app.http.delete("/v1/consumers/app")).status_code == 204
    await app.put(types=["user.*"])


@pytest.mark.parametrize("act", [sought, widened, narrowed, made_again])
def test_a_page_that_was_read_before_an_act_acknowledges_nothing_after_it(app_url: str, act: Check) -> None:
    async def check(app: App) -> None:
        await app.put(types=["user.*"])
        for n in range(4):
            await app.ledger.create_user(f"u{n}")
            await app.ledger.create_group(f"g{n}")
        await app.acked(await app.pull(limit=2))
        page = await app.pull(limit=2)
        await act(app)
        before = await app.place()
        answer = await app.ack(page["list_metadata"]["after"])
        found = answer.json()
        assert (answer.status_code, found["code"]) == (409, "place_moved"), answer.text
        assert found["position"] == found["acked_position"] == before == await app.place(), (
            "the place is unchanged, and the answer has it"
        )
        assert f"after position {before}" in found["detail"]
        rest = await app.pull(limit=1000)
        assert rest["covered"]["from_position"] == before + 1
        assert (await app.audit())["expected"] == (0 if act is made_again else 2)
        await app.acked(rest)
        audit = await app.audit()
        assert (audit["expected"], audit["holes"], audit["to_come"]) == (audit["acknowledged"], [], 0)

    run(app_url, check)


def test_an_event_id_or_a_cursor_of_the_feed_is_the_callers_own_claim(app_url: str) -> None:
    """Both are accepted also after a seek."""

    async def check(app: App) -> None:
        await app.put()
        for n in range(3):
            await app.ledger.create_user(f"u{n}")
        feed = (await app.http.get("/v1/events", params={"directory": "acme"})).json()
        whole = (await app.http.get("/v1/events", params={"limit": 1000})).json()
        await app.acked(await app.pull())
        await app.seek("beginning")
        for through, position in (
            (feed["data"][1]["id"], feed["data"][1]["position"]),
            (whole["list_metadata"]["after"], whole["head_position"]),
        ):
            answer = await app.ack(through)
            assert (answer.status_code, answer.json()["acked_position"]) == (200, position)

    run(app_url, check)


def test_acknowledging_continues_the_page_and_an_unchanged_filter_keeps_it_valid(app_url: str) -> None:
    async def check(app: App) -> None:
        await app.put()
        for n in range(6):
            await app.ledger.create_user(f"u{n}")
        first = await app.pull(limit=3)
        await app.put(batch_max=7)  # another definition, the same events
        await app.acked(first)
        feed = await app.http.get("/v1/events", params={"after": first["list_metadata"]["after"], "limit": 1})
        assert feed.json()["data"][0]["position"] == first["covered"]["to_position"] + 1, (
            "a cursor of a page is a place in the feed too"
        )
        assert not (await app.acked(first))["changed"]

    run(app_url, check)


def test_an_acknowledgement_at_the_same_time_as_a_seek_never_undoes_it(app_url: str) -> None:
    async def check(app: App) -> None:
        await app.put()
        for n in range(3):
            await app.ledger.create_user(f"u{n}")
        for turn in range(6):
            page = await app.pull()
            done = asyncio.create_task(app.ack(page["list_metadata"]["after"]))
            for _ in range(turn):
                await asyncio.sleep(0)
            await app.seek("beginning")
            answer = await done
            assert answer.status_code in {200, 409}
            assert await app.place() == 0, "the place is that of the operator's seek"

    run(app_url, check)


def test_a_pull_uses_the_filter_of_the_epoch_in_its_cursor(app_url: str) -> None:
    """The filter changes between the look-up of the consumer and that of its place."""

    async def check(app: App) -> None:
        await app.put(types=["user.*"])
        for n in range(4):
            await app.ledger.create_user(f"u{n}")
            await app.ledger.create_group(f"g{n}")
        for turn in range(12):
            pulling = asyncio.create_task(app.pull())
            for _ in range(turn):
                await asyncio.sleep(0)
            await app.put(types=["user.*", "group.*"] if turn % 2 == 0 else ["user.*"])
            page = await pulling
            if (await app.ack(page["list_metadata"]["after"])).status_code == 200:
                kinds = {event["type"].split(".")[0] for event in page["data"]}
                assert kinds == ({"user", "group"} if turn % 2 == 0 else {"user"})
                await app.seek("beginning")

    run(app_url, check)


def test_the_plan_of_a_replay_agrees_with_the_audit(app_url: str) -> None:
    """Only acknowledged events count as acknowledged, not those before the start, or filtered out, passed over or skipped."""

    async def check(app: App) -> None:
        users = [id_of(await app.ledger.create_user(f"before{n}")) for n in range(2)]
        await app.put(types=["user.*"], start="now")
        acked = [id_of(await app.ledger.create_user(f"acked{n}")) for n in range(3)]
        for n in range(4):
            await app.ledger.create_group(f"unseen{n}")
        await app.acked(await app.pull())
        await app.put(types=["user.*", "group.*"])
        for n in range(5):
            await app.ledger.create_user(f"over{n}")
        await app.seek("now")
        for n in range(6):
            await app.ledger.create_user(f"coming{n}")
        planned = await app.plan()
        told = {"before_start": len(users), "filtered_out": 4, "sought_over": 5, "to_come": 6}
        assert (planned["already_acked"], planned["not_acked"]) == (len(acked), told)
        assert planned["count"] == planned["already_acked"] + sum(told.values())
        audit = await app.audit()
        assert (audit["acknowledged"], audit["not_acknowledged"], audit["to_come"]) == (3, {"sought_over": 5}, 6)

    run(app_url, check)


def test_a_place_has_one_name_and_the_acknowledged_events_are_counted_since_the_last_seek(app_url: str) -> None:
    async def check(app: App) -> None:
        async def status() -> dict[str, Any]:
            found = (await app.http.get("/v1/consumers/app")).json()
            assert found["position"] == found["acked_position"]
            return found

        await app.put(types=["user.*"])
        for n in range(4):
            await app.ledger.create_user(f"u{n}")
            await app.ledger.create_group(f"g{n}")
        assert (await status())["acked_events"] == 0
        page = await app.pull(limit=3)
        acked = await app.acked(page)
        assert acked["position"] == acked["acked_position"] == page["covered"]["to_position"] == (await status())["position"]
        assert ((await status())["acked_events"], (await status())["acked_events_capped"]) == (3, False)
        audit = await app.audit()
        assert (audit["acknowledged"], audit["to_position"]) == (3, audit["through_position"])
        assert all(
            (hole["from_position"], hole["to_position"]) == (hole["first_position"], hole["last_position"])
            for hole in audit["holes"]
        )
        await app.acked(await app.pull(limit=1000))
        assert (await status())["acked_events"] == 4
        sought = await app.seek("beginning")
        assert (sought["to_position"], (await status())["position"], (await status())["acked_events"]) == (0, 0, 0)

    run(app_url, check)
