"""Rounds: all clients and readers work, a fault strikes and is healed, all requests are finished, and the auditor judges."""

import asyncio
import contextlib
import random
import shutil
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from tests.acceptance.receiver import receiver
from tests.drills.auditor import Auditor, Log
from tests.drills.database import Database
from tests.drills.faults import FAULTS, Stage, Struck
from tests.drills.fleet import Instance
from tests.drills.history import History, Violation
from tests.drills.load import Acknowledged, Administrator, Client, Crowd, Doubts, Gate, Idp, Ledgered, Parties
from tests.drills.readers import Filtered, InOrderOfDirectories, InOrderOfSubjects, Pulled, Reader, Streamed, latest
from tests.drills.road import Road

IDPS: Final = 6
# The promises are 15 s and 10 s; the rest is for a machine that runs much else at the same time.
BACK_S: Final = 25.0
ANSWER_S: Final = 13.0
UNBOUNDED: Final = {"kill_service", "kill_worker", "stop_worker"}  # a process that is frozen or still starting answers later
CAUGHT_UP_S: Final = 60.0
WARM_UP: Final = 12  # acknowledged changes before the fault strikes
VERIFY_EVERY: Final = 50
RETRIES: Final = [0] * 60


@dataclass(frozen=True)
class Plan:
    """The parameters of a run."""

    rounds: int
    seed: int
    hold_s: float
    work: Path
    faults: tuple[str, ...]


@dataclass
class Report:
    """The results of a run."""

    rounds: Counter[str] = field(default_factory=Counter)
    back_s: dict[str, float] = field(default_factory=dict)  # the longest time until both services accepted writes again, by fault
    caught_up_s: dict[str, float] = field(default_factory=dict)
    answer_s: dict[str, float] = field(default_factory=dict)
    skipped: list[str] = field(default_factory=list)
    cuts: Counter[str] = field(default_factory=Counter)
    acknowledged: int = 0
    unsure: int = 0
    events: int = 0
    repeated: int = 0
    seconds: float = 0.0


def _longest(kept: dict[str, float], name: str, seconds: float) -> None:
    kept[name] = max(kept.get(name, 0.0), round(seconds, 2))


class Drill:
    """One database, its services, the writers and the readers."""

    def __init__(self, plan: Plan, history: History, tell: Callable[[int, str], None]) -> None:
        self.plan, self.history, self.report = plan, history, Report()
        self._rng, self._tell = random.Random(plan.seed), tell
        self._tasks: list[asyncio.Task[None]] = []
        self._probe = ""

    async def run(self) -> Report:
        """Play all rounds. Raises Violation for the first promise that is broken."""
        began = time.monotonic()
        async with self._staged() as stage:
            await self._settle("start", CAUGHT_UP_S)
            for number in range(1, self.plan.rounds + 1):
                self.history.round = number
                await self._round(stage, self._draw(stage))
                if number % VERIFY_EVERY == 0:
                    await self._verified()
                    self._tell(number, f"{time.monotonic() - began:.0f} s, all promises held")
            await self._verified()
            await self._consumers_audited()
        self.report.seconds = time.monotonic() - began
        return self.report

    # -- a round ------------------------------------------------------------

    def _draw(self, stage: Stage) -> str:
        names = [name for name in FAULTS if name in self.plan.faults]
        if stage.database.disk_refused and "fill_disk" in names:
            names.remove("fill_disk")
        return self._rng.choices(names, [FAULTS[name][1] for name in names])[0]

    async def _round(self, stage: Stage, name: str) -> None:
        parties, rng = self._parties, self._rng
        parties.round, parties.client.slowest = Ledgered(), 0.0
        parties.done = dict.fromkeys(parties.done, 0)
        self._administrator.acts.clear()
        hold = rng.uniform(0.1, min(1.0, self.plan.hold_s) if rng.random() < 0.8 else self.plan.hold_s)
        parties.gate.open()
        await self._while_sound(parties.until(lambda: sum(parties.done.values()) >= rng.randrange(3, WARM_UP), 5))
        self.history.tell("strike", fault=name, hold=round(hold, 2))
        struck = await FAULTS[name][0](stage)
        try:
            await self._while_sound(self._held(struck, hold))
        finally:
            await struck.heal()
        self.history.tell("healed", fault=name, **struck.facts)
        healed = time.monotonic()
        await self._while_sound(self._back(name, healed))
        await self._while_sound(parties.gate.close())
        await self._settle(name, CAUGHT_UP_S)
        if name not in UNBOUNDED and parties.client.slowest > ANSWER_S:
            raise Violation(f"an answer took {parties.client.slowest:.1f} s at {name}")
        self.report.rounds[name] += 1
        _longest(self.report.answer_s, name, parties.client.slowest)

    async def _held(self, struck: Struck, hold: float) -> None:
        over = struck.over or asyncio.Event()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(hold, struck.least_s)):
                await over.wait()

    async def _back(self, name: str, healed: float) -> None:
        """Each service accepts writes again, in time."""
        for instance in self._parties.fleet:
            while True:
                body = {"schemas": ["urn:ietf:params:scim:api:messages:2.0:PatchOp"],
                        "Operations": [{"op": "replace", "path": "title", "value": f"{time.monotonic_ns()}"}]}  # fmt: skip
                answer = await self._parties.client.ask(instance, "scim", "PATCH", f"/scim/acme/v2/Users/{self._probe}", body)
                if answer is not None and answer.status == 200:
                    break
                if time.monotonic() - healed > BACK_S:
                    raise Violation(f"{instance.name} takes no write {BACK_S} s after {name} was healed")
                await self._parties.gate.pause()
        _longest(self.report.back_s, name, time.monotonic() - healed)

    async def _settle(self, name: str, seconds: float) -> None:
        """Wait until every reader has read everything; then judge."""
        began = time.monotonic()
        logs = (self._log, self._own)
        for log in logs:
            log.quiet = 0
        readers, parties = self._readers, self._parties
        while any(log.quiet < 2 for log in logs):
            if time.monotonic() > began + seconds:
                raise Violation("the log cannot be read to its end")
            await self._while_sound(self._log.pause())
        expected = list(self._log.fresh)
        if not await self._while_sound(parties.until(lambda: not any(reader.lacks(expected) for reader in readers), seconds)):
            raise Violation(f"not read {seconds} s after {name}: {latest(readers, expected)}")
        _longest(self.report.caught_up_s, name, time.monotonic() - began)
        self._sound()
        whole = [*expected, *self._own.fresh]
        through = max([self._log.settled, *(event["position"] for event in whole)])
        for reader in readers:
            reader.settle(expected, through)
        for log in logs:
            log.settle(log.fresh, through)
        self._auditor.settle(whole, parties.round, self._administrator.acts, [idp.work.model for idp in self._idps], self._crowd)
        self.history.tell(
            "settled", fault=name, events=len(expected), through=through, acknowledged=len(parties.round.acknowledged)
        )

    # -- a client or reader that fails ends the drill ------------------------

    def _sound(self) -> None:
        for task in self._tasks:
            if task.done() and not task.cancelled():
                task.result()
                raise Violation(f"{task.get_name()} ended")

    async def _while_sound(self, work: Any) -> Any:
        """Wait for something, unless a writer or reader finds a fault meanwhile."""
        main = asyncio.ensure_future(work)
        await asyncio.wait([main, *self._tasks], return_when=asyncio.FIRST_COMPLETED)
        if not main.done():
            main.cancel()
            await asyncio.gather(main, return_exceptions=True)
        self._sound()
        return main.result()

    async def _verified(self) -> None:
        done = await asyncio.to_thread(self._parties.fleet[0].service.cli, "replay", "verify")
        self.history.tell("verify", code=done.returncode)
        if done.returncode != 0:
            raise Violation(f"replay verify: {done.stdout[-1500:]} {done.stderr[-500:]}")

    async def _consumers_audited(self) -> None:
        for name in ("pull", "hook-directory", "hook-subject"):
            answer = await self._parties.client.ask(self._parties.fleet[0], "operator", "GET", f"/v1/consumers/{name}/audit")
            if answer is None or answer.status != 200 or answer.body["holes"]:
                raise Violation(f"the audit of {name}: {answer and answer.body}")

    # -- setting up ------------------------------------------------------------

    @contextlib.asynccontextmanager
    async def _staged(self) -> AsyncIterator[Stage]:
        work = self.plan.work
        shutil.rmtree(work, ignore_errors=True)
        database = Database(work / "database")
        async with contextlib.AsyncExitStack() as stack:
            stack.callback(database.stop)
            await asyncio.to_thread(database.start)
            roads = [await self._road(stack, database) for _ in range(3)]
            fleet = [
                Instance("one", work, roads[0], work / "kek", LEDGER_WORKERS="2"),
                Instance("two", work, roads[1], work / "kek", LEDGER_WORKERS="1"),
            ]
            stack.push_async_callback(_end, fleet)
            await asyncio.to_thread(fleet[0].service.start)
            await asyncio.to_thread(database.set_clock)
            await asyncio.to_thread(fleet[1].service.start)
            stage = Stage(database, fleet, roads[2], self._rng, self.plan.hold_s)
            if database.disk_refused:
                self.report.skipped.append(f"fill_disk: no disk of its own ({database.disk_refused})")
            await self._peopled(stack, fleet)
            stack.push_async_callback(self._sent_home)
            yield stage
            for road in roads:
                self.report.cuts += road.hits
            self.report.acknowledged, self.report.unsure, self.report.events = (
                self._auditor.acknowledged, self._auditor.unsure, self._auditor.events,
            )  # fmt: skip
            self.report.repeated = sum(getattr(reader, "repeated", 0) for reader in self._readers)

    async def _road(self, stack: contextlib.AsyncExitStack, database: Database) -> Road:
        road = Road(database.socket)
        await road.open()
        stack.push_async_callback(road.close)
        return road

    async def _peopled(self, stack: contextlib.AsyncExitStack, fleet: Sequence[Instance]) -> None:
        """The writers and readers, and the data that they begin with."""
        client = Client(self.history, fleet[0].service.first_run["tokens"])
        stack.push_async_callback(client.close)
        doubts = Doubts()
        parties = self._parties = Parties(client, Gate(), fleet, doubts)
        await self._awake(fleet)
        self._log, self._own = Log("the log", parties), Log("the ledger's own log", parties, "&directory=_system")
        self._auditor = Auditor(self._log, doubts)
        seed = self.plan.seed
        hooks = [stack.enter_context(receiver()) for _ in range(2)]
        self._readers: list[Reader] = [
            Filtered("the filter", parties, 0), Streamed("the stream", parties, 1), Pulled("pull", parties),
            InOrderOfDirectories("hook-directory", parties, hooks[0], seed, fails=0.002),
            InOrderOfSubjects("hook-subject", parties, hooks[1], seed + 1, fails=0.002),
        ]  # fmt: skip
        await self._asked("PUT", "/v1/consumers/pull", {"start": "beginning", "directories": ["*"]}, "operator")
        for reader, more in zip(
            self._readers[3:],
            ({"ordering": "directory", "batch_max": 100}, {"ordering": "subject", "directories": ["acme"]}),
            strict=True,
        ):
            asked = {
                "start": "beginning",
                "directories": ["*"],
                "mode": "webhook",
                "url": reader.receiver.url,
                "retry_schedule": RETRIES,
                **more,
            }
            await self._asked("PUT", f"/v1/consumers/{reader.name}", asked, "operator")
        await self._asked("POST", "/v1/directories", {"slug": "big"}, "admin")
        token = await self._asked("POST", "/v1/tokens", {"role": "scim", "name": "crowd", "directories": ["big"]}, "admin")
        probe = await self._asked(
            "POST",
            "/scim/acme/v2/Users",
            {"schemas": ["urn:ietf:params:scim:schemas:core:2.0:User"], "userName": "probe"},
            "scim",
        )
        self._probe = probe["id"]
        doubts.ids.add(self._probe)
        self._idps = [Idp(parties, number, seed) for number in range(IDPS)]
        self._crowd = Crowd(parties, token["token"], random.Random(seed))
        self._administrator = Administrator(parties, random.Random(seed))
        await self._crowd.found()
        for worker in (self._log, self._own, *self._readers, *self._idps, self._crowd, self._administrator):
            self._tasks.append(asyncio.create_task(worker.run(), name=getattr(worker, "name", type(worker).__name__)))

    async def _asked(self, method: str, path: str, body: Any, role: str) -> Any:
        answer = await self._parties.client.ask(self._parties.fleet[0], role, method, path, body)
        assert answer is not None, path
        assert answer.status in {200, 201}, answer.body
        return answer.body

    async def _awake(self, fleet: Sequence[Instance]) -> None:
        """The socket is open before the processes behind it have started: on a busy machine the start takes longer than a request
        may wait.
        """
        for instance in fleet:
            for _ in range(6):
                if await self._parties.client.ask(instance, "admin", "GET", "/v1/directories") is not None:
                    break

    async def _sent_home(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


async def _end(fleet: Sequence[Instance]) -> None:
    for instance in fleet:
        instance.thaw()
        if instance.alive():
            instance.kill()


__all__ = ["Acknowledged", "Drill", "Plan", "Report"]
