"""Idempotency-Key on POST: the whole answer is stored before it is sent, and a repeated request gets it again."""

from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import psycopg
import structlog
from fastapi import Request, Response
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from database import patience
from operations import idempotency
from operations.caller import Caller
from operations.idempotency import Answer, AnsweredBeforeError, Taking
from operations.open_ledger import OpenLedger

REPLAYED = {"Idempotent-Replayed": "true"}
KEEPING_S = 1.0  # time limit for storing an answer, whatever budget is left
_log = structlog.get_logger("api")


def asks_once(scope: Scope) -> bool:
    """Whether a request has an Idempotency-Key that counts."""
    return scope["method"] == "POST" and "caller" in scope and "idempotency-key" in Headers(scope=scope)


async def once(app: ASGIApp, ledger: OpenLedger, scope: Scope, receive: Receive, send: Send) -> None:
    """Carry out a request, unless its key was used before. The operation takes the key after its permission checks.

    Raises InvalidError for a malformed key.
    """
    caller: Caller = scope["caller"]
    body = await Request(scope, receive).body()
    text = Headers(scope=scope)["idempotency-key"]
    key = idempotency.key_of(caller, text, b"POST", scope["path"].encode(), scope["query_string"], body)
    taking, answer = Taking(ledger, caller, key), _Held()
    scope["caller"] = replace(caller, admitted=taking)
    try:
        await app(scope, _again(body, receive), answer.take)
    finally:
        await _kept(taking, answer.whole())
    for message in answer.messages:
        await send(message)


async def _kept(taking: Taking, answer: Answer) -> None:
    """Store the answer if possible. If not, it is sent all the same, because the act was carried out."""
    patience.renew(KEEPING_S)
    try:
        await taking.finish(answer)
    except psycopg.Error:
        _log.warning("answer_not_kept", status=answer.status)


async def answered_before(_request: Request, error: Exception) -> Response:
    """The stored answer."""
    assert isinstance(error, AnsweredBeforeError)
    return Response(error.answer.body, error.answer.status, REPLAYED, error.answer.media_type)


class _Held:
    """Buffers an answer before it is sent. Answers to POST are small; none is streamed."""

    def __init__(self) -> None:
        self.messages: list[Message] = []

    async def take(self, message: Message) -> None:
        self.messages.append(message)

    def whole(self) -> Answer:
        """The buffered answer; without a start it counts as a failure."""
        start: dict[str, Any] = next(
            (dict(m) for m in self.messages if m["type"] == "http.response.start"), {"status": 500, "headers": []}
        )
        media_type = Headers(raw=list(start["headers"])).get("content-type", "application/json")
        return Answer(start["status"], media_type, b"".join(m.get("body", b"") for m in self.messages))


def _again(body: bytes, receive: Receive) -> Callable[[], Awaitable[Message]]:
    """A `receive` that returns the body again, then further messages."""
    messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def read() -> Message:
        return messages.pop() if messages else await receive()

    return read
