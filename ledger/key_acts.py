"""The acts on key epochs, as events of `_system`. What they record is done before; no key stands in the log."""

from typing import Final
from uuid import UUID

from database.queries import load_queries
from ledger.commands import RecordFacts, Statement
from ledger.events import KEY, KEY_DESTROYED, KEY_REWRAPPED, KEY_ROTATED, OPERATOR, Body, Draft, EventType
from ledger.key_epochs import Epoch
from ledger.rewrapping import Moved

SQL: Final = load_queries(__file__)


def rotated(epoch: Epoch) -> RecordFacts:
    """A new epoch seals from now on."""
    return _key_act(KEY_ROTATED, epoch, {}, (SQL["activate"], (epoch.number,)))


def rewrapped(epoch: Epoch, moved: Moved) -> RecordFacts:
    """Everything readable is sealed in this epoch."""
    return _key_act(KEY_REWRAPPED, epoch, {"keys": moved.keys, "notes": moved.notes}, (SQL["note_rewrapped"], (epoch.number,)))


def destroyed(epoch: Epoch) -> RecordFacts:
    """An epoch was destroyed."""
    return _key_act(KEY_DESTROYED, epoch, {}, (SQL["note_destroyed"], (epoch.number,)))


def _key_act(kind: EventType, epoch: Epoch, more: dict[str, int], statement: Statement) -> RecordFacts:
    said = {
        "epoch": epoch.number, "provider": epoch.provider, "root_key": epoch.root, "key_id": epoch.key_id.hex(), **more,
    }  # fmt: skip
    body = Body(said, [], f"epoch {epoch.number}")
    return RecordFacts((Draft(kind, _subject(epoch), KEY, cause=OPERATOR, body=body),), (statement,))


def _subject(epoch: Epoch) -> UUID:
    """The subject of an epoch's events: from the id of its key, so that epochs of two ledgers differ."""
    return UUID(bytes=epoch.key_id + epoch.number.to_bytes(8, "big"))
