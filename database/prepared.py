"""Prepared statements without cursors, for the statements of a write.

A cursor of psycopg costs the client 14 to 20 µs for each statement and 3 to 6 µs for its answer: it looks for placeholders, makes a
transformer and its loaders, and keeps itself alive in cycles that the garbage collector must find. A write has a dozen statements,
always the same. What psycopg knows of values is still psycopg's: its transformer encodes parameters and decodes rows.
"""

from collections.abc import Sequence
from typing import Any, Final, LiteralString
from weakref import WeakKeyDictionary

from psycopg import abc
from psycopg.adapt import PyFormat, Transformer
from psycopg.errors import PipelineAborted, error_from_result
from psycopg.pq import ExecStatus, Format
from psycopg.pq.abc import PGconn, PGresult
from psycopg.rows import TupleRow

from database.connections import Bounded, Connection

PREPARED_MAX: Final = 300  # of a session, each with its plan in the server's memory; further ones are parsed each time


class _Statement:
    """A statement with what decodes the rows of its answers. The loaders of a prepared one are found at its first answer.

    The server refuses to answer a prepared statement with other types of columns, so they hold as long as it does.
    """

    __slots__ = ("_has_loaders", "_reader", "name")

    def __init__(self, name: bytes, reader: abc.Transformer) -> None:
        self.name, self._reader, self._has_loaders = name, reader, False

    def decode(self, result: PGresult, start: int, stop: int) -> list[TupleRow]:
        self._reader.set_pgresult(result, set_loaders=not self._has_loaders)
        self._has_loaders = True
        try:
            return self._reader.load_rows(start, stop, tuple)
        finally:
            # An answer of 100 000 rows must not live as long as the connection.
            self._reader.set_pgresult(None, set_loaders=False)


class Answer:
    """The answer of a statement. It is there once the pipeline has taken it from the connection."""

    __slots__ = ("_result", "_statement")

    def __init__(self, statement: _Statement) -> None:
        self._statement = statement
        self._result: PGresult | None = None

    @property
    def here(self) -> bool:
        return self._result is not None

    @property
    def count(self) -> int:
        """How many rows it has."""
        return self._result.ntuples if self._result is not None else 0

    def receive(self, results: Sequence[PGresult]) -> None:
        """Keep what the server has sent. Raises psycopg.Error: that of the statement, or PipelineAborted after the error of another."""
        (result,) = results
        _refuse_error(result)
        self._result = result

    def rows(self, start: int = 0, stop: int | None = None) -> list[TupleRow]:
        """Decode rows of the answer, all or a slice."""
        assert self._result is not None, "the answer was not awaited"
        return self._statement.decode(self._result, start, self.count if stop is None else min(stop, self.count))


class Preparation:
    """The answer of PREPARE. A statement whose preparation failed, or did not begin after an earlier error, is prepared again later."""

    __slots__ = ("_key", "_statements")

    def __init__(self, statements: "Statements", key: "_Key") -> None:
        self._statements, self._key = statements, key

    def receive(self, results: Sequence[PGresult]) -> None:
        """Raises psycopg.Error, as `Answer.receive`."""
        (result,) = results
        try:
            _refuse_error(result)
        except BaseException:
            self._statements.forget(self._key)
            raise


_Key = tuple[LiteralString, tuple[int, ...]]  # the statement and the OIDs of its parameters


class Statements:
    """The statements of one connection: one for each text and types of parameters, as few as the code has.

    They are prepared if psycopg prepares none on this connection (`connect(cursors_prepare=False)`). Otherwise psycopg answers each
    ROLLBACK with DEALLOCATE ALL, and behind a pooler the next transaction may have another session.
    """

    def __init__(self, conn: Connection) -> None:
        self._prepares = isinstance(conn, Bounded) and not conn.cursors_prepare
        self._encoder = Transformer(conn.adapters)
        self._known: dict[_Key, _Statement] = {}
        self._count = 0

    def send(self, pgconn: PGconn, sql: LiteralString, params: Sequence[Any]) -> tuple[Preparation | None, Answer]:
        """Hand a statement to libpq. Returns the answers that will come: first that of its preparation, if it is prepared now."""
        encoded = self._encoder.dump_sequence(
            params, [PyFormat.AUTO] * len(params)
        )  # as a cursor: what a type has, binary or text
        formats = self._encoder.formats
        key: _Key = sql, self._encoder.types or ()
        statement, preparation = self._known.get(key), None
        if statement is None:
            if not self._prepares or len(self._known) >= PREPARED_MAX:
                pgconn.send_query_params(sql.encode(), encoded, key[1], formats, Format.BINARY)
                return None, Answer(_Statement(b"", Transformer(self._encoder.adapters)))
            statement = self._known[key] = _Statement(self._name(), Transformer(self._encoder.adapters))
            pgconn.send_prepare(statement.name, sql.encode(), key[1])
            preparation = Preparation(self, key)
        pgconn.send_query_prepared(statement.name, encoded, formats, Format.BINARY)
        return preparation, Answer(statement)

    def _name(self) -> bytes:
        """A name that was never used on this connection: the server refuses one that it knows."""
        self._count += 1
        return b"ledger_%d" % self._count

    def forget(self, key: _Key) -> None:
        self._known.pop(key, None)


def _refuse_error(result: PGresult) -> None:
    if result.status == ExecStatus.FATAL_ERROR:
        raise error_from_result(result)
    if result.status == ExecStatus.PIPELINE_ABORTED:
        raise PipelineAborted("pipeline aborted")


_sessions: Final = WeakKeyDictionary[Connection, Statements]()


def statements_of(conn: Connection) -> Statements:
    """The prepared statements of a connection. They end with it."""
    statements = _sessions.get(conn)
    if statements is None:
        statements = _sessions[conn] = Statements(conn)
    return statements
