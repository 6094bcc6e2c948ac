"""What SCIM needs of HTTP, on plain ASGI: a framework would cost 50 µs a request here."""

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple
from urllib.parse import parse_qsl
from uuid import UUID

import orjson

from api.spans import NO_SPAN
from api.watching import until_gone
from database import patience
from ledger.commands import Condition, Tags
from ledger.directories import Directory
from ledger.tokens import Token
from ledger.tracing import Span
from ledger.turns import LARGE_BYTES, Turns
from scim.apply import PATCH_STEPS
from scim.body import read_json
from scim.errors import (
    InvalidValue,
    MethodNotAllowed,
    PayloadTooLarge,
    ScimError,
    TooManyRequests,
    Unauthorized,
    Unavailable,
    UnsupportedMediaType,
)
from scim.leniency import Leniency
from scim.work import Work

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

PART_BYTES = 65_536
REQUEST_STEPS = 5_000_000  # budget of a read: seconds of one core; reading 100 000 users of 1 KiB takes 2 000 000 steps
MEDIA_TYPES = {b"application/scim+json", b"application/json"}
_TOO_MUCH = "This request has to look at too many values. Narrow the filter, ask for fewer terms, or page without sorting."
NO_STORE: Final = (b"cache-control", b"no-store")  # no proxy may cache personal data or secrets
_ETAG = re.compile(r'(?:W/)?"(\d{1,18})"')


class ClientGoneError(Exception):
    """The client closed the connection before its request was complete: nothing is done, and no answer is sent."""


@dataclass(slots=True)
class Answer:
    """A response. `body` is encoded JSON; of a large answer it is the first part, and `rest` has the others."""

    status: int
    body: bytes = b""
    headers: list[tuple[bytes, bytes]] = field(default_factory=list[tuple[bytes, bytes]])
    rest: AsyncIterator[bytes] | None = None


class Content(NamedTuple):
    """The body of a request, not parsed yet. `load` parses it, which takes long for a large one."""

    size: int  # bytes
    load: Callable[[], dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Refusal:
    """An operation of a bulk request that was refused, for the journal: the bulk request itself was not refused."""

    method: str
    route: str
    status: int
    scim_type: str | None
    detail: str
    subject: UUID | None = None  # the user or group in its path


@dataclass(slots=True)
class Call:
    """One SCIM request as the handlers see it."""

    method: str
    path: list[str]  # below /scim/{directory}/v2
    directory: str
    headers: dict[bytes, bytes]
    query: dict[str, str]
    request_id: UUID
    receive: Receive
    address: str = ""  # where it came from
    op: int = 0
    resource_id: UUID | None = None
    shows: bool = True  # the answer shows the resource
    # For the journal; each is set once it is known.
    found_directory: Directory | None = None
    token: Token | None = None
    filter: str | None = None  # of the query string, or of the body of a search
    leniency: Leniency = field(default_factory=Leniency)  # that of its directory, once that is known
    events: int = 0
    changed_bytes: int = 0
    refusals: list[Refusal] = field(default_factory=list[Refusal])  # operations of a bulk request
    work: Work = field(default_factory=lambda: Work(REQUEST_STEPS, _TOO_MUCH))
    # the budget of a write, which is finished even if the client disconnects
    effort: Work = field(default_factory=lambda: Work(PATCH_STEPS))
    large: bool = False  # its body is large, so it waits for its turn
    held: contextlib.AsyncExitStack = field(default_factory=contextlib.AsyncExitStack)  # released once the request is carried out
    turns: Turns | None = None  # of its directory, once that is known
    span: Span = NO_SPAN
    place: str = ""  # method and template, for its span and the last use of its token
    _watch: asyncio.Task[None] | None = None

    @property
    def trace(self) -> bytes | None:
        """The trace context that its commits are stored with."""
        return self.span.context

    def watch(self) -> None:
        """End the work when the client closes the connection. The body must have been read, or not be needed."""
        if self._watch is None:
            self._watch = asyncio.create_task(until_gone(self.receive, self.work))

    def unwatch(self) -> None:
        """Stop watching the connection, because the request is answered."""
        if self._watch is not None:
            self._watch.cancel()

    async def content(self, limit: int) -> Content:
        """Read the body. Raises as body() does; its load() raises InvalidSyntax."""
        raw = await self.body(limit)
        if len(raw) > LARGE_BYTES and self.turns is not None and self.found_directory is not None:
            self.large = True
            await self.held.enter_async_context(self.turns.in_hand(self.found_directory.id))
        return Content(len(raw), lambda: read_json(raw))

    def header(self, name: bytes) -> str | None:
        value = self.headers.get(name)
        return value.decode("latin-1") if value is not None else None

    async def body(self, limit: int) -> bytes:
        """Read the body. Raises PayloadTooLarge (before reading it, where Content-Length says so), UnsupportedMediaType."""
        content_type = self.headers.get(b"content-type", b"").partition(b";")[0].strip().lower()
        if content_type not in MEDIA_TYPES:
            raise UnsupportedMediaType("Content-Type: send application/scim+json.")
        announced = self.headers.get(b"content-length", b"0")
        if announced.isdigit() and int(announced) > limit:
            raise PayloadTooLarge(f"The request is larger than {limit} bytes. Send less at once.")
        chunks: list[bytes] = []
        size = 0
        while True:
            message = await self.receive()
            if message["type"] == "http.disconnect":
                raise ClientGoneError
            chunk = message.get("body", b"")
            size += len(chunk)
            if size > limit:
                raise PayloadTooLarge(f"The request is larger than {limit} bytes. Send less at once.")
            chunks.append(chunk)
            if not message.get("more_body"):
                return chunks[0] if len(chunks) == 1 else b"".join(chunks)

    def condition(self) -> Condition | None:
        """The condition in If-Match and If-None-Match; None where the request has neither."""
        return read_condition(self.header(b"if-match"), self.header(b"if-none-match"))

    def if_none_match(self, etag: str) -> bool:
        """Whether If-None-Match names this version: the answer is 304."""
        value = self.header(b"if-none-match")
        if value is None:
            return False
        listed = {tag.strip().removeprefix("W/") for tag in value.split(",")}
        return "*" in listed or etag.removeprefix("W/") in listed


def read_condition(match: str | None, none_match: str | None = None) -> Condition | None:
    """Read If-Match (or the `version` of a bulk operation) and If-None-Match. A tag that this service never gives matches no version."""
    if match is None and none_match is None:
        return None
    return Condition(_tags(match), _tags(none_match))


def _tags(value: str | None) -> Tags | None:
    if value is None:
        return None
    if value.strip() == "*":
        return Tags(any=True)
    return Tags(frozenset(int(found) for found in _ETAG.findall(value)))


def read_query(raw: bytes) -> dict[str, str]:
    """Decode a query string. Raises InvalidValue where it is not UTF-8."""
    if not raw:
        return {}
    try:
        pairs = parse_qsl(raw.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=100)
    except ValueError as broken:
        raise InvalidValue("The query string is not percent-encoded UTF-8.") from broken
    return dict(pairs)


def as_json(status: int, document: Any, *headers: tuple[bytes, bytes]) -> Answer:
    return Answer(status, orjson.dumps(document), list(headers))


def of_error(error: ScimError) -> Answer:
    """The SCIM error answer (RFC 7644 §3.12)."""
    headers: list[tuple[bytes, bytes]] = []
    if isinstance(error, Unauthorized):
        headers.append((b"www-authenticate", b'Bearer realm="scim-ledger"'))
    if isinstance(error, MethodNotAllowed):
        headers.append((b"allow", ", ".join(error.allowed).encode()))  # RFC 9110 §15.5.6
    if isinstance(error, TooManyRequests | Unavailable):
        headers.append((b"retry-after", str(error.retry_after).encode()))
    return as_json(error.status, error.document(), *headers)


async def streamed(status: int, pieces: AsyncIterator[bytes], headers: list[tuple[bytes, bytes]]) -> Answer:
    """An answer made of pieces: in one part if they fit, else in several. Raises the errors of the first part."""
    parts = _parts(pieces)
    first = await anext(parts)
    second = await anext(parts, None)
    return Answer(status, first, headers, None if second is None else _after(second, parts))


async def _parts(pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The pieces joined to parts of about PART_BYTES, each of which is one write to the socket."""
    held, size = list[bytes](), 0
    async for piece in pieces:
        held.append(piece)
        size += len(piece)
        if size >= PART_BYTES:
            yield b"".join(held)
            held, size = [], 0
    if held:
        yield b"".join(held)


async def _after(first: bytes, parts: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield first
    async for part in parts:
        yield part


async def send_answer(send: Send, answer: Answer, request_id: UUID) -> None:
    """Send the answer. If `rest` raises, the connection is cut, and the client sees that the answer is incomplete."""
    headers = [(b"x-request-id", str(request_id).encode()), NO_STORE, *answer.headers]
    if answer.body:
        headers.append((b"content-type", b"application/scim+json;charset=utf-8"))
    if answer.status not in {204, 304} and answer.rest is None:
        headers.append((b"content-length", str(len(answer.body)).encode()))
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    if answer.rest is None:
        await send({"type": "http.response.body", "body": answer.body})
        return
    await send({"type": "http.response.body", "body": answer.body, "more_body": True})
    async for part in answer.rest:
        patience.renew()
        await send({"type": "http.response.body", "body": part, "more_body": True})
    await send({"type": "http.response.body", "body": b""})
