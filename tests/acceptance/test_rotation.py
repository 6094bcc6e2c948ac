"""Every credential of a running deployment is rotated while an IdP writes and consumers read: not one request is refused."""

import json
import threading
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from typing import Any
from uuid import uuid4

import httpx
import pytest

from tests.acceptance.conftest import Service
from tests.acceptance.receiver import Receiver, receiver

USER = "urn:ietf:params:scim:schemas:core:2.0:User"
ROLES = ("scim", "consumer", "operator", "auditor", "admin")


class Worker(threading.Thread):
    """Somebody who sends requests with a token until told to stop; `refused` has every answer that was not 2xx."""

    def __init__(self, token: str, ask: Callable[[httpx.Client, dict[str, str]], httpx.Response]) -> None:
        super().__init__(daemon=True)
        self._ask, self._changed, self._over = ask, threading.Condition(), False
        self.token, self.used, self.count = token, "", 0
        self.refused: list[tuple[int, str]] = []

    def run(self) -> None:
        with httpx.Client(timeout=30, trust_env=False) as http:
            while not self._over:
                token = self.token
                answer = self._ask(http, {"Authorization": f"Bearer {token}"})
                with self._changed:
                    self.used, self.count = token, self.count + 1
                    if not answer.is_success:
                        self.refused.append((answer.status_code, answer.text))
                    self._changed.notify_all()

    def goes_on_with(self, token: str) -> None:
        """Give it another token, and wait until it has used it twice: the old one is not under way any more."""
        self.token = token
        with self._changed:
            assert self._changed.wait_for(lambda: self.used == token, 30)
            count = self.count
            assert self._changed.wait_for(lambda: self.count > count, 30)

    def stop(self) -> None:
        self._over = True
        self.join(30)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    made = Service(tmp_path_factory.mktemp("rotation") / "ledger", LEDGER_WEBHOOK_ALLOW="127.0.0.0/8", LEDGER_WORKERS="2").start()
    yield made
    assert made.stop() == 0


class Application:
    """Pulls events and acknowledges them."""

    def __init__(self, base: str) -> None:
        self.base, self.names = f"{base}/v1/consumers/app", list[str]()

    def __call__(self, http: httpx.Client, headers: dict[str, str]) -> httpx.Response:
        page = http.get(f"{self.base}/events", params={"limit": 100, "wait": 1}, headers=headers)
        if not page.is_success:
            return page
        found = page.json()
        self.names += [event["data"]["object"]["userName"] for event in found["data"] if event["type"] == "user.created"]
        return http.post(f"{self.base}/ack", json={"through": found["list_metadata"]["after"]}, headers=headers)

    def rest(self, token: str) -> None:
        """Take what has not been pulled yet."""
        with httpx.Client(timeout=30, trust_env=False) as http:
            count = -1
            while count < len(self.names):
                count = len(self.names)
                assert self(http, {"Authorization": f"Bearer {token}"}).is_success


@contextmanager
def everybody_works(
    service: Service, app: Application, created: list[str], client: dict[str, Any]
) -> Generator[dict[str, Worker]]:
    def write(http: httpx.Client, headers: dict[str, str]) -> httpx.Response:
        name = uuid4().hex
        answer = http.post(
            f"{service.scim}/Users",
            json={"schemas": [USER], "userName": name},
            headers={**headers, "Content-Type": "application/scim+json"},
        )
        if answer.is_success:
            created.append(name)
        return answer

    def reading(path: str) -> Callable[[httpx.Client, dict[str, str]], httpx.Response]:
        return lambda http, headers: http.get(service.base + path, headers=headers)

    asks = {
        "scim": write, "consumer": app, "operator": reading("/v1/consumers/hook"),
        "auditor": reading("/v1/audit/acme/population?as_of=seq:head&limit=1"), "admin": reading("/v1/tokens"),
    }  # fmt: skip
    workers = {role: Worker(service.first_run["tokens"][role], asks[role]) for role in ROLES}
    workers["oauth"] = Worker(client["client_secret"], Idp(service, client, created))
    for worker in workers.values():
        worker.start()
    try:
        yield workers
    finally:
        for worker in workers.values():
            worker.stop()


def cli(service: Service, *words: str) -> Any:
    done = service.cli(*words, "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout)


def rotate_token(service: Service, worker: Worker, role: str) -> None:
    """As the runbook says: rotate, hand out the new one, see that the old one is unused, end it."""
    old = next(row["id"] for row in cli(service, "token", "list", "--role", role)["data"] if row["state"] == "active")
    new = cli(service, "token", "rotate", old)
    assert cli(service, "token", "show", old)["state"] == "overlapping"
    worker.goes_on_with(new["token"])
    cli(service, "token", "revoke", old, "--reason", "rotated", "--yes")
    worker.goes_on_with(new["token"])


class Idp:
    """An IdP with an OAuth 2.0 client: it asks for an access token before each tenth user that it creates."""

    def __init__(self, service: Service, client: dict[str, Any], created: list[str]) -> None:
        self.service, self.client, self.created, self.asked, self.access = service, client, created, 0, ""

    def __call__(self, http: httpx.Client, headers: dict[str, str]) -> httpx.Response:
        """`headers` has the client's secret where others have their token."""
        secret = headers["Authorization"].removeprefix("Bearer ")
        if self.asked % 10 == 0:
            granted = http.post(
                self.client["token_endpoint"], data={"grant_type": "client_credentials"}, auth=(self.client["client_id"], secret)
            )
            if not granted.is_success:
                return granted
            self.access = granted.json()["access_token"]
        self.asked += 1
        name = uuid4().hex
        answer = http.post(
            f"{self.service.scim}/Users",
            json={"schemas": [USER], "userName": name},
            headers={"Authorization": f"Bearer {self.access}", "Content-Type": "application/scim+json"},
        )
        if answer.is_success:
            self.created.append(name)
        return answer


def rotate_client(service: Service, worker: Worker, client: dict[str, Any]) -> None:
    """The IdP gets the new secret while both work, and goes on with it until it has asked for an access token with it."""
    new = cli(service, "client", "rotate", client["id"])
    for _ in range(6):
        worker.goes_on_with(new["client_secret"])
    assert cli(service, "client", "show", client["id"])["state"] == "overlapping"


def rotate_keys(service: Service) -> None:
    assert cli(service, "key", "rotate")["epoch"] == 2
    assert cli(service, "key", "rewrap")["unreadable"] == 0
    assert cli(service, "key", "destroy", "1", "--yes")["epoch"] == 1


def rotate_webhook(service: Service, hook: Receiver) -> None:
    """The receiver takes both secrets first, so it does not matter when the first request with the new one comes."""
    new = cli(service, "consumer", "rotate-secret", "hook")["secret"]
    hook.secrets.insert(0, new)
    seen = len(hook.deliveries)
    hook.wait(lambda: len(hook.deliveries) > seen)


def test_every_credential_is_rotated_under_load_and_nothing_is_refused_or_lost(running: Service) -> None:
    created, app = list[str](), Application(running.base)
    with receiver() as hook, running.client("operator") as operator:
        consumers = f"{running.base}/v1/consumers"
        assert operator.put(f"{consumers}/app", json={"directories": ["acme"], "start": "now"}).status_code == 201
        made = operator.put(
            f"{consumers}/hook", json={"mode": "webhook", "url": hook.url, "directories": ["acme"], "start": "now"}
        )
        hook.secrets = [made.json()["secret"]]
        client = cli(running, "client", "create", "acme", "--name", "idp")
        with everybody_works(running, app, created, client) as workers:
            for role in ROLES:
                rotate_token(running, workers[role], role)
            rotate_webhook(running, hook)
            rotate_client(running, workers["oauth"], client)
            rotate_keys(running)
        refused = {role: worker.refused for role, worker in workers.items()}
        assert not any(refused.values()), refused
        app.rest(workers["consumer"].token)
        assert set(app.names) >= set(created), "nothing is lost"
        assert all(worker.count > 10 for worker in workers.values())
        hook.wait(lambda: {e["data"]["object"]["userName"] for e in hook.accepted if e["type"] == "user.created"} >= set(created))
        assert (hook.unsigned, hook.malformed) == (0, [])
