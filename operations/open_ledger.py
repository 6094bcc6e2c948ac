"""An open ledger: the few parts that operations work with."""

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from uuid import UUID

from database.connections import Connection
from delivery.forks import Trail
from ledger.directories import Directories
from ledger.feed import Feed
from ledger.sealing import Kek
from ledger.transaction import Outcome, Submission
from ledger.turns import Turns


@dataclass(frozen=True, slots=True)
class OpenLedger:
    """A ledger that is open in this process. Clock, ids and randomness are parts too: nothing below makes its own."""

    connection: Callable[[], AbstractAsyncContextManager[Connection]]  # one of the pool, for a few statements
    turns: Turns  # of directories, at worker threads and pooled connections: for what may take long
    directories: Directories
    feed: Feed
    kek: Kek
    submit: Callable[[Submission], "Awaitable[Outcome]"]  # to the writer
    clock: Callable[[], int]  # µs, only to refuse questions about the future and to show what is left
    new_id: Callable[[], UUID]  # of resources: random
    entropy: Callable[[int], bytes]
    trails: "defaultdict[UUID, Trail]" = field(
        default_factory=lambda: defaultdict(Trail)
    )  # what consumers that pull were shown here


def waiter() -> "asyncio.Future[Outcome]":
    """Where the writer leaves what became of a submission."""
    return asyncio.get_running_loop().create_future()
