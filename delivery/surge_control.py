"""The surge brake: reads the limits of directories, tells which events are held, alarms and lets go. The policy is in surge_policy.py."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from uuid import UUID

import structlog
from psycopg.errors import QueryCanceled

from database.connections import Connection
from database.queries import load_queries
from delivery.consumers import wake
from delivery.log_positions import by_index_alone, database_time
from delivery.losses import EVER, UncountedError, hours_of, users_between
from delivery.surge_policy import HOUR_US, REVOKING, Action, Limit, excess
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
from ledger.ids import DirectoryNumber, Seq
from ledger.rendering import Event

SQL: Final = load_queries(__file__)
PER_HOUR_MAX: Final = 1_000_000
COUNTED_MAX: Final = 10_000  # users: an alarm says how many lost access, up to here or the limit
_log = structlog.get_logger("delivery.surge_control")


@dataclass(slots=True)
class Held:
    """The commits that the brake holds, as (directory, first seq). Not `judged`: some are held because they could not be counted in time."""

    commits: set[tuple[DirectoryNumber, Seq]] = field(default_factory=set[tuple[DirectoryNumber, Seq]])
    judged: bool = True


async def limits(conn: Connection) -> dict[int, Limit]:
    """Read the limits that operators set, by directory; every other directory has `Limit()`."""
    rows = await (await conn.execute(SQL["surge_limits_all"])).fetchall()
    return {directory: Limit(*limit) for directory, *limit in rows}


async def held_commits(conn: Connection, known: Mapping[int, Limit], events: Iterable[Event]) -> Held:
    """The commits of these events that the brake holds. Costs nothing where no directory asked for it.

    Where it takes too long to count, all of a directory's are held, and it is said that they were not judged: to be asked again.
    What an operator has let go, or of a closed directory, is not asked about: it goes, whether it can be counted or not.
    """
    asked: defaultdict[DirectoryNumber, set[tuple[int, Seq]]] = defaultdict(set)
    for event in events:
        limit = known.get(event.directory, Limit())
        if event.types & REVOKING and limit.action == "hold" and not limit.closed and event.commit > limit.released:
            asked[event.directory].add((event.at, event.commit))
    found = Held()
    for directory, commits in asked.items():
        limit = known[directory]
        try:
            async with by_index_alone(conn):
                hours = await hours_of(conn, directory, tuple(commits), limit)
        except (QueryCanceled, UncountedError):
            _log.warning("surge_not_judged", directory=directory, commits=len(commits))
            found.judged = False
            over = {seq for _, seq in commits}
        else:
            over = {seq for losses in hours for seq in excess(losses, limit)}
        found.commits |= {(directory, seq) for _, seq in commits if seq in over}
    return found


async def surging(conn: Connection, known: Mapping[int, Limit], *, quiet_s: int) -> list[tuple[DirectoryNumber, int, Seq]]:
    """(directory, users who lost access in the last hour, newest seq) where that is more than the limit and nobody was told for `quiet_s`."""
    rows = await (await conn.execute(SQL["surge_alarmed_lately"], (quiet_s,))).fetchall()
    told = {directory for directory, seq in rows if seq is None}
    before = {(directory, seq) for directory, seq in rows if seq is not None}
    untold = [(d, newest, since) for d, newest, since in await _lately(conn) if d not in told and (d, newest) not in before]
    counts = [(directory, await _users(conn, directory, since, known), newest) for directory, newest, since in untold]
    return [(directory, users, newest) for directory, users, newest in counts if users > known.get(directory, Limit()).per_hour]


async def lately(conn: Connection, known: Mapping[int, Limit]) -> dict[DirectoryNumber, int]:
    """Users of each directory who lost access in the last hour; of more than the limit and COUNTED_MAX there may be more."""
    return {directory: await _users(conn, directory, since, known) for directory, _, since in await _lately(conn)}


async def lately_in(conn: Connection, directory: Directory, limit: Limit) -> int:
    """Users of one directory who lost access in the last hour, likewise."""
    since = await database_time(conn) - HOUR_US
    return 0 if directory.is_closed else await _users(conn, directory.id, since, {directory.id: limit})


async def _lately(conn: Connection) -> list[tuple[DirectoryNumber, Seq, int]]:
    return await (await conn.execute(SQL["losses_lately"], (HOUR_US,))).fetchall()


async def _users(conn: Connection, directory: DirectoryNumber, since: int, known: Mapping[int, Limit]) -> int:
    """Count the users of a directory who lost access after an instant. If that takes too long, log it and give 0, so that other directories are served."""
    per_hour = known.get(directory, Limit()).per_hour
    try:
        async with by_index_alone(conn):
            return await users_between(conn, directory, since, EVER, max(per_hour, COUNTED_MAX), made_after=since)
    except (QueryCanceled, UncountedError) as late:
        if isinstance(late, UncountedError) and late.users > per_hour:
            return late.users
        _log.warning("surge_not_counted", directory=directory)
        return 0


def detected(surge: UUID, directory: Directory, count: int, seq: Seq, limit: Limit) -> RecordFacts:
    """The act of telling that a directory takes access from more users than is ordinary."""
    facts = {
        "directory": directory.slug,
        "revocations_last_hour": count,
        "per_hour": limit.per_hour,
        "action": limit.action,
        "seq": seq,
    }
    return _surge_act(DIRECTORY_SURGE_DETECTED, surge, facts, (SQL["insert_surge_alarm"], (directory.id, seq)))


def limited(surge: UUID, directory: Directory, per_hour: int, action: Action) -> RecordFacts:
    """The act of saying what is ordinary in a directory, and what to do beyond."""
    facts = {"directory": directory.slug, "per_hour": per_hour, "action": action}
    return _surge_act(DIRECTORY_SURGE_LIMITED, surge, facts, (SQL["set_surge_limit"], (directory.id, per_hour, action)))


def released(surge: UUID, directory: Directory, seq: Seq, limit: Limit, reason: str) -> RecordFacts:
    """The act of letting go what is held up to a seq."""
    facts = {"directory": directory.slug, "through_seq": seq, "reason": reason}
    row = (directory.id, seq, limit.per_hour, limit.action)
    return _surge_act(DIRECTORY_SURGE_RELEASED, surge, facts, (SQL["release_surge"], row))


def _surge_act(kind: EventType, surge: UUID, facts: dict[str, Any], statement: tuple[Any, ...]) -> RecordFacts:
    # A subject of its own: the directory's stream belongs to the directory's log.
    draft = Draft(kind, surge, SURGE, cause=OPERATOR, body=Body({"id": str(surge), **facts}, [], facts["directory"]))
    return RecordFacts((draft,), (statement, wake()))
