"""All deadlines: for waits for the database, and for waits of processes for each other. docs/operations.md, "Deadlines" shows the table.

Whatever the database does, a request is answered within ANSWER, because all its waits share one budget, REQUEST_WAITS
(database/patience.py).
"""

from dataclasses import dataclass
from typing import Final

from psycopg.conninfo import conninfo_to_dict, make_conninfo


@dataclass(frozen=True, slots=True)
class Deadline:
    """A deadline in seconds: `of` says what it limits, `then` what happens after it."""

    seconds: float
    of: str
    then: str

    @property
    def ms(self) -> int:
        """The deadline in milliseconds, the unit of PostgreSQL's settings."""
        return round(self.seconds * 1000)


ANSWER: Final = Deadline(
    10, "a request, while the database is dead, silent, read-only, full or in failover", "503 with Retry-After"
)
REQUEST_WAITS: Final = Deadline(8, "all failed waits of a request for the database, together", "503 with Retry-After")
TURN: Final = Deadline(
    7,
    "the directory's turn at worker threads, pooled connections and large bodies, while its own requests or those of others hold the places",
    "503 with Retry-After",
)
CONNECT: Final = Deadline(3, "opening a connection, for each host of the URL (`connect_timeout`)", "the next host, then 503")
KEEPALIVE_IDLE: Final = Deadline(4, "a quiet TCP connection, until it is probed (`keepalives_idle`)", "probes")
KEEPALIVE_INTERVAL: Final = Deadline(
    2, "each of two probes (`keepalives_interval`, `keepalives_count`)", "the connection is lost"
)
UNACKNOWLEDGED: Final = Deadline(
    6, "bytes that the other host does not acknowledge (`tcp_user_timeout`)", "the connection is lost"
)
CHECK: Final = Deadline(1, "the check of a pooled connection before its use", "another one is taken")
POOL: Final = Deadline(2.5, "a connection of the pool", "503")
STATEMENT: Final = Deadline(4, "a statement of a request, in the server (`statement_timeout`)", "the statement is cancelled, 503")
COUNT: Final = Deadline(
    3, "counting who lost access in a directory within an hour, for the surge brake", "it is counted again later; until then, with action `hold`, everything that could be above the limit is held"
)  # fmt: skip
READ: Final = Deadline(4.5, "the answer to a statement of a request", "the connection is cut, 503")
SHARED_STATEMENT: Final = Deadline(
    2.5, "a statement that requests share, in the server (`statement_timeout`)", "the statement is cancelled, 503"
)
SHARED_READ: Final = Deadline(
    3, "the answer to a read that requests share", "the connection is cut; the read is tried once more on a new one, then 503"
)
SHARED_ANSWER: Final = Deadline(
    3.75, "a read that requests share, with all attempts; requests that wait behind it have as long for theirs", "503"
)
WRITE: Final = Deadline(
    4, "the answer to one flush of a write transaction", "the connection is cut, and the log is asked whether the write is stored"
)
WRITE_SETTLED: Final = Deadline(
    8, "a write: until it begins, and until its end is known while the database is away; a giant commit: since the server's last sign of life",
    "503, which says what is known of the write",
)  # fmt: skip
LOCK: Final = Deadline(
    2,
    "a lock of the write path",
    "the session that holds it is looked up; behind a working writer the wait goes on while the write has time",
)
LONG_LOOK: Final = Deadline(
    2, "the answer to a statement that may take long (a giant commit, a clean-up, a rebuild), until the server is asked whether it works on it",
    "after two questions in a row without a yes the connection is cut",
)  # fmt: skip
LONG_ASK: Final = Deadline(2, "the answer to that question", "counts as a no")
SIGN: Final = Deadline(
    2,
    "a sign of life to the server, while a worker thread computes the next part of a transaction that holds locks",
    "a statement that does nothing is sent",
)
SCHEMA_LOCK: Final = Deadline(
    1, "a lock on a table that a migration or a rebuild changes", "the change is rolled back, and tried again after a pause"
)
SCHEMA_CHANGE: Final = Deadline(
    600,
    "readers of tables that a migration changes, or another process that migrates",
    "the start, or `migrate`, ends and names the sessions",
)
FROZEN: Final = Deadline(
    5, "a session of the service that holds locks and waits for its process", "another process ends the session"
)
FROZEN_ROLE: Final = Deadline(
    60,
    "such a session between transactions, with the lock of a role that one process has (clean-up, watching surges)",
    "the same",
)
AWAY: Final = Deadline(
    3,
    "a database that does not answer and accepts no connection",
    "requests are refused at once, until it answers again",
)
PROBE: Final = Deadline(
    1, "between two checks whether a database that was away is back, or a session is frozen", "the next check"
)
ROOT_KEY: Final = Deadline(
    12,
    "the provider of a root key: AWS KMS, Vault",
    "at the start the service ends and says so; later the epoch is loaded at the next look",
)
ROTATED: Final = Deadline(
    60,
    "all processes, until they have loaded a new key epoch or let an old one go",
    "`key` ends, names them, and goes on when it is run again",
)
LISTEN: Final = Deadline(5, "a notification", "the connection is checked with a query")
HEARTBEAT: Final = Deadline(15, "the next sign of life of a serving or delivery process", "it is killed and replaced")
FIRST_HEARTBEAT: Final = Deadline(60, "the first sign of life of such a process", "it is killed and replaced")
FIGURES: Final = Deadline(
    1, "the figures of another process of the service, for a scrape", "the scrape has none of it, and `ledger_process_up` is 0"
)
START: Final = Deadline(8, "the database at start, beyond LEDGER_DATABASE_WAIT_S", "exit code 3")
REQUESTS_AT_STOP: Final = Deadline(7, "running requests after SIGTERM", "they are cut")
WRITES_AT_STOP: Final = Deadline(
    4, "running writes after SIGTERM, then storing what the process keeps in memory", "they are answered 503"
)
DELIVERIES_AT_STOP: Final = Deadline(9, "running deliveries after SIGTERM", "they are given up, and sent again later")
PROCESSES_AT_STOP: Final = Deadline(13, "worker and delivery processes after SIGTERM", "they are killed")
POSTGRES_AT_STOP: Final = Deadline(
    4, "the embedded PostgreSQL, once the service has ended", "it ends without a checkpoint, and recovers at its next start"
)
STOP: Final = Deadline(19, "the whole service after SIGTERM", "it ends, with exit code 1")

DEADLINES: Final = {name: value for name, value in globals().items() if isinstance(value, Deadline)}

# Used unless the URL sets them. They notice a silent network on the client's side, SERVER_SIDE on the server's side.
_CLIENT_SIDE: Final = {
    "connect_timeout": int(CONNECT.seconds),
    "keepalives": 1,
    "keepalives_idle": int(KEEPALIVE_IDLE.seconds),
    "keepalives_interval": int(KEEPALIVE_INTERVAL.seconds),
    "keepalives_count": 2,
    "tcp_user_timeout": UNACKNOWLEDGED.ms,
}
# Settings of every session, so that the server releases the locks of a vanished host as soon as the service notices it.
SERVER_SIDE: Final = {
    "tcp_keepalives_idle": str(int(KEEPALIVE_IDLE.seconds)),
    "tcp_keepalives_interval": str(int(KEEPALIVE_INTERVAL.seconds)),
    "tcp_keepalives_count": "2",
    "tcp_user_timeout": str(UNACKNOWLEDGED.ms),
    "client_connection_check_interval": str(KEEPALIVE_INTERVAL.ms),
}


def with_deadlines(url: str) -> str:
    """The URL or connection string with these deadlines, unless it sets its own. Of several hosts the writable one is chosen.

    Raises psycopg.ProgrammingError if it is no connection string.
    """
    said = conninfo_to_dict(url)
    ours: dict[str, str | int] = dict(_CLIENT_SIDE)
    if "," in str(said.get("host", "")) or "," in str(said.get("hostaddr", "")):
        ours["target_session_attrs"] = "read-write"
    return make_conninfo(url, **{name: value for name, value in ours.items() if name not in said})
