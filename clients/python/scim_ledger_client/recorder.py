"""The ledger as a recorder of the eventsourcing library, over HTTP: for projections without the database and the server's packages.

    PERSISTENCE_MODULE=scim_ledger_client.recorder
    URL=https://ledger.example  TOKEN=sl_consumer_…     (for an application class named `Ledger`: LEDGER_URL, LEDGER_TOKEN)

originator_id = resource id, originator_version = rv, notification id = position, topic = event type, state = the event as JSON. Read-only.
"""

import json
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Event as Flag
from typing import Any, Final, NoReturn, cast
from uuid import UUID

from eventsourcing.persistence import (
    ApplicationRecorder,
    InfrastructureFactory,
    Mapper,
    Notification,
    OperationalError,
    PersistenceError,
    ProgrammingError,
    StoredEvent,
    Subscription,
    TrackingRecorder,
)
from eventsourcing.utils import Environment, EnvType

from scim_ledger_client.errors import LedgerError, RefusedError, UnreachableError
from scim_ledger_client.events import Event
from scim_ledger_client.ledger import Ledger
from scim_ledger_client.retries import Retries

STOP_S: Final = 2  # how long a subscription waits in one request, so how long `stop` may take
ENDLESS: Final = Retries(attempts=2**31)  # a subscription outlives any outage
_READ_ONLY: Final = "The ledger is read-only here: send a SCIM request, its events follow."
_BEYOND: Final = "invalid_place"  # a position that the log does not have yet, or no longer has


class HttpLedgerRecorder(ApplicationRecorder):
    """Reads a ledger with a token that sees its events. Raises the library's OperationalError if it does not answer, PersistenceError if it refuses.

    Without `_system`; a token that is narrowed to directories or types sees fewer positions, in the same order.
    """

    def __init__(self, base_url: str, token: str) -> None:
        self._base_url = base_url
        self._token = token
        self._ledger = Ledger(base_url, token)

    def close(self) -> None:
        """Close the connections."""
        self._ledger.close()

    def insert_events(self, stored_events: Sequence[StoredEvent], **kwargs: Any) -> NoReturn:
        """Refuse: only SCIM requests and administrative acts make events."""
        raise ProgrammingError(_READ_ONLY)

    def select_events(
        self,
        originator_id: UUID | str,
        *,
        gt: int | None = None,
        lte: int | None = None,
        desc: bool = False,
        limit: int | None = None,
    ) -> Sequence[StoredEvent]:
        """The events of one resource by rv."""
        wanted, first, last = str(originator_id), gt or 0, lte if lte is not None else 2**31
        found = [
            _stored(event)
            for event in _events(self._ledger, subject=wanted)
            if event["subject"]["id"] == wanted and first < event["rv"] <= last
        ]
        if desc:
            found.reverse()
        return found[:limit]

    def select_notifications(
        self,
        start: int | None,
        limit: int,
        stop: int | None = None,
        topics: Sequence[str] = (),
        *,
        inclusive_of_start: bool = True,
    ) -> Sequence[Notification]:
        """Events by position."""
        first = max((start or 0) + (0 if inclusive_of_start else 1), 1)
        found: list[Notification] = []
        for event in _events(self._ledger, start=str(first), types=topics, limit=min(limit, 1_000)):
            if len(found) == limit or (stop is not None and event["position"] > stop):
                break
            found.append(_notification(event))
        return found

    def max_notification_id(self) -> int | None:
        """The last position of the ledger, or None for an empty one."""
        with _translated():
            return self._ledger.page(start="now", limit=1).head or None

    def subscribe(self, gt: int | None = None, topics: Sequence[str] = ()) -> Subscription[ApplicationRecorder]:
        """Follow the log from after position `gt`. Iterating raises PersistenceError if the log lost its end."""
        return HttpLedgerSubscription(self, self._base_url, self._token, gt, topics)


class HttpLedgerSubscription(Subscription[ApplicationRecorder]):
    """Follows the log by long polls, in the thread that iterates. While the ledger is away it waits, then goes on."""

    def __init__(self, recorder: HttpLedgerRecorder, base_url: str, token: str, gt: int | None, topics: Sequence[str]) -> None:
        super().__init__(recorder, gt, topics)
        self._stopped = Flag()
        self._ledger = Ledger(base_url, token, retries=ENDLESS, sleep=self._sleep)
        self._following = self._follow()

    def stop(self) -> None:
        """End the iteration, at the latest when the current request is answered."""
        super().stop()
        self._stopped.set()

    def __next__(self) -> Notification:
        found = None if self._stopped.is_set() else next(self._following, None)
        if found is None or self._stopped.is_set():
            self._ledger.close()
            raise StopIteration
        return found

    def _sleep(self, seconds: float) -> None:
        if self._stopped.wait(seconds):
            raise _StoppedError

    def _follow(self) -> Iterator[Notification]:
        start: str | None = str((self._last_notification_id or 0) + 1)
        after: str | None = None
        try:
            while not self._stopped.is_set():
                with _translated():
                    page = self._ledger.page(after, start=start, types=self._topics, wait=STOP_S)
                yield from map(_notification, page.events)
                after = page.after
        except _StoppedError:
            return


class _StoppedError(Exception):
    """A subscription was stopped while it waited for the ledger to come back."""


@contextmanager
def _translated() -> Generator[None]:
    """Turns errors of the client into those of the library."""
    try:
        yield
    except UnreachableError as error:
        raise OperationalError(str(error)) from error
    except LedgerError as error:
        raise PersistenceError(str(error)) from error


def _events(
    ledger: Ledger, *, start: str | None = None, types: Sequence[str] = (), subject: str | None = None, limit: int = 1_000
) -> Iterator[Event]:
    """Events up to the head. A start beyond the head has none."""
    after, more = None, True
    while more:
        with _translated():
            try:
                page = ledger.page(after, start=start, types=types, subject=subject, limit=limit)
            except RefusedError as refused:
                if refused.code == _BEYOND and after is None:
                    return
                raise
        yield from page.events
        after, more = page.after, page.has_more


def _state(event: Event) -> bytes:
    return json.dumps(event, separators=(",", ":"), ensure_ascii=False).encode()


def _stored(event: Event) -> StoredEvent:
    return StoredEvent(UUID(event["subject"]["id"]), event["rv"], event["type"], _state(event))


def _notification(event: Event) -> Notification:
    return Notification(UUID(event["subject"]["id"]), event["rv"], event["type"], _state(event), event["position"])


@dataclass(frozen=True)
class LedgerEvent:
    """An event as the library's mapper returns it; `event` is the event as in the feed."""

    originator_id: UUID
    originator_version: int
    event: Event


class HttpLedgerMapper(Mapper[UUID]):
    """Turns stored events into LedgerEvent objects. No stored text can name a class to import."""

    def to_domain_event(self, stored_event: StoredEvent) -> Any:
        """Make the LedgerEvent."""
        event = cast("Event", json.loads(stored_event.state))
        return LedgerEvent(UUID(str(stored_event.originator_id)), stored_event.originator_version, event)

    def to_stored_event(self, domain_event: Any) -> NoReturn:
        """Refuse: see HttpLedgerRecorder.insert_events."""
        raise ProgrammingError(_READ_ONLY)


class HttpLedgerFactory(InfrastructureFactory[TrackingRecorder]):
    """Makes the ledger a persistence module of the library."""

    def __init__(self, env: Environment | EnvType | None) -> None:
        super().__init__(env)
        self._made: list[HttpLedgerRecorder] = []

    def close(self) -> None:
        """Close the connections of the recorders that it made."""
        super().close()
        while self._made:
            self._made.pop().close()

    def application_recorder(self) -> HttpLedgerRecorder:
        """Raises OSError if a variable is missing."""
        url, token = self.env.get("URL"), self.env.get("TOKEN")
        if not url or not token:
            raise OSError(
                "URL and TOKEN are needed to read the ledger; for an application named Ledger: LEDGER_URL, LEDGER_TOKEN."
            )
        self._made.append(HttpLedgerRecorder(url, token))
        return self._made[-1]

    def mapper(self, transcoder: Any = None, mapper_class: Any = None) -> Any:
        """The ledger's mapper; the arguments are ignored."""
        return HttpLedgerMapper(transcoder=transcoder or self.transcoder())

    def aggregate_recorder(self, purpose: str = "events") -> NoReturn:
        """Refuse: see HttpLedgerRecorder.insert_events."""
        raise ProgrammingError(_READ_ONLY)

    def tracking_recorder(self, tracking_recorder_class: Any = None) -> NoReturn:
        """Refuse: a projection keeps its place in its own database."""
        raise ProgrammingError("A projection keeps its tracking beside its own view: give it a persistence module of its own.")

    def process_recorder(self) -> NoReturn:
        """Refuse: see HttpLedgerRecorder.insert_events."""
        raise ProgrammingError(_READ_ONLY)
