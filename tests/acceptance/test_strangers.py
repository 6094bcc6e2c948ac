"""A client without a token can cause very little work in the real service (docs/operations.md, "Limits for strangers")."""

import contextlib
import json
import os
import re
import socket
import time
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from uuid import uuid4

import httpx
import pytest

from tests.acceptance.conftest import Service, free_port, until

USER = "urn:ietf:params:scim:schemas:core:2.0:User"
MIB = 2**20
NAMES = ("ledger_consumer_", "ledger_directory_", "ledger_revocation_seconds", "ledger_replay_")


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service for this file: its connections are used up, and its one address has many failed authentications."""
    metrics = str(free_port())
    service = Service(tmp_path_factory.mktemp("strangers") / "ledger", LEDGER_CONNECTIONS="60", LEDGER_METRICS_PORT=metrics)
    yield service.start()
    assert service.stop() == 0


def well_formed(role: str = "scim") -> str:
    start = f"sl_{role}_{uuid4().hex}_{os.urandom(32).hex()}"
    return start + f"{zlib.crc32(start.encode()):08x}"


@contextlib.contextmanager
def raw(service: Service) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", service.port), timeout=120) as sock:
        yield sock


def everything(sock: socket.socket) -> bytes:
    got = b""
    with contextlib.suppress(ConnectionError):
        while data := sock.recv(65_536):
            got += data
    return got


def status(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1])


def memory(service: Service) -> int:
    """The peak memory of the process, in bytes."""
    assert service.process is not None
    found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{service.process.pid}/status").read_text())
    assert found is not None
    return int(found[1]) * 1024


def cpu_seconds(service: Service) -> float:
    assert service.process is not None
    fields = Path(f"/proc/{service.process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@pytest.mark.parametrize("framing", [b"Content-Length: 209715200", b"Transfer-Encoding: chunked"])
@pytest.mark.parametrize(
    "path", [b"/scim/acme/v2/Users", b"/scim/acme/v2/Bulk", b"/v1/consumers/x", b"/v1/tokens", b"/metrics", b"/nothing"]
)
def test_200_mib_without_a_token_cost_almost_nothing(own: Service, path: bytes, framing: bytes) -> None:
    # Memory that the service uses itself after its first answers must not be counted.
    httpx.get(own.base + "/healthz", trust_env=False)
    held, used = memory(own), cpu_seconds(own)
    block = b"100000\r\n" + b"x" * MIB + b"\r\n" if framing.startswith(b"Transfer") else b"x" * MIB
    method = b"PUT" if b"consumers" in path else b"POST"
    sent = 0
    with raw(own) as sock:
        sock.sendall(method + b" " + path + b" HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n" + framing + b"\r\n\r\n")
        with contextlib.suppress(ConnectionError):
            while sent < 200 * MIB:
                sock.sendall(block)
                sent += MIB
        answer = everything(sock)
    assert status(answer) in {401, 404, 405, 413, 429}
    assert b"connection: close" in answer
    assert sent < 40 * MIB
    assert memory(own) - held < 20 * MIB
    assert cpu_seconds(own) - used < 0.2, "the clock of processes ticks in hundredths, and others work meanwhile"


@pytest.mark.parametrize(
    ("role", "method", "path", "allowed"),
    [
        ("scim", "POST", "/scim/acme/v2/Users", MIB),
        ("admin", "POST", "/v1/tokens", MIB),
        ("operator", "PUT", "/v1/consumers/large", MIB),
    ],
)
@pytest.mark.parametrize("announced", [True, False])
def test_bodies_are_read_only_up_to_their_limit(
    own: Service, role: str, method: str, path: str, allowed: int, announced: bool
) -> None:
    token = own.first_run["tokens"][role]
    framing = f"Content-Length: {50 * MIB}" if announced else "Transfer-Encoding: chunked"
    head = f"{method} {path} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {token}\r\nContent-Type: application/json\r\n{framing}\r\n\r\n"
    held, sent = memory(own), 0
    with raw(own) as sock:
        sock.sendall(head.encode())
        with contextlib.suppress(ConnectionError):
            while sent < 50 * MIB:
                sock.sendall(b"x" * MIB if announced else b"100000\r\n" + b"x" * MIB + b"\r\n")
                sent += MIB
        answer = everything(sock)
    assert status(answer) == 413
    assert str(allowed).encode() in answer
    assert sent < 40 * MIB
    assert memory(own) - held < 20 * MIB


def test_routes_without_a_token_read_at_most_16_kib(own: Service) -> None:
    """With a token the limit is higher; without one no route needs more."""
    for path in ("/healthz", "/metrics", "/openapi.json"):
        answer = httpx.request("GET", own.base + path, content=b"x" * 20_000, trust_env=False)
        assert answer.status_code == 200, "no byte of the body is read"


def test_every_answer_has_no_store_and_nosniff(own: Service) -> None:
    with own.client("scim") as scim, own.client("admin") as admin:
        made = scim.post(own.scim + "/Users", json={"schemas": [USER], "userName": f"headers-{uuid4()}"})
        answers = [
            made, scim.get(made.headers["Location"]), scim.get(own.scim + "/Users"), scim.delete(made.headers["Location"]), scim.get(own.scim + "/Nothing"),
            scim.post(own.scim + "/Users", content=b"{"), httpx.get(own.scim + "/Users", trust_env=False),
            admin.get(own.base + "/v1/events"), admin.get(own.base + "/v1/tokens"), admin.get(own.base + "/v1/consumers"),
            admin.get(own.base + "/v1/audit/acme/population?as_of=seq:head"), admin.get(own.base + "/v1/nothing"), admin.get(own.base + "/v1/events?limit=x"),
            admin.delete(own.base + "/v1/events"), httpx.get(own.base + "/v1/events", trust_env=False), httpx.get(own.base + "/healthz", trust_env=False),
            httpx.get(own.base + "/metrics", trust_env=False), httpx.get(own.base + "/openapi.json", trust_env=False), httpx.get(own.base + "/", trust_env=False),
        ]  # fmt: skip
        with (
            admin.stream("GET", own.base + "/v1/events/stream") as stream,
            admin.stream("GET", own.base + "/v1/directories/acme/snapshot") as snapshot,
        ):
            answers += [stream, snapshot]
    for answer in answers:
        where = f"{answer.request.method} {answer.request.url.path} {answer.status_code}"
        assert answer.headers.get_list("X-Content-Type-Options") == ["nosniff"], where
        assert answer.headers.get_list("Cache-Control") == ["no-store"], where


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        (b"GET /v1/events HTTP/1.1\r\nX: " + b"x" * 40_000 + b"\r\n\r\n", 431),
        (b"GET /scim/acme/v2/Users?filter=" + b"x" * 20_000 + b" HTTP/1.1\r\n\r\n", 414),
        (b"nonsense\r\n\r\n", 400),
        (b"POST /scim/acme/v2/Users HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    ],
)
def test_the_answers_of_the_protocol_class_itself(own: Service, request_: bytes, expected: int) -> None:
    with raw(own) as sock:
        sock.sendall(request_)
        answer = everything(sock)
    assert status(answer) == expected
    head = answer.partition(b"\r\n\r\n")[0].lower()
    assert all(line in head for line in (b"\r\ndate: ", b"\r\nx-content-type-options: nosniff", b"\r\ncache-control: no-store"))


@pytest.mark.parametrize("path", ["/v1/events/", "/v1/consumers/", "/healthz/", "//v1/events", "/v1/directories/acme/snapshot/"])
def test_no_answer_contains_the_host_header(own: Service, path: str) -> None:
    with own.client("admin") as admin:
        answer = admin.get(own.base + path, headers={"Host": "evil.example", "X-Forwarded-Host": "evil.example"})
        assert answer.status_code == 404
        assert "evil" not in str(answer.headers) + answer.text
    with own.client("scim") as scim:
        host = {"Host": "evil.example"}
        made = scim.post(own.scim + "/Users", json={"schemas": [USER], "userName": f"host-{uuid4()}"}, headers=host)
        assert made.headers["Location"].startswith(own.base)
        assert "evil" not in made.text


def test_an_error_names_at_most_ten_places(own: Service) -> None:
    with own.client("admin") as admin:
        answer = admin.put(own.base + "/v1/consumers/wrong", json={f"wrong{n:04}": 1 for n in range(5_000)})
        document = {"profile": {f"wrong{n:04}": 1 for n in range(5_000)}}
        profile = admin.put(own.base + "/v1/directories/acme/profile", json=document)
    for refused in (answer, profile):
        assert refused.status_code == 400
        assert 0 < refused.json()["detail"].count("wrong") <= 10
        assert len(refused.content) < 5_000
    with own.client("admin") as admin:
        validated = admin.post(own.base + "/v1/profiles/validate", json=document)
    assert validated.json()["valid"] is False
    assert 0 < validated.text.count("wrong") <= 10


def test_metrics_without_a_token_have_no_names_and_many_scrapes_share_one_text(own: Service) -> None:
    with own.client("operator") as operator, own.client("consumer") as consumer:
        assert operator.put(own.base + "/v1/consumers/named-in-metrics", json={"mode": "pull"}).status_code in {200, 201}
        until(lambda: "named-in-metrics" in operator.get(own.base + "/metrics").text)
        whole = operator.get(own.base + "/metrics").text
        assert 'directory="acme"' in whole
        port = int(own.environment["LEDGER_METRICS_PORT"])
        assert "named-in-metrics" in httpx.get(f"http://127.0.0.1:{port}/metrics", trust_env=False).text
        # without httpx, whose answers are held against the description of the service, which this port is not
        with socket.create_connection(("127.0.0.1", port), timeout=120) as metrics_port:
            metrics_port.sendall(b"GET /v1/events HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
            assert status(everything(metrics_port)) == 404
        for nameless in (httpx.get(own.base + "/metrics", trust_env=False), consumer.get(own.base + "/metrics")):
            assert nameless.status_code == 200
            assert "ledger_head_position" in nameless.text
            assert not [name for name in NAMES if name in nameless.text]
            assert "named-in-metrics" not in nameless.text
            assert "acme" not in nameless.text
    assert httpx.get(own.base + "/metrics", headers={"Authorization": "Bearer sl_no"}, trust_env=False).status_code in {401, 429}


def test_a_narrowed_token_sees_no_names_in_metrics(own: Service) -> None:
    with own.client("admin") as admin:
        made = admin.post(own.base + "/v1/tokens", json={"role": "operator", "name": "narrow", "directories": ["acme"]})
        assert made.status_code == 201
    text = httpx.get(own.base + "/metrics", headers={"Authorization": f"Bearer {made.json()['token']}"}, trust_env=False).text
    assert "acme" not in text


@pytest.mark.parametrize("path", ["/scim/acme/v2/Users", "/v1/events"])
@pytest.mark.parametrize("make", [lambda: "sl_nonsense", well_formed], ids=["ill-formed", "well-formed"])
def test_an_address_with_many_failures_is_slowed_but_valid_tokens_are_not_refused(
    own: Service, path: str, make: Callable[[], str]
) -> None:
    """All of loopback is one address, as behind a proxy. The valid tokens are new, so no process has cached them."""
    with own.client("admin") as admin:
        role = "scim" if "scim" in path else "consumer"
        asked = {"role": role, "name": "new", "directories": ["acme"]}
        fresh = admin.post(own.base + "/v1/tokens", json=asked).json()["token"]
    with httpx.Client(trust_env=False, timeout=60) as client:

        def attempt(token: str) -> httpx.Response:
            # Headers with another address change nothing, because they cannot be trusted.
            return client.get(
                own.base + path, headers={"Authorization": f"Bearer {token}", "X-Forwarded-For": f"198.51.100.{os.urandom(1)[0]}"}
            )

        with ThreadPoolExecutor(8) as pool:
            refused = list(pool.map(lambda _: attempt(make()), range(120)))
        assert {answer.status_code for answer in refused} <= {401, 429}
        slowed = [answer for answer in refused if answer.status_code == 429]
        assert len(slowed) > 60
        assert all(int(answer.headers["Retry-After"]) >= 1 for answer in slowed)
        assert attempt(fresh).status_code == 200, "slowed, not refused"
        assert attempt(own.first_run["tokens"][role]).status_code == 200


def test_connections_beyond_the_limit_get_503_and_are_logged(own: Service) -> None:
    with contextlib.ExitStack() as crowd:
        socks = [crowd.enter_context(raw(own)) for _ in range(80)]
        answers = [everything(sock) for sock in socks[70:]]
        told = [answer for answer in answers if answer]
        assert told
        assert {status(answer) for answer in told} == {503}
        assert all(b"retry-after" in answer for answer in told)
        port = own.environment["LEDGER_METRICS_PORT"]

        def counted() -> bool:  # scrapes have their own port; a page is kept for a moment, and may be from before the crowd
            figures = httpx.get(f"http://127.0.0.1:{port}/metrics", trust_env=False).text
            return 'ledger_http_cut_total{process="serve-1",reason="connections"}' in figures

        until(counted)
        assert own.cli("token", "list", "--json").returncode == 0, "commands on this machine have their own socket"

    def lines() -> list[str]:  # one in ten seconds: earlier lines come from other tests
        return [line for line in own.log.read_text().splitlines() if '"connections_cut"' in line and '"connections":' in line]

    until(lines)
    line = json.loads(lines()[0])
    assert line["limit"] == 60

    def answered() -> bool:
        with contextlib.suppress(httpx.HTTPError):
            return httpx.get(own.base + "/healthz", trust_env=False).status_code == 200
        return False

    until(answered)


@pytest.mark.skipif("LEDGER_SLOW_TESTS" not in os.environ, reason="takes 75 s; the deadlines are tested with short ones")
def test_40_idle_connections_of_four_kinds_are_closed_within_75_seconds(own: Service) -> None:
    kinds = [
        b"", b"GET /healthz HTTP/1.1\r\nHost: a\r\n", b"POST /healthz HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nhalf",
        b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n",
    ]  # fmt: skip
    with contextlib.ExitStack() as crowd:
        began = time.monotonic()
        socks = [crowd.enter_context(raw(own)) for _ in range(40)]
        for number, sock in enumerate(socks):
            sock.sendall(kinds[number % 4])
        for sock in socks:
            everything(sock)
        assert time.monotonic() - began < 75
