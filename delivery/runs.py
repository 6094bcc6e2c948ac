"""Runs of a replay as values: which events a run sends again, and how far it is. The plan and the acts are in replay/redeliver.py."""

from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal, get_args
from uuid import UUID

from ledger.ids import DirectoryNumber, Position, Seq

ENDED: Final = ("cancelled", "finished", "failed")
State = Literal["running", "paused", "cancelled", "finished", "failed"]
RUN_STATES: Final = get_args(State)
Superseded = Literal["skip", "include"]


class ReplayRefusedError(Exception):
    """The run cannot be made; the text says why and what to do instead."""


@dataclass(frozen=True, slots=True)
class Range:
    """What to send again: events of `types` (bits) after position `after` and through `through`, perhaps of some directories or subjects."""

    after: Position
    through: Position
    types: int
    directories: tuple[DirectoryNumber, ...]
    subjects: tuple[UUID, ...] | None = None
    superseded: Superseded = "skip"


@dataclass(frozen=True, slots=True)
class Planned:
    """One event of a plan, with what its order depends on."""

    position: Position
    directory: DirectoryNumber
    seq: Seq
    kind: int
    obj: UUID
    mem: UUID | None
    at: int


@dataclass(frozen=True, slots=True)
class Run:
    """A replay as it stands. All planned up to `through` are done, and those in `ahead`. `failure`: a word of ours, why it failed."""

    id: UUID
    name: str
    consumer: int
    consumer_name: str
    range: Range
    head: Position
    rate_per_second: int | None
    reason: str
    state: str
    total: int
    skipped: int
    created_at: datetime
    ended_at: datetime | None
    done: int
    through: Position
    ahead: tuple[Position, ...]
    at: datetime | None
    failure: str | None = None
