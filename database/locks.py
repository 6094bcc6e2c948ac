"""The classes of advisory locks, in the order in which a session takes them. docs/architecture.md shows the same table.

The first key of a two-key lock is its class, the second a number within it. The SQL has both as literals; a test compares each
statement with this table. A class is never reused, because processes of the previous release may run beside this one.
"""

from dataclasses import dataclass
from enum import Enum
from typing import Final


class Held(Enum):
    """How long a lock is held."""

    SESSION = "the session gives it back, or ends"
    TRANSACTION = "the transaction ends"


@dataclass(frozen=True, slots=True)
class AdvisoryLock:
    """A class of locks. `of`: meaning of the second key. `shared`, `exclusive`: who takes it in that mode (empty: nobody)."""

    number: int  # the first key: pg_locks.classid
    of: str
    guards: str
    shared: str
    exclusive: str
    held: Held
    key: int | None = None  # the second key, if there is only one


MIGRATION: Final = AdvisoryLock(
    7302001,  # a lock of one key of 64 bits: pg_locks has it as class 0, this number, objsubid 1
    "the database", "changes of the schema", "", "a process that migrates", Held.SESSION,
)  # fmt: skip
RELEASE: Final = AdvisoryLock(
    6, "the newest migration of a release", "nothing; a migrating process reads from it which releases serve", "every serving and delivery process", "", Held.SESSION,
)  # fmt: skip
REBUILD: Final = AdvisoryLock(
    3, "0, which no consumer has", "the shadow tables of a rebuild", "", "a rebuild of the read models", Held.SESSION, key=0,
)  # fmt: skip
WATCHING: Final = AdvisoryLock(
    4, "0", "reporting surges, and thinning out checkpoints", "", "one delivery process, for a moment", Held.SESSION, key=0,
)  # fmt: skip
CLEANING: Final = AdvisoryLock(
    5, "0", "the clean-up of closed directories", "", "one serving process, while there is something to clean up", Held.SESSION, key=0
)  # fmt: skip
ROTATING: Final = AdvisoryLock(
    10, "0", "the key epochs: making, moving into and destroying them", "", "`key rotate`, `key rewrap`, `key destroy`", Held.SESSION, key=0,
)  # fmt: skip
UNKNOWN_EPOCH: Final = AdvisoryLock(
    11, "the number of a key epoch", "that no process seals in it before all can open it", "every process that does not know it yet",
    "`key rotate`, for a moment", Held.SESSION,
)  # fmt: skip
SEALING: Final = AdvisoryLock(
    12, "the number of a key epoch", "that it is not destroyed while a process seals in it", "every process that seals in it",
    "`key rewrap` and `key destroy`, for a moment", Held.SESSION,
)  # fmt: skip
AFTERCARE: Final = AdvisoryLock(
    9, "0", "what follows an erasure: vacuuming, and completing its receipt", "", "one serving process, while a receipt is not complete", Held.SESSION, key=0,
)  # fmt: skip
DIRECTORY: Final = AdvisoryLock(
    1, "the number of a directory", "its seqs, its tail and its current state",
    "a check whether an abandoned write is still running", "a write, for all its directories by number", Held.TRANSACTION,
)  # fmt: skip
SUBJECT: Final = AdvisoryLock(
    8, "a hash of the id of a user or group", "whether it is erased or held", "", "an erasure, and placing or releasing a hold, each after the lock of its directory",
    Held.TRANSACTION,
)  # fmt: skip
CONSUMER: Final = AdvisoryLock(
    3, "the number of a consumer", "its place in the log and its lease",
    "recording of deliveries, for all its consumers by number", "acts on the consumer, acknowledgements, taking the lease", Held.TRANSACTION,
)  # fmt: skip
RECORDING: Final = AdvisoryLock(
    7, "the number of a consumer", "recording of its deliveries", "", "recording of deliveries, each after the lock of its consumer", Held.TRANSACTION,
)  # fmt: skip
LEDGER: Final = AdvisoryLock(
    2, "0", "positions, so that they are dense and visible in the order of commits",
    "a check whether an abandoned COMMIT still waits for a standby", "a write, from before it reads the last position until COMMIT has finished", Held.TRANSACTION, key=0,
)  # fmt: skip

LOCKS: Final = {name: value for name, value in globals().items() if isinstance(value, AdvisoryLock)}
# Roles that one process has at a time. If that process is stopped, another one ends its session and takes the role.
ROLES: Final = (WATCHING, CLEANING, AFTERCARE)
