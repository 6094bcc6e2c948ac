"""Blocked and parked deliveries: list them, and retry, park or skip one."""

from typing import Final, Literal

import anyio.to_thread

from database.connections import Connection
from delivery.checkpoints import exception_at, exceptions
from delivery.consumers import Consumer
from delivery.interventions import parked, retried, skipped
from delivery.reports import BLOCKED, PARKED, RETRYING, Exceptional
from delivery.runs import Planned, Superseded
from delivery.status import FailedDelivery, rows_of
from ledger.cursor import parse_event_id
from ledger.feed import CursorAheadError, CursorForkedError, Selection
from operations.admin_commands import record
from operations.admission import on_consumer
from operations.caller import Caller
from operations.open_ledger import OpenLedger
from operations.refusals import ConflictError, NotFoundError
from replay.redeliver import gives_access, taken_back
from scim.errors import InvalidValue

Verb = Literal["retry", "park", "skip"]
SUPERSEDED: Final = (
    'A later event took back what this one grants, so sending it now would give access again. Skip it, or set `superseded` to "include" '
    "and say why in `reason`."
)


async def _listed(
    ledger: OpenLedger, consumer: Consumer, states: tuple[int, ...], after: int, limit: int
) -> tuple[list[FailedDelivery], int | None]:
    async with ledger.connection() as conn:
        some = await exceptions(conn, consumer, states=states, after=after, limit=limit)
        fetched = await ledger.feed.fetch_at(conn, [(e.directory, e.seq) for e in some], Selection(rendered=False))
    events = await ledger.feed.opened(fetched)
    rows = await anyio.to_thread.run_sync(rows_of, ledger.kek, consumer, some, events)
    return rows, some[-1].position if len(some) == limit else None


@on_consumer("deliveries.blocked")
async def list_blocked(
    ledger: OpenLedger, _caller: Caller, consumer: Consumer, after: int, limit: int
) -> tuple[list[FailedDelivery], int | None]:
    """Blocked and retried deliveries after a position, and the position after which the next page begins (None at the end)."""
    return await _listed(ledger, consumer, (BLOCKED, RETRYING), after, limit)


@on_consumer("deliveries.parked")
async def list_parked(
    ledger: OpenLedger, _caller: Caller, consumer: Consumer, after: int, limit: int
) -> tuple[list[FailedDelivery], int | None]:
    """Parked deliveries after a position, in the same way."""
    return await _listed(ledger, consumer, (PARKED,), after, limit)


@on_consumer("deliveries.act")
async def act(
    ledger: OpenLedger,
    caller: Caller,
    consumer: Consumer,
    event_id: str,
    verb: Verb,
    reason: str,
    *,
    of_parked: bool,
    superseded: Superseded = "skip",
) -> None:
    """Retry, park or skip one delivery, with a reason.

    Raises NotFoundError if the delivery is not in that state; ConflictError for a grant that a later event took back, unless
    `superseded` is "include".
    """
    states = (PARKED,) if of_parked else (BLOCKED, RETRYING)
    async with ledger.connection() as conn:
        found = await _exceptional(ledger, conn, consumer, event_id)
    if found is None or found.state not in states:
        raise NotFoundError("There is no such delivery here now. GET …/blocked and GET …/parked list them.")
    if verb == "retry":
        kept = superseded == "skip" and await _reopens_nothing(ledger, found)
        try:
            await record(ledger, caller, retried(consumer, found.position, event_id, reason, grant=kept))
        except InvalidValue as refused:  # the statement refuses a grant that was taken back since the look-up
            raise ConflictError(SUPERSEDED, "superseded") from refused
        return
    aside = parked if verb == "park" else skipped
    await record(ledger, caller, aside(consumer, found.position, event_id, reason, kek=ledger.kek, random=ledger.entropy))


async def _reopens_nothing(ledger: OpenLedger, found: Exceptional) -> bool:
    """Whether the event grants access. Raises ConflictError if a later event took that grant back."""
    async with ledger.connection() as conn:
        (event,) = await ledger.feed.at(conn, [(found.directory, found.seq)], rendered=False)
        again = Planned(event.position, event.directory, event.seq, event.kind, event.obj, event.mem, event.at)
        if await taken_back(conn, [again], await ledger.feed.head(conn, Selection())):
            raise ConflictError(SUPERSEDED, "superseded")
        return await gives_access(conn, again)


async def _exceptional(ledger: OpenLedger, conn: Connection, consumer: Consumer, event_id: str) -> Exceptional | None:
    parsed = parse_event_id(event_id)
    try:
        place = await ledger.feed.position_of(conn, parsed, Selection()) if parsed is not None else None
    except (CursorAheadError, CursorForkedError):
        return None
    return await exception_at(conn, consumer, place[0].id, place[1]) if place is not None else None
