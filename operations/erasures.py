"""Erasures of users and groups: plan, erase, receipt, list (docs/operations.md, "Erasure").

The commit of an erasure deletes everything that only the subject has. What needs the whole directory or the server (who else mentions it,
who was sent it, vacuuming) follows in aftercare.py; until then the receipt's state is `erased`, afterwards `complete`.
"""

from collections.abc import Sequence
from typing import Annotated, Final, Literal, TypeAlias, TypedDict
from uuid import UUID

from msgspec import Meta

from database import patience
from database.connections import Connection
from database.queries import load_queries
from ledger.commands import Erase, needs_of, parse_id
from ledger.directories import Directory
from ledger.event_data import Count, FromOne, Id, Instant, Time
from ledger.events import USER
from ledger.feed import rfc3339
from ledger.holds import holds_of
from ledger.horizon import Horizon, Swept, horizon
from ledger.receipts import ErasureRow, epochs_of, erasure_by_id, erasure_of, erasures_after
from ledger.refused import StateError
from ledger.sealing import open_optional, seal_note
from ledger.transaction import Submission
from operations.admin_commands import AFTER_CHANGE_S, WEIGHT
from operations.admission import on_directory
from operations.caller import Caller
from operations.holds import SubjectOf, subject_in
from operations.mentions import Mentions, mentions_of
from operations.open_ledger import OpenLedger, waiter
from operations.recipients import Recipient, recipients_of
from operations.refusals import NotFoundError

SQL: Final = load_queries(__file__)
PLAN_S: Final = 3.0  # for looking through bodies; a plan says if that was not enough
RELEASE: Final = 26  # the migration of the first release whose processes forget what was erased
JOURNAL_US: Final = 30 * 86_400_000_000  # as long as the journal keeps entries (api/journal.py)
HOLDS_SHOWN_MAX: Final = 100
NO_ERASURE: Final = "The directory has no erasure of that id. GET …/erasures lists them."
ErasureState: TypeAlias = Annotated[str, Meta(extra_json_schema={"enum": ["erased", "complete"]})]


class Gone(TypedDict):
    """What the commit deletes: sealed bodies, keys, and entries of the journal with a text about the subject."""

    bodies: Count
    keys: Count
    journal_lines: Count


class Stays(TypedDict):
    """What stays: leaves, which have ids and no attributes."""

    leaves: Count


class ErasurePlan(TypedDict):
    """What an erasure would do. `living`: the subject is deleted in the same commit. `holds`: legal holds in the way, by id."""

    object: Literal["erasure_plan"]
    directory: str
    subject: SubjectOf
    dry_run: bool
    living: bool
    goes: Gone
    stays: Stays
    holds: list[Id]
    recipients: list[Recipient]
    remaining_mentions: Mentions
    horizon: Horizon


class LogPlace(TypedDict):
    """The end of the directory's log at the erasure: its size in events, and the leaf hash of the last one, `*.erased`."""

    size: FromOne
    leaf_hash: str


class Erasure(TypedDict):
    """The receipt of an erasure. In state `erased` the data are gone; `complete`: recipients, mentions and horizon were looked up.

    `ages_out`: when the last text that no subject could be found for is deleted: entries of the journal, answers kept for an Idempotency-Key.
    """

    object: Literal["erasure"]
    id: Id
    state: ErasureState
    directory: str
    subject: SubjectOf
    reason: str | None
    erased_at: Time
    seq: FromOne
    actor: str
    deleted_with_it: bool
    gone: Gone
    stays: Stays
    horizon: Horizon
    ages_out: Time
    recipients: list[Recipient] | None
    remaining_mentions: Mentions | None
    checkpoint: LogPlace
    completed_at: Instant | None


@on_directory("erasures.create")
async def erase(
    ledger: OpenLedger, caller: Caller, directory: Directory, ot: str, subject: str, reason: str, *, dry_run: bool
) -> ErasurePlan | Erasure:
    """Erase a user or group for ever, or show what that would do. Of an erased one: the same receipt.

    Raises NotFoundError for an unknown subject, HeldError for one under a legal hold, StateError beside processes of older releases.
    """
    async with ledger.connection() as conn:
        obj = await subject_in(conn, directory, ot, subject)
        before = await erasure_of(conn, directory.id, obj)
        if before is None and not dry_run:
            await _refuse_beside_older(conn)
    if before is not None:
        return _receipt(ledger, before)
    if dry_run:
        return await _plan(ledger, directory, ot, obj)
    await erase_now(ledger, caller, directory, ot, obj, reason)
    async with ledger.connection() as conn:
        made = await erasure_of(conn, directory.id, obj)
    assert made is not None, "the commit wrote it"
    return _receipt(ledger, made)


async def erase_now(
    ledger: OpenLedger, caller: Caller, directory: Directory, ot: str, obj: UUID, reason: str, *, over_holds: bool = False
) -> None:
    """Write the commit of an erasure. Raises HeldError."""
    number = ledger.new_id()
    sealed = seal_note(ledger.kek, reason, kind="erasure", owner=number, random=ledger.entropy)
    command = Erase(obj, ot, number, sealed, over_holds)
    submission = Submission(
        directory,
        command,
        needs_of(command),
        caller.actor,
        caller.request,
        0,
        waiter(),
        caller.token_id,
        WEIGHT,
        trace=caller.trace,
    )
    with patience.charged():
        await ledger.submit(submission)
    patience.renew(AFTER_CHANGE_S)


async def _refuse_beside_older(conn: Connection) -> None:
    """Processes of older releases would go on showing what they hold in memory. Raises StateError."""
    row = await (await conn.execute(SQL["older_processes"], (RELEASE,))).fetchone()
    if row is not None:
        raise StateError(
            "A process of an older release serves this database, and would go on showing what it has in memory. Replace it, then erase.",
            "older_release",
        )


@on_directory("erasures.list")
async def list_all(
    ledger: OpenLedger, _caller: Caller, directory: Directory, *, after: int, limit: int
) -> tuple[Sequence[Erasure], int | None]:
    """The erasures of a directory in the order they were made, and where the next page begins."""
    async with ledger.connection() as conn:
        rows = await erasures_after(conn, directory.id, after, limit)
    return [_receipt(ledger, row) for row in rows], rows[-1].number if len(rows) == limit else None


@on_directory("erasures.show")
async def show(ledger: OpenLedger, _caller: Caller, directory: Directory, erasure: str) -> Erasure:
    """The receipt of one erasure."""
    number = parse_id(erasure)
    async with ledger.connection() as conn:
        found = None if number is None else await erasure_by_id(conn, directory.id, number)
    if found is None:
        raise NotFoundError(NO_ERASURE)
    return _receipt(ledger, found)


def _receipt(ledger: OpenLedger, row: ErasureRow) -> Erasure:
    epochs, counts = epochs_of(ledger.kek), row.counts
    gone: Gone = {"bodies": counts["bodies"], "keys": counts["keys"], "journal_lines": counts["journal_lines"]}
    recipients: list[Recipient] | None = row.recipients  # pyright: ignore[reportAssignmentType]  # written by aftercare.py
    mentions: Mentions | None = row.mentions  # pyright: ignore[reportAssignmentType]
    return {
        "object": "erasure", "id": str(row.id), "state": "erased" if row.completed_at is None else "complete", "directory": row.slug,
        "subject": _subject(row.ot, row.obj), "reason": open_optional(ledger.kek, row.sealed_reason, kind="erasure", owner=row.id),
        "erased_at": rfc3339(row.at), "seq": row.seq, "actor": row.actor, "deleted_with_it": bool(counts["deleted"]), "gone": gone,
        "stays": {"leaves": counts["leaves"]}, "horizon": horizon(row.erased_in, epochs.current, epochs.destroyed, row.swept),
        "ages_out": rfc3339(row.at + JOURNAL_US), "recipients": recipients, "remaining_mentions": mentions,
        "checkpoint": {"size": row.seq, "leaf_hash": row.leaf_hash.hex()}, "completed_at": row.completed_at,
    }  # fmt: skip


def _subject(ot: str, obj: UUID) -> SubjectOf:
    return {"type": "User" if ot == USER else "Group", "id": str(obj)}


async def _plan(ledger: OpenLedger, directory: Directory, ot: str, obj: UUID) -> ErasurePlan:
    ends = ledger.clock() + int(PLAN_S * 1e6)
    async with ledger.connection() as conn:
        row = await (await conn.execute(SQL["what_goes"], (directory.id, obj))).fetchone()
        holds = await holds_of(conn, directory.id, obj=obj, state="open", after=None, limit=HOLDS_SHOWN_MAX)
    assert row is not None
    living, bodies, keys, leaves, lines = row
    recipients = await recipients_of(ledger, [(directory, obj)])
    mentions = await mentions_of(ledger, directory, {obj}, gently=False, spent=lambda: ledger.clock() > ends)
    epochs = epochs_of(ledger.kek)
    return {
        "object": "erasure_plan", "directory": directory.slug, "subject": _subject(ot, obj), "dry_run": True, "living": living,
        "goes": {"bodies": bodies, "keys": keys, "journal_lines": lines}, "stays": {"leaves": leaves}, "holds": [str(hold.id) for hold in holds],
        "recipients": recipients[obj], "remaining_mentions": mentions[obj],
        "horizon": horizon(epochs.current, epochs.current, epochs.destroyed, Swept()),
    }  # fmt: skip
