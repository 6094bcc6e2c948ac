"""The writers of a drill: IdPs whose models foresee the state, and an operator whose acts must each happen once.

If a request got no answer, its change may or may not be stored: its resource is not used or compared any more. Changes that were
answered with success, and those answered with "nothing was changed", are compared with the log.
"""

import asyncio
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final
from uuid import uuid4

import aiohttp

from tests.acceptance.model import GROUP, USER, Workload
from tests.drills.fleet import Instance
from tests.drills.history import History, Violation

ANSWER_TIMEOUT_S: Final = 20.0
PAUSE_S: Final = 0.05  # after a refusal: a refused client waits before it tries again
USERS_MAX, GROUPS_MAX = 30, 10  # of one IdP: the whole state is checked at the end of each round
MEMBERS: Final = 1_000
CROWD: Final = 1_300  # users from whom the members of the large group are taken
UNSURE: Final = "may or may not"


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    headers: Any
    body: Any

    @property
    def detail(self) -> str:
        return str(self.body.get("detail", "")) if isinstance(self.body, dict) else ""

    @property
    def undone(self) -> bool:
        """Whether the answer says that nothing was stored, which is then compared with the log."""
        return self.status == 429 or (self.status == 503 and "nothing was changed" in self.detail.lower())


class Client:
    """Sends requests to any of the services, writes the history, and keeps the slowest answer."""

    def __init__(self, history: History, tokens: dict[str, str]) -> None:
        self.history, self.tokens = history, tokens
        self.http = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=ANSWER_TIMEOUT_S))
        # each request is sent once: if the library repeated it unnoticed, the answer could not be judged
        self.http._retry_connection = False
        self.slowest = 0.0  # of the answers in this round
        self.answers = 0

    async def ask(
        self, instance: Instance, role: str, method: str, path: str, body: Any = None, *, key: str = "", told: bool = True
    ) -> Answer | None:
        """Returns the answer, or None if there was none. `role` may be the text of a token."""
        headers = {"Authorization": f"Bearer {self.tokens.get(role, role)}", **({"Idempotency-Key": key} if key else {})}
        began = time.monotonic()
        try:
            async with self.http.request(method, instance.base + path, json=body, headers=headers) as response:
                raw = await response.read()
                answer = Answer(response.status, response.headers, json.loads(raw) if raw else None)
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as lost:
            answer, why = None, type(lost).__name__
        else:
            why = answer.detail[:120] if answer.status >= 400 else ""
        took = time.monotonic() - began
        if answer is not None:
            self.slowest, self.answers = max(self.slowest, took), self.answers + 1
        if told:
            seq = answer.headers.get("Ledger-Seq") if answer else None
            self.history.tell("request", service=instance.name, method=method, path=path, status=answer.status if answer else None,
                              seq=seq, took=round(took, 3), why=why)  # fmt: skip
        return answer

    async def close(self) -> None:
        await self.http.close()


class Gate:
    """Open during a round; when it closes, all clients finish their running requests."""

    def __init__(self) -> None:
        self._open = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._busy = 0
        self._closing = asyncio.Event()

    def open(self) -> None:
        self._closing.clear()
        self._open.set()

    async def close(self) -> None:
        """Returns when no request is running any more."""
        self._open.clear()
        self._closing.set()
        await self._idle.wait()

    async def enter(self) -> None:
        await self._open.wait()
        self._busy += 1
        self._idle.clear()

    def leave(self) -> None:
        self._busy -= 1
        if not self._busy:
            self._idle.set()

    async def pause(self, seconds: float = PAUSE_S) -> None:
        """Wait for a moment, but not longer than the round lasts."""
        try:
            async with asyncio.timeout(seconds):
                await self._closing.wait()
        except TimeoutError:
            return


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """A change that was answered with success: the last event of its commit is about this resource."""

    directory: str
    seq: int
    resource: str


@dataclass
class Ledgered:
    """The answers of one round, to be compared with the log."""

    acknowledged: list[Acknowledged] = field(default_factory=list)
    undone: set[str] = field(default_factory=set)  # names of creations that were answered with "nothing was changed"
    unsure: int = 0


@dataclass
class Doubts:
    """The targets of requests that got no answer; they stay in doubt."""

    names: set[str] = field(default_factory=set)  # of creations
    ids: set[str] = field(default_factory=set)  # of resources


class Parties:
    """What all writers share."""

    def __init__(self, client: Client, gate: Gate, fleet: Sequence[Instance], doubts: Doubts) -> None:
        self.client, self.gate, self.fleet, self.doubts = client, gate, fleet, doubts
        self.round = Ledgered()
        self.progress = asyncio.Condition()
        self.done: dict[str, int] = {instance.name: 0 for instance in fleet}  # acknowledged in this round, by service

    async def acknowledge(self, instance: Instance) -> None:
        self.done[instance.name] += 1
        async with self.progress:
            self.progress.notify_all()

    async def until(self, holds: Callable[[], bool], seconds: float) -> bool:
        """Returns whether the condition became true in time."""
        try:
            async with asyncio.timeout(seconds), self.progress:
                await self.progress.wait_for(holds)
        except TimeoutError:
            return False
        return True

    def alternate(self, turn: int) -> Instance:
        return self.fleet[turn % len(self.fleet)]


class Idp:
    """One IdP: random requests whose results its model foresees, some of them as Bulk."""

    def __init__(self, parties: Parties, number: int, seed: int) -> None:
        self._parties, self._turn = parties, number
        self.work = Workload(seed * 1_000 + number, prefix=f"i{number}.")

    async def run(self) -> None:
        while True:
            await self._parties.gate.enter()
            try:
                moved = await (self._bulk() if self.work.random.random() < 0.05 else self._one())
            finally:
                self._parties.gate.leave()
            if not moved:
                await self._parties.gate.pause()

    def _next(self) -> tuple[str, str, Any, Any]:
        users, groups = list(self.work.model.users), list(self.work.model.groups)
        if len(users) > USERS_MAX:
            return self.work.delete_user(users, groups)
        if len(groups) > GROUPS_MAX:
            return self.work.delete_group(users, groups)
        return self.work.step()

    async def _one(self) -> bool:
        method, path, body, done = self._next()
        self._turn += 1
        instance = self._parties.alternate(self._turn)
        answer = await self._parties.client.ask(instance, "scim", method, "/scim/acme/v2" + path, body)
        if answer is not None and answer.status in {200, 201, 204}:
            done(answer.body)
            if (seq := answer.headers.get("Ledger-Seq")) is not None:
                resource = answer.body["id"] if method == "POST" else path.rpartition("/")[2]
                self._parties.round.acknowledged.append(Acknowledged("acme", int(seq), resource))
            await self._parties.acknowledge(instance)
            return True
        self._unanswered(method, path, body, answer)
        return False

    def _unanswered(self, method: str, path: str, body: Any, answer: Answer | None) -> None:
        name = (body or {}).get("userName") or (body or {}).get("displayName")
        if answer is not None and answer.undone:
            if method == "POST":
                self._parties.round.undone.add(name)
            return
        if answer is not None and answer.status < 500:
            raise Violation(f"{method} {path} was refused: {answer.status} {answer.detail}")
        self._parties.round.unsure += 1
        if method == "POST":
            self._parties.doubts.names.add(name)
            return
        resource = path.rpartition("/")[2]
        self._parties.doubts.ids.add(resource)
        self.work.model.users.pop(resource, None)
        self.work.model.groups.pop(resource, None)

    async def _bulk(self) -> bool:
        self._turn += 1
        instance = self._parties.alternate(self._turn)
        names = [f"{self.work.prefix}{uuid4().hex[:12]}@bulk" for _ in range(6)]
        answer = await self._parties.client.ask(instance, "scim", "POST", "/scim/acme/v2/Bulk", bulk_of(names))
        if answer is None or answer.status != 200:
            self._parties.doubts.names |= set(names)
            return False
        for name, each in zip(names, answer.body["Operations"], strict=False):
            if each["status"] == "201":
                self.work.model.users[each["location"].rpartition("/")[2]] = {"userName": name, "active": True, "title": None}
            else:
                self._parties.doubts.names.add(name)
        await self._parties.acknowledge(instance)
        return True


def bulk_of(names: Sequence[str]) -> dict[str, Any]:
    """A Bulk request that creates users."""
    return {
        "schemas": ["urn:ietf:params:scim:api:messages:2.0:BulkRequest"],
        "Operations": [
            {"method": "POST", "path": "/Users", "bulkId": str(n), "data": {"schemas": [USER], "userName": name}}
            for n, name in enumerate(names)
        ],
    }


class Crowd:
    """A directory with one large group, whose thousand members are replaced again and again."""

    def __init__(self, parties: Parties, token: str, rng: Any) -> None:
        self._parties, self._token, self._rng = parties, token, rng
        self.users: list[str] = []
        self.group: str | None = None
        self.members: set[str] = set()
        self._turn = self._made = 0

    async def found(self) -> None:
        """Create the users and the group, before the first fault."""
        for start in range(0, CROWD, 650):
            names = [f"crowd{n}" for n in range(start, min(start + 650, CROWD))]
            answer = await self._parties.client.ask(
                self._parties.fleet[0], self._token, "POST", "/scim/big/v2/Bulk", bulk_of(names)
            )
            assert answer is not None, "no fault has struck yet"
            assert answer.status == 200, answer.detail
            self.users += [each["location"].rpartition("/")[2] for each in answer.body["Operations"]]

    async def run(self) -> None:
        while True:
            await self._parties.gate.enter()
            try:
                await self._replace()
            finally:
                self._parties.gate.leave()
            await self._parties.gate.pause(0.7)

    def _next(self) -> set[str]:
        out = set(self._rng.sample(sorted(self.members), self._rng.choice([5, 50, 150]))) if self.members else set()
        rest = self._rng.sample(sorted(set(self.users) - self.members), MEMBERS - len(self.members) + len(out))
        return self.members - out | set(rest)

    async def _replace(self) -> None:
        self._turn += 1
        self._made += 1
        wanted, instance = self._next(), self._parties.alternate(self._turn)
        body = {"schemas": [GROUP], "displayName": f"Crowd {self._made}", "members": [{"value": m} for m in sorted(wanted)]}
        method, path = ("PUT", f"/scim/big/v2/Groups/{self.group}") if self.group else ("POST", "/scim/big/v2/Groups")
        answer = await self._parties.client.ask(instance, self._token, method, path, body)
        if answer is not None and answer.status in {200, 201}:
            self.group, self.members = answer.body["id"], wanted
            assert answer.headers["Ledger-Seq"]
            self._parties.round.acknowledged.append(Acknowledged("big", int(answer.headers["Ledger-Seq"]), self.group))
            await self._parties.acknowledge(instance)
        elif answer is None or not answer.undone:
            if answer is not None and answer.status < 500:
                raise Violation(f"{method} {path} was refused: {answer.status} {answer.detail}")
            self._parties.round.unsure += 1
            self._parties.doubts.names.add(body["displayName"])
            if self.group:
                self._parties.doubts.ids.add(self.group)
            self.group, self.members = None, set()


@dataclass(frozen=True, slots=True)
class Act:
    """An act that was carried out according to its answer, described by the fields of its event."""

    kind: str
    mark: str


@dataclass
class Asked:
    """An act under way: it is sent again with the same key until there is an answer, over several rounds."""

    act: Act
    method: str
    path: str
    body: Any
    key: str


class Administrator:
    """Issues and revokes tokens and registers schemas, with an Idempotency-Key, again and again until there is an answer."""

    def __init__(self, parties: Parties, rng: Any) -> None:
        self._parties, self._rng = parties, rng
        self.acts: list[Act] = []
        self._asked: Asked | None = None
        self._turn = 0

    async def run(self) -> None:
        while True:
            await self._parties.gate.enter()
            try:
                await self._one()
            finally:
                self._parties.gate.leave()
            await self._parties.gate.pause(0.3)

    async def _one(self) -> None:
        asked = self._asked = self._asked or self._next()
        self._turn += 1
        answer = await self._parties.client.ask(
            self._parties.alternate(self._turn), "admin", asked.method, asked.path, asked.body, key=asked.key
        )
        code = (answer.body or {}).get("code") if answer is not None else None
        if answer is not None and (answer.status < 300 or code == "idempotency_answer_lost"):
            self._asked = None
            self.acts.append(asked.act)
            if answer.status < 300 and asked.act.kind == "token.issued":
                path = f"/v1/tokens/{answer.body['id']}"
                self._asked = Asked(Act("token.revoked", asked.act.mark), "DELETE", path, {"reason": "drill"}, "")
                self._token = answer.body["token"]
            elif asked.act.kind == "token.revoked":
                await self._is_refused()
        elif answer is not None and answer.status < 500 and answer.status != 429 and code != "idempotency_in_progress":
            raise Violation(f"{asked.method} {asked.path} was refused: {answer.status} {answer.detail}")

    _token = ""

    def _next(self) -> Asked:
        mark = uuid4().hex
        if self._rng.random() < 0.9:
            body = {"role": "auditor", "name": mark, "directories": ["acme"], "expires_in_days": 1}
            return Asked(Act("token.issued", mark), "POST", "/v1/tokens", body, mark)
        urn = f"urn:drill:{mark}"
        schema = {"id": urn, "name": "Drill", "attributes": [{"name": "number", "type": "string", "multiValued": False}]}
        act = Act("directory.schema_registered", urn)
        return Asked(act, "POST", "/v1/directories/big/schemas", {"schema": schema}, mark)

    async def _is_refused(self) -> None:
        for instance in self._parties.fleet:
            seen = await self._parties.client.ask(instance, self._token, "GET", "/v1/audit/acme/population?limit=1")
            if seen is not None and seen.status < 400:
                raise Violation(f"a revoked token was taken by {instance.name}")
