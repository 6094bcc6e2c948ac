"""How long anything waits for the database, or a process for another: the one place. docs/operations.md shows the same table.

Whatever the database does, a request is answered within ANSWER: its waits one after the other have one budget, REQUEST_WAITS
(database/patience.py).
"""

from dataclasses import dataclass
from typing import Final

from psycopg.conninfo import conninfo_to_dict, make_conninfo


@dataclass(frozen=True, slots=True)
class Deadline:
    """So many seconds, for what, and what happens when they are over."""

    seconds: float
    of: str
    then: str

    @property
    def ms(self) -> int:
        """The same in milliseconds, as PostgreSQL's settings take it."""
        return round(self.seconds * 1000)


ANSWER: Final = Deadline(
    10, "a request, while the database is dead, silent, read-only, full or in failover", "503 with Retry-After"
)
REQUEST_WAITS: Final = Deadline(8, "all waits of a request for the database that are in vain, together", "503 with Retry-After")
TURN: Final = Deadline(
    7,
    "a turn of the directory at worker threads, connections and large bodies, behind its own requests, or others' where these have all places",
    "503 with Retry-After",
)
CONNECT: Final = Deadline(3, "opening a connection, for each host of the URL (`connect_timeout`)", "the next host, then 503")
KEEPALIVE_IDLE: Final = Deadline(4, "a quiet TCP connection until it is asked whether it lives (`keepalives_idle`)", "probes")
KEEPALIVE_INTERVAL: Final = Deadline(
    2, "each of two probes (`keepalives_interval`, `keepalives_count`)", "the connection is lost"
)
UNACKNOWLEDGED: Final = Deadline(
    6, "bytes that the other host does not acknowledge (`tcp_user_timeout`)", "the connection is lost"
)
CHECK: Final = Deadline(1, "a pooled connection that is asked whether it lives, before it is used", "another one is taken")
POOL: Final = Deadline(2.5, "a connection of the pool", "503")
STATEMENT: Final = Deadline(4, "the server, at a statement of a request (`statement_timeout`)", "the statement is cancelled, 503")
COUNT: Final = Deadline(
    3, "counting who lost access in a directory within an hour, for the surge brake", "it is asked again; until then what `hold` may mean is held"
)  # fmt: skip
READ: Final = Deadline(4.5, "the answer to a statement of a request", "the connection is cut, 503")
SHARED_STATEMENT: Final = Deadline(
    2.5, "the server, at a statement that requests share (`statement_timeout`)", "the statement is cancelled, 503"
)
SHARED_READ: Final = Deadline(
    3, "the answer to a read that requests share", "the connection is cut, once more on a fresh one, then 503"
)
SHARED_ANSWER: Final = Deadline(
    3.75, "a read that requests share, with all its tries; who came behind it waits for their own as long", "503"
)
WRITE: Final = Deadline(4, "the answer to a part of a write transaction", "the connection is cut, the write is looked up")
WRITE_SETTLED: Final = Deadline(
    8, "a write, until it is begun, and until it is settled while the database is away; a giant commit, since the last sign of the server",
    "503: what is known of it",
)  # fmt: skip
LOCK: Final = Deadline(
    2, "a lock of the write path", "what holds it is looked into; behind a writer that works, again while the write has time"
)
LONG_LOOK: Final = Deadline(
    2, "the answer to a statement that may take long (a giant commit, a clean-up, a rebuild), until it is asked whether the server is at it",
    "if not, or if two questions in a row get no answer, the connection is cut",
)  # fmt: skip
LONG_ASK: Final = Deadline(2, "the answer to that question", "asked again, then as if the server were not at it")
SIGN: Final = Deadline(
    2,
    "a sign to the server while a thread of ours computes what comes next in a transaction that holds locks",
    "a statement that does nothing",
)
SCHEMA_LOCK: Final = Deadline(
    1, "a lock on a table that a migration or a rebuild changes", "let go, and tried again after a pause"
)
SCHEMA_CHANGE: Final = Deadline(
    600,
    "readers of tables that a migration changes, or another process that migrates",
    "the start, or `migrate`, ends and says who",
)
FROZEN: Final = Deadline(5, "a session of ours that holds locks and waits for its process", "another process ends the session")
FROZEN_ROLE: Final = Deadline(
    60, "the same, between transactions, with a role that one process has (clean-up, watching surges)", "the same"
)
AWAY: Final = Deadline(
    3,
    "a database that gives no answer, and to which no connection can be opened",
    "requests are refused at once, until it answers again",
)
PROBE: Final = Deadline(1, "between two looks whether a database that is away is back, or a session frozen", "the next look")
LISTEN: Final = Deadline(5, "a notification", "a question on the same connection: is it alive?")
HEARTBEAT: Final = Deadline(15, "a sign of life of a serving or delivery process", "it is killed and replaced")
FIRST_HEARTBEAT: Final = Deadline(60, "the first sign of life of such a process", "it is killed and replaced")
START: Final = Deadline(8, "the database at start, beyond LEDGER_DATABASE_WAIT_S", "exit code 3")
REQUESTS_AT_STOP: Final = Deadline(7, "requests under way after SIGTERM", "they are cut")
WRITES_AT_STOP: Final = Deadline(
    4, "writes under way after SIGTERM, then for what the process keeps in memory", "they are answered 503"
)
DELIVERIES_AT_STOP: Final = Deadline(9, "deliveries under way after SIGTERM", "they are given up, and made again later")
PROCESSES_AT_STOP: Final = Deadline(13, "further processes after SIGTERM", "they are killed")
POSTGRES_AT_STOP: Final = Deadline(
    4, "the embedded PostgreSQL, once the service has ended", "it ends without a checkpoint, and recovers at its next start"
)
STOP: Final = Deadline(19, "the whole service after SIGTERM", "it ends, with exit code 1")

DEADLINES: Final = {name: value for name, value in globals().items() if isinstance(value, Deadline)}

# Ours unless the URL says otherwise. The client's side of a silent network; SERVER_SIDE is the server's.
_CLIENT_SIDE: Final = {
    "connect_timeout": int(CONNECT.seconds),
    "keepalives": 1,
    "keepalives_idle": int(KEEPALIVE_IDLE.seconds),
    "keepalives_interval": int(KEEPALIVE_INTERVAL.seconds),
    "keepalives_count": 2,
    "tcp_user_timeout": UNACKNOWLEDGED.ms,
}
# Of every session of ours: the server lets go of the locks of a host that vanished as soon as we notice that it vanished.
SERVER_SIDE: Final = {
    "tcp_keepalives_idle": str(int(KEEPALIVE_IDLE.seconds)),
    "tcp_keepalives_interval": str(int(KEEPALIVE_INTERVAL.seconds)),
    "tcp_keepalives_count": "2",
    "tcp_user_timeout": str(UNACKNOWLEDGED.ms),
    "client_connection_check_interval": str(KEEPALIVE_INTERVAL.ms),
}


def with_deadlines(url: str) -> str:
    """The URL, or connection string, with our deadlines where it says nothing; of several hosts the one that takes writes.

    Raises psycopg.ProgrammingError for what is no connection string.
    """
    said = conninfo_to_dict(url)
    ours: dict[str, str | int] = dict(_CLIENT_SIDE)
    if "," in str(said.get("host", "")) or "," in str(said.get("hostaddr", "")):
        ours["target_session_attrs"] = "read-write"
    return make_conninfo(url, **{name: value for name, value in ours.items() if name not in said})
