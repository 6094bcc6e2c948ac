"""A log that loses its end: a database is copied, written to, and put back, as the restore of a backup does it.

Clients cannot tell this from the promotion of a standby that lagged: the connections break, and the server that answers
afterwards lacks the newest commits.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, LiteralString, TypeVar

import psycopg
from psycopg import sql

from scim.errors import Unavailable

T = TypeVar("T")
BACK_S = 30.0


@dataclass
class Database:
    """A test's own database, with the rights of the superuser."""

    admin_url: str
    name: str

    def back_up(self) -> None:
        """Copy the database as it is now. Connected clients lose their connections for a moment."""
        with psycopg.connect(self.admin_url, autocommit=True) as conn:
            self._cut_off(conn)
            _do(conn, "create database {} template {} owner ledger_owner", self.backup, self.name)
            _do(conn, "alter database {} allow_connections true", self.name)

    def restore(self) -> None:
        """Replace the database by the copy: everything written since is lost. The copy can be used once."""
        with psycopg.connect(self.admin_url, autocommit=True) as conn:
            self._cut_off(conn)
            _do(conn, "drop database {} with (force)", self.name)
            _do(conn, "alter database {} rename to {}", self.backup, self.name)

    @property
    def backup(self) -> str:
        return f"{self.name}_backup"

    def _cut_off(self, conn: psycopg.Connection[Any]) -> None:
        _do(conn, "alter database {} allow_connections false", self.name)
        conn.execute("select pg_terminate_backend(pid) from pg_stat_activity where datname = %s", (self.name,))
        while conn.execute("select 1 from pg_stat_activity where datname = %s limit 1", (self.name,)).fetchone():
            pass


async def again(asked: Callable[[], Awaitable[T]]) -> T:
    """Repeat a request until the connections that were cut are replaced."""
    async with asyncio.timeout(BACK_S):
        while True:
            try:
                return await asked()
            except (psycopg.Error, Unavailable):
                await asyncio.wait([asyncio.get_running_loop().create_future()], timeout=0.05)


def _do(conn: psycopg.Connection[Any], statement: LiteralString, *names: str) -> None:
    conn.execute(sql.SQL(statement).format(*map(sql.Identifier, names)))


def cut_log(superuser_url: str, position: int) -> None:
    """Remove everything behind a position from the log, and leave all else unchanged: a restore never does this, but a repair by
    hand may.
    """
    with psycopg.connect(superuser_url, autocommit=True) as conn, conn.transaction():
        conn.execute("set local search_path to ledger")
        for table in ("events", "commits", "bodies", "subject_keys"):
            _do(conn, "alter table {} disable trigger all", table)
        conn.execute(
            "delete from events e using commits c where c.position > %s and e.directory = c.directory and e.seq between c.seq and c.seq + c.size - 1",
            (position,),
        )
        conn.execute(
            "delete from bodies b where not exists (select from events e where e.directory = b.directory and e.seq = b.seq)"
        )
        conn.execute("delete from commits where position > %s", (position,))
        for model in ("users", "groups", "memberships", "states"):
            conn.execute(
                sql.SQL(
                    "delete from {} x where not exists (select from events e where e.directory = x.directory and e.seq = x.{})"
                ).format(sql.Identifier(model), sql.Identifier("body_seq" if model in {"users", "groups"} else "from_seq"))
            )
        conn.execute(
            "delete from subject_keys k where not exists (select from events e where e.obj = k.obj) and not exists (select from directories d where d.uuid = k.obj)"
        )
        for table in ("events", "commits", "bodies"):
            _do(conn, "alter table {} enable always trigger append_only", table)
        for table in ("bodies", "subject_keys"):
            _do(conn, "alter table {} enable always trigger erased_only", table)
