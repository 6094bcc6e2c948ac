"""Check the server: a start is refused if it cannot work, and warnings are shown while it serves."""

from typing import Final, NamedTuple

from database.connections import Connection
from database.queries import load_queries

SQL: Final = load_queries(__file__)
VERSION_MIN: Final = 150_000
STANDBY_S: Final = 3.0  # a working standby answers within milliseconds
SPARE_CONNECTIONS: Final = 20  # left for operators, backups, commands on this machine, and the reserve of superusers


class Concern(NamedTuple):
    """Something that an operator should repair: a word for programs, and a sentence."""

    reason: str
    says: str


class ServerRefusedError(Exception):
    """The ledger cannot use this server or database; the text says why and what to do."""


_OFF: Final = {
    "fsync": "fsync is off: a crash of the machine may lose or damage what was acknowledged. Set it to on.",
    "full_page_writes": "full_page_writes is off: a crash of the machine may damage pages beyond repair. Set it to on.",
}


class ServerCondition(NamedTuple):
    """`read_only`: a standby, or read-only by setting. `standby_silent`: commits wait for a synchronous standby in vain."""

    read_only: bool
    standby_silent: bool
    concerns: list[Concern]  # settings that weaken the ledger's promises


async def condition(conn: Connection) -> ServerCondition:
    """The condition of the server, as this session sees it."""
    row = await (await conn.execute(SQL["condition"], (STANDBY_S, list(_OFF)))).fetchone()
    assert row is not None
    read_only, standby_silent, off = row
    return ServerCondition(read_only, standby_silent, [Concern(f"{name}_off", _OFF[name]) for name in off])


def refuse_old(version: int) -> None:
    """Raises ServerRefusedError for a server (`server_version_num`) that is too old."""
    if version < VERSION_MIN:
        raise ServerRefusedError(f"PostgreSQL 15 or newer is needed; this server is {version // 10_000}.")


async def check_server(conn: Connection, connections: int) -> list[Concern]:
    """Check the server before anything is written. `connections`: the most that this service's processes open.

    Raises ServerRefusedError.
    """
    row = await (await conn.execute(SQL["server"])).fetchone()
    assert row is not None
    version, encoding, room, name = row
    refuse_old(version)
    if isinstance(encoding, bytes):  # with SQL_ASCII psycopg returns bytes
        encoding, name = encoding.decode(), name.decode("utf-8", "replace")
    if encoding != "UTF8":
        raise ServerRefusedError(
            f'The database "{name}" has encoding {encoding}; the ledger needs UTF8. Make one: createdb -E UTF8 -T template0.'
        )
    if room < connections:
        raise ServerRefusedError(
            f"max_connections leaves room for {room} sessions; this service may open {connections} (LEDGER_WORKERS, "
            f"LEDGER_DELIVERY_WORKERS). Raise max_connections to at least {connections + SPARE_CONNECTIONS}, or have fewer workers."
        )
    return (await condition(conn)).concerns
