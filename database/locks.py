"""Advisory locks: the one register of their classes, in the order in which a session takes them. docs/architecture.md shows the same table.

PostgreSQL tells two-key locks apart by a class and a number within it. SQL spells both as literals; a test holds each statement
against this register. A class is never given again for something else: processes of the release before may run beside.
"""

from dataclasses import dataclass
from enum import Enum
from typing import Final


class Held(Enum):
    """Until when a lock is held."""

    SESSION = "the session gives it back, or ends"
    TRANSACTION = "the transaction ends"


@dataclass(frozen=True, slots=True)
class AdvisoryLock:
    """A class of locks: `of` says what the second key is, `shared` and `exclusive` who takes it so; empty: nobody does."""

    number: int  # the first key: pg_locks.classid
    of: str
    guards: str
    shared: str
    exclusive: str
    held: Held
    key: int | None = None  # the second key, where there is just one


MIGRATION: Final = AdvisoryLock(
    7302001,  # a lock of one key of 64 bits: pg_locks has it as class 0, this number, objsubid 1
    "the database", "changes of the schema", "", "a process that migrates", Held.SESSION,
)  # fmt: skip
RELEASE: Final = AdvisoryLock(
    6, "the newest migration of a release", "nothing: whoever migrates reads here which releases serve", "every process that serves or delivers", "", Held.SESSION,
)  # fmt: skip
REBUILD: Final = AdvisoryLock(
    3, "0; no consumer has that number", "the side tables of a rebuild", "", "a rebuild of the read models", Held.SESSION, key=0,
)  # fmt: skip
WATCHING: Final = AdvisoryLock(
    4, "0", "telling of surges, and thinning out checkpoints", "", "one delivery process, for a moment", Held.SESSION, key=0,
)  # fmt: skip
CLEANING: Final = AdvisoryLock(
    5, "0", "the clean-up of closed directories", "", "one serving process, while anything is left", Held.SESSION, key=0
)  # fmt: skip
DIRECTORY: Final = AdvisoryLock(
    1, "the number of a directory", "its seqs, its tail and its current state",
    "whoever asks whether a write that was given up is still at work", "a write, of all its directories by number", Held.TRANSACTION,
)  # fmt: skip
CONSUMER: Final = AdvisoryLock(
    3, "the number of a consumer", "its place in the log and its lease",
    "recording of deliveries, of all its consumers by number", "acts on the consumer, acknowledgements, whoever claims the lease", Held.TRANSACTION,
)  # fmt: skip
RECORDING: Final = AdvisoryLock(
    7, "the number of a consumer", "recording of its deliveries", "", "recording of deliveries, each after the lock of its consumer", Held.TRANSACTION,
)  # fmt: skip
LEDGER: Final = AdvisoryLock(
    2, "0", "positions: dense, and visible in the order of commits",
    "whoever asks whether a COMMIT that was given up still waits for a standby", "a write, from before it reads the last position through COMMIT", Held.TRANSACTION, key=0,
)  # fmt: skip

LOCKS: Final = {name: value for name, value in globals().items() if isinstance(value, AdvisoryLock)}
# One process has such a role at a time. Where it stands still, another one ends its session and takes the role over.
ROLES: Final = (WATCHING, CLEANING)
