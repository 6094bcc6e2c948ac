"""Idempotency-Key: a repeated POST gets the stored answer and is not carried out again (draft-ietf-httpapi-idempotency-key-header).

The key is taken after the permission checks (`Caller.admitted`) and before the operation does anything, so a stored answer is given
only to a caller who would be admitted now. The row names the request; after a crash the commits of that request show whether it
was carried out.
"""

import hashlib
from dataclasses import dataclass
from typing import Final
from uuid import UUID

import orjson
import psycopg

from database.connections import Connection
from database.deadlines import LOCK
from database.queries import load_queries
from ledger.sealing import open_note, seal_note
from operations.caller import Caller
from operations.open_ledger import OpenLedger
from operations.refusals import ConflictError, InvalidError

SQL: Final = load_queries(__file__)
HOURS_KEPT: Final = 24
KEY_LENGTH_MAX: Final = 255
UNDER_WAY_S_MAX: Final = 120.0  # no request takes longer, so after that time its process has ended
PRUNE_BATCH: Final = 10_000


@dataclass(frozen=True, slots=True)
class Answer:
    """A stored answer: status, media type, body."""

    status: int
    media_type: str
    body: bytes


class AnsweredBeforeError(Exception):
    """Raised before the operation does anything: `answer` was given for the same key before."""

    def __init__(self, answer: Answer) -> None:
        super().__init__()
        self.answer = answer


@dataclass(frozen=True, slots=True)
class Key:
    """A stored key: its owner, its hash, and the hash of the request that it was sent with."""

    owner: UUID
    hash: bytes
    fingerprint: bytes


def key_of(caller: Caller, text: str, *parts: bytes) -> Key:
    """`parts`: method, path, query, body. Raises InvalidError for a key that is empty, too long or not printable ASCII."""
    if not 1 <= len(text) <= KEY_LENGTH_MAX or not text.isascii() or not text.isprintable():
        raise InvalidError(
            f"Idempotency-Key: 1 to {KEY_LENGTH_MAX} printable characters of ASCII, such as a UUID.", "invalid_idempotency_key"
        )
    fingerprint = hashlib.sha256(b"".join(len(part).to_bytes(8) + part for part in parts)).digest()
    return Key(caller.token.id, hashlib.sha256(text.encode()).digest(), fingerprint)


async def begin(ledger: OpenLedger, caller: Caller, key: Key) -> Answer | None:
    """Take the key for this request. Returns None if the request must be carried out, else the stored answer.

    Raises ConflictError while the first request runs, if the key was sent with another request, and if the first request was carried
    out but ended without an answer.
    """
    async with ledger.connection() as conn:
        params = (key.owner, key.hash, key.fingerprint, caller.request)
        if await (await conn.execute(SQL["begin_idempotent"], params)).fetchone():
            return None
        return await _known(ledger, conn, caller, key)


@dataclass(slots=True)
class Taking:
    """The key of one request. `taken`: this request holds the key and is carried out."""

    ledger: OpenLedger
    caller: Caller
    key: Key
    taken: bool = False

    async def __call__(self) -> None:
        """Take the key, once. Raises AnsweredBeforeError and the errors of `begin`."""
        if self.taken:
            return
        before = await begin(self.ledger, self.caller, self.key)
        if before is not None:
            raise AnsweredBeforeError(before)
        self.taken = True

    async def finish(self, answer: Answer) -> None:
        """Store the answer, if the key was taken."""
        if self.taken:
            await finish(self.ledger, self.caller, self.key, answer)


async def _known(ledger: OpenLedger, conn: Connection, caller: Caller, key: Key) -> Answer | None:
    row = await (
        await conn.cursor(binary=True).execute(SQL["idempotent_request"], (key.owner, key.hash, UNDER_WAY_S_MAX))
    ).fetchone()
    if row is None:
        # the row was deleted at this moment: the next attempt takes the key
        raise ConflictError(_UNDER_WAY, "idempotency_in_progress")
    fingerprint, request, over, answer, committed = row
    if bytes(fingerprint) != key.fingerprint:
        raise ConflictError("This Idempotency-Key was used with another request. Use a new key.", "idempotency_key_reused")
    if answer is not None:
        return _open_answer(ledger, key, bytes(answer))
    if over and (committed or await _committed_since(conn, request)):
        raise ConflictError(
            "The request was carried out, but it ended without an answer. Look at the current state.",
            "idempotency_answer_lost",
        )
    if over:
        params = (key.owner, key.hash, request, caller.request)
        if await (await conn.execute(SQL["take_over_idempotent"], params)).fetchone():
            return None
    await conn.execute(SQL["lower_idempotent"], (key.owner, key.hash))
    raise ConflictError(_UNDER_WAY, "idempotency_in_progress")


async def _committed_since(conn: Connection, request: UUID) -> bool:
    """Whether the request committed anything. Waits first until no write is running that the request may have given up.

    Raises ConflictError if that takes too long.
    """
    try:
        async with conn.transaction():
            await conn.execute(SQL["patience"], (str(LOCK.ms),))
            await conn.execute(SQL["no_write_under_way"])
            await conn.execute(SQL["no_commit_under_way"])
            row = await (await conn.execute(SQL["committed"], (request,))).fetchone()
    except psycopg.errors.LockNotAvailable as held:
        raise ConflictError(_UNDER_WAY, "idempotency_in_progress") from held
    return row is not None and bool(row[0])


_UNDER_WAY: Final = "A request with this Idempotency-Key is still running. Send it again in a moment."


async def finish(ledger: OpenLedger, caller: Caller, key: Key, answer: Answer) -> None:
    """Store the answer of a request that succeeded; of any other, store only that it has ended."""
    async with ledger.connection() as conn:
        mine = (key.owner, key.hash, caller.request)
        if 200 <= answer.status < 300:
            await conn.execute(SQL["finish_idempotent"], (*mine, _seal_answer(ledger, key, answer)))
        else:
            await conn.execute(SQL["end_idempotent"], mine)


async def prune(conn: Connection) -> None:
    """Delete rows older than HOURS_KEPT, in short statements."""
    while (await conn.execute(SQL["prune_idempotent"], (HOURS_KEPT, PRUNE_BATCH))).rowcount == PRUNE_BATCH:
        pass


def _seal_answer(ledger: OpenLedger, key: Key, answer: Answer) -> bytes:
    text = orjson.dumps([answer.status, answer.media_type, answer.body.decode()]).decode()
    return seal_note(ledger.kek, text, kind="reply", owner=_place(key), random=ledger.entropy)


def _open_answer(ledger: OpenLedger, key: Key, sealed: bytes) -> Answer:
    status, media_type, body = orjson.loads(open_note(ledger.kek, sealed, kind="reply", owner=_place(key)))
    return Answer(status, media_type, body.encode())


def _place(key: Key) -> UUID:
    """The owner that the answer is sealed for: it can be opened only for the same token and key."""
    return UUID(bytes=hashlib.sha256(key.owner.bytes + key.hash).digest()[:16])
