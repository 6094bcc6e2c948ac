"""An open ledger: the parts that operations work with."""

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
    """A ledger that is open in this process. Clock, ids and randomness are parts, so that tests can set them."""

    connection: Callable[[], AbstractAsyncContextManager[Connection]]  # a pooled connection, for a few statements
    turns: Turns  # fair shares of worker threads and pooled connections, for longer work
    directories: Directories
    feed: Feed
    kek: Kek
    submit: Callable[[Submission], "Awaitable[Outcome]"]  # queues a command at the writer
    clock: Callable[[], int]  # µs; only to refuse questions about the future and to show remaining times
    new_id: Callable[[], UUID]  # random ids of resources
    entropy: Callable[[int], bytes]
    trails: "defaultdict[UUID, Trail]" = field(
        default_factory=lambda: defaultdict(Trail)
    )  # what consumers that pull were shown here


def waiter() -> "asyncio.Future[Outcome]":
    """A future for the outcome of a submission."""
    return asyncio.get_running_loop().create_future()
