"""The snapshot: all state of a directory as of one seq, from which a reader goes on with the feed (docs/events.md)."""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any, Final
from uuid import UUID

import orjson

from ledger.cursor import Cursor
from ledger.directories import Directory
from ledger.events import GROUP, MEMBER_TYPE_NAMES, USER
from ledger.feed import Selection
from ledger.rendering import rfc3339
from operations.admission import on_directory
from operations.caller import Caller
from operations.open_ledger import OpenLedger
from operations.refusals import ForbiddenError
from projections.history import Person, Point, documents_at, frozen, members_packed, population, resolve, shown
from scim.errors import Unauthorized
from scim.profile import mapped_user

PAGE: Final = 500  # users or groups that one query finds; how many are opened together depends on their size
SENT_BYTES: Final = 64 * 2**10  # collected before they are sent, because each send checks the token again
MEMBERS_PIECE: Final = 500  # memberships that are rendered at once: less than a millisecond


@on_directory("snapshot.read")
async def read(ledger: OpenLedger, caller: Caller, directory: Directory) -> "Snapshot":
    """A snapshot of now. Raises ForbiddenError for a token that is narrowed to event types."""
    if caller.token.types != ("*",):
        raise ForbiddenError("A snapshot shows everything: it needs a token for all event types.")
    async with ledger.connection() as conn:
        point = await resolve(conn, directory, "seq:head", now=ledger.clock())
        cursor = await ledger.feed.cursor_at(conn, Selection(directory=directory), point.seq)
    return Snapshot(ledger, directory, cursor, point, bodies=caller.token.bodies)


class Snapshot:
    """Reads the state intervals at one seq, in short transactions. Concurrent writes do not change the result."""

    def __init__(self, ledger: OpenLedger, directory: Directory, cursor: Cursor, point: Point, *, bodies: bool) -> None:
        self._ledger = ledger
        self._directory = directory
        self._bodies = bodies
        self._cursor = cursor
        self._seq = point.seq
        self._point = point
        self._counts = {"users": 0, "groups": 0, "memberships": 0}

    async def lines(self, check: Callable[[], Awaitable[None]]) -> AsyncIterator[bytes]:
        """A first line with the cursor to read on from, users, groups with their memberships, and a last line with counts.

        `check` runs before each piece is sent. It raises Unauthorized if the token has ended; the last line is missing then.
        """
        waiting, size = list[bytes](), 0
        try:
            async for piece in self._pieces():
                waiting.append(piece)
                size += len(piece)
                if size >= SENT_BYTES:
                    await check()
                    yield b"".join(waiting)
                    waiting, size = [], 0
            await check()
            yield b"".join(waiting)
        except Unauthorized:
            return

    async def _pieces(self) -> AsyncIterator[bytes]:
        yield _json_line({
            "object": "snapshot", "directory": self._directory.slug, "seq": self._seq, "time": rfc3339(self._point.at), **frozen(self._point), "after": self._cursor.encode(),
        })  # fmt: skip
        async for _, piece in self._resources(USER):
            yield piece
        async for group, piece in self._resources(GROUP):
            yield piece
            async for some in self._memberships(group):
                yield some
        yield _json_line({"object": "end", "seq": self._seq, **self._counts})

    async def _resources(self, ot: str) -> AsyncIterator[tuple[UUID, bytes]]:
        """The lines of users, as many at a time as the budget allows; groups one by one, each followed by its memberships."""
        after: UUID | None = None
        while True:
            async with self._ledger.connection() as conn:
                page = await population(conn, self._directory, self._seq, ot=ot, after=after, limit=PAGE)
            if not page:
                return
            lines = await self._lines_of(ot, page)
            self._counts["users" if ot == USER else "groups"] += len(lines)
            after = page[len(lines) - 1].id
            if ot == USER:
                yield after, b"".join(lines)
            else:
                for group, line in zip(page, lines, strict=False):
                    yield group.id, line

    async def _lines_of(self, ot: str, page: Sequence[Person]) -> list[bytes]:
        def write(number: int, document: dict[str, Any] | None, why: str) -> bytes:
            person = page[number]
            if document is not None and ot == USER:
                document = shown(document, active=person.active)
            data: dict[str, Any] = {why: True} if document is None else {"object": document}
            if ot == GROUP:
                return _json_line({"object": "group", "id": str(person.id), "data": data})
            if document is not None:
                data["user"] = mapped_user(self._directory.profile, document)
            return _json_line({"object": "user", "id": str(person.id), "active": person.active, "data": data})

        if not self._bodies:
            return [write(number, None, "withheld") for number in range(len(page))]
        seqs, connection = [person.body_seq for person in page], self._ledger.connection
        return await documents_at(connection, self._ledger.kek, self._directory, seqs, write)

    async def _memberships(self, group: UUID) -> AsyncIterator[bytes]:
        async with self._ledger.connection() as conn:
            ids, digits = await members_packed(conn, self._directory, group, self._seq)
        self._counts["memberships"] += len(digits)
        for start in range(0, len(digits), MEMBERS_PIECE):
            some = digits[start : start + MEMBERS_PIECE]
            yield _membership_lines(str(group), ids[36 * start : 36 * (start + len(some))], some)


def _membership_lines(group: str, ids: str, digits: str) -> bytes:
    """The lines of memberships, formatted as text: a group may have a million, and a document for each would be slow."""
    lines: list[str] = []
    for n, digit in enumerate(digits):
        kind, effective = MEMBER_TYPE_NAMES[int(digit) & 1], "true" if int(digit) & 2 else "false"
        member = ids[36 * n : 36 * n + 36]
        lines.append(
            f'{{"object":"membership","group":{{"id":"{group}"}},"member":{{"type":"{kind}","id":"{member}"}},"effective":{effective}}}\n'
        )
    return "".join(lines).encode()


def _json_line(document: dict[str, Any]) -> bytes:
    return orjson.dumps(document) + b"\n"
