"""The one way to record an administrative act: one commit in the log it belongs to, with the rows that follow from it."""

from database import patience
from ledger.commands import RecordFacts, needs_of
from ledger.directories import SYSTEM, Directory
from ledger.transaction import Submission
from operations.caller import Caller
from operations.open_ledger import OpenLedger, waiter

AFTER_CHANGE_S = 2.0  # for what is read of a change that is stored: its answer has waited for that already
WEIGHT = 1_000  # bytes of a request without a large body, for the bound of the queue


async def record(ledger: OpenLedger, caller: Caller, facts: RecordFacts, *, op: int = 0) -> None:
    """Carry out an act of the ledger's own directory. Returns when it is durable; raises what refuses it.

    `op` numbers the acts of one request: after a lost connection each is looked for under (request, op).
    """
    async with ledger.connection() as conn:
        system = await ledger.directories.by_slug(conn, SYSTEM)
    assert system is not None, "made at first start"
    await record_in(ledger, caller, system, facts, op=op)


async def record_in(
    ledger: OpenLedger, caller: Caller, directory: Directory, facts: RecordFacts, *, op: int = 0, weight: int = WEIGHT
) -> None:
    """The same in the log of a directory. `weight`: bytes of the request.

    Raises OvertakenError where what the act was decided upon has changed, or its name was taken, since that was read.
    """
    submission = Submission(
        directory, facts, needs_of(facts), caller.actor, caller.request, op, waiter(), caller.token_id, weight
    )
    with patience.charged():
        await ledger.submit(submission)
    patience.renew(AFTER_CHANGE_S)
