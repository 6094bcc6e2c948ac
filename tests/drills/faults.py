"""The faults of the rounds: each strikes and is healed while all clients and readers work."""

import asyncio
import os
import random
import signal
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final

from tests.drills.database import Database
from tests.drills.fleet import Instance
from tests.drills.road import Cut, Road

STATEMENTS: Final = 20  # the statements of the longest write transaction, and some more


@dataclass
class Stage:
    """The things that faults can affect. `hold_s`: the longest duration of a fault."""

    database: Database
    fleet: list[Instance]
    wire: Road  # the connection from a standby to the database
    rng: random.Random
    hold_s: float
    cuts: int = 0

    def any(self) -> Instance:
        return self.rng.choice(self.fleet)


@dataclass
class Struck:
    """A fault that has struck: what it affects, and how it is healed."""

    facts: dict[str, Any]
    heal: Callable[[], Awaitable[None]]
    over: asyncio.Event | None = None  # set when there is nothing left to wait for
    least_s: float = 0.0


Strike = Callable[[Stage], Awaitable[Struck]]


async def _nothing() -> None:
    return


async def calm(_stage: Stage) -> Struck:
    """No fault, for comparison with the others."""
    return Struck({}, _nothing)


async def kill_worker(stage: Stage) -> Struck:
    """One of several serving processes is killed; the supervisor starts another one."""
    instance = stage.fleet[0]
    pid = stage.rng.choice(instance.serving())
    os.kill(pid, signal.SIGKILL)
    return Struck({"service": instance.name, "pid": pid}, _nothing)


async def kill_delivery(stage: Stage) -> Struck:
    """A delivery process is killed while deliveries are under way."""
    instance = stage.any()
    pids = instance.delivering()
    for pid in pids[:1]:
        os.kill(pid, signal.SIGKILL)
    return Struck({"service": instance.name, "pids": pids[:1]}, _nothing)


async def kill_service(stage: Stage) -> Struck:
    """All processes of a service are killed at once; it is started again."""
    instance = stage.any()
    instance.kill()

    async def heal() -> None:
        await asyncio.to_thread(instance.service.start)

    return Struck({"service": instance.name}, heal)


async def stop_worker(stage: Stage) -> Struck:
    """A serving process is frozen with all its locks and requests, and continues later."""
    instance = stage.any()
    pid = stage.rng.choice(instance.serving())
    instance.freeze(pid)

    async def heal() -> None:
        instance.thaw()

    return Struck({"service": instance.name, "pid": pid}, heal)


async def stop_delivery(stage: Stage) -> Struck:
    """A delivery process is frozen between two deliveries, or within one."""
    instance = stage.any()
    for pid in instance.delivering():
        instance.freeze(pid)

    async def heal() -> None:
        instance.thaw()

    return Struck({"service": instance.name, "pids": sorted(instance.frozen)}, heal)


async def cut(stage: Stage) -> Struck:
    """A connection is cut at a statement of a transaction: at each in turn, before it, after it, or during its answer."""
    instance = stage.any()
    at, stage.cuts = 1 + stage.cuts % STATEMENTS, stage.cuts + 1
    wanted = Cut(at, stage.rng.choice(["before", "after", "answer"]), of_a_writer=stage.rng.random() < 0.7)
    instance.road.cut(wanted)
    facts: dict[str, Any] = {"service": instance.name, "at": at, "moment": wanted.moment}

    async def heal() -> None:
        instance.road.cut(None)
        facts["statement"] = wanted.statement[:60]

    return Struck(facts, heal, wanted.done)


async def black_hole(stage: Stage) -> Struck:
    """The network between a service and the database drops all bytes; afterwards they arrive late, or never."""
    instance, broken = stage.any(), stage.rng.random() < 0.5
    instance.road.swallow()

    async def heal() -> None:
        instance.road.give_back(broken=broken)

    return Struck({"service": instance.name, "broken": broken}, heal)


async def break_connections(stage: Stage) -> Struck:
    """All connections of a service are broken at once."""
    instance = stage.any()
    instance.road.break_all()
    return Struck({"service": instance.name}, _nothing)


async def restart_database(stage: Stage) -> Struck:
    """The database is stopped with a normal shutdown and started again."""
    await asyncio.to_thread(stage.database.restart)
    return Struck({}, _nothing)


async def kill_database(stage: Stage) -> Struck:
    """Every process of the database is killed; it comes back with crash recovery."""
    stage.database.kill()

    async def heal() -> None:
        await asyncio.to_thread(stage.database.revive)

    return Struck({}, heal)


async def fail_over(stage: Stage) -> Struck:
    """The database gets a synchronous standby and dies for good, in some rounds while the standby lags; the standby takes over."""
    await asyncio.to_thread(stage.database.stand_by, stage.wire.port)
    lags = stage.rng.random() < 0.5

    async def heal() -> None:
        await asyncio.to_thread(stage.database.kill)
        stage.wire.give_back(broken=True)
        await asyncio.to_thread(stage.database.fail_over)
        stage.wire.lead_to(stage.database.socket)
        for instance in stage.fleet:
            instance.road.lead_to(stage.database.socket)

    if lags:
        stage.wire.swallow()  # commits wait for the standby, and are not acknowledged
    return Struck({"lags": lags}, heal)


async def hang_standby(stage: Stage) -> Struck:
    """The synchronous standby hangs: commits wait for it and are not acknowledged; then it continues, and is removed."""
    await asyncio.to_thread(stage.database.stand_by, stage.wire.port)
    stage.wire.swallow()

    async def heal() -> None:
        stage.wire.give_back(broken=False)
        await asyncio.to_thread(stage.database.dismiss)

    return Struck({}, heal)


async def fill_disk(stage: Stage) -> Struck:
    """The disk of the database is full; afterwards there is room again, and processes that died are started."""
    await asyncio.to_thread(stage.database.fill_disk)

    async def heal() -> None:
        await asyncio.to_thread(stage.database.give_disk)
        await asyncio.to_thread(stage.database.revive)

    return Struck({}, heal, least_s=0.5)


async def set_clock(stage: Stage) -> Struck:
    """The database's clock is set ahead or back, and corrected again."""
    off = stage.rng.choice([-3_600, -90, -20, 20, 40, 90, 3_600])
    await asyncio.to_thread(stage.database.set_clock, seconds=off)

    async def heal() -> None:
        await asyncio.to_thread(stage.database.set_clock)

    return Struck({"seconds": off}, heal)


SLOW: Final = frozenset(
    {"kill_service", "kill_delivery", "fail_over", "hang_standby"}
)  # the seconds until a process has started, or a lease has expired
# The relative frequency of each fault.
FAULTS: Final[dict[str, tuple[Strike, int]]] = {
    "calm": (calm, 1),
    "kill_worker": (kill_worker, 3),
    "kill_delivery": (kill_delivery, 3),
    "kill_service": (kill_service, 1),
    "stop_worker": (stop_worker, 3),
    "stop_delivery": (stop_delivery, 3),
    "cut": (cut, 8),
    "break_connections": (break_connections, 2),
    "black_hole": (black_hole, 3),
    "restart_database": (restart_database, 1),
    "kill_database": (kill_database, 2),
    "fail_over": (fail_over, 1),
    "hang_standby": (hang_standby, 1),
    "fill_disk": (fill_disk, 1),
    "set_clock": (set_clock, 2),
}
