"""Webhooks by HTTP (Standard Webhooks, docs/consumers.md): one signed POST, and what the answer means.

Each connection is guarded (guarded.py).
"""

import io
import ssl
from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

import aiohttp
import anyio.to_thread
import orjson

from delivery.backoff import retry_after_s
from delivery.consumers import Allowed
from delivery.signing import batch_id, body_of_batch, body_of_one, signature
from delivery.transport import Accepted, Batch, Gone, Outcome, Retry, Rewind, Target, TooLateError, always
from delivery.transports.guarded import connecting_to, guarded_connector, word_of
from ledger.ids import Seq
from ledger.rendering import rfc3339
from ledger.trace_context import HEADER, traceparent

ANSWER_BYTES_MAX: Final = 65_536  # of the receiver's answer that is read at all
ANSWER_SHOWN: Final = 500  # characters of it that an operator is shown
CONNECTIONS_MAX: Final = 256
CONNECTIONS_PER_HOST_MAX: Final = 64
ON_LOOP_BYTES: Final = (
    256 * 2**10
)  # of a message that is put together, hashed and written without leaving the event loop: a millisecond
USER_AGENT: Final = "scim-ledger-webhook/1"
_NOBODY_IN_PARTICULAR: Final = frozenset({408, 425, 429, 502, 503, 504})  # the receiver is not there, whatever was sent


@dataclass(frozen=True, slots=True)
class Message:
    """What is sent: its id (the event's, or the batch's), its body, and headers of our own."""

    id: str
    body: bytes = field(repr=False)
    headers: Mapping[str, str] = field(default_factory=dict[str, str])


@dataclass(frozen=True, slots=True)
class Result:
    """What became of a delivery. `error` is empty when it was accepted; `answer` is what an operator may read of the receiver's words."""

    status: int = 0
    error: str = ""
    answer: str = field(default="", repr=False)
    retry_after_s: float | None = None
    expected_previous_seq: int | None = None

    @property
    def ok(self) -> bool:
        return not self.error

    @property
    def outcome(self) -> Outcome:
        """What it means for the delivery."""
        if self.ok:
            return Accepted()
        if self.status == 410:
            return Gone()
        retry = Retry(
            self.error,
            self.answer,
            self.retry_after_s,
            asks_all=self.status == 429 and self.retry_after_s is not None,
            away=self.status == 0 or self.status in _NOBODY_IN_PARTICULAR,
            may_have_arrived=self.error in {"timeout", "connection_broken"},  # what it refused it does not have
        )
        return retry if self.expected_previous_seq is None else Rewind(Seq(self.expected_previous_seq), retry)


_may_leave: ContextVar[Callable[[], bool]] = ContextVar("may_leave")


class _Request(aiohttp.ClientRequest):
    """Asks `may_leave` before the first byte: connecting may have taken long, or the process may have been stopped meanwhile."""

    async def send(self, conn: aiohttp.connector.Connection) -> aiohttp.ClientResponse:
        if not _may_leave.get(always)():
            raise TooLateError
        return await super().send(conn)


class Webhooks:
    """The transport of consumers with mode `webhook`; one for a process, whose connections its consumers share."""

    def __init__(self, allowed: Allowed, timeout_s: float, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._session = aiohttp.ClientSession(
            connector=guarded_connector(allowed, limit=CONNECTIONS_MAX, limit_per_host=CONNECTIONS_PER_HOST_MAX),
            timeout=aiohttp.ClientTimeout(total=timeout_s),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            headers={"User-Agent": USER_AGENT, "Content-Type": "application/json"},
            request_class=_Request,
        )

    async def close(self) -> None:
        await self._session.close()

    async def send(self, target: Target, batch: Batch) -> Outcome:
        """Sign and post a batch."""
        return (await self.post(target.address, target.secrets, await message_of(batch), batch.may_leave)).outcome

    async def post(self, url: str, secrets: Sequence[str], message: Message, may_leave: Callable[[], bool] = always) -> Result:
        """Sign and post a message. Whatever happens is a Result.

        `may_leave` is asked when the connection stands, directly before the first byte; where it says no this raises TooLateError.
        """
        timestamp, large = int(self._clock()), len(message.body) > ON_LOOP_BYTES
        signed = (secrets, message.id, timestamp, message.body)
        headers = {
            "webhook-id": message.id,
            "webhook-timestamp": str(timestamp),
            "webhook-signature": await anyio.to_thread.run_sync(signature, *signed) if large else signature(*signed),
            **message.headers,
        }
        data = io.BytesIO(message.body) if large else message.body  # a file is sent in pieces
        try:
            connecting_to(url)
            _may_leave.set(may_leave)
            async with self._session.post(url, data=data, headers=headers, allow_redirects=False) as response:
                return self._result(response.status, response.headers, await _answer(response.content))
        except TimeoutError:
            return Result(error="timeout")
        except (aiohttp.ClientError, OSError, ssl.SSLError, ValueError) as failed:
            return Result(error=word_of(failed))

    def _result(self, status: int, headers: Mapping[str, str], answer: bytes) -> Result:
        if 200 <= status < 300:
            return Result(status)
        return Result(
            status,
            "redirect" if 300 <= status < 400 else f"http_{status}",
            answer.decode("utf-8", "replace")[:ANSWER_SHOWN],
            retry_after_s(headers.get("Retry-After"), datetime.fromtimestamp(self._clock(), UTC)),
            _expected(answer) if status == 409 else None,
        )


async def message_of(batch: Batch) -> Message:
    """A batch as it is posted. The header `webhook-id` is the same whenever the same events are sent together."""
    last = batch.events[-1]
    headers = {"ledger-seq": str(last.seq), "ledger-attempt": str(batch.attempt)}
    if batch.replay is not None:
        headers["ledger-replay"] = str(batch.replay)
    if batch.previous_seq is not None:
        headers["ledger-previous-seq"] = str(batch.previous_seq)
    if batch.trace is not None:
        headers[HEADER] = traceparent(batch.trace)
    time = rfc3339(last.at)
    if batch.single:
        return Message(last.id, body_of_one(last.topic, time, last.json), headers)
    events = [event.json for event in batch.events]
    few = sum(map(len, events)) <= ON_LOOP_BYTES
    body = body_of_batch(time, events) if few else await anyio.to_thread.run_sync(body_of_batch, time, events)
    return Message(batch_id([event.id for event in batch.events]), body, headers)


async def _answer(content: aiohttp.StreamReader) -> bytes:
    """Read the beginning of the receiver's answer. If the body breaks off, the status still counts."""
    try:
        return await _start_of(content)
    except (TimeoutError, aiohttp.ClientError):
        return b""


async def _start_of(content: aiohttp.StreamReader) -> bytes:
    """The first bytes of an answer; the rest of an endless one is never read."""
    parts, size = list[bytes](), 0
    while size < ANSWER_BYTES_MAX:
        part = await content.read(ANSWER_BYTES_MAX - size)
        if not part:
            break
        parts.append(part)
        size += len(part)
    return b"".join(parts)


def _expected(answer: bytes) -> int | None:
    try:
        found: Any = orjson.loads(answer)
    except orjson.JSONDecodeError:
        return None
    expected = found.get("expected_previous_seq") if isinstance(found, dict) else None  # pyright: ignore[reportUnknownMemberType]
    return expected if type(expected) is int and expected >= 0 else None
