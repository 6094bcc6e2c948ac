"""Rows 3, 4, 5 and 11: large and small groups, and the effect of a large one on other directories."""

import time

from bench.dataset import OTHER, Dataset
from bench.environment import add_member_body, group_body, patch_body
from bench.figures import Figure, count, median, ms, percentile
from bench.load import Job, Running, drive

PUT_MEMBERS = 10_000
LEAVER_GROUPS = 5


def one_member(data: Dataset) -> list[Figure]:
    """Row 3: the same PATCH, by one connection, into the large group and into groups of ten."""
    large, small = data.large_group, list(data.small_groups)
    data.stage.say("one member into a large and a small group")
    service, rounds = data.service, 4
    each = len(small) // rounds
    times: dict[str, list[float]] = {"large": [], "small": []}
    for number in range(rounds):
        groups = {"large": [large] * each, "small": small[number * each : (number + 1) * each]}
        for name in ("large", "small") if number % 2 else ("small", "large"):
            pairs = zip(groups[name], data.take_spare(each), strict=True)
            requests = [service.request("PATCH", f"Groups/{group}", add_member_body(user)) for group, user in pairs]
            times[name] += drive(Job(service.port, requests, 1)).latencies
    a, b = percentile(times["large"], 0.5), percentile(times["small"], 0.5)
    work = f"PATCH that adds one member, group of {count(data.sizes.users)} / of 10, p50"
    return [
        Figure(3, work, ms(a), f"group of 10: {ms(b)}", f"{a / b:.2f} ×", "≤ 1.5 ×", a <= 1.5 * b, {"large_ms": a, "small_ms": b})
    ]


def one_group(data: Dataset) -> list[Figure]:
    """Row 4: many connections, one group, different members."""
    group, users = data.large_group, data.take_spare(6_000)
    data.stage.say("one group, sixteen connections")
    requests = [data.service.request("PATCH", f"Groups/{group}", add_member_body(user)) for user in users]
    third = len(requests) // 3
    rates = [data.service.drive(requests[i * third : (i + 1) * third], connections=16).rate for i in range(3)]
    rate = median(rates)
    work = f"PATCH of one group ({count(data.sizes.users)}) by 16 connections, different members"
    return [Figure(4, work, f"{count(rate)}/s", bar="≥ 1 000/s", passed=rate >= 1_000, raw={"per_second": rate})]


def put(data: Dataset) -> list[Figure]:
    """Row 5: PUT of many members, first alone, then repeatedly while another directory creates users."""
    service, members = data.service, data.users[:PUT_MEMBERS]
    groups = service.make_groups([[]] * 20)
    data.stage.say("PUT of a group with 10 000 members")

    def one() -> float:
        body = group_body("Everyone", members)
        started = time.perf_counter()
        service.call("PUT", f"Groups/{groups.pop()}", body)
        return len(members) / (time.perf_counter() - started)

    alone = median([one() for _ in range(4)])
    quiet = drive(Job(service.port, service.creates(1_500, directory=OTHER), 4)).percentile(0.99)
    other = Running(Job(service.port, service.creates(40_000, directory=OTHER), 4, 6.0))
    beside = [one() for _ in range(1)]
    while not other.over and groups:
        beside.append(one())
    result = other.result()
    p99 = result.percentile(0.99)
    return [
        Figure(5, "PUT of a group with 10 000 members", f"{count(alone)} events/s", bar="≥ 10 000/s", passed=alone >= 10_000,
               raw={"events_per_second": alone, "beside_creates": median(beside)}),
        Figure(5, "   p99 of another directory's creates meanwhile", ms(p99), f"without the PUT: {ms(quiet)}", bar="≤ 150 ms",
               passed=p99 <= 150, raw={"p99_ms": p99, "quiet_p99_ms": quiet, "max_ms": max(result.latencies)}),
    ]  # fmt: skip


def leaver(data: Dataset) -> list[Figure]:
    """Row 11: users leave one directory while a large group is deleted in another. The large group does not exist afterwards."""
    service, group = data.service, data.large_group
    people = service.make_users(3_000, directory=OTHER)
    service.make_groups([people] * LEAVER_GROUPS, directory=OTHER, connections=1)
    data.stage.say("leavers while a large group is deleted")
    off = patch_body("replace", "active", False)

    def leave() -> float:
        started = time.perf_counter()
        service.call("PATCH", f"Users/{people.pop()}", off, directory=OTHER)
        return (time.perf_counter() - started) * 1000

    quiet = percentile([leave() for _ in range(200)], 0.99)
    deleting = Running(Job(service.port, [service.request("DELETE", f"Groups/{group}")], 1))
    taken: list[float] = []
    while not deleting.over and people:
        taken.append(leave())
    seconds = deleting.result().seconds
    p99 = percentile(taken, 0.99)
    work = f"deactivation (member of {LEAVER_GROUPS}) while a group of {count(data.sizes.users)} is deleted elsewhere, p99"
    return [Figure(11, work, ms(p99), f"in quiet: {ms(quiet)}; the delete: {seconds:.1f} s, {len(taken)} leavers", bar="≤ 1 000 ms",
                   passed=p99 <= 1_000, raw={"p99_ms": p99, "quiet_p99_ms": quiet, "delete_s": seconds, "leavers": len(taken)})]  # fmt: skip
