"""Record an administrative act: one commit with its events and rows. All acts go through here."""

from database import patience
from ledger.commands import RecordFacts, needs_of
from ledger.directories import SYSTEM, Directory
from ledger.transaction import Submission
from operations.caller import Caller
from operations.open_ledger import OpenLedger, waiter

AFTER_CHANGE_S = 2.0  # time limit for reading the result of a change that is already stored
WEIGHT = 1_000  # bytes that the queue counts for a request without a large body


async def record(ledger: OpenLedger, caller: Caller, facts: RecordFacts) -> None:
    """Carry out an act of the ledger's own directory. Returns when it is durable. Raises the error that refuses it."""
    async with ledger.connection() as conn:
        system = await ledger.directories.by_slug(conn, SYSTEM)
    assert system is not None, "made at first start"
    await record_in(ledger, caller, system, facts)


async def record_in(
    ledger: OpenLedger, caller: Caller, directory: Directory, facts: RecordFacts, *, weight: int = WEIGHT
) -> None:
    """Carry out an act in the log of a directory. `weight`: bytes of the request.

    Raises OvertakenError if the rows that the act was decided on have changed, or its name was taken, since they were read.
    """
    submission = Submission(
        directory, facts, needs_of(facts), caller.actor, caller.request, 0, waiter(), caller.token_id, weight, trace=caller.trace
    )
    with patience.charged():
        await ledger.submit(submission)
    patience.renew(AFTER_CHANGE_S)
