"""The surge brake at work: limits of directories, which events are held, telling and letting go (the policy is brake.py's)."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any, Final
from uuid import UUID

from database.connections import Connection
from database.queries import load_queries
from delivery.brake import HOUR_US, REVOKING, Action, Limit, Loss, excess
from ledger.commands import RecordFacts
from ledger.directories import Directory
from ledger.events import (
    DIRECTORY_SURGE_DETECTED,
    DIRECTORY_SURGE_LIMITED,
    DIRECTORY_SURGE_RELEASED,
    OPERATOR,
    SURGE,
    Body,
    Draft,
    EventType,
)
from ledger.rendering import Event

SQL: Final = load_queries(__file__)
PER_HOUR_MAX: Final = 1_000_000
LATELY_PAGE: Final = 20_000  # events that a count of the last hour looks at together
EVER: Final = 2**62
Commit = tuple[int, int]  # directory, first seq


async def limits(conn: Connection) -> dict[int, Limit]:
    """What operators said, by directory; the others have `Limit()`."""
    rows = await (await conn.execute(SQL["surge_limits_all"])).fetchall()
    return {row[0]: Limit(*row[1:]) for row in rows}


async def held_commits(conn: Connection, known: Mapping[int, Limit], events: Iterable[Event]) -> set[Commit]:
    """The commits of these events that the brake holds. Costs nothing where no directory asked for it."""
    asked: defaultdict[int, list[int]] = defaultdict(list)
    for event in events:
        if event.types & REVOKING and known.get(event.directory, Limit()).action == "hold":
            asked[event.directory].append(event.at)
    found: set[Commit] = set()
    for directory, times in asked.items():
        losses = await _losses(conn, directory, min(times) - HOUR_US, max(times))
        found |= {(directory, seq) for seq in excess(losses, known[directory])}
    return found


async def _losses(conn: Connection, directory: int, after: int, until: int) -> list[Loss]:
    return [Loss(seq, made, users or ()) for seq, _, users, _, made in await _page(conn, directory, after, (until, EVER), 2**31)]


async def _page(
    conn: Connection, directory: int, after: int, before: tuple[int, int], limit: int
) -> list[tuple[int, int, list[UUID] | None, int, int]]:
    """First seq, time, users, lowest seq looked at, and when it was made, of commits; `before` is where the page before ended: time and seq."""
    params = (directory, after, before[0], limit, before[1])
    return await (await conn.cursor(binary=True).execute(SQL["losses_between"], params)).fetchall()


async def surging(conn: Connection, known: Mapping[int, Limit], *, quiet_s: int) -> list[tuple[int, int, int]]:
    """(directory, users who lost access in the last hour, newest seq) where that is more than the limit and nobody was told for `quiet_s`."""
    rows = await (await conn.execute(SQL["surge_alarmed_lately"], (quiet_s,))).fetchall()
    told = {directory for directory, seq in rows if seq is None}
    before = {(directory, seq) for directory, seq in rows if seq is not None}
    untold = [row for row in await _lately(conn) if row[0] not in told and row[:2] not in before]
    counts = [(directory, await _users(conn, directory, since, known), newest) for directory, newest, since in untold]
    return [found for found in counts if found[1] > known.get(found[0], Limit()).per_hour]


async def lately(conn: Connection, known: Mapping[int, Limit]) -> dict[int, int]:
    """Users of each directory who lost access in the last hour; where that is more than the limit there may be more of them."""
    return {directory: await _users(conn, directory, since, known) for directory, _, since in await _lately(conn)}


async def lately_in(conn: Connection, directory: Directory, limit: Limit) -> int:
    """Users of one directory who lost access in the last hour; where that is more than the limit there may be more of them."""
    row = await (await conn.execute(SQL["clock"])).fetchone()
    assert row is not None
    return 0 if directory.is_closed else await _users(conn, directory.id, row[0] - HOUR_US, {directory.id: limit})


async def _lately(conn: Connection) -> list[tuple[int, int, int]]:
    return await (await conn.execute(SQL["losses_lately"], (HOUR_US,))).fetchall()


async def _users(conn: Connection, directory: int, since: int, known: Mapping[int, Limit]) -> int:
    """How many users lost access after an instant, in µs: all, or more than the limit. One leaver of many groups is many events."""
    per_hour = known.get(directory, Limit()).per_hour
    users, before = set[UUID](), (EVER, EVER)
    while len(users) <= per_hour:
        page = await _page(conn, directory, since, before, LATELY_PAGE)
        if not page:
            break
        users.update(user for _, _, lost, _, made in page if made > since for user in lost or ())
        before = min((at, seq) for _, at, _, seq, _ in page)
    return len(users)


def detected(surge: UUID, directory: Directory, count: int, seq: int, limit: Limit) -> RecordFacts:
    """The act of telling that a directory takes access from more users than is ordinary."""
    facts = {
        "directory": directory.slug,
        "revocations_last_hour": count,
        "per_hour": limit.per_hour,
        "action": limit.action,
        "seq": seq,
    }
    return _act(DIRECTORY_SURGE_DETECTED, surge, facts, (SQL["insert_surge_alarm"], (directory.id, seq)))


def limited(surge: UUID, directory: Directory, per_hour: int, action: Action) -> RecordFacts:
    """The act of saying what is ordinary in a directory, and what to do beyond."""
    facts = {"directory": directory.slug, "per_hour": per_hour, "action": action}
    return _act(DIRECTORY_SURGE_LIMITED, surge, facts, (SQL["set_surge_limit"], (directory.id, per_hour, action)))


def released(surge: UUID, directory: Directory, seq: int, limit: Limit, reason: str) -> RecordFacts:
    """The act of letting go what is held up to a seq."""
    facts = {"directory": directory.slug, "through_seq": seq, "reason": reason}
    row = (directory.id, seq, limit.per_hour, limit.action)
    return _act(DIRECTORY_SURGE_RELEASED, surge, facts, (SQL["release_surge"], row))


def _act(kind: EventType, surge: UUID, facts: dict[str, Any], statement: tuple[Any, ...]) -> RecordFacts:
    # A subject of its own: the directory's stream belongs to the directory's log.
    draft = Draft(kind, surge, SURGE, cause=OPERATOR, body=Body({"id": str(surge), **facts}, [], facts["directory"]))
    return RecordFacts((draft,), (statement, (SQL["wake_consumers"], ())))
