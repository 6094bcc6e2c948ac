"""One signed POST to real servers on loopback: the meaning of each answer, and that no answer can harm the service."""

import asyncio
import base64
import hashlib
import hmac
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from delivery.consumers import Allowed
from delivery.transport import Accepted, Gone, Outcome, Retry, TooLateError
from delivery.transports.webhook import ANSWER_BYTES_MAX, ANSWER_SHOWN, Message, Result, Webhooks

NOW = 1_700_000_000
LOOPBACK = Allowed.read("127.0.0.0/8")
SECRETS = ["whsec_" + base64.b64encode(bytes([n]) * 32).decode() for n in (1, 2)]
MESSAGE = Message("evt_acme_7_00000000", b'{"type":"user.created"}', {"ledger-seq": "7"})
Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@dataclass
class Receiver:
    """A server that answers every request with the same bytes, or passes the connection to `handler`."""

    answer: bytes = b""
    handler: Handler | None = None
    port: int = 0
    connections: int = 0
    requests: list[tuple[dict[str, str], bytes]] = field(default_factory=list)
    over: asyncio.Event = field(default_factory=asyncio.Event)
    closed: asyncio.Event = field(default_factory=asyncio.Event)  # a connection is over
    tasks: list[asyncio.Task[Any]] = field(default_factory=list)

    def url(self, host: str = "127.0.0.1", scheme: str = "http") -> str:
        return f"{scheme}://{host}:{self.port}/hooks"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        task = asyncio.current_task()
        assert task is not None
        self.tasks.append(task)
        with suppress(ConnectionError, asyncio.IncompleteReadError, ssl.SSLError):
            while True:
                self.requests.append(await _request(reader))
                if self.handler is not None:
                    await self.handler(reader, writer)
                    break
                writer.write(self.answer)
                await writer.drain()
        self.closed.set()
        writer.close()
        with suppress(ConnectionError, ssl.SSLError):
            await writer.wait_closed()

    async def hang(self, *_: Any) -> None:
        await self.over.wait()


async def _request(reader: asyncio.StreamReader) -> tuple[dict[str, str], bytes]:
    head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")[1:-2]
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in head)}
    return headers, await reader.readexactly(int(headers["content-length"]))


@asynccontextmanager
async def serving(
    answer: bytes = b"", handler: Handler | None = None, tls: ssl.SSLContext | None = None
) -> AsyncIterator[Receiver]:
    receiver = Receiver(answer, handler)
    server = await asyncio.start_server(receiver.serve, "127.0.0.1", 0, ssl=tls)
    receiver.port = server.sockets[0].getsockname()[1]
    try:
        yield receiver
    finally:
        receiver.over.set()
        server.close()
        await asyncio.wait_for(asyncio.gather(*receiver.tasks), 10)


@asynccontextmanager
async def sending(allowed: Allowed = LOOPBACK, timeout_s: float = 10.0) -> AsyncIterator[Webhooks]:
    sender = Webhooks(allowed, timeout_s, lambda: NOW + 0.9)
    try:
        yield sender
    finally:
        await sender.close()


def http(status: int, body: bytes = b"", **headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status} X", f"Content-Length: {len(body)}", *(f"{k.replace('_', '-')}: {v}" for k, v in headers.items())]
    return "\r\n".join([*lines, "", ""]).encode() + body


def sent(
    answer: bytes = b"", handler: Handler | None = None, *, timeout_s: float = 10.0, tls: ssl.SSLContext | None = None
) -> tuple[Result, Receiver]:
    async def run() -> tuple[Result, Receiver]:
        async with serving(answer, handler, tls) as receiver, sending(timeout_s=timeout_s) as sender:
            url = receiver.url(scheme="https" if tls else "http")
            return await sender.post(url, SECRETS[:1], MESSAGE), receiver

    return asyncio.run(run())


@pytest.mark.parametrize(
    ("status", "error", "gone", "away"),
    [
        (200, "", False, False), (202, "", False, False), (204, "", False, False), (299, "", False, False),
        (300, "redirect", False, False), (304, "redirect", False, False),
        (400, "http_400", False, False), (401, "http_401", False, False), (404, "http_404", False, False),
        (408, "http_408", False, True), (409, "http_409", False, False), (410, "http_410", True, False),
        (425, "http_425", False, True), (429, "http_429", False, True),
        (500, "http_500", False, False), (501, "http_501", False, False),
        (502, "http_502", False, True), (503, "http_503", False, True), (504, "http_504", False, True),
    ],
)  # fmt: skip
def test_a_status_has_one_meaning(status: int, error: str, *, gone: bool, away: bool) -> None:
    """With `away`, any other event would have failed as well."""
    result, _ = sent(http(status))
    assert (result.status, result.error, result.ok) == (status, error, not error)
    expected: Outcome = Accepted() if not error else Gone() if gone else Retry(error, away=away)
    assert result.outcome == expected


def test_only_a_429_with_a_time_applies_to_all_events_of_the_receiver() -> None:
    outcomes = [sent(http(status, Retry_After="9"))[0].outcome for status in (429, 503)] + [sent(http(429))[0].outcome]
    assert [(o.asks_all, o.after_s) for o in outcomes if isinstance(o, Retry)] == [(True, 9.0), (False, 9.0), (False, None)]


def away(result: Result) -> bool:
    return isinstance(result.outcome, Retry) and result.outcome.away


def test_a_request_is_signed_and_carries_its_event() -> None:
    _, receiver = sent(http(200))
    [(headers, body)] = receiver.requests
    assert body == MESSAGE.body
    assert {name: headers[name] for name in ("webhook-id", "webhook-timestamp", "ledger-seq", "content-type")} == {
        "webhook-id": MESSAGE.id, "webhook-timestamp": str(NOW), "ledger-seq": "7", "content-type": "application/json",
    }  # fmt: skip
    assert _verified(SECRETS[0], headers, body)
    assert not _verified(SECRETS[1], headers, body)


def test_both_secrets_sign_while_both_are_valid() -> None:
    async def run() -> None:
        async with serving(http(200)) as receiver, sending() as sender:
            await sender.post(receiver.url(), SECRETS, MESSAGE)
            [(headers, body)] = receiver.requests
            assert all(_verified(secret, headers, body) for secret in SECRETS)

    asyncio.run(run())


def _verified(secret: str, headers: dict[str, str], body: bytes) -> bool:
    """Verify a request with one secret, as a receiver does."""
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    mac = hmac.new(base64.b64decode(secret.removeprefix("whsec_")), signed, hashlib.sha256).digest()
    return any(entry == "v1," + base64.b64encode(mac).decode() for entry in headers["webhook-signature"].split(" "))


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_not_followed(status: int) -> None:
    """Otherwise a signed body with personal data would be sent wherever the receiver, or somebody who controls it, points."""

    async def run() -> None:
        async with serving(http(200)) as other, serving() as receiver, sending() as sender:
            receiver.answer = http(status, Location=other.url())
            assert (await sender.post(receiver.url(), SECRETS, MESSAGE)).error == "redirect"
            assert other.connections == 0

    asyncio.run(run())


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b'{"expected_previous_seq":41}', 41), (b'{"expected_previous_seq":0,"more":[]}', 0),
        (b'{"expected_previous_seq":-1}', None), (b'{"expected_previous_seq":true}', None), (b'{"expected_previous_seq":"41"}', None),
        (b'{"expected_previous_seq":1.5}', None), (b"[41]", None), (b"41", None), (b"null", None), (b"", None), (b"{", None),
        (b"[" * 60_000, None), (b'{"expected_previous_seq":' + b"9" * 400 + b"}", None),
    ],
)  # fmt: skip
def test_only_a_number_in_a_409_is_taken_as_the_seq_that_a_receiver_expects(body: bytes, expected: int | None) -> None:
    assert sent(http(409, body))[0].expected_previous_seq == expected
    assert sent(http(400, body))[0].expected_previous_seq is None


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("120", 120.0),
        (format_datetime(datetime.fromtimestamp(NOW, UTC) + timedelta(seconds=60), usegmt=True), 59.1),
        ("soon", None),
        ("Mon, 01 Jan 2024 00:00:00 +999999999999999", None),
    ],
)
@pytest.mark.parametrize("status", [429, 503])
def test_a_retry_after_is_read_from_a_refusal(status: int, header: str, seconds: float | None) -> None:
    result, _ = sent(http(status, Retry_After=header))
    assert result.retry_after_s == (None if seconds is None else pytest.approx(seconds))


def test_the_stored_answer_of_a_receiver_is_short_and_readable() -> None:
    result, _ = sent(http(500, b"\xff" + b"x" * 5_000))
    assert result.answer == "�" + "x" * (ANSWER_SHOWN - 1)
    assert "xxx" not in repr(result), "it may name persons, and results are logged"


def test_no_answer_in_time_counts_as_a_timeout_of_the_receiver() -> None:
    async def run() -> None:
        async with serving() as receiver, sending(timeout_s=0.2) as sender:
            receiver.handler = receiver.hang
            result = await sender.post(receiver.url(), SECRETS, MESSAGE)
            assert (result.error, away(result)) == ("timeout", True)

    asyncio.run(run())


async def _reset(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.transport.abort()


async def _nonsense(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"SMTP ready\r\n\r\n")


async def _half_a_head(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nContent-")


async def _endless_head(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\n")
    while True:
        writer.write(b"X-More: " + b"x" * 1_000 + b"\r\n")
        await writer.drain()


async def _endless_interim(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while True:
        writer.write(b"HTTP/1.1 103 Early Hints\r\n\r\n")
        await writer.drain()


@pytest.mark.parametrize("handler", [_reset, _nonsense, _half_a_head])
def test_a_broken_answer_counts_as_a_failure_of_the_receiver(handler: Handler) -> None:
    result, _ = sent(handler=handler)
    assert (result.error, away(result)) == ("connection_broken", True)


@pytest.mark.parametrize("handler", [_endless_head, _endless_interim])
def test_an_endless_response_head_ends_with_an_error(handler: Handler) -> None:
    result, _ = sent(handler=handler, timeout_s=1.0)
    assert result.error in {"timeout", "connection_broken"}


def test_a_port_where_nobody_listens_is_a_refused_connection() -> None:
    async def run() -> None:
        async with serving() as receiver:
            url = receiver.url()
        async with sending() as sender:
            result = await sender.post(url, SECRETS, MESSAGE)
        assert (result.error, away(result)) == ("connection_refused", True)

    asyncio.run(run())


@pytest.mark.parametrize(("status", "error"), [(200, ""), (500, "http_500")])
def test_an_endless_body_is_cut_and_the_status_counts(status: int, error: str) -> None:
    """The status already decides. The rest of the answer is read up to a limit, then the connection is closed."""
    written = 0

    async def endless(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal written
        writer.write(f"HTTP/1.1 {status} X\r\nTransfer-Encoding: chunked\r\n\r\n".encode())
        while True:
            writer.write(b"10000\r\n" + b"x" * 0x10000 + b"\r\n")
            written += 0x10000
            await writer.drain()

    async def run() -> None:
        async with serving(handler=endless) as receiver, sending() as sender:
            assert (await sender.post(receiver.url(), SECRETS, MESSAGE)).error == error
            await asyncio.wait_for(receiver.closed.wait(), 10)

    asyncio.run(run())
    assert written < 200 * ANSWER_BYTES_MAX, "what the sockets' buffers hold, not more"


@pytest.mark.parametrize(("status", "error"), [(200, ""), (500, "http_500")])
def test_a_body_that_never_ends_costs_no_more_than_the_timeout(status: int, error: str) -> None:
    async def run() -> None:
        async with serving() as receiver, sending(timeout_s=0.2) as sender:

            async def dripping(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                writer.write(f"HTTP/1.1 {status} X\r\nContent-Length: 100\r\n\r\nsome".encode())
                await receiver.over.wait()

            receiver.handler = dripping
            assert (await asyncio.wait_for(sender.post(receiver.url(), SECRETS, MESSAGE), 10)).error == error

    asyncio.run(run())


def test_a_compressed_body_is_not_unpacked() -> None:
    """A few compressed bytes may unpack to gigabytes, or may not be valid compressed data at all."""
    assert sent(http(200, b"\x1f\x8b" + b"not gzip", Content_Encoding="gzip"))[0].ok


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "0x7f000001", "[::ffff:127.0.0.1]", "[::1]"])
def test_loopback_is_not_reached_without_an_allowance_under_any_name(host: str) -> None:
    """The address is checked when the connection is made, so no answer of a name server leads into the network."""

    async def run() -> None:
        async with serving(http(200)) as receiver, sending(Allowed()) as sender:
            result = await sender.post(receiver.url(host), SECRETS, MESSAGE)
            assert (result.error, receiver.connections) == ("address_refused", 0)

    asyncio.run(run())


@pytest.mark.parametrize(
    ("allow", "host"), [("localhost", "localhost"), ("127.0.0.0/8", "localhost"), ("127.0.0.1", "127.0.0.1")]
)
def test_an_allowance_opens_what_it_names(allow: str, host: str) -> None:
    async def run() -> None:
        async with serving(http(200)) as receiver, sending(Allowed.read(allow)) as sender:
            assert (await sender.post(receiver.url(host), SECRETS, MESSAGE)).ok
            refused = await sender.post(receiver.url("127.0.0.2"), SECRETS, MESSAGE)
            assert refused.ok is False
            assert refused.error == ("connection_refused" if "/8" in allow else "address_refused")

    asyncio.run(run())


def test_an_allowance_of_one_host_is_not_lent_to_another_request() -> None:
    """Many deliveries are under way at once; each is checked only for its own host."""

    async def run() -> None:
        async with serving(http(200)) as receiver, sending(Allowed.read("localhost")) as sender:
            urls = [receiver.url("localhost"), receiver.url("127.0.0.1")] * 10
            results = await asyncio.gather(*(sender.post(url, SECRETS, MESSAGE) for url in urls))
            assert [r.error for r in results] == ["", "address_refused"] * 10

    asyncio.run(run())


def test_an_unknown_host_name_is_reported_as_such() -> None:
    async def run() -> None:
        async with sending() as sender:
            result = await sender.post("https://nowhere.invalid/hooks", SECRETS, MESSAGE)
            assert (result.error, away(result)) == ("name_not_found", True)

    asyncio.run(run())


@pytest.mark.parametrize(
    "url", ["https://", "http://[::1/", "https://x:99999/", "https://" + "a" * 300 + ".example.com/", "gopher://127.0.0.1/"]
)
def test_a_url_that_cannot_be_used_gives_an_outcome_too(url: str) -> None:
    async def run() -> None:
        async with sending() as sender:
            assert not (await sender.post(url, SECRETS, MESSAGE)).ok

    asyncio.run(run())


def test_proxies_of_the_environment_are_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    async def run() -> None:
        async with serving(http(502)) as proxy, serving(http(200)) as receiver, sending() as sender:
            for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
                monkeypatch.setenv(name, proxy.url())
            assert (await sender.post(receiver.url(), SECRETS, MESSAGE)).ok
            assert proxy.connections == 0

    asyncio.run(run())


def test_no_cookie_is_kept_and_a_connection_is_used_again() -> None:
    async def run() -> None:
        async with serving(http(200, b"ok", Set_Cookie="who=me")) as receiver, sending() as sender:
            for _ in range(3):
                assert (await sender.post(receiver.url("localhost"), SECRETS, MESSAGE)).ok
            assert [headers.get("cookie") for headers, _ in receiver.requests] == [None] * 3
            assert receiver.connections == 1

    asyncio.run(run())


def _tls(folder: Path) -> ssl.SSLContext:
    """The certificate of a server, signed by no trusted authority."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    start = datetime(2020, 1, 1, tzinfo=UTC)
    builder = x509.CertificateBuilder(name, name, key.public_key(), 1, start, start + timedelta(days=36_500))
    san = x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))])
    certificate = builder.add_extension(san, critical=False).sign(key, hashes.SHA256())
    pem, plain = serialization.Encoding.PEM, serialization.NoEncryption()
    file = folder / "server.pem"
    file.write_bytes(key.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain) + certificate.public_bytes(pem))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)
    return context


def test_a_certificate_of_an_untrusted_authority_is_refused(tmp_path: Path) -> None:
    result, receiver = sent(http(200), tls=_tls(tmp_path))
    assert (result.error, receiver.requests) == ("tls", [])


def test_nothing_is_sent_unencrypted_to_a_server_without_tls() -> None:
    async def run() -> None:
        async with serving(http(200)) as receiver, sending(timeout_s=2.0) as sender:
            receiver.handler = receiver.hang
            result = await sender.post(receiver.url(scheme="https"), SECRETS, MESSAGE)
            assert not result.ok
            assert receiver.requests == []

    asyncio.run(run())


def test_a_request_that_is_too_late_when_the_connection_is_open_is_not_sent() -> None:
    """This holds for a new connection and for one that is used again, and the sender can be used afterwards."""

    async def story() -> None:
        async with serving(http(204)) as receiver, sending() as sender:
            for _ in range(2):
                with pytest.raises(TooLateError):
                    await sender.post(receiver.url(), SECRETS[:1], MESSAGE, lambda: False)
                assert (await sender.post(receiver.url(), SECRETS[:1], MESSAGE, lambda: True)).ok
            assert len(receiver.requests) == 2

    asyncio.run(story())
