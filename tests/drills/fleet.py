"""The services of a drill, each with its own connection to the one database, and their processes."""

import os
import signal
from contextlib import suppress
from pathlib import Path
from typing import Final

from runtime.bootstrap import DATABASE
from tests.acceptance.conftest import Service
from tests.drills.road import Road
from tests.warm import spawned

PLAIN: Final = "sslmode=disable&gssencmode=disable"


class Instance:
    """One service: `scim-ledger serve` with its workers and delivery processes."""

    def __init__(self, name: str, work: Path, road: Road, kek: Path, **more: str) -> None:
        self.name, self.road = name, road
        self.service = Service(
            work / name,
            LEDGER_DATABASE_URL=f"postgresql://ledger_app@127.0.0.1:{road.port}/{DATABASE}?{PLAIN}",
            LEDGER_MIGRATE_URL=f"postgresql://ledger_owner@127.0.0.1:{road.port}/{DATABASE}?{PLAIN}",
            LEDGER_KEK_FILE=str(kek),
            LEDGER_WEBHOOK_ALLOW="127.0.0.0/8",
            LEDGER_WEBHOOK_TIMEOUT_S="3",
            **more,
        )
        self.frozen: set[int] = set()

    @property
    def base(self) -> str:
        return self.service.base

    def main(self) -> int:
        assert self.service.process is not None
        return self.service.process.pid

    def _spawned(self) -> list[int]:
        return sorted(spawned(self.main()))

    def _listens(self, pid: int) -> bool:
        """Whether a process has the socket on which requests arrive."""
        wanted = {
            f"socket:[{fields[9]}]"
            for line in Path("/proc/net/tcp").read_text().splitlines()[1:]
            if (fields := line.split())[3] == "0A" and int(fields[1].rpartition(":")[2], 16) == self.service.port
        }
        with suppress(FileNotFoundError, ProcessLookupError):
            for descriptor in Path(f"/proc/{pid}/fd").iterdir():
                with suppress(FileNotFoundError):
                    if os.readlink(descriptor) in wanted:
                        return True
        return False

    def serving(self) -> list[int]:
        """The processes that answer requests."""
        return [pid for pid in self._spawned() if self._listens(pid)] or [self.main()]

    def delivering(self) -> list[int]:
        return [pid for pid in self._spawned() if not self._listens(pid)]

    def freeze(self, pid: int) -> None:
        os.kill(pid, signal.SIGSTOP)
        self.frozen.add(pid)

    def thaw(self) -> None:
        for pid in self.frozen:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
        self.frozen.clear()

    def kill(self) -> None:
        """Kill all its processes with SIGKILL at once."""
        assert self.service.process is not None
        with suppress(ProcessLookupError):
            os.killpg(self.main(), signal.SIGKILL)
        self.service.process.wait()
        assert self.service.process.stdout is not None
        self.service.process.stdout.close()

    def alive(self) -> bool:
        return self.service.process is not None and self.service.process.poll() is None
