"""Acts on a directory in its own log: pause, resume, close, accept the clock. decide.py says what each means for later writes.

Each function takes the directory as last read and returns the act, or None if nothing has to be done. The write transaction checks
the state again, so two equal acts at the same time make one event.
"""

from typing import Any

from ledger.clocks import DirectoryTail
from ledger.commands import RecordFacts
from ledger.directories import SYSTEM, WAKE, Directory
from ledger.events import (
    ACTIVE,
    DIRECTORY,
    DIRECTORY_CLOCK_ACCEPTED,
    DIRECTORY_CLOSED,
    DIRECTORY_PAUSED,
    DIRECTORY_RESUMED,
    OPERATOR,
    PAUSED,
    Body,
    Draft,
    EventType,
)
from ledger.refused import StateError
from ledger.rendering import rfc3339


class LifecycleError(Exception):
    """The act cannot be done on this directory, or its confirmation is wrong; the text says why and what to do instead."""


def paused(directory: Directory, reason: str) -> RecordFacts | None:
    """Pause: from the act's commit on SCIM writes are answered 503, reads go on. None if it is paused already.

    Raises StateError for a closed directory, LifecycleError for the ledger's own.
    """
    _check(directory)
    return None if directory.state == PAUSED else _act(DIRECTORY_PAUSED, directory, {ACTIVE}, reason)


def resumed(directory: Directory, reason: str) -> RecordFacts | None:
    """Resume: from the act's commit on SCIM writes are accepted again. None if it is not paused.

    Raises StateError for a closed directory, LifecycleError for the ledger's own.
    """
    _check(directory)
    return None if directory.state == ACTIVE else _act(DIRECTORY_RESUMED, directory, {PAUSED}, reason)


def closed(directory: Directory, reason: str, confirm: str) -> RecordFacts | None:
    """Close for ever: one event ends all access of the directory, then cleanup.py removes its resources. None if it is closed already.

    `confirm` must repeat the directory's name. Raises LifecycleError if it differs, and for the ledger's own directory.
    """
    if directory.slug == SYSTEM:
        raise LifecycleError("This is the ledger's own directory: it cannot be closed.")
    if confirm != directory.slug:
        raise LifecycleError(
            f'Closing ends all access of the directory and cannot be undone. To do it, repeat its name: "confirm": "{directory.slug}".'
        )
    return None if directory.is_closed else _act(DIRECTORY_CLOSED, directory, {ACTIVE, PAUSED}, reason)


def clock_accepted(directory: Directory, tail: DirectoryTail, reason: str) -> RecordFacts | None:
    """Accept that events get the time of the last one until the clock has passed it. None if that was accepted already.

    Raises StateError if the clock is not behind or the directory is closed, LifecycleError for the ledger's own.
    """
    if directory.slug == SYSTEM:
        raise LifecycleError("This is the ledger's own directory: a clock never blocks its writes.")
    check_open(directory)
    if tail.state == "running":
        raise StateError(
            "The clock is not more than 60 seconds behind the last event of this directory: writes go on.", "clock_not_behind"
        )
    if tail.state == "frozen":
        return None
    facts = {
        "id": str(directory.uuid), "slug": directory.slug, "reason": reason,
        "clock": rfc3339(tail.clock), "frozen_at": rfc3339(tail.at),
    }  # fmt: skip
    draft = Draft(DIRECTORY_CLOCK_ACCEPTED, directory.uuid, DIRECTORY, cause=OPERATOR, body=Body(facts, [], directory.slug))
    return RecordFacts((draft,), accepts_clock=True)


def _check(directory: Directory) -> None:
    if directory.slug == SYSTEM:
        raise LifecycleError("This is the ledger's own directory: it cannot be paused.")
    check_open(directory)


def check_open(directory: Directory) -> None:
    """Raises StateError for a closed directory, whose profile and schemas no longer change."""
    if directory.is_closed:
        raise StateError(f"The directory {directory.slug} was closed for ever. Create another one.", "directory_closed")


def _act(kind: EventType, directory: Directory, leaves: set[str], reason: str) -> RecordFacts:
    facts: dict[str, Any] = {
        "id": str(directory.uuid),
        "slug": directory.slug,
        "profile": directory.profile.text,
        "reason": reason,
    }
    draft = Draft(kind, directory.uuid, DIRECTORY, cause=OPERATOR, body=Body(facts, [], directory.slug))
    return RecordFacts((draft,), (WAKE,), frozenset(leaves))
