"""Rows 6, 7, 9 and 20: single reads, the feed, questions about the past, pages of users."""

import http.client
import random
import re
import time
from functools import partial
from urllib.parse import quote

from bench.dataset import CROWDED, GROUPS_OF_EACH, TEAM_MEMBERS, Dataset
from bench.environment import Service, patch_body
from bench.figures import Figure, count, interleaved, median, ms
from bench.load import Job, drive, request

AFTER = re.compile(rb'"list_metadata":\{"after":"([^"]+)"')
PAGES_MAX = 400
QUESTIONS = 300


def single(data: Dataset) -> list[Figure]:
    """Row 6."""
    service, constant, seconds = data.service, data.stage.constant, data.sizes.seconds
    asked = random.Random(6).choices(data.users, k=2_000)
    names = [str(service.call("GET", f"Users/{user}").json()["userName"]) for user in asked[:500]]
    data.stage.say("single reads")
    by_id = [service.request("GET", f"Users/{user}") for user in asked]
    lonely = [service.request("GET", f"Users/{user}") for user in data.spare[:2_000]]
    by_name = [service.request("GET", "Users?filter=" + quote(f'userName eq "{name}"')) for name in names]

    def rate(port: int, requests: list[bytes]) -> float:
        return drive(Job(port, requests, 16, seconds * 2 / 3, endless=True)).rate

    rates = interleaved(data.sizes.rounds, {
        "constant": lambda: rate(constant.port, [request("GET", constant.path)]),
        "by_id": lambda: rate(service.port, by_id),
        "by_name": lambda: rate(service.port, by_name),
        "lonely": lambda: rate(service.port, lonely),
    })  # fmt: skip
    peer = median(rates["constant"])
    figures = []
    for name, work in (
        ("by_id", "GET user by id, 16 connections"),
        ("by_name", "GET filter userName eq, 16 connections"),
        ("lonely", "   by id, users who are in no group"),
    ):
        ours, judged = median(rates[name]), name != "lonely"
        figures.append(Figure(6, work, f"{count(ours)}/s", f"constant {count(peer)}/s", f"{ours / peer:.2f} ×", "≥ 0.25 ×" if judged else "",
                              ours >= 0.25 * peer if judged else None, {"ours": ours, "constant": peer}))  # fmt: skip
    return figures


def feed(data: Dataset) -> list[Figure]:
    """Row 7: one reader reads the whole log; a page counts by the type of all its events."""
    assert data.large_group
    assert data.teams
    data.stage.say("the feed")
    _read(data.service, "user.*", 20)
    _read(data.service, "group.member_added", 20)
    users = _read(data.service, "user.*", PAGES_MAX)
    mixed = _read(data.service, "", PAGES_MAX)
    members = _read(data.service, "group.member_added", PAGES_MAX)
    return [
        Figure(7, "feed, pages of 1 000 with bodies, one reader: users", f"{count(users)} events/s", bar="≥ 20 000/s",
               passed=users >= 20_000, raw={"events_per_second": users}),
        Figure(7, "   no filter, from the beginning", f"{count(mixed)} events/s", raw={"events_per_second": mixed}),
        Figure(7, "   membership events", f"{count(members)} events/s", bar="≥ 60 000/s", passed=members >= 60_000,
               raw={"events_per_second": members}),
    ]  # fmt: skip


def _read(service: Service, types: str, pages: int) -> float:
    """Read pages from the beginning; return events a second. Only full pages of the requested types count."""
    conn = http.client.HTTPConnection("127.0.0.1", service.port, timeout=60)
    headers = {"Authorization": f"Bearer {service.tokens['consumer']}"}
    after, events, seconds = "", 0, 0.0
    for _ in range(pages):
        path = (
            "/v1/events?limit=1000&directory=acme" + (f"&types={types}" if types else "") + (f"&after={after}" if after else "")
        )
        started = time.perf_counter()
        conn.request("GET", path, headers=headers)
        body = conn.getresponse().read()
        elapsed = time.perf_counter() - started
        found = body.count(b'"object":"event"')
        if found == 1_000:
            events, seconds = events + found, seconds + elapsed
        match = AFTER.search(body, max(0, len(body) - 1_000))
        assert match is not None, body[:500]
        after = match[1].decode()
        if b'"has_more":false' in body[-60:]:
            break
    conn.close()
    assert seconds, f"no full page of {types}"
    return events / seconds


def as_of(data: Dataset) -> list[Figure]:
    """Row 9: over HTTP, one connection, each question at a random moment of the past."""
    service, teams, large = data.service, data.teams, data.large_group
    memberships = len(data.users) * (1 + data.sizes.groups_of_all) + len(teams) * TEAM_MEMBERS
    data.stage.say("as-of questions")
    head = service.http.get("/v1/events", params={"directory": "acme", "limit": 1}, headers=service.role("consumer"))
    last = head.raise_for_status().json()["head_position"]
    dice = random.Random(9)
    first = last - data.sizes.small  # the groups were created last; before them the answers are empty
    places = [f"as_of=seq:{dice.randint(max(2, first), last)}" for _ in range(QUESTIONS)]
    asked = {
        f"members of a group of {TEAM_MEMBERS}": [f"groups/{dice.choice(teams)}/members?as_of=seq:{last}" for _ in places],
        "access of a user": [f"users/{user}/access?{place}" for user, place in zip(dice.choices(data.users, k=QUESTIONS), places, strict=True)],
    }  # fmt: skip
    figures = []
    for what, paths in asked.items():
        requests = [request("GET", f"/v1/audit/acme/{path}", token=service.tokens["auditor"]) for path in paths]
        drive(Job(service.port, requests[:30], 1))
        p95 = drive(Job(service.port, requests, 1)).percentile(0.95)
        figures.append(
            Figure(
                9,
                f"as of a past moment: {what}, p95",
                ms(p95),
                f"of {count(memberships)} memberships",
                bar="≤ 20 ms",
                passed=p95 <= 20,
                raw={"p95_ms": p95, "memberships": memberships},
            )
        )
    whole = [request("GET", f"/v1/audit/acme/groups/{large}/members?as_of=seq:{last}", token=service.tokens["auditor"])] * 3
    seconds = drive(Job(service.port, whole, 1)).percentile(0.5)
    per_row = seconds * 1000 / len(data.users)
    figures.append(Figure(9, f"   all {count(len(data.users))} members of the large group", ms(seconds), f"{per_row:.1f} µs per row",
                          raw={"ms": seconds}))  # fmt: skip
    return figures


USERS_PAGE = 200
FEW_MODIFIED = 100
MANY_MODIFIED = 0.1  # of all users


def pages(data: Dataset) -> list[Figure]:
    """Row 20: the cost of a page, and of counting and paging with a filter that the index covers completely."""
    assert data.large_group
    data.stage.say("pages of users")
    figures = [_rate_of_pages(data, "acme", len(data.users), f"pages of {USERS_PAGE} users, 16 connections")]
    of_each = f"   each in {GROUPS_OF_EACH} of {count(data.crowded_groups)} groups"
    return [*figures, _rate_of_pages(data, CROWDED, len(data.users) // 5, of_each), *_filtered_pages(data)]


def _rate_of_pages(data: Dataset, directory: str, users: int, work: str) -> Figure:
    dice = random.Random(20)
    starts = [1 + dice.randrange(max(1, users - USERS_PAGE)) for _ in range(500)]
    whole = [data.service.request("GET", f"Users?startIndex={start}&count={USERS_PAGE}", directory=directory) for start in starts]
    drive(Job(data.service.port, whole[:20], 16))  # names of groups are remembered
    rate = drive(Job(data.service.port, whole, 16, data.sizes.seconds, endless=True)).rate * USERS_PAGE
    return Figure(20, work, f"{count(rate)} users/s", bar="≥ 15 000/s", passed=rate >= 15_000, raw={"users_per_second": rate})


def _filtered_pages(data: Dataset) -> list[Figure]:
    dice, users = random.Random(20), len(data.users)
    many, few = int(users * MANY_MODIFIED), FEW_MODIFIED
    before_many, before_few = _modified(data, dice, many), _modified(data, dice, few)
    beginning = '"2020-01-01T00:00:00Z"'
    asked = {
        "all": (f"meta.lastModified gt {beginning}", "lastModified gt …", users),
        "active": ("active eq true", "active eq true", users),
        "both": (f"meta.lastModified gt {beginning} and active eq true", "lastModified gt … and active eq true", users),
        "few": (f"meta.lastModified ge {before_few}", "lastModified ge …", few),
        "many": (f"meta.lastModified ge {before_many}", "lastModified ge …", many),
        "but_few": (f"meta.lastModified lt {before_few}", "lastModified lt …", users - few),
        "but_many": (f"meta.lastModified lt {before_many}", "lastModified lt …", users - many),
    }

    def milliseconds_of(filter_: str, found: int) -> float:
        query = f"&filter={quote(filter_)}" if filter_ else ""
        starts = [1 + dice.randrange(max(1, found - 100)) for _ in range(20)]
        one = [data.service.request("GET", f"Users?startIndex={start}&count=100{query}") for start in starts]
        return drive(Job(data.service.port, one, 1)).percentile(0.5)

    measures = {"plain": partial(milliseconds_of, "", users)}
    measures |= {name: partial(milliseconds_of, filter_, found) for name, (filter_, _, found) in asked.items()}
    took = {name: median(found) for name, found in interleaved(data.sizes.rounds, measures).items()}
    figures: list[Figure] = []
    for name, (_, what, found) in asked.items():
        ratio = took[name] / took["plain"]
        figures.append(Figure(20, f"a page of {what}, {count(found)} of {count(users)} users, p50", ms(took[name]), f"without a filter: {ms(took['plain'])}",
                              f"{ratio:.2f} ×", "≤ 1.5 ×", ratio <= 1.5, {f"{name}_ms": took[name], "plain_ms": took["plain"]}))  # fmt: skip
    return figures


def _modified(data: Dataset, dice: random.Random, number: int) -> str:
    """The moment since which so many users were modified, as an importer asks for changes since its last run."""
    service, who = data.service, dice.sample(data.users, number)
    first = service.call("PATCH", f"Users/{who[0]}", patch_body("replace", "title", f"Modified {number}")).json()["meta"]
    service.drive(
        [service.request("PATCH", f"Users/{user}", patch_body("replace", "title", f"Modified {number}")) for user in who[1:]]
    )
    return f'"{first["lastModified"]}"'
