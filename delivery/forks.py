"""A lost end of the log, as consumers see it (docs/operations.md, "A lost end of the log"): who was sent what is gone, and from where deliveries go on.

A log loses its end when a backup is restored or a standby promoted that lagged. What a consumer's place says is restored with it; what
this process sent is known to its memory alone. Both are compared with the log at every look.
"""

from collections import defaultdict, deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from struct import Struct
from typing import Final, TypedDict
from uuid import UUID

import orjson
import psycopg
import structlog

from database.arrays import int4s, int8s
from database.connections import Connection
from database.queries import load_queries
from delivery.checkpoints import place_of
from delivery.consumers import Consumer, carry_open, consumers, forget_open_after, lock, touch, wake
from delivery.log_positions import EVERYTHING, at_instant, seqs_at
from delivery.replays import Replays
from delivery.reports import Place
from ledger.clocks import microseconds
from ledger.commands import RecordFacts, Statement
from ledger.cursor import ID_MARK_SIZE, START, Anchor, EventId, parse_event_id
from ledger.directories import Directories, Directory
from ledger.event_data import Count, EventIdText, Time
from ledger.events import CONSUMER, CONSUMER_FORK_CLOSED, CONSUMER_FORKED, OPERATOR, Body, Draft
from ledger.ids import Position, Seq, Slug
from ledger.refused import OvertakenError, RefusedError, StateError
from ledger.rendering import Event, rfc3339
from ledger.sealing import Kek, seal_note
from scim.errors import InvalidValue

SQL: Final = load_queries(__file__)
SENT_KEPT: Final = 50_000  # deliveries of a consumer that a process remembers: 4 MB at most
READ_KEPT: Final = 1_000  # places that it read to
GONE_SHOWN: Final = 1_000  # ids; the others are counted
STANDING_LOOKED_MAX: Final = 10_000  # checkpoints that are looked through for the last one that the log still bears out
LOG_FORKED: Final = "log_forked"  # why a run failed
_PACKED: Final = Struct("!qiq4s")  # position, number of the slug, seq, start of the leaf hash
_CHUNK: Final = 5_000
_log = structlog.get_logger("delivery.forks")


@dataclass(eq=False, slots=True)
class Trail:
    """What one process sent to a consumer, and the places it read to: enough to tell which of these events are gone from the log."""

    sent: deque[bytes] = field(default_factory=lambda: deque[bytes](maxlen=SENT_KEPT))
    read: deque[Anchor] = field(default_factory=lambda: deque[Anchor](maxlen=READ_KEPT))
    highest: Anchor = START  # of what was sent; the start of its leaf hash only
    _slugs: list[Slug] = field(default_factory=list[Slug])

    def note_sent(self, events: Iterable[tuple[int, EventId]]) -> None:
        """Note positions and ids of events that may have reached the receiver."""
        highest, mark = self.highest.position, self.highest.leaf_hash
        for position, (slug, seq, start) in events:
            self.sent.append(_PACKED.pack(position, self._number(slug), seq, start))
            if position >= highest:
                highest, mark = position, start
        self.highest = Anchor(Position(highest), mark)

    def note_shown(self, events: Sequence[Event]) -> None:
        """Note a page of events that a consumer pulls; events that it was shown before are known already."""
        for event in events:
            if event.position > self.highest.position:
                mark = event.id.mark
                self.sent.append(_PACKED.pack(event.position, self._number(event.slug), event.seq, mark))
                self.highest = Anchor(event.position, mark)

    def _number(self, slug: Slug) -> int:
        if slug not in self._slugs:
            self._slugs.append(slug)
        return self._slugs.index(slug)

    def note_read(self, place: Anchor) -> None:
        """Reading came to this place."""
        if not self.read or self.read[-1] != place:
            self.read.append(place)

    def deliveries(self) -> dict[int, EventId]:
        """What was sent, by position."""
        found: dict[int, EventId] = {}
        for packed in self.sent:
            position, slug, seq, mark = _PACKED.unpack(packed)
            found[position] = EventId(self._slugs[slug], seq, mark)
        return found

    def forget(self, gone: Sequence[int], places: Sequence[Anchor]) -> None:
        """Forget everything: what is gone was told, and what follows belongs to the log as it is now."""
        lost = set(gone)
        kept = [packed for packed in self.sent if _PACKED.unpack(packed)[0] not in lost]
        self.sent.clear()
        self.sent.extend(kept)
        self.read.clear()
        self.read.extend(places)
        tops = [_PACKED.unpack(packed) for packed in kept]
        top = max(tops, key=lambda entry: entry[0], default=None)
        self.highest = Anchor(top[0], top[3]) if top is not None else START


@dataclass(frozen=True, slots=True)
class Fork:
    """What of a consumer's is gone. Both logs are known to be the same up to `common_position`; `common`: the same as a seq, by slug."""

    common_position: int
    common: dict[Slug, Seq]
    gone: tuple[str, ...]
    count: int
    places_lost: int = 0  # acknowledged positions, where nobody knows which events stood there
    first_gone: int | None = None  # position of the first event that is gone, where it is known


async def parted(conn: Connection, trails: Sequence[Trail]) -> list[Trail]:
    """Give the consumers whose newest delivery is an event that is no longer in the log, by one query for all."""
    sent = [(trail, trail.highest) for trail in trails if trail.sent]  # as they are now: deliveries go on meanwhile
    if not sent:
        return []
    leaves = await _leaves(conn, [highest.position for _, highest in sent])
    return [trail for trail, highest in sent if leaves.get(highest.position, b"")[:ID_MARK_SIZE] != highest.leaf_hash]


async def misplaced(conn: Connection, consumer: int | None = None) -> dict[int, int]:
    """Consumers whose stored place is not in this log (of one, or of all), with that place."""
    return dict(await (await conn.cursor(binary=True).execute(SQL["misplaced"], (consumer,))).fetchall())


async def compared(conn: Connection, trail: Trail) -> tuple[dict[int, EventId], int, list[Anchor]]:
    """Give what was sent and is gone, the last position at which the log is still the one that was read, and the places that still stand."""
    sent = trail.deliveries()
    leaves = await _leaves(conn, sorted({*sent, *(place.position for place in trail.read)}))
    gone = {p: event for p, event in sorted(sent.items()) if leaves.get(p, b"")[:ID_MARK_SIZE] != event.mark}
    standing = [place for place in trail.read if leaves.get(place.position) == place.leaf_hash]
    common = max((*(p for p in sent if p not in gone), *(place.position for place in standing)), default=0)
    return gone, common, standing


async def _leaves(conn: Connection, positions: Sequence[int]) -> dict[int, bytes]:
    found: dict[int, bytes] = {}
    for start in range(0, len(positions), _CHUNK):
        params = (int8s(positions[start : start + _CHUNK]),)
        found |= dict(await (await conn.cursor(binary=True).execute(SQL["leaves_at"], params)).fetchall())
    return found


async def last_common(conn: Connection, consumer: Consumer, place: Place, known: int = 0) -> int:
    """Where a misplaced consumer goes on: the last place that both logs are known to have.

    By its own checkpoints, and by what this process knows (`known`). Where neither helps, by time: what the logs have in common was
    committed before the place was stored, what the log went on with after that.
    """
    params = (consumer.id, STANDING_LOOKED_MAX)
    row = await (await conn.execute(SQL["last_standing"], params)).fetchone()
    assert row is not None
    found = max(row[0] or 0, known)
    if not found:
        stored = microseconds(place.at)
        found, _ = await at_instant(conn, stored, EVERYTHING)  # of all: one whose clock was ahead only brings more again
    return min(found, place.through)


async def fork_of(
    conn: Connection, consumer: Consumer, directories: Sequence[Directory], gone: dict[int, EventId], common: int, lost: int = 0
) -> Fork:
    """The same in the words of the status. `lost`: how many positions were acknowledged beyond, where nobody knows which events stood there."""
    ids = [str(event) for event in gone.values()]
    slugs = {event.slug for event in gone.values()} or {d.slug for d in directories if d.id in consumer.reach(directories)}
    seqs = await seqs_at(conn, common)
    ends = {d.slug: seqs.get(d.id, Seq(0)) for d in directories if d.slug in slugs}
    shown = {slug: ends.get(slug, Seq(0)) for slug in sorted(slugs)}
    return Fork(common, shown, tuple(ids[:GONE_SHOWN]), len(ids), lost, min(gone, default=None))


# -- acts -------------------------------------------------------------------


def forked(consumer: Consumer, fork: Fork) -> RecordFacts:
    """The act of telling that a consumer was sent what is gone. Its stored place is in the log, and stays."""
    return _forked(consumer, fork, touch(consumer.id))


def moved_back(consumer: Consumer, fork: Fork) -> RecordFacts:
    """The same of one whose stored place is gone too: it goes on at what both logs have, in an epoch of its own."""
    d, common = consumer.definition, fork.common_position
    return _forked(
        consumer, fork,
        carry_open(consumer.id, common),
        forget_open_after(consumer.id, common),
        (SQL["forget_skips_after"], (consumer.id, common)),
        (SQL["forget_replayed_after"], (consumer.id, common)),
        (SQL["cut_epochs"], (consumer.id, common)),
        (SQL["begin_epoch_after_fork"], (consumer.id, common, list(d.directories), list(d.types), consumer.epoch)),
    )  # fmt: skip


def _forked(consumer: Consumer, fork: Fork, *statements: Statement) -> RecordFacts:
    common = orjson.dumps(fork.common).decode()
    add = (
        SQL["add_fork"],
        (consumer.id, fork.common_position, common, list(fork.gone), fork.count, fork.places_lost, fork.first_gone),
    )
    facts = {
        "id": str(consumer.uuid), "name": consumer.name, "common_position": fork.common_position, "common": fork.common,
        "gone_count": max(fork.count, fork.places_lost), "gone": list(fork.gone),
    }  # fmt: skip
    draft = Draft(CONSUMER_FORKED, consumer.uuid, CONSUMER, cause=OPERATOR, body=Body(facts, [], consumer.name))
    return RecordFacts((draft,), (lock(consumer.id), *statements, add, wake()))


def closed(consumer: Consumer, reason: str, *, kek: Kek, random: Callable[[int], bytes]) -> RecordFacts:
    """The act of closing a fork: an operator put right what the receiver had done with the events that are gone."""
    sealed = seal_note(kek, reason, kind="fork", owner=consumer.uuid, random=random)
    facts = {"id": str(consumer.uuid), "name": consumer.name, "reason": reason}
    draft = Draft(CONSUMER_FORK_CLOSED, consumer.uuid, CONSUMER, cause=OPERATOR, body=Body(facts, [], consumer.name))
    close = (SQL["close_fork"], (consumer.id, sealed))
    return RecordFacts((draft,), (close,), stands=(SQL["fork_is_open"], (consumer.id,)))


# -- reading ----------------------------------------------------------------


class ShownFork(TypedDict):
    """A consumer that knows events which the log lost. `common`: the last seq of each directory that both logs have; `gone`: lost events."""

    since: Time
    common_seq: Seq | None
    common: dict[Slug, Seq]
    common_position: Count
    gone: list[EventIdText]
    gone_count: Count


class ListedFork(ShownFork):
    """`closed_at`: since when an operator is done with it."""

    closed_at: Time | None


@dataclass(frozen=True, slots=True)
class Known:
    """A fork as it is on record. `since` and `closed_at` in µs."""

    since: int
    common_position: int
    common: dict[Slug, Seq]
    gone: tuple[str, ...]
    count: int
    closed_at: int | None

    def within(self, reaches: Callable[[str], bool]) -> "Known | None":
        """The part of the fork that a caller may see who reaches these directories; None if all events known to be gone are of others."""
        gone = tuple(event for event in self.gone if (parsed := parse_event_id(event)) is not None and reaches(parsed.slug))
        common = {slug: seq for slug, seq in self.common.items() if reaches(slug)}
        if gone == self.gone and common == self.common:
            return self
        return replace(self, gone=gone, common=common, count=len(gone)) if gone else None

    def shown(self) -> ShownFork:
        """As the status has it. `common_seq` is of the directory of the first event that is gone, `common` of each."""
        first = parse_event_id(self.gone[0]) if self.gone else None
        slug = first.slug if first is not None else next(iter(self.common), None)
        return {
            "since": rfc3339(self.since), "common_seq": self.common.get(slug) if slug is not None else None, "common": self.common,
            "common_position": self.common_position, "gone": list(self.gone), "gone_count": self.count,
        }  # fmt: skip

    def listed(self) -> ListedFork:
        """As an audit has it: the same, and since when an operator is done with it."""
        return {**self.shown(), "closed_at": None if self.closed_at is None else rfc3339(self.closed_at)}


async def forks_of(conn: Connection, consumers: Sequence[int]) -> dict[int, list[Known]]:
    """The forks of consumers, the newest last; closed ones too."""
    rows = await (await conn.cursor(binary=True).execute(SQL["forks_of"], (int4s(consumers),))).fetchall()
    found: dict[int, list[Known]] = {}
    for number, since, position, common, gone, count, ended in rows:
        known = Known(
            microseconds(since),
            position,
            orjson.loads(common),
            tuple(gone),
            count,
            None if ended is None else microseconds(ended),
        )
        found.setdefault(number, []).append(known)
    return found


async def open_fork(conn: Connection, consumer: int, reaches: Callable[[str], bool]) -> Known | None:
    """The one that no operator has closed yet, as far as whoever asks reaches it; or None."""
    known = next((known for known in (await forks_of(conn, [consumer])).get(consumer, []) if known.closed_at is None), None)
    return None if known is None else known.within(reaches)


def everywhere(_slug: str) -> bool:
    """The reach of whoever sees all directories."""
    return True


# -- looking ----------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Watch:
    """Compares with the log what one process sent, and where consumers are: its end may be gone since the last look."""

    trails: defaultdict[UUID, Trail]  # by consumer
    directories: Directories
    kek: Kek
    act: Callable[[RecordFacts], Awaitable[None]]
    replays: Replays

    async def look(self, conn: Connection, *, places: bool, lose: Callable[[int], None]) -> None:
        """Tell what is gone. `places`: look at the stored places too. `lose` is called with each consumer whose deliveries are to stop."""
        away = await misplaced(conn) if places else {}
        apart = await parted(conn, list(self.trails.values()))
        if not away and not apart:
            return
        every = await consumers(conn)
        for consumer in every:
            if consumer.id in away or any(trail is self.trails.get(consumer.uuid) for trail in apart):
                lose(consumer.id)
                await self.tell(conn, consumer)
        for uuid in self.trails.keys() - {consumer.uuid for consumer in every}:  # deleted, or made after what was restored
            del self.trails[uuid]

    async def tell(self, conn: Connection, consumer: Consumer) -> None:
        """Put on record what of one consumer's is gone, end its runs, and move it back where its place is gone too."""
        trail = self.trails[consumer.uuid]
        directories = await self.directories.all(conn)
        gone, common, standing = await compared(conn, trail)
        moves = bool(await misplaced(conn, consumer.id))
        if not gone and not moves:
            return  # another process put it right meanwhile
        try:
            for run in await self.replays.unended(conn, self.kek, consumer.id):
                await self.act(self.replays.moved(run, "failed", LOG_FORKED))
            if moves:
                await self.act(await _moved_back(conn, consumer, directories, gone, common))
            else:
                await self.act(forked(consumer, await fork_of(conn, consumer, directories, gone, common)))
        except (RefusedError, StateError, OvertakenError, InvalidValue, psycopg.IntegrityError):
            # Another process did it in the same moment; what is left is told at the next look.
            _log.info("fork_told_elsewhere", consumer=consumer.name)
            return
        trail.forget(list(gone), standing)
        _log.warning("consumer_forked", consumer=consumer.name, gone=len(gone), common_position=common)


async def _moved_back(
    conn: Connection, consumer: Consumer, directories: Sequence[Directory], gone: dict[int, EventId], common: int
) -> RecordFacts:
    place = await place_of(conn, consumer)
    common = await last_common(conn, consumer, place, common)
    lost = place.through - common - sum(position > common for position in place.open)
    return moved_back(consumer, await fork_of(conn, consumer, directories, gone, common, lost))
