"""Start and supervise further processes of a service: serving ones behind one socket (LEDGER_WORKERS), and delivery processes.

A process that dies is replaced. Each gives a sign of life every second from its event loop; without it, the process is killed and
replaced. This module imports little, because a new process imports it before its own code.
"""

import asyncio
import multiprocessing
import multiprocessing.connection
import os
import threading
import time
from collections.abc import Callable, Sequence
from ctypes import c_double
from dataclasses import dataclass
from functools import partial
from multiprocessing.process import BaseProcess
from multiprocessing.sharedctypes import RawValue
from typing import TypeAlias

import structlog

from database.deadlines import FIRST_HEARTBEAT, HEARTBEAT, PROCESSES_AT_STOP
from delivery.leases import Signs

_log = structlog.get_logger("runtime.supervisor")
NOTICE_S = 0.2  # interval at which a stop is noticed
BEAT_S = 1.0
Beat: TypeAlias = Callable[[], None]
ProcessTarget: TypeAlias = "partial[None]"  # called in the new process, with its Beat


@dataclass(slots=True)
class _Running:
    """A running process. `beat`: monotonic time of its last sign of life; 0 before the first."""

    process: BaseProcess
    beat: c_double
    announced: bool = False

    @property
    def sign(self) -> tuple[int | None, float]:
        return self.process.pid, self.beat.value

    @property
    def patience_s(self) -> float:
        return HEARTBEAT.seconds if self.beat.value else FIRST_HEARTBEAT.seconds


class Supervisor(threading.Thread):
    """Keeps processes alive until finish()."""

    def __init__(self, members: Sequence[ProcessTarget]) -> None:
        super().__init__(daemon=True)
        self._members = members
        self._context = multiprocessing.get_context("spawn")
        self._over = threading.Event()
        self._dismissed = False
        self._running: list[_Running] = []
        self._signs = Signs[int]()

    def run(self) -> None:
        self._running = [self._start(member) for member in self._members]
        while not self._over.is_set() and not self._dismissed:
            # Returns at once when a process ends. The timeout bounds how late a stop or a missing sign of life is noticed.
            multiprocessing.connection.wait([each.process.sentinel for each in self._running], timeout=NOTICE_S)
            self._signs.look({place: each.sign for place, each in enumerate(self._running)}, time.monotonic())
            for place, each in enumerate(self._running):
                self._look_after(place, each)
        self._end()

    def _look_after(self, place: int, each: _Running) -> None:
        if each.beat.value and not each.announced:
            each.announced = True
            _log.info("worker_started", pid=each.process.pid)
        silent_s = self._signs.quiet_s(place)
        if each.process.exitcode is None and silent_s > each.patience_s:
            _log.error("worker_silent", pid=each.process.pid, seconds=round(silent_s))
            each.process.kill()
            each.process.join()
        if each.process.exitcode is not None and not self._over.is_set() and not self._dismissed:
            _log.error("worker_died", exitcode=each.process.exitcode)
            self._over.wait(NOTICE_S)  # a process that fails at once must not be started a thousand times a second
            try:
                self._running[place] = self._start(self._members[place])
            except OSError as refused:  # no memory for a process: the next round tries again
                _log.error("worker_not_started", reason=str(refused))

    def _end(self) -> None:
        for each in self._running:
            each.process.terminate()
        until = time.monotonic() + PROCESSES_AT_STOP.seconds
        for each in self._running:
            each.process.join(max(until - time.monotonic(), 0.0))
            if each.process.exitcode is None:
                _log.error("worker_killed_at_stop", pid=each.process.pid)
                each.process.kill()
                each.process.join()

    def _start(self, member: ProcessTarget) -> _Running:
        beat = RawValue(c_double)  # without a lock, which a stopped process could hold for ever
        process = self._context.Process(target=_member, args=(member, beat))
        process.start()
        return _Running(process, beat)

    def dismiss(self) -> None:
        """Have all processes sent SIGTERM soon, without waiting. Takes no lock, so a signal handler may call it."""
        self._dismissed = True

    def finish(self) -> None:
        """Stop all processes and wait; after PROCESSES_AT_STOP they are killed."""
        self._over.set()
        if self.is_alive():
            self.join()


def _member(member: ProcessTarget, beat: c_double) -> None:
    """The main function of a new process."""
    end_with_parent()

    def alive() -> None:
        beat.value = time.monotonic()

    member(alive)


def end_with_parent() -> None:
    """End this process when its parent is killed, because nobody else would stop it."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def wait() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


async def beating(beat: Beat) -> None:
    """Give a sign of life each second, until cancelled. It stops if the event loop is blocked."""
    while True:
        beat()
        await asyncio.sleep(BEAT_S)
