"""Idempotency-Key on POST: the whole answer is kept before it leaves, and a request that comes again gets it again."""

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
KEEPING_S = 1.0  # for keeping an answer, however long it took
_log = structlog.get_logger("api")


def asks_once(scope: Scope) -> bool:
    """Whether a request is to be carried out once."""
    return scope["method"] == "POST" and "caller" in scope and "idempotency-key" in Headers(scope=scope)


async def once(app: ASGIApp, ledger: OpenLedger, scope: Scope, receive: Receive, send: Send) -> None:
    """Carry out a request unless its key was used before: the operation takes the key when it has let the caller in.

    Raises InvalidError for a key that is none.
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
    """Keep the answer, where that is possible: what was carried out is told in any case."""
    patience.renew(KEEPING_S)
    try:
        await taking.finish(answer)
    except psycopg.Error:
        _log.warning("answer_not_kept", status=answer.status)


async def answered_before(_request: Request, error: Exception) -> Response:
    """The answer that was kept, in place of another one."""
    assert isinstance(error, AnsweredBeforeError)
    return Response(error.answer.body, error.answer.status, REPLAYED, error.answer.media_type)


class _Held:
    """An answer that does not leave yet. Answers to POST are small: none of them streams."""

    def __init__(self) -> None:
        self.messages: list[Message] = []

    async def take(self, message: Message) -> None:
        self.messages.append(message)

    def whole(self) -> Answer:
        """What was answered so far; without a start it is a failure."""
        start: dict[str, Any] = next(
            (dict(m) for m in self.messages if m["type"] == "http.response.start"), {"status": 500, "headers": []}
        )
        media_type = Headers(raw=list(start["headers"])).get("content-type", "application/json")
        return Answer(start["status"], media_type, b"".join(m.get("body", b"") for m in self.messages))


def _again(body: bytes, receive: Receive) -> Callable[[], Awaitable[Message]]:
    """Give the body that was read already, then what comes after it."""
    messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def read() -> Message:
        return messages.pop() if messages else await receive()

    return read
