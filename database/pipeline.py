"""Statements that are sent together, in PostgreSQL's pipeline mode.

psycopg's own pipeline sends each statement as it is executed. Each of these packets wakes the server's process, and on a machine with
few cores that stops the sender: a small write has a dozen statements.
"""

from collections import deque
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any, LiteralString

from psycopg import AsyncPipeline
from psycopg.abc import PQGen
from psycopg.generators import send
from psycopg.pq import TransactionStatus
from psycopg.pq.abc import PGresult
from psycopg.rows import TupleRow

from database.connections import LOST, Connection
from database.prepared import Answer, Preparation, statements_of


class Together(AsyncPipeline):
    """A pipeline that sends its statements when an answer is awaited, at its end, and when libpq has gathered 64 KB."""

    def __init__(self, conn: Connection) -> None:
        super().__init__(conn)
        self._statements = statements_of(conn)
        # psycopg's own answers and ours in one queue, because they come in the order of the statements; see `_process_results`
        self._awaited: deque[Any] = self.result_queue

    def _communicate_gen(self) -> PQGen[None]:
        """Only hand the statements to libpq. psycopg calls this after each statement; what waits for answers sends first."""
        while self.command_queue:
            self.command_queue.popleft()()
        yield from ()

    def execute(self, sql: LiteralString, params: Sequence[Any] = ()) -> Answer:
        """Hand a statement to libpq without a cursor. It is sent with the next one that is awaited; its values are binary."""
        preparation, answer = self._statements.send(self.pgconn, sql, params)
        if preparation is not None:
            self._awaited.append(preparation)
        self._awaited.append(answer)
        return answer

    def push(self) -> None:
        """Begin to send what is gathered, without waiting for the socket: the server works while the next statements are made."""
        self.pgconn.flush()

    async def rows(self, answer: Answer) -> list[TupleRow]:
        """Await an answer, and all that were asked for before it. Raises psycopg.Error: the first error of the pipeline."""
        await self.received(answer)
        return answer.rows()

    async def received(self, answer: Answer) -> None:
        """The same, without reading its rows."""
        if not answer.here:
            async with self._conn.lock:
                await self._conn.wait(self._fetch_gen(flush=True))

    def _process_results(self, queued: Any, results: list[PGresult]) -> None:
        """Take an answer that has come. psycopg calls this for each in the order of the statements."""
        if isinstance(queued, Answer | Preparation):
            queued.receive(results)
        else:
            super()._process_results(queued, results)

    async def flush(self) -> None:
        """Send what is gathered, and wait until the socket has taken it: large statements would be gathered in memory without end.

        Raises the errors of statements that the server has answered by now: what follows them need not be computed.
        """
        self.pgconn.send_flush_request()  # without it the server keeps its answers
        async with self._conn.lock:
            await self._conn.wait(self._flush_gen())

    def _flush_gen(self) -> PQGen[None]:
        yield from send(self.pgconn)
        yield from super()._communicate_gen()  # takes the answers that have come, without waiting for others


@asynccontextmanager
async def together(conn: Connection) -> AsyncGenerator[Together]:
    """Put a connection into pipeline mode for the block, as `conn.pipeline()` does, but send statements together.

    An error of a statement is raised where the next answer is awaited, at the latest at the end of the block. Blocks cannot be nested.
    """
    assert conn._pipeline is None, "the connection is in pipeline mode"  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]
    # psycopg has no other way to use a pipeline of one's own.
    pipeline = conn._pipeline = Together(conn)  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]
    try:
        await pipeline.__aenter__()
        try:
            yield pipeline
        except BaseException as broken:
            if not conn.closed:  # a cancelled task has closed it: there is nothing to end
                await pipeline.__aexit__(type(broken), broken, broken.__traceback__)
            raise
        await pipeline.__aexit__(None, None, None)
    finally:
        conn._pipeline = None  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]


@asynccontextmanager
async def transaction(conn: Connection) -> AsyncGenerator[None]:
    """A transaction whose `begin` and `commit` travel with its statements, as `together` sends them.

    Within a transaction, which each use of a connection behind a pooler is, the block is a savepoint, as with `conn.transaction()`.
    """
    if conn.info.transaction_status != TransactionStatus.IDLE:
        async with conn.transaction(), together(conn):
            yield
        return
    try:
        async with together(conn):
            await conn.execute("begin")
            yield
            await conn.execute("commit")
    except BaseException:
        if not conn.closed:
            with suppress(*LOST):
                await conn.rollback()
        raise
