"""Further processes of a service, kept alive: serving ones behind one socket (LEDGER_WORKERS), and those that deliver to webhooks.

Imports next to nothing: a new process imports this module before what it runs.
"""

import multiprocessing
import multiprocessing.connection
import os
import threading
from collections.abc import Sequence
from functools import partial
from multiprocessing.process import BaseProcess

import structlog

_log = structlog.get_logger("runtime.crew")
NOTICE_S = 0.2  # how late a stop is noticed


class Crew(threading.Thread):
    """Processes that are kept alive: one that dies is replaced, until finish()."""

    def __init__(self, members: Sequence["partial[None]"]) -> None:
        super().__init__(daemon=True)
        self._members = members
        self._context = multiprocessing.get_context("spawn")
        self._over = threading.Event()
        self._processes: list[BaseProcess] = []

    def run(self) -> None:
        self._processes = [self._start(member) for member in self._members]
        while not self._over.is_set():
            # Wakes at once when one ends; the time limit only bounds how late a stop is noticed.
            multiprocessing.connection.wait([process.sentinel for process in self._processes], timeout=NOTICE_S)
            for place, process in enumerate(self._processes):
                if process.exitcode is not None and not self._over.is_set():
                    _log.error("worker_died", exitcode=process.exitcode)
                    self._over.wait(NOTICE_S)  # one that cannot live must not be born a thousand times a second
                    self._processes[place] = self._start(self._members[place])
        for process in self._processes:
            process.terminate()
        for process in self._processes:
            process.join()

    def _start(self, member: "partial[None]") -> BaseProcess:
        process = self._context.Process(target=_member, args=(member,))
        process.start()
        return process

    def finish(self) -> None:
        """Ask all to stop (SIGTERM), and wait until they have."""
        self._over.set()
        if self.is_alive():
            self.join()


def _member(member: "partial[None]") -> None:
    """What runs in the new process. If the service is killed it ends at once: nobody would be there to stop it."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def die_with_parent() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=die_with_parent, daemon=True).start()
    member()
