"""Pages of the feed cover the log without gaps, with any filter, however long a reader waits, and whatever is written meanwhile."""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

import httpx
import pytest

from api.app import make_app
from operations import tokens
from runtime.bootstrap import machine
from tests.postgres.ledgers import Ledger, id_of, opened

TYPES = (None, "user.*", "group.created", "user.erased", "user.created,user.deactivated", "group.*,token.*")
READERS, WRITES, PAGES = 10, 60, 2


@asynccontextmanager
async def edge(ledger: Ledger) -> AsyncIterator[httpx.AsyncClient]:
    made = await tokens.issue(ledger.services.ledger, machine(), "admin", "test", ("*",), None, days=1)
    headers = {"Authorization": f"Bearer {made.text}"}
    transport = httpx.ASGITransport(make_app(ledger.services))
    async with httpx.AsyncClient(transport=transport, base_url="http://ledger.test", headers=headers, timeout=60) as http:
        yield http


class Reader:
    """Reads page after page; `covered` has the ranges that the pages name."""

    def __init__(self, http: httpx.AsyncClient, params: dict[str, Any]) -> None:
        self.http, self.params = http, params
        self.after: str | None = None
        self.events: list[dict[str, Any]] = []
        self.covered: list[tuple[int, int]] = []
        self.head = 0

    async def page(self, wait: int) -> None:
        place = {"after": self.after} if self.after else {}
        answer = await self.http.get("/v1/events", params={**self.params, **place, "wait": wait})
        assert answer.status_code == 200, answer.text
        found = answer.json()
        self.take(found)

    def take(self, page: dict[str, Any]) -> None:
        self.after, self.head = page["list_metadata"]["after"], page["head_position"]
        self.covered.append((page["covered"]["from_position"], page["covered"]["to_position"]))
        self.events += page["data"]

    def check(self) -> None:
        expected = 1
        for first, last in self.covered:
            assert first == expected, (self.params, self.covered)
            assert last >= first - 1
            expected = last + 1
        assert expected == self.head + 1, "read to the end"


class Puller(Reader):
    """The same for a consumer that acknowledges each page."""

    async def page(self, wait: int) -> None:
        name = self.params["name"]
        answer = await self.http.get(f"/v1/consumers/{name}/events", params={"limit": self.params["limit"], "wait": wait})
        assert answer.status_code == 200, answer.text
        self.take(answer.json())
        acked = await self.http.post(f"/v1/consumers/{name}/ack", json={"through": self.after})
        assert acked.status_code == 200, acked.text


@pytest.mark.parametrize("seed", range(2))
def test_pages_cover_the_log_without_gaps_for_any_filter_wait_and_writer(app_url: str, seed: int) -> None:
    async def run() -> None:
        draw = random.Random(seed)
        async with opened(app_url) as ledger, edge(ledger) as http:
            people = [id_of(await ledger.create_user(f"first{n}")) for n in range(3)]
            readers = [Reader(http, _question(draw, people)) for _ in range(READERS)]
            readers += [await _puller(http, n, draw) for n in range(2)]
            writing = asyncio.create_task(_write(ledger, draw))
            await asyncio.gather(*(_read(reader, draw.choices((0, 1, 1), k=PAGES)) for reader in readers))
            await writing
            whole = [Reader(http, {"limit": 1000, "directory": slug}) for slug in ("acme", "_system")]
            for reader in (*whole, *readers):
                await _read_to_the_end(reader)
                reader.check()
                every = [event for one in whole for event in one.events]
                wanted = [event["id"] for event in every if _selected(event, reader.params)]
                assert [event["id"] for event in reader.events] == wanted, reader.params

    asyncio.run(run())


def _question(draw: random.Random, people: list[UUID]) -> dict[str, Any]:
    asked = {
        "types": draw.choice(TYPES), "directory": draw.choice((None, "acme", "_system")), "subject": draw.choice((None, None, str(people[0]))),
        "limit": draw.choice((1, 3, 1000)),
    }  # fmt: skip
    return {name: value for name, value in asked.items() if value is not None}


async def _puller(http: httpx.AsyncClient, number: int, draw: random.Random) -> Puller:
    types = draw.choice(TYPES) or "*"
    body = {"directories": ["*"], "types": types.split(",")}
    assert (await http.put(f"/v1/consumers/puller{number}", json=body)).status_code == 201
    return Puller(http, {"name": f"puller{number}", "types": types, "limit": draw.choice((1, 3, 1000))})


async def _write(ledger: Ledger, draw: random.Random) -> None:
    for n in range(WRITES):
        for _ in range(draw.choice((0, 0, 1, 50, 400))):
            await asyncio.sleep(0)
        await (ledger.create_group(f"g{n}") if draw.random() < 0.3 else ledger.create_user(f"u{n}"))


async def _read(reader: Reader, waits: list[int]) -> None:
    for wait in waits:
        await reader.page(wait)


async def _read_to_the_end(reader: Reader) -> None:
    while True:
        await reader.page(0)
        if reader.covered[-1][1] == reader.head:
            return


def _selected(event: dict[str, Any], params: dict[str, Any]) -> bool:
    types = params.get("types", "*").split(",")
    kind = event["type"]
    if not any(t in {kind, "*"} or (t.endswith(".*") and kind.startswith(t[:-1])) for t in types):
        return False
    if event["directory"] != params.get("directory", "acme"):  # `_system` is read only if it is named
        return False
    subject = params.get("subject")
    return subject is None or subject in {event["subject"]["id"], event["data"].get("member", {}).get("id")}
