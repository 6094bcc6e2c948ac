"""Readers of every kind, each of which must get every event, in order, whatever fails meanwhile."""

import asyncio
import json
import random
from collections.abc import Sequence
from typing import Any, Final

import aiohttp

from tests.acceptance.lanes import Lanes, needed_before
from tests.acceptance.receiver import Answer, Delivery, Receiver
from tests.drills.fleet import Instance
from tests.drills.history import Violation
from tests.drills.load import Parties
from tests.event_checks import check

Events = list[dict[str, Any]]
RETRY_S: Final = 0.05
SILENT_S: Final = 20.0  # a stream without data for longer is opened again: its heartbeat comes every 15 s


class Reader:
    """The events that a reader got since the last judgement, in the order in which they first came."""

    def __init__(self, name: str, parties: Parties, turn: int = 0) -> None:
        self.name, self.parties, self.turn = name, parties, turn
        self.fresh: Events = []
        self.seen: set[str] = set()
        self.settled = 0  # the position up to which everything was judged

    def wants(self, event: dict[str, Any]) -> bool:
        """Whether the reader must get this event."""
        return True

    async def take(self, event: dict[str, Any]) -> None:
        if event["position"] <= self.settled or event["id"] in self.seen:
            self.again(event)
        else:
            self.seen.add(event["id"])
            self.fresh.append(event)
            async with self.parties.progress:
                self.parties.progress.notify_all()

    def again(self, event: dict[str, Any]) -> None:
        raise Violation(f"{self.name} got {event['id']} at position {event['position']} twice")

    def lacks(self, expected: Events) -> Events:
        return [event for event in expected if self.wants(event) and event["id"] not in self.seen]

    def settle(self, expected: Events, through: int) -> None:
        """Judge the events up to a position; later ones belong to the next judgement."""
        mine = [event for event in self.fresh if event["position"] <= through]
        for event in mine:
            check(event)  # against the published schema of its type
        self.judge(mine, [event for event in expected if self.wants(event)])
        self.fresh = [event for event in self.fresh if event["position"] > through]
        self.seen = {event["id"] for event in self.fresh}
        self.settled = through

    def judge(self, got: Events, expected: Events) -> None:
        """The reader has exactly the expected events, in the order of the log."""
        if [event["id"] for event in got] != [event["id"] for event in expected]:
            place = next(
                (n for n, (one, other) in enumerate(zip(got, expected, strict=False)) if one["id"] != other["id"]), len(expected)
            )
            raise Violation(
                f"{self.name} is not what the log says from {place} on: {_brief(got[place : place + 3])} for {_brief(expected[place : place + 3])}"
            )

    async def instance(self) -> Instance:
        """The service to ask next; after a failure it is another one."""
        self.turn += 1
        return self.parties.alternate(self.turn)

    async def pause(self) -> None:
        try:
            async with asyncio.timeout(RETRY_S):
                await asyncio.Event().wait()
        except TimeoutError:
            return


def _brief(events: Events) -> str:
    return ", ".join(f"{event['id']} ({event['type']}, position {event['position']})" for event in events) or "nothing"


class Filtered(Reader):
    """Reads some types with long polls; the pages must cover the log without gaps."""

    def wants(self, event: dict[str, Any]) -> bool:
        return event["type"].startswith("user.")

    async def run(self) -> None:
        after, covered = "", 0
        instance = await self.instance()
        while True:
            path = f"/v1/events?types=user.*&limit=200&wait=1{after and f'&after={after}'}"
            answer = await self.parties.client.ask(instance, "admin", "GET", path, told=False)
            if answer is None or answer.status != 200:
                self._refused(answer)
                instance = await self.instance()
                await self.pause()
                continue
            page = answer.body
            tile = page["covered"]
            if tile["from_position"] != covered + 1:
                raise Violation(f"{self.name}: after {covered} a page covers {tile}")
            covered = max(covered, tile["to_position"])
            after = page["list_metadata"]["after"]
            for event in page["data"]:
                await self.take(event)

    def _refused(self, answer: Any) -> None:
        if answer is not None and answer.status < 500 and answer.status != 429:
            raise Violation(f"{self.name} was refused: {answer.status} {answer.detail}")


class Streamed(Reader):
    """Follows all events as Server-Sent Events, and continues with Last-Event-ID."""

    async def run(self) -> None:
        last = ""
        while True:
            instance = await self.instance()
            headers = {
                "Authorization": f"Bearer {self.parties.client.tokens['admin']}",
                **({"Last-Event-ID": last} if last else {}),
            }
            url = f"{instance.base}/v1/events/stream"
            try:
                timeout = aiohttp.ClientTimeout(total=None, sock_connect=5, sock_read=SILENT_S)
                async with self.parties.client.http.get(url, headers=headers, timeout=timeout) as response:
                    if response.status == 200:
                        last = await self._follow(response, last)
                    elif response.status < 500:
                        raise Violation(f"{self.name} was refused: {response.status} {await response.text()}")
            except (aiohttp.ClientError, TimeoutError, OSError):
                pass
            last = self._last or last
            await self.pause()

    _last = ""

    async def _follow(self, response: aiohttp.ClientResponse, last: str) -> str:
        fields: dict[str, str] = {}
        async for raw in response.content:
            line = raw.decode().rstrip("\n")
            if line:
                name, _, value = line.partition(": ")
                fields[name] = value
                continue
            if "data" in fields and fields.get("event") == "error":
                raise Violation(f"{self.name}: {fields['data']}")
            if "data" in fields and fields.get("event") not in {"covered", None}:
                await self.take(json.loads(fields["data"]))
                self._last = fields["id"]
            fields = {}
        return self._last or last


class Pulled(Reader):
    """A consumer that pulls and acknowledges."""

    def wants(self, event: dict[str, Any]) -> bool:
        return event["directory"] != "_system"

    async def run(self) -> None:
        path = f"/v1/consumers/{self.name}"
        while True:
            instance = await self.instance()
            page = await self.parties.client.ask(instance, "consumer", "GET", f"{path}/events?limit=300&wait=1", told=False)
            if page is None or page.status != 200:
                await self.pause()
                continue
            for event in page.body["data"]:
                await self.take(event)
            if page.body["data"]:
                through = {"through": page.body["list_metadata"]["after"]}
                await self.parties.client.ask(instance, "consumer", "POST", f"{path}/ack", through, told=False)

    def again(self, event: dict[str, Any]) -> None:
        """Its acknowledgement was lost, so the events come again."""


class Hooked(Reader):
    """A webhook consumer with a receiver that fails now and then."""

    def __init__(self, name: str, parties: Parties, receiver: Receiver, seed: int, *, fails: float) -> None:
        super().__init__(name, parties)
        self.receiver, self._random, self._fails = receiver, random.Random(seed), fails
        self._came: asyncio.Queue[Events] = asyncio.Queue()
        self._loop = asyncio.get_running_loop()
        self.repeated = 0
        receiver.behave = self._behave

    def wants(self, event: dict[str, Any]) -> bool:
        return event["directory"] != "_system"

    def _behave(self, delivery: Delivery) -> Answer:
        """Called in the thread of the receiver."""
        chance = self._random.random()
        answer = (
            Answer(500)
            if chance < self._fails
            else Answer(cut=True, taken=chance < self._fails * 1.5)
            if chance < self._fails * 2
            else Answer()
        )
        if answer.taken or (answer.taken is None and answer.status < 300):
            self._loop.call_soon_threadsafe(self._came.put_nowait, delivery.events)
        self.receiver.deliveries.clear()
        self.receiver.accepted.clear()
        return answer

    async def run(self) -> None:
        while True:
            events = await self._came.get()
            self.kept(events)
            for event in events:
                await self.take(event)

    def kept(self, events: Events) -> None:
        """The kept events, repetitions included."""

    def again(self, event: dict[str, Any]) -> None:
        self.repeated += 1


class InOrderOfDirectories(Hooked):
    """Each directory's events in the order of its log."""

    def judge(self, got: Events, expected: Events) -> None:
        for slug in {event["directory"] for event in expected}:
            super().judge(*([event for event in some if event["directory"] == slug] for some in (got, expected)))


class InOrderOfSubjects(Hooked):
    """Each lane is in order, repetitions keep their places; a membership comes after the events that create or activate its user
    and group.
    """

    def __init__(self, name: str, parties: Parties, receiver: Receiver, seed: int, *, fails: float) -> None:
        super().__init__(name, parties, receiver, seed, fails=fails)
        self._lanes = Lanes()
        self._broken = ""

    def wants(self, event: dict[str, Any]) -> bool:
        return event["directory"] == "acme"

    def kept(self, events: Events) -> None:
        try:
            self._lanes.keep(events)
        except AssertionError as out_of_order:
            raise Violation(f"{self.name}: {out_of_order}") from None

    def judge(self, got: Events, expected: Events) -> None:
        before, kept = needed_before(expected), set[str]()
        for event in got:
            if not kept.issuperset(before.get(event["id"], ())):
                raise Violation(f"{self.name} kept {_brief([event])} before {set(before[event['id']]) - kept}")
            kept.add(event["id"])
        if kept != {event["id"] for event in expected}:
            raise Violation(f"{self.name} kept what it was not to get")
        self._lanes.kept.clear()


def latest(readers: Sequence[Reader], expected: Events) -> str:
    """For a failure: which readers lack which events."""
    return "; ".join(
        f"{reader.name} lacks {len(lacks)}: {_brief(lacks[:2])}" for reader in readers if (lacks := reader.lacks(expected))
    )
