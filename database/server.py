"""What the server must be: refused by name at start, or told as a concern while it serves."""

from typing import Final, NamedTuple

from database.connections import Connection
from database.queries import load_queries

SQL: Final = load_queries(__file__)
VERSION_MIN: Final = 150_000
STANDBY_S: Final = 3.0  # a standby that is there answers within milliseconds
SPARE_CONNECTIONS: Final = 20  # for operators, backups, the commands of this machine, and those that only superusers get


class Concern(NamedTuple):
    """Something that an operator should put right: a word for programs, and a sentence."""

    reason: str
    says: str


class ServerRefusedError(Exception):
    """The ledger cannot live in this server or database; the text says why and what to do."""


_OFF: Final = {
    "fsync": "fsync is off: a crash of the machine may lose or damage what was acknowledged. Set it to on.",
    "full_page_writes": "full_page_writes is off: a crash of the machine may damage pages beyond repair. Set it to on.",
}


async def is_read_only(conn: Connection) -> bool:
    """A standby, or a database or role that is set to read-only transactions."""
    row = await (await conn.execute(SQL["read_only"])).fetchone()
    return row is not None and bool(row[0])


async def is_standby_awaited(conn: Connection) -> bool:
    """Whether commits wait for a synchronous standby (`synchronous_standby_names`) that does not answer."""
    row = await (await conn.execute(SQL["standby_awaited"], (STANDBY_S,))).fetchone()
    return row is not None and bool(row[0])


async def concerns(conn: Connection) -> list[Concern]:
    """The settings of the server that weaken what the ledger promises."""
    rows = await (await conn.execute(SQL["settings_off"], (list(_OFF),))).fetchall()
    return [Concern(f"{name}_off", _OFF[name]) for (name,) in rows]


async def check_server(conn: Connection, connections: int) -> list[Concern]:
    """Look at the server before anything is written. `connections`: how many the processes of this service open at most.

    Raises ServerRefusedError.
    """
    row = await (await conn.execute(SQL["server"])).fetchone()
    assert row is not None
    version, encoding, room, name = row
    if version < VERSION_MIN:
        raise ServerRefusedError(f"PostgreSQL 15 or newer is needed; this server is {version // 10_000}.")
    if encoding != "UTF8":
        raise ServerRefusedError(
            f'The database "{name}" has encoding {encoding}; the ledger needs UTF8. Make one: createdb -E UTF8 -T template0.'
        )
    if room < connections:
        raise ServerRefusedError(
            f"max_connections leaves room for {room} sessions; this service may open {connections} (LEDGER_WORKERS, "
            f"LEDGER_DELIVERY_WORKERS). Raise max_connections to at least {connections + SPARE_CONNECTIONS}, or have fewer workers."
        )
    return await concerns(conn)
