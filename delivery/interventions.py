"""What an operator does about one delivery: retry, park, skip. Each is an event in `_system`, with the reason."""

from collections.abc import Callable
from typing import Final

from database.queries import load_queries
from delivery.consumers import Consumer, touched, unchanged
from ledger.commands import RecordFacts, Statement
from ledger.events import CONSUMER, DELIVERY_PARKED, DELIVERY_RETRIED, DELIVERY_SKIPPED, OPERATOR, Body, Draft, EventType
from ledger.sealing import Kek, seal_note

SQL: Final = load_queries(__file__)


def retried(consumer: Consumer, position: int, event_id: str, reason: str, *, grant: bool = False) -> RecordFacts:
    """The act of trying again now, with a schedule that begins anew. A parked one goes before newer ones of its subject.

    `grant`: it lets somebody in, and must not where a later event took that back: such an act is refused.
    """
    return _intervention(DELIVERY_RETRIED, consumer, event_id, reason, (SQL["retry_open"], (consumer.id, position, grant)))


def parked(
    consumer: Consumer, position: int, event_id: str, reason: str, *, kek: Kek, random: Callable[[int], bytes]
) -> RecordFacts:
    """The act of parking a delivery: it stays listed, and holds up nothing any more."""
    sealed = seal_note(kek, reason, kind="parked", owner=consumer.uuid, random=random)
    return _intervention(DELIVERY_PARKED, consumer, event_id, reason, (SQL["park_open"], (consumer.id, position, sealed)))


def skipped(
    consumer: Consumer, position: int, event_id: str, reason: str, *, kek: Kek, random: Callable[[int], bytes]
) -> RecordFacts:
    """The act of deciding that a delivery will never be made."""
    sealed = seal_note(kek, reason, kind="skipped", owner=consumer.uuid, random=random)
    return _intervention(DELIVERY_SKIPPED, consumer, event_id, reason, (SQL["skip_open"], (consumer.id, position, sealed)))


def _intervention(kind: EventType, consumer: Consumer, event_id: str, reason: str, statement: Statement) -> RecordFacts:
    facts = {"id": str(consumer.uuid), "name": consumer.name, "event_id": event_id, "reason": reason}
    draft = Draft(kind, consumer.uuid, CONSUMER, cause=OPERATOR, body=Body(facts, [], consumer.name))
    return RecordFacts((draft,), touched(consumer.id, statement), stands=unchanged(consumer))
