"""What deliveries ask of replays, which stand above them (replay/redeliver.py): handed in by the wiring."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from database.connections import Connection
from delivery.runs import Planned, Run, State
from ledger.commands import RecordFacts
from ledger.sealing import Kek


@dataclass(frozen=True, slots=True)
class Replays:
    """Reading the runs of a consumer, planning one, ending one."""

    unended: Callable[[Connection, Kek, int], Awaitable[Sequence[Run]]]  # the runs of a consumer that have not ended
    planned: Callable[[Connection, Run, int], Awaitable[Sequence[Planned]]]  # what it sends, as the log is up to a position
    moved: Callable[[Run, State, str], RecordFacts]  # the act of finishing it, or of giving it up for a reason
