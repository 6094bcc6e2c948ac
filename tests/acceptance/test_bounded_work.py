"""The worst requests of one directory, while another directory reads, writes and follows its feed: each of these within LIMIT_S.

The promise is 500 ms. On two cores that other tests share everything takes longer, also without another directory's load: so the
same three requests are timed alone first, and that time is added.
"""

import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import httpx
import pytest

from tests.acceptance.conftest import Service

USER = "urn:ietf:params:scim:schemas:core:2.0:User"
GROUP = "urn:ietf:params:scim:schemas:core:2.0:Group"
PATCH = "urn:ietf:params:scim:api:messages:2.0:PatchOp"
BULK = "urn:ietf:params:scim:api:messages:2.0:BulkRequest"
SEARCH = "urn:ietf:params:scim:api:messages:2.0:SearchRequest"
LIMIT_S = 0.5
NESTED = 150  # groups that all contain each other
EMAILS = 4_000
TITLE = "t" * 1_000_000
ASK_MAX_S = 120  # no request here takes longer


@dataclass
class WorstCase:
    """A directory that sends the worst requests, and a neighbour that must not be delayed."""

    service: Service
    http: httpx.Client
    bad: str
    bad_token: str
    auditor: str
    good: str
    good_token: str
    reader: str
    ids: dict[str, str] = field(default_factory=dict)
    alone_s: float = 0.0
    made: int = 0

    def ask(self, method: str, path: str, token: str | None = None, **more: Any) -> httpx.Response:
        headers = {"Authorization": f"Bearer {token or self.bad_token}", "Content-Type": "application/scim+json"}
        url = path if path.startswith("http") else (self.service.base + path if path.startswith("/v1") else self.bad + path)
        return self.http.request(method, url, headers=headers, timeout=ASK_MAX_S, **more)

    def create(self, kind: str, **resource: Any) -> str:
        answer = self.ask("POST", kind, content=json.dumps({"schemas": [USER if kind == "/Users" else GROUP], **resource}))
        assert answer.status_code == 201, answer.text[:300]
        return answer.json()["id"]

    def neighbour(self) -> float:
        """A read, a write and a page of the feed; returns the seconds of the slowest."""
        self.made += 1
        body = json.dumps({"schemas": [USER], "userName": f"quiet-{self.made}"})
        asked: list[Callable[[], httpx.Response]] = [
            lambda: self.ask("GET", f"{self.good}/Users/{self.ids['quiet']}", self.good_token),
            lambda: self.ask("POST", f"{self.good}/Users", self.good_token, content=body),
            lambda: self.ask("GET", "/v1/events?directory=quiet&limit=10", self.reader),
        ]
        slowest = 0.0
        for one in asked:
            begun = time.perf_counter()
            answer = one()
            slowest = max(slowest, time.perf_counter() - begun)
            assert answer.status_code < 300, answer.text[:300]
        return slowest


def _token(service: Service, admin: httpx.Client, role: str, directory: str) -> str:
    body = {"role": role, "name": f"{role} of {directory}", "directories": [directory]}
    return admin.post(f"{service.base}/v1/tokens", json=body).raise_for_status().json()["token"]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WorstCase]:
    service = Service(tmp_path_factory.mktemp("bounded") / "ledger").start()
    with httpx.Client(trust_env=False) as http, service.client("admin") as admin:
        admin.post(f"{service.base}/v1/directories", json={"slug": "quiet", "profile": "generic"}).raise_for_status()
        admin.post(f"{service.base}/v1/directories", json={"slug": "loud", "profile": "generic"}).raise_for_status()
        scim = f"{service.base}/scim"
        found = WorstCase(
            service, http, f"{scim}/loud/v2", _token(service, admin, "scim", "loud"), _token(service, admin, "auditor", "loud"),
            f"{scim}/quiet/v2", _token(service, admin, "scim", "quiet"), _token(service, admin, "consumer", "quiet"),
        )  # fmt: skip
        _furnish(found)
        found.alone_s = max(found.neighbour() for _ in range(10))
        yield found
    assert service.stop() == 0


def _furnish(world: WorstCase) -> None:
    _ = [_group(199_000), _group(240_000), _strange_patch("add"), _strange_patch("remove")]
    quiet = world.ask(
        "POST", f"{world.good}/Users", world.good_token, content=json.dumps({"schemas": [USER], "userName": "quiet"})
    )
    world.ids["quiet"] = quiet.json()["id"]
    world.ids["many"] = world.create("/Users", userName="many", emails=[{"value": f"{n}@e.example"} for n in range(EMAILS)])
    for n in range(14):
        world.ids["large"] = world.create("/Users", userName=f"large-{n}", title=TITLE)
    below: list[str] = [world.create("/Users", userName="nested")]
    world.ids["nested"] = below[0]
    for n in range(NESTED):
        below.append(world.create("/Groups", displayName=f"g{n}", members=[{"value": member} for member in below]))
    world.ids["group"] = below[1]
    # With circles: the first groups contain the last ones.
    for group in below[1:20]:
        value = [{"value": member} for member in below[-20:] if member != group]
        world.ask("PATCH", f"/Groups/{group}", content=_patch({"op": "add", "path": "members", "value": value}))


def _patch(*operations: dict[str, Any]) -> str:
    return json.dumps({"schemas": [PATCH], "Operations": list(operations)})


def _terms(count: int, term: str) -> str:
    return " or ".join(term.format(n) for n in range(count))


def _bulk(*operations: dict[str, Any]) -> str:
    return json.dumps({"schemas": [BULK], "Operations": list(operations)})


def _strangers(count: int) -> list[dict[str, str]]:
    return [{"value": f"{n:08x}-0000-4000-8000-000000000000"} for n in range(count)]


@cache  # made before anything is timed, because the neighbour asks from the same process
def _strange_patch(op: str) -> str:
    return _patch({"op": op, "path": "members", "value": _strangers(240_000)})


@cache
def _group(members: int) -> str:
    return json.dumps({"schemas": [GROUP], "displayName": "strangers", "members": _strangers(members)})


def _ring(groups: int, stranger: str | None = None) -> str:
    """Groups that each have the next one as a member; the first one also has the member that `stranger` names."""

    def members(n: int) -> list[dict[str, str]]:
        return [{"value": f"bulkId:r{(n + 1) % groups}"}, *([{"value": stranger}] if stranger and n == 0 else [])]

    return _bulk(
        *(
            {
                "method": "POST",
                "path": "/Groups",
                "bulkId": f"r{n}",
                "data": {"schemas": [GROUP], "displayName": f"r{n}", "members": members(n)},
            }
            for n in range(groups)
        )
    )


def _search(**asked: Any) -> str:
    return json.dumps({"schemas": [SEARCH], **asked})


Worst = Callable[[WorstCase], httpx.Response]
WORST: dict[str, tuple[Worst, set[int]]] = {
    "userName eq, with hundreds of terms over thousands of values": (
        lambda w: w.ask("GET", "/Users", params={"filter": f'userName eq "many" and ({_terms(250, "emails.value co {:d}x")})'.replace("co ", 'co "').replace("x", 'x"')}),
        {200, 400},
    ),
    "hundreds of terms over every user": (
        lambda w: w.ask("GET", "/Users", params={"filter": _terms(250, 'emails.value sw "{}x"'), "sortBy": "emails.value"}),
        {200, 400},
    ),
    "co over titles of a megabyte": (
        lambda w: w.ask("GET", "/Users", params={"filter": _terms(30, 'title co "{}x"')}),
        {200, 400},
    ),
    "a list of large users, sorted by what is large": (
        lambda w: w.ask("GET", "/Users", params={"sortBy": "title", "count": "200"}),
        {200, 400},
    ),
    "a search of both types": (lambda w: w.ask("POST", "/.search", content=_search(count=200)), {200}),
    "a search with a body of a megabyte": (
        lambda w: w.ask("POST", "/.search", content=_search(attributes=["a.b"] * 100_000)),
        {400},
    ),
    "thousands of operations with a filter each on a user with thousands of values": (
        lambda w: w.ask(
            "PATCH",
            f"/Users/{w.ids['many']}",
            content=_patch(*({"op": "replace", "path": f'emails[value eq "{n}@e.example"].type', "value": "x"} for n in range(5_000))),
        ),
        {400},
    ),
    "a PATCH just within its budget": (
        lambda w: w.ask(
            "PATCH",
            f"/Users/{w.ids['many']}",
            content=_patch(*({"op": "replace", "path": f'emails[value eq "{n}@e.example"].type', "value": "x"} for n in range(20))),
        ),
        {200},
    ),
    "a Bulk of PATCHes on a user with a title of a megabyte": (
        lambda w: w.ask(
            "POST",
            "/Bulk",
            content=_bulk(
                *(
                    {"method": "PATCH", "path": f"/Users/{w.ids['large']}", "data": json.loads(_patch({"op": "replace", "path": "nickName", "value": str(n)}))}
                    for n in range(200)
                )
            ),
        ),
        {200},
    ),
    "a Bulk of operations that all wait for each other": (
        lambda w: w.ask(
            "POST",
            "/Bulk",
            content=_bulk(
                *(
                    {"method": "POST", "path": "/Groups", "bulkId": f"b{n}", "data": {"schemas": [GROUP], "displayName": f"c{n}", "members": [{"value": f"bulkId:b{m}"} for m in range(120) if m != n]}}
                    for n in range(120)
                )
            ),
        ),
        {200},
    ),
    "a Bulk of a thousand groups in a ring": (lambda w: w.ask("POST", "/Bulk", content=_ring(1_000)), {200}),
    "a Bulk of a thousand groups in a ring that cannot be": (lambda w: w.ask("POST", "/Bulk", content=_ring(1_000, "nobody")), {200}),
    "a group of members that nobody has": (lambda w: w.ask("POST", "/Groups", content=_group(199_000)), {400}),
    "a group of more members than a commit has events": (lambda w: w.ask("POST", "/Groups", content=_group(240_000)), {400}),
    "very many members that nobody has, added to a group": (
        lambda w: w.ask("PATCH", f"/Groups/{w.ids['group']}", content=_strange_patch("add")),
        {400},
    ),
    "very many members that nobody has, taken out of a group": (
        lambda w: w.ask("PATCH", f"/Groups/{w.ids['group']}", content=_strange_patch("remove")),
        {204},
    ),
    "access through groups that are all in each other": (
        lambda w: w.ask("GET", f"/v1/audit/loud/users/{w.ids['nested']}/access", w.auditor),
        {200},
    ),
    "a user of such groups, and a list of it": (
        lambda w: w.ask("GET", "/Users", params={"filter": 'groups.display co "g" and userName sw "n"'}),
        {200},
    ),
}  # fmt: skip


def _while_running(world: WorstCase, worst: Worst, at_once: int) -> tuple[list[httpx.Response], float, int]:
    """Send the request this number of times at once; the neighbour asks until all are answered.

    Returns its slowest time, and how often it asked.
    """
    answers: list[httpx.Response] = []
    askers = [threading.Thread(target=lambda: answers.append(worst(world))) for _ in range(at_once)]
    for asker in askers:
        asker.start()
    slowest, rounds = 0.0, 0
    while rounds == 0 or any(asker.is_alive() for asker in askers):
        slowest, rounds = max(slowest, world.neighbour()), rounds + 1
    for asker in askers:
        asker.join()
    return answers, slowest, rounds


@pytest.mark.parametrize("what", WORST)
def test_the_worst_requests_of_one_directory_delay_no_other(world: WorstCase, what: str) -> None:
    worst, statuses = WORST[what]
    answers, slowest, rounds = _while_running(world, worst, at_once=1)
    print(
        f"{what}: {answers[0].status_code} in {answers[0].elapsed.total_seconds():.2f} s, neighbour {slowest * 1000:.0f} ms of {rounds}"
    )
    assert {answer.status_code for answer in answers} <= statuses, answers[0].text[:500]
    assert slowest <= LIMIT_S + world.alone_s


def test_more_requests_at_once_than_connections_and_threads(world: WorstCase) -> None:
    def worst(world: WorstCase) -> httpx.Response:
        return world.ask("GET", "/Users", params={"filter": 'title co "x" and nickName co "y"', "sortBy": "title"})

    answers, slowest, rounds = _while_running(world, worst, at_once=16)
    print(f"16 at once: {[a.status_code for a in answers]}, neighbour {slowest * 1000:.0f} ms of {rounds}")
    assert {answer.status_code for answer in answers} == {200}
    assert slowest <= LIMIT_S + world.alone_s


def _walk(world: WorstCase, **first: str) -> tuple[list[str], list[int], set[int]]:
    """All users, read page after page as a client does; with the size of each page, and the totals in them."""
    found: list[str] = []
    sizes: list[int] = []
    totals: set[int] = set()
    asked = dict(first)
    while True:
        answer = world.ask("GET", "/Users", params={**asked, "count": "200"})
        assert answer.status_code == 200, answer.text[:300]
        page = answer.json()
        found += [resource["id"] for resource in page["Resources"]]
        assert page["itemsPerPage"] == len(page["Resources"])
        totals.add(page["totalResults"])
        sizes.append(len(answer.content))
        if "cursor" in first:
            if "nextCursor" not in page:
                return found, sizes, totals
            asked["cursor"] = page["nextCursor"]
        else:
            if len(found) >= page["totalResults"]:
                return found, sizes, totals
            asked["startIndex"] = str(page["startIndex"] + page["itemsPerPage"])


@pytest.mark.parametrize(
    "more", [{}, {"sortBy": "userName"}, {"filter": 'userName sw "large"'}], ids=["plain", "sorted", "filtered"]
)
def test_a_page_that_ends_early_skips_nobody(world: WorstCase, more: dict[str, str]) -> None:
    """RFC 7644 §3.4.2.4: itemsPerPage says how many resources came; a client that continues from there, or by cursor, gets every
    user once.
    """
    by_index, sizes, totals = _walk(world, **more)
    assert len(sizes) > 1, "14 MB are more than a page"
    assert max(sizes) <= 8 * 2**20 + len(TITLE) + 200_000  # besides the first resource
    assert totals == {len(by_index)}
    assert len(set(by_index)) == len(by_index)
    by_cursor, more_sizes, _ = _walk(world, cursor="", **more)
    assert by_cursor == by_index
    assert len(more_sizes) == len(sizes)


def test_an_answer_about_a_dense_graph_says_that_paths_are_left_out(world: WorstCase) -> None:
    answer = world.ask("GET", f"/v1/audit/loud/users/{world.ids['nested']}/access", world.auditor).json()
    rows = {row["id"]: row for row in answer["data"]}
    assert len(rows) == NESTED
    assert any(row["paths_capped"] for row in rows.values())
    assert all(len(row["paths"]) <= 100 for row in rows.values())
    assert all(row["direct"] for row in rows.values()), "the user is in each of them"


def test_the_operations_of_a_bulk_request_share_one_budget(world: WorstCase) -> None:
    change = json.loads(
        _patch(*[{"op": "replace", "path": f'emails[value eq "{n}@e.example"].type', "value": "x"} for n in range(40)])
    )
    answer = world.ask(
        "POST", "/Bulk", content=_bulk(*[{"method": "PATCH", "path": f"/Users/{world.ids['many']}", "data": change}] * 40)
    )
    results = answer.json()["Operations"]
    statuses = [result["status"] for result in results]
    assert statuses[0] == "200"
    assert statuses[-1] == "400"
    assert results[-1]["response"]["scimType"] == "tooMany"
    assert sorted(statuses) == statuses, "later operations have no budget left"
    assert len(answer.content) < 100_000
