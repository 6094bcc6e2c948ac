"""One submission in a transaction of its own, where no writer runs: at the first start, and in delivery processes."""

import psycopg

from database.connections import Connection
from ledger.transaction import BatchReport, Outcome, Submission, Transaction


async def write_alone(conn: Connection, transaction: Transaction, submission: Submission) -> Outcome:
    """Write the submission and return its outcome. Raises the error that refuses it."""
    report = BatchReport()
    try:
        await transaction.run(conn, [submission], report, wait_for_locks=True)
    except psycopg.Error:
        await conn.rollback()  # the caller keeps using the connection
        raise
    ((_, result),) = report.settled
    if isinstance(result, Exception):
        raise result
    return result
