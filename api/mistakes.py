"""Counts mistakes in URLs and tokens, and writes them into the journal of the directory that the requests were meant for.

Whoever sends such a request may be a stranger, so a request costs one count in memory, and no query. Once a second the directories
are looked up, together. A directory gets a journal entry at most once in ten minutes for each mistake and token, with the number
of requests; so strangers cannot fill the journal.
"""

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final, NamedTuple
from uuid import UUID

import psycopg
import structlog

from api.journal import Entry, Journal
from database.arrays import texts, uuids
from database.connections import LOST, Connection, Pool
from database.queries import load_queries
from ledger.directories import SLUG
from ledger.ids import DirectoryNumber
from scim.mistakes import Mistake, meant

SQL: Final = load_queries(__file__)
SEEN_MAX: Final = 1_000  # different mistakes that one look-up takes, about 0.3 KB each
NOTED_MAX: Final = 10_000  # different mistakes that are remembered; further ones wait, or are not counted
LOOK_INTERVAL_S: Final = 1.0
NOTE_INTERVAL_S: Final = 600.0
_log = structlog.get_logger("api.mistakes")


class Seen(NamedTuple):
    """A mistake before it is known whose it is: the slug in the URL, and the id of the claimed token."""

    mistake: Mistake
    slug: str | None
    token: UUID | None


class Note(NamedTuple):
    """A mistake of a directory. `token`: the one of the directory that was claimed."""

    directory: DirectoryNumber
    profile: str
    mistake: Mistake
    token: UUID | None


@dataclass(slots=True)
class Tally:
    """How many requests had the mistake; method, id and time (µs since the epoch) of the newest."""

    count: int
    method: str
    request_id: UUID
    at: int


class Mistakes:
    """Counts in memory; run() writes them to the journal."""

    def __init__(self, pool: Pool, journal: Journal, clock: Callable[[], int]) -> None:
        self._pool, self._journal, self._clock = pool, journal, clock
        self._seen: dict[Seen, Tally] = {}
        self._waiting: dict[Note, Tally] = {}
        self._noted: dict[Note, float] = {}  # when each had its last entry, in seconds of a monotonic clock; oldest first

    def add(self, mistake: Mistake, slug: str, token: UUID | None, method: str, request_id: UUID) -> None:
        """Count a request that was refused for a mistake. Where too many are seen, only those without a token are told apart."""
        place = slug if len(slug) <= 63 and SLUG.fullmatch(slug) else None
        seen = Seen(mistake, place, token)
        if seen not in self._seen and len(self._seen) >= SEEN_MAX:
            seen = Seen(mistake, place, None)
            if seen not in self._seen and len(self._seen) >= 2 * SEEN_MAX:
                return
        if place is not None or token is not None:
            _count(self._seen, seen, Tally(1, method, request_id, self._clock()))

    async def run(self) -> None:
        """Attribute and write every second, until cancelled."""
        while True:
            await asyncio.sleep(LOOK_INTERVAL_S)
            await self.write(asyncio.get_running_loop().time())

    async def write(self, now: float) -> None:
        """Find the directories of what was counted, and add entries to the journal. `now`: seconds of a monotonic clock."""
        if self._seen:
            await self._attribute()
        for note, at in list(self._noted.items()):
            if now - at < NOTE_INTERVAL_S:
                break
            del self._noted[note]
        for note in [note for note in self._waiting if note not in self._noted]:
            if len(self._noted) >= NOTED_MAX:
                break
            self._noted[note] = now
            self._journal.add(_entry(note, self._waiting.pop(note)))

    async def _attribute(self) -> None:
        """Move counts to the directories that they belong to. They wait while the database is away."""
        try:
            async with self._pool.connection() as conn:
                places, owners = await _whose(conn, self._seen)
        except LOST:
            return
        except psycopg.Error:
            _log.exception("mistakes_lost")
            self._seen = {}
            return
        seen, self._seen = self._seen, {}
        for (mistake, slug, token), tally in seen.items():
            placed, owner = places.get(slug), owners.get(token)
            profiles = dict(found for found in (placed, owner) if found is not None)
            for directory, kind in meant(mistake, placed[0] if placed else None, owner[0] if owner else None):
                of_directory = token if owner is not None and owner[0] == directory else None
                note = Note(DirectoryNumber(directory), profiles[directory], kind, of_directory)
                if note in self._waiting or len(self._waiting) < NOTED_MAX:
                    _count(self._waiting, note, tally)


async def _whose(conn: Connection, seen: Iterable[Seen]) -> tuple[dict[Any, tuple[int, str]], dict[Any, tuple[int, str]]]:
    """Number and profile of the directories, by slug and by the id of a token."""
    slugs = texts(sorted({slug for _, slug, _ in seen if slug is not None}))
    tokens = uuids([token for _, _, token in seen if token is not None])
    placed = await (await conn.execute(SQL["directories_by_slug"], (slugs,))).fetchall()
    owned = await (await conn.execute(SQL["directories_by_token"], (tokens,))).fetchall()
    by_slug, by_token = ({key: (number, profile) for key, number, profile in rows} for rows in (placed, owned))
    return by_slug, by_token


def _count(tallies: dict[Any, Tally], key: Any, more: Tally) -> None:
    before = tallies.get(key)
    tallies[key] = more if before is None else Tally(before.count + more.count, more.method, more.request_id, more.at)


def _entry(note: Note, tally: Tally) -> Entry:
    return Entry(
        note.directory, tally.at, tally.method, "/", None, note.mistake.status, None, note.mistake.detail, note.profile, (), 0, 0,
        tally.request_id, note.token, note.mistake, tally.count,
    )  # fmt: skip
