"""All state of a directory as of a seq, to begin with: read on after it and nothing is missed (CONTRACT §4)."""

from collections.abc import AsyncIterator, Callable
from typing import Any, Final
from uuid import UUID

import orjson
from fastapi import APIRouter, Request
from starlette.responses import StreamingResponse

from api.gate import caller_of
from api.problems import ProblemError
from api.services import Services
from database.connections import Connection
from ledger.cursor import Cursor
from ledger.directories import Directory
from ledger.events import GROUP, USER
from ledger.feed import Selection, rfc3339
from ledger.tokens import Token
from projections.history import Person, documents_at, members_at, population, resolve
from scim.profile import mapped_user

PAGE: Final = 500


def routes(services: Services) -> APIRouter:
    """GET /v1/directories/{directory}/snapshot."""
    router = APIRouter()

    @router.get("/v1/directories/{directory}/snapshot", name="snapshot.read")
    async def snapshot(request: Request, directory: str) -> StreamingResponse:
        token = caller_of(request).token
        async with services.pool.connection() as conn:
            found = await services.directories.by_slug(conn, directory) if token.reaches(directory) else None
            if found is None:
                raise ProblemError(403, "forbidden", "This token does not reach a directory of that name.")
            if token.types != ("*",):
                raise ProblemError(403, "forbidden", "A snapshot shows everything: it needs a token for all event types.")
            point = await resolve(conn, found, "seq:head", now=services.clock())
            cursor = await services.feed.cursor_at(conn, Selection(directory=found), point.seq)
        lines = _Snapshot(services, found, token, cursor, point.seq, point.at).lines()
        return StreamingResponse(lines, media_type="application/x-ndjson")

    return router


class _Snapshot:
    """Written from the state intervals at one seq, in short transactions: writes go on, and change nothing of it."""

    def __init__(self, services: Services, directory: Directory, token: Token, cursor: Cursor, seq: int, at: int) -> None:
        self._services = services
        self._directory = directory
        self._bodies = token.bodies
        self._cursor = cursor
        self._seq = seq
        self._at = at
        self._counts = {"users": 0, "groups": 0, "memberships": 0}

    async def lines(self) -> AsyncIterator[bytes]:
        """First where to read on, then users, groups with their memberships, and a last line that says it is whole."""
        yield _line({
            "object": "snapshot", "directory": self._directory.slug, "seq": self._seq, "time": rfc3339(self._at), "after": self._cursor.encode(),
        })  # fmt: skip
        async for line in self._pages(USER, self._user):
            yield line
        async for line in self._pages(GROUP, self._group):
            yield line
        yield _line({"object": "end", "seq": self._seq, **self._counts})

    async def _pages(
        self, ot: str, write: Callable[[Person, dict[str, Any] | None], AsyncIterator[bytes]]
    ) -> AsyncIterator[bytes]:
        after: UUID | None = None
        while True:
            async with self._services.pool.connection() as conn:
                page = await population(conn, self._directory, self._seq, ot=ot, after=after, limit=PAGE)
                documents = await self._documents(conn, page)
            for person in page:
                async for line in write(person, documents.get(person.body_seq)):
                    yield line
            if len(page) < PAGE:
                return
            after = page[-1].id

    async def _documents(self, conn: Connection, page: list[Person]) -> dict[int, dict[str, Any]]:
        if not self._bodies or not page:
            return {}
        return await documents_at(conn, self._services.kek, self._directory, [person.body_seq for person in page])

    async def _user(self, person: Person, document: dict[str, Any] | None) -> AsyncIterator[bytes]:
        self._counts["users"] += 1
        data = self._data(document)
        if document is not None:
            data["user"] = mapped_user(self._directory.speaks, document)
        yield _line({"object": "user", "id": str(person.id), "active": person.active, "data": data})

    async def _group(self, group: Person, document: dict[str, Any] | None) -> AsyncIterator[bytes]:
        self._counts["groups"] += 1
        yield _line({"object": "group", "id": str(group.id), "data": self._data(document)})
        async with self._services.pool.connection() as conn:
            members = await members_at(conn, self._directory, group.id, self._seq)
        for start in range(0, len(members), PAGE):
            some = members[start : start + PAGE]
            self._counts["memberships"] += len(some)
            yield b"".join(
                _line({
                    "object": "membership", "group": {"id": str(group.id)}, "member": {"type": m.type, "id": str(m.id)},
                    "effective": m.active,
                })
                for m in some
            )  # fmt: skip

    def _data(self, document: dict[str, Any] | None) -> dict[str, Any]:
        if document is not None:
            return {"object": document}
        return {"erased": True} if self._bodies else {"withheld": True}


def _line(document: dict[str, Any]) -> bytes:
    return orjson.dumps(document) + b"\n"
