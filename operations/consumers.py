"""Consumers: create, change, acknowledge, seek, read the status (docs/consumers.md)."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypedDict

import orjson

from database.connections import Connection
from delivery import consumers as acts
from delivery.audit import AuditSummary, summary
from delivery.audit import audit as recompute
from delivery.checkpoints import acknowledge as advance
from delivery.checkpoints import place_of
from delivery.consumers import NAME, Allowed, Consumer, check_definition, consumer_named
from delivery.forks import ListedFork, Watch, closed, forks_of, misplaced, open_fork, parted
from delivery.log_positions import PlaceMovedError
from delivery.signing import new_secret
from delivery.status import ConsumerStatus, count_matching, status_of
from delivery.surge_control import held_commits, limits
from delivery.terms import Definition
from delivery.transports.webhook import Message
from delivery.transports.webhook import Webhooks as WebhookTransport
from ledger.commands import RecordFacts
from ledger.cursor import OF_A_DIRECTORY_FEED, InvalidCursorError, decode_cursor, parse_event_id
from ledger.directories import Directory
from ledger.feed import Page, Selection, reached, rfc3339
from ledger.ids import DirectoryNumber, Position
from operations import places
from operations.admin_commands import record
from operations.admission import on_consumer, operation, owned, owns, reached_consumer
from operations.caller import MACHINE, Caller
from operations.expansion import expanded_page, expansion_of
from operations.open_ledger import OpenLedger
from operations.refusals import ConflictError, ForbiddenError, InvalidError, UnmetError, mask_of, unknown_directory
from replay.redeliver import REPLAYS


class Changes(TypedDict, total=False):
    """The fields of a consumer that a caller sets; fields that are left out stay as they are."""

    directories: tuple[str, ...]
    types: tuple[str, ...]
    mode: str
    ordering: str
    batch_max: int
    url: str
    retry_schedule: tuple[int, ...]


class ConsumerAudit(AuditSummary):
    """The audit of a consumer. `gone`: its forks, with events that the log lost after it acknowledged them."""

    gone: list[ListedFork]
    gone_count: int


@dataclass(frozen=True, slots=True)
class Put:
    """The result of `put`. `secret` is set only when a webhook was created."""

    status: ConsumerStatus
    created: bool
    secret: str | None
    warnings: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Webhooks:
    """The addresses that webhooks may reach, and the timeout of a request."""

    allowed: Allowed
    timeout_s: float


@operation("consumers.put")
async def put(
    ledger: OpenLedger,
    caller: Caller,
    name: str,
    changes: Changes,
    start: str | None,
    allowed: Allowed,
    *,
    exists: bool | None = None,
) -> Put:
    """Create a consumer, or change its definition. `exists`: whether it must exist already; None where either is right.

    Raises InvalidError, InvalidFieldsError or ConsumerRefusedError for an invalid definition, ForbiddenError for directories beyond the caller's reach,
    ConflictError if a consumer beyond its reach has the name, UnmetError if `exists` is not met, StateError if the mode differs from that of the existing consumer.
    """
    if not NAME.fullmatch(name):
        raise InvalidError("A consumer's name is 1 to 63 of a-z, 0-9, _, . and -, beginning with a letter or digit.")
    async with ledger.connection() as conn:
        known = await consumer_named(conn, name)
        if known is not None and not await owns(ledger, conn, caller, known):
            raise ConflictError("This name is taken. Choose another one.", "name_taken")
        if exists is not None and exists != (known is not None):
            raise UnmetError(*(_THERE if known is not None else _NOT_THERE))
        asked = replace(known.defined(ledger.kek) if known else Definition(), **changes)
        directories = await ledger.directories.all(conn)
        _refuse_beyond_reach(caller, name, asked)
        mask_of(asked.types)  # raises for a type that does not exist
        _refuse_unknown_directories(asked, [d.slug for d in directories])
        check_definition(asked, [d.slug for d in directories], allowed)
        position = await _start(ledger, conn, caller, asked, start, directories) if known is None else Position(0)
        number = await acts.reserve_id(conn) if known is None else 0
    if known is None:
        return await _created(ledger, caller, number, name, asked, position)
    change = acts.change(known, asked, kek=ledger.kek, random=ledger.entropy)
    if change is not None:
        await record(ledger, caller, change)
    warnings = ("`start` was ignored: the consumer exists. POST …/seek moves it.",) if start is not None else ()
    return Put(await _status(ledger, caller, name), created=False, secret=None, warnings=warnings)


_THERE = "There is a consumer of that name already. Nothing was changed: update it, or choose another name.", "consumer_exists"
_NOT_THERE = "There is no consumer of that name yet. Nothing was changed: create it.", "consumer_missing"


def _refuse_beyond_reach(caller: Caller, name: str, asked: Definition) -> None:
    """Raises ForbiddenError for a consumer that the caller could not see. Checked before any look-up, so hidden and missing look alike."""
    if not caller.token.reaches_all(asked.directories):
        raise ForbiddenError("This token does not reach all of these directories.")
    if not caller.token.moves(name):
        raise ForbiddenError("This token does not reach a consumer of that name.")


def _refuse_unknown_directories(asked: Definition, known: Sequence[str]) -> None:
    """Raises InvalidError. The caller reaches all directories, or no unknown one, so every name may be suggested."""
    for slug in asked.directories:
        if slug != "*" and slug not in known:
            raise unknown_directory(slug, known)


async def _start(
    ledger: OpenLedger, conn: Connection, caller: Caller, asked: Definition, start: str | None, directories: Sequence[Directory]
) -> Position:
    named = [d for d in directories if d.slug in asked.directories]
    some, without = reached(asked.directories, directories)
    return await places.before(ledger, conn, caller, start or "beginning", named, Selection(directories=some, without=without))


async def _created(ledger: OpenLedger, caller: Caller, number: int, name: str, asked: Definition, position: Position) -> Put:
    secret = new_secret(ledger.entropy) if asked.mode == "webhook" else None
    made = acts.creation(number, ledger.new_id(), name, asked, position, kek=ledger.kek, secret=secret, random=ledger.entropy)
    await record(ledger, caller, made)
    return Put(await _status(ledger, caller, name), created=True, secret=secret, warnings=())


async def _status(ledger: OpenLedger, caller: Caller, name: str) -> ConsumerStatus:
    """The status after an act. Raises ConflictError if another request has deleted the consumer meanwhile."""
    async with ledger.connection() as conn:
        found = await consumer_named(conn, name)
        if found is None:
            raise ConflictError("The consumer was deleted by another request meanwhile.", "consumer_deleted")
        directories = await ledger.directories.all(conn)
        return await status_of(conn, ledger.feed, ledger.kek, found, directories, caller.token.reaches_log)


@operation("consumers.list")
async def list_all(ledger: OpenLedger, caller: Caller) -> list[ConsumerStatus]:
    """The status of every consumer that belongs to the caller, by name."""
    async with ledger.connection() as conn:
        directories = await ledger.directories.all(conn)
        mine = await owned(ledger, conn, caller, await acts.consumers(conn))
        reaches = caller.token.reaches_log
        return [await status_of(conn, ledger.feed, ledger.kek, consumer, directories, reaches) for consumer in mine]


@on_consumer("consumers.show")
async def show(ledger: OpenLedger, caller: Caller, consumer: Consumer) -> ConsumerStatus:
    """The status of one consumer."""
    return await _status(ledger, caller, consumer.name)


@on_consumer("consumers.delete")
async def delete(ledger: OpenLedger, caller: Caller, consumer: Consumer) -> None:
    """Delete a consumer."""
    await record(ledger, caller, acts.deletion(consumer))


@on_consumer("consumers.pause")
async def pause(ledger: OpenLedger, caller: Caller, consumer: Consumer) -> ConsumerStatus:
    """Stop deliveries and pulls; the place is kept."""
    act = acts.paused(consumer)
    if act is not None:
        await record(ledger, caller, act)
    return await _status(ledger, caller, consumer.name)


@on_consumer("consumers.resume")
async def resume(ledger: OpenLedger, caller: Caller, consumer: Consumer) -> ConsumerStatus:
    """Continue from the place where it was paused or disabled."""
    act = acts.resumed(consumer)
    if act is not None:
        await record(ledger, caller, act)
    return await _status(ledger, caller, consumer.name)


@on_consumer("consumers.rotate_secret")
async def rotate_secret(ledger: OpenLedger, caller: Caller, consumer: Consumer, overlap_s: int) -> str:
    """Make a new signing secret, shown once. The old one also signs until the overlap ends."""
    secret = new_secret(ledger.entropy)
    await record(ledger, caller, acts.secret_rotated(consumer, secret, overlap_s, kek=ledger.kek, random=ledger.entropy))
    return secret


@dataclass(frozen=True, slots=True)
class Ping:
    """The receiver's answer to a test message, cut to what is shown. `seconds`: the time to the answer."""

    ok: bool
    status: int | None
    error: str | None
    answer: str | None
    seconds: float


@on_consumer("consumers.ping")
async def ping(ledger: OpenLedger, caller: Caller, consumer: Consumer, webhooks: Webhooks) -> Ping:
    """Send a signed message of type `ping`, outside of any order. Raises ConflictError if the consumer is no webhook."""
    url = consumer.url(ledger.kek)
    if consumer.definition.mode != "webhook" or url is None:
        raise ConflictError("Only webhooks can be pinged; this one pulls: GET …/events is its way to try.", "not_a_webhook")
    transport = WebhookTransport(webhooks.allowed, webhooks.timeout_s, lambda: ledger.clock() / 1e6)
    started = ledger.clock()
    body = orjson.dumps({"type": "ping", "timestamp": rfc3339(started), "data": {"consumer": consumer.name}})
    try:
        result = await transport.post(url, consumer.secrets(ledger.kek), Message(f"ping_{caller.request}", body))
    finally:
        await transport.close()
    seconds = round((ledger.clock() - started) / 1e6, 3)
    return Ping(result.ok, result.status or None, result.error or None, result.answer or None, seconds)


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """Everything up to `position` is acknowledged. `changed`: the place moved."""

    position: int
    changed: bool


@on_consumer("consumers.acknowledge")
async def acknowledge(ledger: OpenLedger, caller: Caller, consumer: Consumer, through: str) -> Acknowledged:
    """Acknowledge everything up to a cursor or an event. Idempotent; a lower place changes nothing.

    Raises PlaceMovedError for a cursor of a page that was read before the consumer was moved or its filter changed. An event id or a
    cursor of the feed belongs to no page of the consumer, and is accepted as the caller's own statement.
    """
    check_pulling(consumer)
    cursor = None if parse_event_id(through) is not None else decode_cursor(through)
    if cursor is not None and cursor.directory:
        raise InvalidCursorError(OF_A_DIRECTORY_FEED)
    if await _put_into_log(ledger, consumer):
        consumer = await reached_consumer(ledger, caller, consumer.name)
    async with ledger.connection() as conn:
        directories = await ledger.directories.all(conn)
        position = await places.before(ledger, conn, caller, through, [], consumer.selection(directories))
        if cursor is not None and cursor.generation:
            await _check_reading(ledger, conn, consumer, cursor.generation)
            changed = await advance(conn, consumer, position, consumer.reach(directories))
        else:
            changed = await _claimed(conn, consumer, position, consumer.reach(directories))
        return Acknowledged((await place_of(conn, consumer)).low, changed)


async def _put_into_log(ledger: OpenLedger, consumer: Consumer) -> bool:
    """Move a consumer whose place is no longer in the log back to the last place that the old and the new log have in common.

    Recorded as an act of `sys`, because any request may find it. Without it events of the new log would be skipped.
    """
    async with ledger.connection() as conn:
        if not await misplaced(conn, consumer.id):
            return False
        await watch_of(ledger).tell(conn, consumer)
    return True


def watch_of(ledger: OpenLedger) -> Watch:
    """The watch of a serving process for a lost end of the log. Its acts are recorded as acts of `sys`."""

    async def act(facts: RecordFacts) -> None:
        await record(ledger, Caller(MACHINE, ledger.new_id()), facts)

    return Watch(ledger.trails, ledger.directories, ledger.kek, act, REPLAYS)


async def _check_reading(ledger: OpenLedger, conn: Connection, consumer: Consumer, generation: bytes) -> None:
    """Raises PlaceMovedError if the page belongs to an earlier reading of the consumer."""
    place = await place_of(conn, consumer)
    if generation != await ledger.feed.mark_of(conn, place.reading(consumer.uuid)):
        raise PlaceMovedError(place.through)


async def _claimed(conn: Connection, consumer: Consumer, position: Position, reach: Sequence[DirectoryNumber]) -> bool:
    """Store an acknowledgement without a page. If a seek happens at the same time, the seek wins."""
    try:
        return await advance(conn, consumer, position, reach)
    except PlaceMovedError:
        return False


@on_consumer("consumers.pull")
async def pull(ledger: OpenLedger, caller: Caller, consumer: Consumer, limit: int, expand: str | None = None) -> Page:
    """The next events after the acknowledged place, which stays. Raises ConflictError."""
    expansion = expansion_of(caller, expand)
    check_pulling(consumer)
    await _put_into_log(ledger, consumer)
    async with ledger.connection() as conn:
        place = await place_of(conn, consumer)
    # the consumer was changed since it was looked up: page and cursor must belong to the same filter
    while place.epoch != consumer.epoch:
        consumer = await reached_consumer(ledger, caller, consumer.name)
        async with ledger.connection() as conn:
            place = await place_of(conn, consumer)
    async with ledger.connection() as conn:
        selection = consumer.selection(await ledger.directories.all(conn), bodies=caller.token.bodies)
        generation = await ledger.feed.mark_of(conn, place.reading(consumer.uuid))
        cursor = replace(await ledger.feed.cursor_at(conn, selection, place.through), generation=generation)
    page = await ledger.feed.page(ledger.connection, selection, cursor, limit)
    page = await expanded_page(ledger, expansion, selection, page)
    async with ledger.connection() as conn:
        await _mark_held(conn, page)
        await _note_shown(ledger, conn, consumer, page)
    return page


async def _note_shown(ledger: OpenLedger, conn: Connection, consumer: Consumer, page: Page) -> None:
    """Report a lost end before noting this page: the page's positions would hide the old events that were shown there."""
    trail = ledger.trails[consumer.uuid]
    if await parted(conn, [trail]):
        await watch_of(ledger).tell(conn, consumer)
        if await parted(conn, [trail]):
            return  # another process reported at the same moment; the next read reports this one's events
    trail.note_shown(page.events)


async def _mark_held(conn: Connection, page: Page) -> None:
    """Mark events that the surge brake would hold with `"held": true`. The reader decides what to do."""
    held = await held_commits(conn, await limits(conn), page.events)
    for event in page.events:
        if (event.directory, event.commit) in held.commits:
            event.held = True


def check_pulling(consumer: Consumer) -> None:
    """Raises ConflictError for a consumer whose events are pushed, or that is paused."""
    if consumer.definition.mode != "pull":
        raise ConflictError("Its events are pushed. GET /v1/events reads the feed beside it.", "not_a_pull_consumer")
    if consumer.state != "active":
        raise ConflictError("The consumer is paused. An operator resumes it.", "consumer_paused")


@dataclass(frozen=True, slots=True)
class Moved:
    """A seek, done or only planned: from, to, and how many events are delivered again (back) or skipped (forward)."""

    back: bool
    from_position: int
    to_position: int
    count: int


@on_consumer("consumers.seek")
async def seek(ledger: OpenLedger, caller: Caller, consumer: Consumer, to: str, reason: str, *, dry_run: bool) -> Moved:
    """Move a consumer back or forward; `dry_run` only counts the events."""
    async with ledger.connection() as conn:
        directories = await ledger.directories.all(conn)
        named = [d for d in directories if d.slug in consumer.definition.directories]
        position = await places.before(ledger, conn, caller, to, named, consumer.selection(directories))
        place = await place_of(conn, consumer)
        first, last = sorted((position, place.through))
        count, _ = await count_matching(conn, consumer, consumer.reach(directories), (first, last))
    if not dry_run:
        await record(ledger, caller, acts.sought(consumer, position, reason, kek=ledger.kek, random=ledger.entropy))
    return Moved(position < place.through, place.through, position, count)


@on_consumer("consumers.close_fork")
async def close_fork(ledger: OpenLedger, caller: Caller, consumer: Consumer, reason: str) -> ConsumerStatus:
    """Close a fork: the operator has repaired the receiver. Raises ConflictError if no fork is open."""
    async with ledger.connection() as conn:
        known = await open_fork(conn, consumer.id, caller.token.reaches_log)
    if known is None:
        raise ConflictError(
            "No event that this consumer was sent is missing in the log, or the fork is closed already.", "not_forked"
        )
    await record(ledger, caller, closed(consumer, reason, kek=ledger.kek, random=ledger.entropy))
    return await _status(ledger, caller, consumer.name)


@on_consumer("consumers.audit")
async def audit(ledger: OpenLedger, caller: Caller, consumer: Consumer, start: str | None, to: str | None) -> ConsumerAudit:
    """Compare what the consumer acknowledged with the log, or with the part of it from `start` to `to`."""
    async with ledger.connection() as conn:
        directories = await ledger.directories.all(conn)
        named = [d for d in directories if d.slug in consumer.definition.directories]
        head = await ledger.feed.head(conn, Selection())
        reads = consumer.selection(directories)
        first = await places.before(ledger, conn, caller, start, named, reads) if start else 0
        last = await places.through(ledger, conn, caller, to, named, reads) if to else head
        found = await recompute(conn, ledger.kek, consumer, directories, after=first, through=last)
        every = (await forks_of(conn, [consumer.id])).get(consumer.id, [])
        gone = [seen for known in every if (seen := known.within(caller.token.reaches_log)) is not None]
        return {**summary(found), "gone": [known.listed() for known in gone], "gone_count": sum(known.count for known in gone)}
