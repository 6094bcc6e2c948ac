"""One submission in a transaction of its own, where no writer runs: at the first start, and in delivery processes."""

from database.connections import Connection
from ledger.transaction import Outcome, Report, Submission, Transaction


async def write_alone(conn: Connection, transaction: Transaction, submission: Submission) -> Outcome:
    """Write it and wait. Raises what refuses it."""
    report = Report()
    await transaction.run(conn, [submission], report, wait_for_locks=True)
    ((_, result),) = report.settled
    if isinstance(result, Exception):
        raise result
    return result
