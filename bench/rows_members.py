"""Row 15: all operations on a large group: their time, and the memory that they use."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from urllib.parse import quote

from bench.dataset import Dataset
from bench.environment import Service, add_member_body, group_body, patch_body
from bench.figures import Figure, count, median, ms
from bench.load import Job, drive

CYCLES = 4
POINTS = 50
SETTLE_S = 2.0  # the service returns memory after the answer
MIB = 2**20


@dataclass
class _Seen:
    """Times of one operation in ms, and its memory above the start in MiB."""

    times: list[float] = field(default_factory=list)
    rises: list[float] = field(default_factory=list)
    size: float = 0.0


@dataclass
class _Cycles:
    service: Service
    people: list[list[str]]  # two lists, each of as many users as the group has members
    seen: dict[str, _Seen] = field(default_factory=dict)
    rests: list[float] = field(default_factory=list)

    def _note(self, name: str, act: Callable[[], float]) -> None:
        """Time an operation, which returns the bytes that it read."""
        seen = self.seen.setdefault(name, _Seen())
        before, _ = self.service.memory()
        started = time.perf_counter()
        seen.size = act()
        seen.times.append((time.perf_counter() - started) * 1000)
        seen.rises.append(self.service.memory()[1] - before)

    def _points(self, name: str, requests: list[bytes]) -> None:
        seen = self.seen.setdefault(name, _Seen())
        before, _ = self.service.memory()
        seen.times += drive(Job(self.service.port, requests, 1)).latencies
        seen.rises.append(self.service.memory()[1] - before)

    def _call(self, method: str, path: str, body: bytes = b"") -> float:
        return len(self.service.call(method, path, body).content)

    def run(self) -> None:
        """Create a group, read it, change it, replace its members, delete it."""
        service, (first, second) = self.service, self.people
        extra, group = second[:POINTS], ""
        whole = group_body("Everyone", first)

        def make() -> float:
            nonlocal group
            group = service.call("POST", "Groups?excludedAttributes=members", whole).json()["id"]
            return len(whole)

        self._note("create", make)
        self._points("add", [service.request("PATCH", f"Groups/{group}", add_member_body(user)) for user in extra])
        self._points("remove", [_removal(service, group, user) for user in extra])
        self._note("read", lambda: self._call("GET", f"Groups/{group}"))
        self._points("exclude", [service.request("GET", f"Groups/{group}?excludedAttributes=members")] * POINTS)
        filters = [quote(f'members.value eq "{user}"') for user in first[:POINTS]]
        self._points("filter", [service.request("GET", f"Groups?excludedAttributes=members&filter={one}") for one in filters])
        self._note("replace", lambda: self._call("PUT", f"Groups/{group}", group_body("Everyone", second)))
        self._note("delete", lambda: self._call("DELETE", f"Groups/{group}"))
        time.sleep(SETTLE_S)
        self.rests.append(service.memory()[0])


def _removal(service: Service, group: str, user: str) -> bytes:
    return service.request("PATCH", f"Groups/{group}", patch_body("remove", f'members[value eq "{user}"]'))


def large_group(data: Dataset) -> list[Figure]:
    """Row 15."""
    members = data.sizes.users
    cycles = _Cycles(data.service, [data.users, data.service.make_users(members)])
    for number in range(CYCLES):
        data.stage.say(f"a group of {members}, from its creation to its end: {number + 1} of {CYCLES}")
        cycles.run()
    works = {
        "create": f"create a group of {count(members)}", "add": "   add one member, p50", "remove": "   remove one member, p50",
        "read": "   GET with all members", "exclude": "   GET with excludedAttributes=members, p50",
        "filter": '   filter members.value eq "…", p50', "replace": "   PUT with as many others", "delete": "   DELETE",
    }  # fmt: skip
    figures = []
    for name, work in works.items():
        seen = cycles.seen[name]
        took, rise = median(seen.times), max(seen.rises)
        shown = ms(took) if took < 1_000 else f"{took / 1_000:.1f} s"
        read = f", {seen.size / MIB:.1f} MiB" if seen.size > MIB else ""
        figures.append(
            Figure(15, work, shown, f"memory + {rise:.0f} MiB{read}", raw={"p50_ms": took, "rise_mib": rise, "bytes": seen.size})
        )
    # Connections, buffers, threads and plans are made once and stay. So each round must add less memory than the one before, or there is a leak.
    before, last = cycles.rests[-2:]
    figures.append(Figure(15, f"   memory after {CYCLES} times all of it", f"{last:.0f} MiB", f"a round earlier: {before:.0f} MiB",
                          f"{last / before:.2f} ×", "≤ 1.05 ×", last <= 1.05 * before, {f"rest_{n}_mib": rest for n, rest in enumerate(cycles.rests)}))  # fmt: skip
    return figures
